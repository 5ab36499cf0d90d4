//! `shoal import zone`: a zone file becomes a `dns/` tag that says the same.
//!
//! BIND's `named-compilezone` reads the file (`$INCLUDE`, `$GENERATE`, every type that it knows) and prints one complete record a
//! line; that text is what comes in here. Out come the tag of the zone with its start of authority, its name servers and its static records, and for a
//! zone of very many records further tags that feed it, so that no row grows too large. Nothing is lost: a zone made of the tags is the
//! same but for its serial. What signing made is left out; who signs makes it again.
//!
//! Pure, but for `generic`, which a caller gives: it puts data of a type that is not written as text into the form of RFC 3597.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use shoal_core::{Document, Edit, Expect, TagName};

/// How many record sets stand in one tag.
const TOGETHER: usize = 2_000;
/// Made by who signs: RRSIG, NSEC, NSEC3, NSEC3PARAM.
const SIGNING: [&str; 4] = ["RRSIG", "NSEC", "NSEC3", "NSEC3PARAM"];
/// Types whose data a tag holds as text.
const TEXT: [&str; 28] = [
    "A",
    "AAAA",
    "AFSDB",
    "CAA",
    "CDNSKEY",
    "CDS",
    "CERT",
    "CNAME",
    "DHCID",
    "DNAME",
    "DNSKEY",
    "DS",
    "HINFO",
    "KEY",
    "KX",
    "MX",
    "NAPTR",
    "NS",
    "OPENPGPKEY",
    "PTR",
    "RP",
    "SMIMEA",
    "SPF",
    "SRV",
    "SSHFP",
    "TLSA",
    "TXT",
    "URI",
];

/// Why a zone cannot be a tag.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// No start of authority.
    #[error("it has no SOA record, so it is no zone")]
    NoSoa,
    /// The zone's name is no tag's.
    #[error("{0} cannot be the name of a tag: {1}")]
    Name(String, String),
    /// A line that is no record.
    #[error("this line is no record: {0:?}")]
    Line(String),
    /// Records of names that a tag cannot say.
    #[error(
        "it has records of names with escapes, which names in tags cannot have; take these out of a copy of the file, import that with its \
         other {others} records, and serve these from a zone that is not Shoal's, or from one that it updates dynamically, where they \
         stay:\n  {}",
        .records.join("\n  ")
    )]
    Escaped {
        /// Each of them, in a line as a zone file has it.
        records: Vec<String>,
        /// How many others there are, without those of signing.
        others: usize,
    },
    /// A record of another zone.
    #[error("the name {0} lies outside of the zone")]
    Outside(String),
    /// The generic form of data could not be found.
    #[error("the data {1:?} of type {0}: {2}")]
    Generic(String, String, String),
}

/// A zone as tags.
#[derive(Debug)]
pub struct Import {
    /// The tags that say it.
    pub edits: Vec<Edit>,
    /// How many records they say.
    pub records: usize,
    /// How many records of signing were left out.
    pub left_out: usize,
}

/// The records of one name and type.
struct Set<'a> {
    ttl: u32,
    data: Vec<String>,
    rtype: &'a str,
}

/// Turns what `named-compilezone -s full` prints of a zone into tags. `replace`: also where they are there already.
///
/// # Errors
/// See [`ZoneError`]; nothing is done by halves.
pub fn read(
    zone: &str,
    text: &str,
    replace: bool,
    mut generic: impl FnMut(&str, &str) -> Result<String, String>,
) -> Result<Import, ZoneError> {
    let mut sets: BTreeMap<(Vec<&str>, &str), Set<'_>> = BTreeMap::new();
    let (mut records, mut left_out, mut escaped) = (0, 0, Vec::new());
    let apex: Vec<&str> = labels_of(zone);
    // What is no record is a remark.
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(';')) {
        let (owner, ttl, rtype, data) = record(line).ok_or_else(|| ZoneError::Line(line.to_owned()))?;
        if SIGNING.contains(&rtype) {
            left_out += 1;
            continue;
        }
        if owner.contains('\\') {
            escaped.push(format!("{owner} {ttl} IN {rtype} {data}"));
            continue;
        }
        let as_text = rtype == "SOA" || TEXT.contains(&rtype) || rtype.starts_with("TYPE");
        let data = if as_text {
            data.to_owned()
        } else {
            generic(rtype, data).map_err(|why| ZoneError::Generic(rtype.to_owned(), data.to_owned(), why))?
        };
        // From the last label to the first, so that names keep together.
        let labels: Vec<&str> = owner.rsplit('.').collect();
        let inside = labels.len() >= apex.len()
            && labels.iter().zip(&apex).all(|(label, of_zone)| label.eq_ignore_ascii_case(of_zone));
        if !inside {
            return Err(ZoneError::Outside(owner.to_owned()));
        }
        let set = sets.entry((labels, rtype)).or_insert(Set { ttl, data: Vec::new(), rtype });
        set.data.push(data);
        records += 1;
    }
    if !escaped.is_empty() {
        return Err(ZoneError::Escaped { records: escaped, others: records });
    }
    let soa = sets.remove(&(apex.clone(), "SOA")).ok_or(ZoneError::NoSoa)?;
    let servers = sets.remove(&(apex, "NS"));
    let statics: Vec<Value> = sets
        .into_iter()
        .map(|((labels, _), set)| statics(zone, &labels, set, servers.as_ref().map_or(soa.ttl, |s| s.ttl)))
        .collect();
    Ok(Import { edits: tags(zone, &soa, servers.as_ref(), statics, replace)?, records, left_out })
}

