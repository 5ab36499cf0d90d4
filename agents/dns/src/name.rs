//! Domain names: the zone, owner names in it, and names inside record data.
//!
//! Names come from people and from host documents, so each is parsed once at the edge and carried in one form:
//! lower case, ASCII (IDNA), labels of 1 to 63 octets, at most 255 octets on the wire
//! ([RFC 1035, section 2.3.4](https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4)).
//!
//! The trailing dot is where zone files go wrong, silently. Here the rule is:
//!
//! * An owner name lies in its zone. With a trailing dot, or when it ends in the zone's name, it is complete;
//!   else it is relative. `@` is the zone itself.
//! * A name that is pointed at (NS, MX, CNAME, …) is complete with a trailing dot or when it lies in the zone, and
//!   relative when it is one label. `mail.example.net` without a dot inside `example.com` could mean either, so it is
//!   refused with both spellings.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest label, in octets.
const MAX_LABEL: usize = 63;
/// The longest name on the wire, in octets, the root's length octet included.
const MAX_WIRE: usize = 255;

/// The name of a DNS zone: lower case, ASCII, no trailing dot, never the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(Arc<str>);

impl Zone {
    /// Parses a zone's name as people write it: any case, Unicode, with or without the trailing dot.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = owner_text(text.strip_suffix('.').unwrap_or(text))?;
        if name.starts_with('*') {
            return Err(format!("{text:?} is not a zone name: a zone is no wildcard"));
        }
        // It becomes a file name and the first part of item keys.
        if name.contains('/') || name.starts_with('-') {
            return Err(format!("{text:?} is not a zone name: it holds no '/' and does not start with '-'"));
        }
        Ok(Self(name.into()))
    }

    /// The name without the trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it maps addresses to names: it lies under `in-addr.arpa` or `ip6.arpa`.
    #[must_use]
    pub fn is_reverse(&self) -> bool {
        self.0.ends_with(".in-addr.arpa") || self.0.ends_with(".ip6.arpa")
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.as_str().to_owned()
    }
}

/// An owner name, relative to its zone (`@` for the zone itself).
///
/// # Errors
/// A name outside the zone, too long, or with characters that owner names do not hold.
pub(crate) fn owner(text: &str, zone: &Zone) -> Result<String, String> {
    let (name, complete) = match text.strip_suffix('.') {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name == "@" && !complete {
        return Ok("@".to_owned());
    }
    let name = owner_text(name)?;
    let relative = match within(&name, zone) {
        Some("") => return Ok("@".to_owned()),
        Some(relative) => relative.to_owned(),
        None if complete => return Err(format!("{text:?} lies outside the zone {zone}")),
        None => name,
    };
    let octets = relative.len() + 1 + zone.as_str().len() + 2;
    if octets > MAX_WIRE {
        return Err(format!(
            "{text:?} with the zone {zone} has {octets} octets; a name has at most {MAX_WIRE}"
        ));
    }
    Ok(relative)
}

/// The part of a complete name before the zone's; `None` outside the zone.
pub(crate) fn within<'a>(name: &'a str, zone: &Zone) -> Option<&'a str> {
    let rest = name.strip_suffix(zone.as_str())?;
    if rest.is_empty() { Some("") } else { rest.strip_suffix('.') }
}

