//! Names of units as parts of keys.
//!
//! What a unit is called is its agent's business, a key is text of a certain form. So what no key can hold is written as in a
//! URL, octet by octet: `web pool` becomes `web%20pool`. Slashes stay, and most names are written as they are. Different
//! names never become the same text.

use std::borrow::Cow;

use crate::name::segment;

/// The name as a key holds it.
pub(crate) fn escape(unit: &str) -> String {
    unit.split('/').map(escape_part).collect::<Vec<_>>().join("/")
}

fn escape_part(part: &str) -> Cow<'_, str> {
    match part {
        // No other name is written so: whatever has a percent sign has two digits after it.
        "" => return Cow::Borrowed("%"),
        "." => return Cow::Borrowed("%2E"),
        ".." => return Cow::Borrowed("%2E%2E"),
        _ if segment(part).is_ok() && !part.contains('%') => return Cow::Borrowed(part),
        _ => {}
    }
    let mut text = String::with_capacity(part.len() + 8);
    for (at, c) in part.char_indices() {
        if c == '%' || c == '\\' || c.is_control() || c.is_whitespace() || at == 0 && c == '@' {
            let mut octets = [0; 4];
            c.encode_utf8(&mut octets).bytes().for_each(|octet| text.push_str(&format!("%{octet:02X}")));
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

/// The name that a key holds. A percent sign that stands for nothing is one.
pub(crate) fn unescape(text: &str) -> String {
    text.split('/').map(unescape_part).collect::<Vec<_>>().join("/")
}

fn unescape_part(part: &str) -> String {
    if part == "%" {
        return String::new();
    }
    let (mut octets, mut rest) = (Vec::with_capacity(part.len()), part.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(octet) => {
                octets.push(octet);
                rest = &after[2..];
            }
            None => {
                octets.push(*first);
                rest = after;
            }
        }
    }
    // Octets that are no text were never written by us: then it is the name itself.
    String::from_utf8(octets).unwrap_or_else(|_| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_names_stay_as_they_are() {
        for name in ["example.com", "eu/web", "@".repeat(0).as_str(), "bücher"] {
            assert_eq!(escape(name), if name.is_empty() { "%" } else { name });
        }
        assert_eq!(escape("web pool/100%"), "web%20pool/100%25");
        assert_eq!(escape("a//b"), "a/%/b");
    }

    proptest::proptest! {
        #[test]
        fn every_name_has_a_text_of_its_own_that_a_key_can_hold(name in r"[ab%./@\\ 2EF\n\u{a0}ü]{0,8}") {
            let text = escape(&name);
            proptest::prop_assert_eq!(unescape(&text), name);
            proptest::prop_assert!(text.split('/').all(|part| segment(part).is_ok()), "{}", text);
        }
    }
}