/// The labels of a complete name from the last to the first, the empty one of the root included.
fn labels_of(zone: &str) -> Vec<&str> {
    std::iter::once("").chain(zone.trim_end_matches('.').rsplit('.')).collect()
}

/// Owner, TTL, type and data of a line.
fn record(line: &str) -> Option<(&str, u32, &str, &str)> {
    let (owner, rest) = line.split_once(char::is_whitespace)?;
    let (ttl, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let (class, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let (rtype, data) = rest.trim_start().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    (class == "IN" && owner.ends_with('.')).then_some((owner, ttl.parse().ok()?, rtype, data.trim()))
}

fn statics(zone: &str, labels: &[&str], set: Set<'_>, usual: u32) -> Value {
    let mut record = Map::new();
    let depth = labels_of(zone).len();
    let owner: Vec<&str> = labels.iter().skip(depth).rev().copied().collect();
    if !owner.is_empty() {
        record.insert("name".to_owned(), json!(owner.join(".")));
    }
    record.insert("type".to_owned(), json!(set.rtype));
    if set.ttl != usual {
        record.insert("ttl".to_owned(), json!(set.ttl));
    }
    let data = if let [one] = set.data.as_slice() { json!(one) } else { json!(set.data) };
    record.insert("data".to_owned(), data);
    Value::Object(record)
}

fn tags(
    zone: &str,
    soa: &Set<'_>,
    servers: Option<&Set<'_>>,
    statics: Vec<Value>,
    replace: bool,
) -> Result<Vec<Edit>, ZoneError> {
    let words: Vec<&str> = soa.data.iter().flat_map(|data| data.split_whitespace()).collect();
    let [primary, mailbox, _, refresh, retry, expire, minimum] = words.as_slice() else {
        return Err(ZoneError::Line(soa.data.join(" ")));
    };
    let number = |word: &str| word.parse::<u32>().map_err(|_| ZoneError::Line(word.to_owned()));
    let mut start = json!({
        "primary": primary, "mailbox": mailbox, "refresh": number(refresh)?, "retry": number(retry)?,
        "expire": number(expire)?, "minimum": number(minimum)?
    });
    let usual = servers.map_or(soa.ttl, |set| set.ttl);
    if soa.ttl != usual {
        start["ttl"] = json!(soa.ttl);
    }
    let mut document = json!({"soa": start, "ttl": usual});
    if let Some(servers) = servers {
        document["ns"] = json!(servers.data);
    }
    let name = zone.trim_end_matches('.').to_ascii_lowercase();
    let mut edits = Vec::new();
    for (n, part) in statics.chunks(TOGETHER).enumerate() {
        if n == 0 {
            document["static"] = json!(part);
        } else {
            let feeds = json!({"zone": name, "ttl": usual, "static": part});
            edits.push(tag(&format!("{name}-records-{}", n + 1), feeds, replace)?);
        }
    }
    edits.insert(0, tag(&name, document, replace)?);
    Ok(edits)
}

fn tag(key: &str, document: Value, replace: bool) -> Result<Edit, ZoneError> {
    let name: TagName =
        format!("dns/{key}").parse().map_err(|e| ZoneError::Name(key.to_owned(), format!("{e}")))?;
    Ok(Edit::PutTag {
        tag: name,
        owner: None,
        environment: None,
        expires: None,
        document: Document::from(document),
        members: None,
        expect: if replace { Expect::Any } else { Expect::Absent },
    })
}