/// What a name without a trailing dot is taken for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base<'a> {
    /// Written by people in a tag of this zone: refused where it could be meant in two ways.
    Tag(&'a Zone),
    /// Complete.
    Root,
    /// Relative to this complete name, as in a zone file.
    Origin(&'a str),
}

/// A name that is pointed at, complete, as wire octets.
///
/// # Errors
/// A name that is not one, or that could be meant as relative and as complete.
pub(crate) fn target(text: &str, base: Base<'_>) -> Result<Vec<u8>, String> {
    if text == "." || ends_with_dot(text) {
        return to_wire(text);
    }
    match base {
        Base::Root => to_wire(text),
        Base::Origin(origin) if text == "@" => to_wire(origin),
        Base::Origin(".") => to_wire(text),
        Base::Origin(origin) => to_wire(&format!("{text}.{origin}")),
        Base::Tag(zone) => unambiguous(text, zone),
    }
}

fn unambiguous(text: &str, zone: &Zone) -> Result<Vec<u8>, String> {
    if text == "@" {
        return to_wire(zone.as_str());
    }
    let wire = to_wire(text)?;
    if is_within(&wire, &to_wire(zone.as_str())?) {
        return Ok(wire);
    }
    // One label: its length, its octets, the root.
    if wire.first().is_some_and(|&len| usize::from(len) + 2 == wire.len()) {
        return to_wire(&format!("{text}.{zone}."));
    }
    Err(format!(
        "{text:?} could be a complete name or one below {zone}: write \"{text}.\" or \"{text}.{zone}.\""
    ))
}

/// Whether the trailing dot is one, and not escaped.
fn ends_with_dot(text: &str) -> bool {
    text.strip_suffix('.').is_some_and(|rest| rest.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 0)
}

/// Whether a wire name is `base` or lies below it.
pub(crate) fn is_within(name: &[u8], base: &[u8]) -> bool {
    let mut rest = name;
    loop {
        if rest == base {
            return true;
        }
        match rest.split_first() {
            Some((&len, tail)) if len > 0 && tail.len() >= usize::from(len) => {
                rest = &tail[usize::from(len)..];
            }
            _ => return false,
        }
    }
}

/// Owner names hold printable ASCII but for what zone files give a meaning to; no escapes are needed, so keys, file
/// names and sorting stay plain.
fn owner_text(text: &str) -> Result<String, String> {
    let bad = |why: String| Err(format!("{text:?} is not a name: {why}"));
    let mut out = String::with_capacity(text.len());
    for label in text.split('.') {
        if !out.is_empty() {
            out.push('.');
        }
        let label = match ascii(label) {
            Ok(label) => label,
            Err(why) => return bad(why),
        };
        if label.is_empty() || label.len() > MAX_LABEL {
            return bad(format!("each label needs 1 to {MAX_LABEL} octets"));
        }
        if let Some(c) = label.chars().find(|c| !c.is_ascii_graphic() || "\\\"();@$".contains(*c)) {
            return bad(format!("it holds {c:?}"));
        }
        out.push_str(&label);
    }
    if out.len() + 2 > MAX_WIRE {
        return bad(format!("it has {} octets; a name has at most {MAX_WIRE}", out.len() + 2));
    }
    Ok(out)
}

/// A label in lower-case ASCII: through IDNA only when it needs it.
fn ascii(label: &str) -> Result<String, String> {
    if label.is_ascii() {
        return Ok(label.to_ascii_lowercase());
    }
    let ascii = idna::domain_to_ascii(label).map_err(|_| format!("{label:?} has no ASCII form (IDNA)"))?;
    // Full-width dots and the like would make several labels of one.
    if ascii.contains('.') { Err(format!("{label:?} is not one label")) } else { Ok(ascii) }
}

/// The wire octets of a complete name, lower case, with the escapes of zone files (`\.`, `\046`); the trailing dot is
/// optional.
///
/// # Errors
/// An empty or too long label, a too long name, a broken escape.
pub(crate) fn to_wire(text: &str) -> Result<Vec<u8>, String> {
    if text == "." {
        return Ok(vec![0]);
    }
    let bad = |why: &str| format!("{text:?} is not a name: {why}");
    let mut wire = Vec::with_capacity(text.len() + 2);
    let mut label = Vec::with_capacity(MAX_LABEL);
    let mut chars = text.chars();
    let mut plain = true;
    let mut source = String::new();
    loop {
        match chars.next() {
            Some('\\') => {
                plain = false;
                label.push(escape(&mut chars).ok_or_else(|| bad("a broken escape"))?);
            }
            Some('.') | None if label.is_empty() && source.is_empty() => {
                return Err(bad("a label is empty"));
            }
            next @ (Some('.') | None) => {
                if !source.is_ascii() && plain {
                    label = ascii(&source).map_err(|why| bad(&why))?.into_bytes();
                }
                if label.is_empty() || label.len() > MAX_LABEL {
                    return Err(bad("each label needs 1 to 63 octets"));
                }
                wire.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
                wire.append(&mut label);
                source.clear();
                plain = true;
                if next.is_none() || chars.as_str().is_empty() {
                    break;
                }
            }
            Some(c) if c.is_control() || c == ' ' => {
                return Err(bad("it holds white space or a control character"));
            }
            Some(c) => {
                source.push(c);
                let mut buffer = [0; 4];
                label.extend(c.to_ascii_lowercase().encode_utf8(&mut buffer).bytes());
            }
        }
    }
    wire.push(0);
    if wire.len() > MAX_WIRE {
        return Err(bad(&format!("it has {} octets; a name has at most {MAX_WIRE}", wire.len())));
    }
    Ok(wire)
}

/// What follows a backslash: three decimal digits of an octet, or any character for itself.
pub(crate) fn escape(chars: &mut std::str::Chars<'_>) -> Option<u8> {
    let first = chars.next()?;
    let Some(a) = first.to_digit(10) else { return u8::try_from(u32::from(first)).ok().filter(u8::is_ascii) };
    let b = chars.next()?.to_digit(10)?;
    let c = chars.next()?.to_digit(10)?;
    u8::try_from(a * 100 + b * 10 + c).ok()
}

/// What zone files have behind a `\` in names.
pub(crate) const SPECIAL: &str = ".\\\"();@$";

/// The text of an uncompressed wire name at the start of `wire`, with the trailing dot, and how many octets it took.
pub(crate) fn from_wire(wire: &[u8]) -> Option<(String, usize)> {
    of_wire(wire, |text, octet| push_octet(text, octet, SPECIAL))
}

/// As [`from_wire`], each octet written by `push`.
pub(crate) fn of_wire(wire: &[u8], push: impl Fn(&mut String, u8)) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut at = 0;
    loop {
        let len = usize::from(*wire.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        if len > MAX_LABEL {
            return None;
        }
        for &octet in wire.get(at..at + len)? {
            push(&mut text, octet.to_ascii_lowercase());
        }
        text.push('.');
        at += len;
    }
    if text.is_empty() {
        text.push('.');
    }
    (at <= MAX_WIRE).then_some((text, at))
}

/// One octet of a name as every server reads it in a zone file: Knot wants all but the usual ones behind a `\`, and there BIND
/// takes `[` for the begin of something else.
pub(crate) fn spell(text: &mut String, octet: u8) {
    if b"+,:!#%&'=?<>[]^`{|}~".contains(&octet) {
        text.push_str(&format!("\\{octet:03}"));
    } else {
        push_octet(text, octet, SPECIAL);
    }
}

/// One octet as zone files write it: itself, `\` and itself for one of `special`, or `\` and three digits.
pub(crate) fn push_octet(text: &mut String, octet: u8, special: &str) {
    let c = char::from(octet);
    if special.contains(c) {
        text.push('\\');
        text.push(c);
    } else if c.is_ascii_graphic() {
        text.push(c);
    } else {
        text.push_str(&format!("\\{octet:03}"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone() -> Zone {
        Zone::parse("Example.COM.").unwrap()
    }

    #[test]
    fn zones_are_normal_names() {
        assert_eq!(zone().as_str(), "example.com");
        assert_eq!(Zone::parse("bücher.example").unwrap().as_str(), "xn--bcher-kva.example");
        assert_eq!(Zone::parse("2.0.192.in-addr.arpa").unwrap().as_str(), "2.0.192.in-addr.arpa");
        for bad in
            ["", ".", "a..b", "*.a", "a/b", "-a.b", "a b", "a\\.b", &"x".repeat(64), &"abc.".repeat(64)]
        {
            assert!(Zone::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn owners_are_relative_or_complete() {
        let of = |text: &str| owner(text, &zone()).unwrap();
        assert_eq!(of("@"), "@");
        assert_eq!(of("example.com"), "@");
        assert_eq!(of("EXAMPLE.com."), "@");
        assert_eq!(of("www"), "www");
        assert_eq!(of("www.example.com"), "www");
        assert_eq!(of("*.dev.example.com."), "*.dev");
        assert_eq!(of("_sip._tcp"), "_sip._tcp");
        assert_eq!(of("www.example.net"), "www.example.net");
        assert_eq!(of("bücher"), "xn--bcher-kva");
        assert!(owner("www.example.net.", &zone()).unwrap_err().contains("outside"));
        assert!(owner(&"x".repeat(64), &zone()).is_err());
        assert!(owner(&vec!["x".repeat(60); 4].join("."), &zone()).unwrap_err().contains("at most 255"));
        for bad in ["", "a..b", "a b", "a\"b", "a;b", "@.x"] {
            assert!(owner(bad, &zone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn targets_must_be_unambiguous() {
        let of = |text: &str| from_wire(&target(text, Base::Tag(&zone())).unwrap()).unwrap().0;
        assert_eq!(of("@"), "example.com.");
        assert_eq!(of("mail"), "mail.example.com.");
        assert_eq!(of("mail.dc1.example.com"), "mail.dc1.example.com.");
        assert_eq!(of("mail.example.net."), "mail.example.net.");
        assert_eq!(of("."), ".");
        assert_eq!(of("bücher."), "xn--bcher-kva.");
        assert_eq!(of("first\\.last.example.com"), "first\\.last.example.com.");
        let why = target("mail.example.net", Base::Tag(&zone())).unwrap_err();
        assert!(
            why.contains("\"mail.example.net.\"") && why.contains("mail.example.net.example.com."),
            "{why}"
        );
        for bad in ["", "a..", "a b", "\\25", "\\999", "a\\"] {
            assert!(target(bad, Base::Tag(&zone())).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(label.len() as u8);
                wire.extend(label.iter().map(u8::to_ascii_lowercase));
            }
            wire.push(0);
            let (text, used) = from_wire(&wire).unwrap();
            prop_assert_eq!(used, wire.len());
            prop_assert_eq!(to_wire(&text).unwrap(), wire);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,80}") {
            let _ = Zone::parse(&text);
            let _ = target(&text, Base::Tag(&zone()));
            if let Ok(relative) = owner(&text, &zone()) {
                let complete = format!("{relative}.example.com.");
                prop_assert!(relative == "@" || owner(&complete, &zone()).unwrap() == relative);
            }
        }
    }
}
