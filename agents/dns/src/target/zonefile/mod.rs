//! Zone files as Shoal writes and reads them.
//!
//! A file is one record a line, complete names, in canonical order, so that a change of one record is a change of one
//! line (and of the serial). Its first two lines say that it is Shoal's and carry a digest of the rest: a file whose digest
//! holds is read without looking inside the records, one that somebody edited is read word by word as any zone
//! file is, and a file without these lines is foreign and never touched.

mod read;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

pub(crate) use read::read;

use crate::name::{self, Zone};
use crate::rdata::Rtype;
use crate::record::{Key, Node};

const MARK: &str = "; shoal-zone 1 ";

/// A zone file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ZoneFile {
    /// It bears the mark that Shoal wrote it.
    pub(crate) ours: bool,
    /// It is exactly what Shoal wrote.
    pub(crate) intact: bool,
    /// Something in it could not be kept as records: a directive, a name that is not one.
    pub(crate) odd: Option<String>,
    /// The serial of its SOA record.
    pub(crate) serial: Option<u32>,
    /// Its records. What could not be read as data of its type stands here as it was written.
    pub(crate) nodes: BTreeMap<Key, Node>,
}

/// The text of a zone file, and where each name begins in it.
pub(crate) struct Rendered {
    pub(crate) head: String,
    pub(crate) body: String,
    /// The file's line on which each name's records begin, in order of lines.
    lines: Vec<(usize, Key)>,
}

impl Rendered {
    /// The name whose records stand on this line of the file, and which of them it is.
    pub(crate) fn record_at(&self, line: usize) -> Option<(&Key, usize)> {
        let after = self.lines.partition_point(|(first, _)| *first <= line);
        after.checked_sub(1).map(|at| (&self.lines[at].1, line - self.lines[at].0))
    }
}

/// Writes a zone: its names in order, with this serial.
pub(crate) fn render<'a>(
    zone: &Zone,
    serial: u32,
    nodes: impl IntoIterator<Item = (&'a Key, &'a Node)>,
) -> Rendered {
    let mut body = String::new();
    let mut lines = Vec::new();
    // Two lines of head come before.
    let mut line = 3;
    let mut name = String::new();
    for (key, node) in nodes {
        name.clear();
        if !key.is_apex() {
            name.push_str(key.owner());
            name.push('.');
        }
        name.push_str(zone.as_str());
        let name = spelt(&name);
        lines.push((line, key.clone()));
        // The SOA first, wherever its number sorts it: some servers insist.
        let soa = node.sets.iter().filter(|set| set.rtype == Rtype::SOA);
        for set in soa.chain(node.sets.iter().filter(|set| set.rtype != Rtype::SOA)) {
            for data in &set.data {
                // Writing to a String cannot fail.
                let _ = write!(body, "{name}.\t{}\tIN\t", set.ttl);
                // A server that is older than the type knows it by its number, as long as the data needs no knowledge.
                let _ = match set.rtype {
                    Rtype(number) if data.starts_with("\\#") => write!(body, "TYPE{number}\t"),
                    rtype => write!(body, "{rtype}\t"),
                };
                if set.rtype == Rtype::SOA {
                    body.push_str(&with_serial(data, serial));
                } else {
                    body.push_str(data);
                }
                body.push('\n');
                line += 1;
            }
        }
    }
    let head = format!(
        "; Made by Shoal from the tag dns/{zone} and others. Change the tags: edits here are drift.\n{MARK}{zone} {}\n",
        digest(&body)
    );
    Rendered { head, body, lines }
}

/// A name as every server reads it in a zone file.
fn spelt(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_*/.".contains(&b)) {
        return name.into();
    }
    let mut text = String::with_capacity(name.len() + 4);
    for octet in name.bytes() {
        if octet == b'.' { text.push('.') } else { name::spell(&mut text, octet) }
    }
    text.into()
}

/// SOA data (`primary mailbox serial …`) with this serial.
pub(crate) fn with_serial(data: &str, serial: u32) -> String {
    data.split(' ')
        .enumerate()
        .map(|(at, word)| if at == 2 { serial.to_string() } else { word.to_owned() })
        .collect::<Vec<_>>()
        .join(" ")
}

fn digest(body: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(body.as_bytes()))
}

/// The body of a file that Shoal wrote, and whether it is still what was written.
fn marked<'a>(text: &'a str, zone: &Zone) -> Option<(&'a str, bool)> {
    let (_, rest) = text.split_once('\n').filter(|(first, _)| first.starts_with(';'))?;
    let (mark, body) = rest.split_once('\n')?;
    let (name, sum) = mark.trim_end_matches('\r').strip_prefix(MARK)?.split_once(' ')?;
    (name == zone.as_str()).then(|| (body, digest(body) == sum))
}

#[cfg(test)]
mod tests;
