//! Names and values as Route 53 writes them: what is not plain stands as `\052`, in octal, where zone files count in tens.
//!
//! [DNS domain name format](https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DomainNameFormat.html)

use crate::name;
use crate::record::Key;

/// A whole name, as it is sent.
///
/// # Errors
/// Text that is no name.
pub(super) fn of_key(key: &Key) -> Result<String, String> {
    octal(&name::to_wire(&key.name())?)
}

/// A name in wire octets.
fn octal(wire: &[u8]) -> Result<String, String> {
    let push = |text: &mut String, octet: u8| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
            text.push(char::from(octet.to_ascii_lowercase()));
        }
        // The label of a wildcard is sent as people write it, and comes back as a number.
        b'*' => text.push('*'),
        _ => text.push_str(&format!("\\{octet:03o}")),
    };
    let (text, _) = name::of_wire(wire, push).ok_or("it is no name")?;
    Ok(if text.ends_with('.') { text } else { text + "." })
}

/// A name that was told, as zone files write it: what an owner name holds is plain, RFC 2317's `0/25` above all.
pub(super) fn told(text: &str) -> String {
    renumber(text, 8, |text, octet| {
        if octet.is_ascii_graphic() && !name::SPECIAL.contains(char::from(octet)) {
            text.push(char::from(octet));
        } else {
            text.push_str(&format!("\\{octet:03}"));
        }
    })
}

/// What an alias points at, as it is sent.
///
/// # Errors
/// Text that is no name.
pub(super) fn of_alias(text: &str) -> Result<String, String> {
    octal(&name::to_wire(text)?)
}

/// What an alias points at, as tags have it; as it was told, where it is no name.
pub(super) fn told_alias(text: &str) -> String {
    let wire = name::to_wire(&told(text)).ok();
    wire.and_then(|wire| name::from_wire(&wire)).map_or_else(|| text.to_ascii_lowercase(), |(text, _)| text)
}

/// A value that was told, as zone files write it.
pub(super) fn told_value(text: &str) -> String {
    renumber(text, 8, |text, octet| text.push_str(&format!("\\{octet:03}")))
}

/// A value in canonical text, as it is sent.
pub(super) fn value(text: &str) -> String {
    renumber(text, 10, |text, octet| text.push_str(&format!("\\{octet:03o}")))
}

/// Writes each octet that stands as a number of three digits after a backslash in another way; all else stays as it is.
fn renumber(text: &str, base: u32, write: impl Fn(&mut String, u8)) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let number = rest.get(..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        if let Some(octet) = number.and_then(|digits| u8::from_str_radix(digits, base).ok()) {
            write(&mut out, octet);
            rest = &rest[3..];
        } else {
            out.push('\\');
            // What is escaped by itself, a backslash above all, begins nothing.
            if let Some(next) = rest.chars().next() {
                out.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "this is test code")]

    use super::*;
    use crate::name::Zone;

    #[test]
    fn numbers_are_octal_on_one_side_and_decimal_on_the_other() {
        let zone = Zone::parse("example.com").unwrap();
        assert_eq!(of_key(&Key::new(&zone, "*")).unwrap(), "*.example.com.");
        assert_eq!(of_key(&Key::apex(&zone)).unwrap(), "example.com.");
        assert_eq!(told("\\052.example.com."), "*.example.com.");
        assert_eq!(told("a\\057b.example.com."), "a/b.example.com.");
        // What stands in a label and is none of its letters stays a number: a dot, and what is not printed.
        assert_eq!(told("a\\056b\\040c.example.com."), "a\\046b\\032c.example.com.");
    }

    /// All that a tag may have in a name comes back as it was sent.
    #[test]
    fn every_name_of_a_tag_is_known_again() {
        let zone = Zone::parse("2.0.192.in-addr.arpa").unwrap();
        let held = |c: &char| !c.is_ascii_uppercase() && !name::SPECIAL.contains(*c);
        let all: String = (0x21..0x7f_u8).map(char::from).filter(held).collect();
        for owner in ["0/25", "a+b", "a#b", "*", &all] {
            let owner = name::owner(owner, &zone).unwrap();
            let sent = of_key(&Key::new(&zone, &owner)).unwrap();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_*.\\".contains(c);
            assert!(sent.chars().all(plain), "{sent}");
            assert_eq!(name::owner(&told(&sent), &zone).as_ref(), Ok(&owner), "{sent}");
            let alias = format!("{}.", Key::new(&zone, &owner).name());
            assert_eq!(of_alias(&alias).as_ref(), Ok(&sent));
            assert_eq!(told_alias(&sent), alias);
        }
        assert_eq!(told_alias("\\052.Example.com."), "*.example.com.");
        assert_eq!(told_alias("D111.cloudfront.net."), "d111.cloudfront.net.");
    }

    #[test]
    fn values_keep_what_is_escaped_by_itself() {
        for (ours, theirs) in [
            (r#""a\"b""#, r#""a\"b""#),
            (r#""a\\065b""#, r#""a\\065b""#),
            (r#""\195\164""#, r#""\303\244""#),
            ("10 mail.example.com.", "10 mail.example.com."),
        ] {
            assert_eq!(value(ours), theirs);
            assert_eq!(told_value(theirs), ours);
        }
    }
}
