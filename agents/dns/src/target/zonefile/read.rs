//! Reading a zone file ([RFC 1035, section 5](https://www.rfc-editor.org/rfc/rfc1035#section-5)).
//!
//! Nothing is an error here: the file is what it is. A record whose data does not parse is kept as it was written, which
//! then differs from what should be; what cannot even be placed under a name makes the file [`odd`](ZoneFile::odd).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ZoneFile, marked, with_serial};
use crate::name::{self, Base, Zone};
use crate::rdata::{Rtype, Token, parse_tokens, tokens};
use crate::record::{Key, Node, RecordSet};

/// What a file of this zone holds.
pub(crate) fn read(text: &str, zone: &Zone) -> ZoneFile {
    let mark = marked(text, zone);
    if let Some((body, true)) = mark
        && let Some(file) = intact(body, zone)
    {
        return file;
    }
    let mut reader = Reader::new(zone);
    for entry in entries(text) {
        reader.entry(&entry);
    }
    reader.finish(mark.is_some())
}

/// A body of our own making: fields between tabs, data already canonical.
fn intact(body: &str, zone: &Zone) -> Option<ZoneFile> {
    let mut file = ZoneFile { ours: true, intact: true, ..ZoneFile::default() };
    let suffix = format!(".{zone}.");
    let apex = format!("{zone}.");
    let mut last: Option<(&str, Key, Node)> = None;
    let mut done = Vec::new();
    for line in body.lines() {
        let mut fields = line.splitn(5, '\t');
        let (owner, ttl, _, rtype, data) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        if last.as_ref().is_none_or(|(name, ..)| *name != owner) {
            let plain = plain(owner)?;
            let relative = if plain == apex { "@" } else { plain.strip_suffix(&suffix)? };
            done.extend(last.take().map(|(_, key, node)| (key, node)));
            last = Some((owner, Key::new(zone, relative), Node::default()));
        }
        let (_, _, node) = last.as_mut()?;
        let rtype: Rtype = rtype.parse().ok()?;
        let data = if rtype == Rtype::SOA {
            file.serial = data.split(' ').nth(2).and_then(|serial| serial.parse().ok());
            with_serial(data, 0)
        } else {
            data.to_owned()
        };
        match node.sets_mut().last_mut() {
            Some(set) if set.rtype == rtype => set.data.push(data),
            _ => node.sets_mut().push(RecordSet::plain(rtype, ttl.parse().ok()?, vec![data])),
        }
    }
    done.extend(last.map(|(_, key, node)| (key, node)));
    for (_, node) in &mut done {
        // The SOA is written first.
        node.sets_mut().sort_by_key(|set| set.rtype);
    }
    file.nodes = done.into_iter().collect();
    Some(file)
}

/// An owner name of our own making without its escapes.
fn plain(name: &str) -> Option<Cow<'_, str>> {
    let Some((head, mut tail)) = name.split_once('\\') else { return Some(name.into()) };
    let mut text = head.to_owned();
    loop {
        let mut chars = tail.chars();
        text.push(char::from(name::escape(&mut chars)?));
        let Some((between, rest)) = chars.as_str().split_once('\\') else {
            text.push_str(chars.as_str());
            return Some(text.into());
        };
        text.push_str(between);
        tail = rest;
    }
}

/// Splits a file into entries: a line, or several held together by parentheses.
fn entries(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut entry = String::new();
    let (mut depth, mut quoted, mut escaped, mut comment) = (0usize, false, false, false);
    for c in text.chars() {
        if c == '\n' {
            comment = false;
            if depth == 0 {
                quoted = false;
                all.push(std::mem::take(&mut entry));
            } else {
                entry.push(' ');
            }
            escaped = false;
            continue;
        }
        if comment {
            continue;
        }
        if !escaped {
            match c {
                '"' => quoted = !quoted,
                ';' if !quoted => {
                    comment = true;
                    continue;
                }
                '(' if !quoted => depth += 1,
                ')' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        escaped = c == '\\' && !escaped;
        entry.push(c);
    }
    all.push(entry);
    all
}

/// Canonical data in canonical order, with its wire octets to sort by.
type Sets = BTreeMap<Rtype, (u32, BTreeMap<Vec<u8>, String>)>;

struct Reader<'a> {
    zone: &'a Zone,
    origin: String,
    ttl: Option<u32>,
    owner: Option<String>,
    odd: Option<String>,
    serial: Option<u32>,
    nodes: BTreeMap<Key, Sets>,
}

impl<'a> Reader<'a> {
    fn new(zone: &'a Zone) -> Self {
        let origin = format!("{zone}.");
        let (ttl, owner, odd, serial, nodes) = (None, None, None, None, BTreeMap::new());
        Self { zone, origin, ttl, owner, odd, serial, nodes }
    }

    fn entry(&mut self, entry: &str) {
        let mut words = match tokens(entry) {
            Ok(words) if words.is_empty() => return,
            Ok(words) => words,
            Err(why) => return self.odd(entry, &why),
        };
        let first = words[0].raw.clone();
        if first.starts_with('$') && !words[0].quoted {
            return self.directive(&first, &words[1..], entry);
        }
        if !entry.starts_with([' ', '\t', '\r']) {
            self.owner = Some(words.remove(0).raw);
        }
        let Some(owner) = self.owner.clone() else { return self.odd(entry, "the first record has no name") };
        let complete = name::target(&owner, Base::Origin(&self.origin)).and_then(|wire| {
            let (text, _) = name::from_wire(&wire).ok_or("it is not a name")?;
            name::owner(&text, self.zone)
        });
        match complete {
            Ok(owner) => self.record(&Key::new(self.zone, &owner), &words, entry),
            Err(why) => self.odd(entry, &why),
        }
    }

    fn directive(&mut self, directive: &str, words: &[Token], entry: &str) {
        match (directive.to_ascii_uppercase().as_str(), words.first().map(|word| word.raw.as_str())) {
            ("$TTL", Some(text)) => self.ttl = ttl(text).or(self.ttl),
            ("$ORIGIN", Some(text)) => match name::target(text, Base::Origin(&self.origin)) {
                Ok(wire) => {
                    self.origin = name::from_wire(&wire).map_or_else(|| ".".to_owned(), |(name, _)| name);
                }
                Err(why) => self.odd(entry, &why),
            },
            _ => self.odd(entry, "a directive that Shoal does not write"),
        }
    }

    /// TTL and class in either order, the type, the data.
    fn record(&mut self, key: &Key, words: &[Token], entry: &str) {
        let mut rest = words;
        let mut said = None;
        let rtype = loop {
            let Some((word, tail)) = rest.split_first() else { return self.odd(entry, "it has no type") };
            rest = tail;
            let raw = word.raw.as_str();
            if let Ok(rtype) = raw.parse::<Rtype>() {
                break rtype;
            } else if let Some(ttl) = ttl(raw) {
                said = Some(ttl);
            } else if !raw.eq_ignore_ascii_case("IN") {
                return self.odd(entry, &format!("{raw:?} is neither a TTL, a class nor a type"));
            }
        };
        let ttl = said.or(self.ttl).unwrap_or(0);
        self.ttl = self.ttl.or(said);
        let (wire, text) = match parse_tokens(rtype, rest, Base::Origin(&self.origin)) {
            Ok(data) if rtype == Rtype::SOA => {
                self.serial = data.text.split(' ').nth(2).and_then(|serial| serial.parse().ok());
                (Vec::new(), with_serial(&data.text, 0))
            }
            Ok(data) => (data.wire, data.text),
            Err(_) => {
                let text = rest.iter().map(|word| word.raw.as_str()).collect::<Vec<_>>().join(" ");
                (text.clone().into_bytes(), text)
            }
        };
        let set = self.nodes.entry(key.clone()).or_default().entry(rtype).or_insert((ttl, BTreeMap::new()));
        if set.0 != ttl {
            // No set that Shoal wants has two TTLs, so any one that differs will do.
            set.0 = set.0.min(ttl).wrapping_sub(1);
        }
        set.1.insert(wire, text);
    }

    fn odd(&mut self, entry: &str, why: &str) {
        let entry: String = entry.chars().take(120).collect();
        self.odd.get_or_insert_with(|| format!("{entry:?}: {why}"));
    }

    fn finish(self, ours: bool) -> ZoneFile {
        let sets = |sets: Sets| {
            let set = |(rtype, (ttl, data)): (Rtype, (u32, BTreeMap<_, String>))| {
                RecordSet::plain(rtype, ttl, data.into_values().collect())
            };
            Node { sets: Arc::new(sets.into_iter().map(set).collect()) }
        };
        let nodes = self.nodes.into_iter().map(|(key, node)| (key, sets(node))).collect();
        ZoneFile { ours, intact: false, odd: self.odd, serial: self.serial, nodes }
    }
}

/// A TTL in seconds, or BIND's `1h30m`.
fn ttl(text: &str) -> Option<u32> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (mut sum, mut number) = (0u32, String::new());
    for c in text.chars() {
        let unit = match c.to_ascii_lowercase() {
            c if c.is_ascii_digit() => {
                number.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u32>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    if number.is_empty() { Some(sum) } else { sum.checked_add(number.parse().ok()?) }
}
