//! What a `dns/…` tag says, and what a host may say otherwise.
//!
//! A tag with an `soa` is a zone, named by the tag's key. A tag with `zone` feeds a zone that another tag declares
//! (a pool's round-robin name, say); a host's own aliases and records are left to the zone's tag. A tag with neither is no zone: it groups members and settings to be nested in others.
//!
//! A host's override is merged into the tag's document before the agent sees it (maps merge, lists replace), so
//! [`Override`] is a part of [`Spec`] and [`Spec`] also has what only makes sense for a host, like `omit`.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{self, Zone};
use crate::rdata::TypeName;
use crate::reverse::Reverse;
use crate::route::{Alias, Route};

/// The TTL where nobody says otherwise, in seconds.
const TTL: u32 = 3600;
/// The longest TTL ([RFC 2181, section 8](https://www.rfc-editor.org/rfc/rfc2181#section-8)).
pub(crate) const MAX_TTL: u32 = i32::MAX.unsigned_abs();

/// A DNS zone, and what each member contributes to it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Makes this tag a zone: its start of authority. The zone's name is the tag's key.
    #[serde(default)]
    pub soa: Option<Soa>,
    /// The name servers of the zone; without any, the SOA's primary. Only with `soa`.
    #[serde(default)]
    pub ns: Vec<String>,
    /// Feed this zone, which another tag declares, instead of being one.
    #[serde(default)]
    pub zone: Option<String>,
    /// The TTL of all records that give none of their own, in seconds; 3600 where nothing is said.
    #[serde(default)]
    #[schemars(range(max = MAX_TTL))]
    pub ttl: Option<u32>,
    /// The name each member's addresses stand under. A pattern; `{name}`, the host's own name, where nothing is
    /// said, and then hosts that do not lie in the zone contribute no addresses.
    #[serde(default)]
    pub name: Option<String>,
    /// The fields of the host's document that hold its addresses, IPv4 or IPv6, each one text or a list;
    /// `address` and `address6` where nothing is said.
    #[serde(default)]
    pub addresses: Option<Vec<String>>,
    /// Further names of each member, as CNAME records that point at its name. Patterns.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Further records of each member, each under a label of your choice, so that a host can change or add one.
    #[serde(default)]
    pub records: BTreeMap<String, MemberRecord>,
    /// Records of the zone itself, whoever its members are.
    #[serde(default, rename = "static")]
    pub statics: Vec<StaticRecord>,
    /// Reverse zones (`2.0.192.in-addr.arpa`, `8.b.d.0.1.0.0.2.ip6.arpa`, `0-127.2.0.192.in-addr.arpa`) that get a PTR
    /// record for each address of a member; the longest that holds the address. A reverse zone always feeds itself.
    #[serde(default)]
    pub reverse: Vec<String>,
    /// Which addresses classless reverse zones hold, by zone, where their names can be read in two ways or say nothing:
    /// `16-30.2.0.192.in-addr.arpa: 192.0.2.16/30`, or `192.0.2.16-192.0.2.30`. In each tag that feeds such a zone.
    #[serde(default)]
    pub holds: BTreeMap<String, String>,
    /// Leave the member out. Meant for hosts.
    #[serde(default)]
    pub omit: bool,

    /// The static records by owner name, made when first needed.
    #[serde(skip)]
    #[schemars(skip)]
    index: OnceLock<HashMap<String, Vec<usize>>>,
    /// The names in it, read when they are first needed.
    #[serde(skip)]
    #[schemars(skip)]
    read: OnceLock<Read>,
}

/// The zones that a tag names, as far as they are names: all its members share them.
#[derive(Debug)]
struct Read {
    /// The tag's key, which says the zone.
    key: String,
    zone: Result<Option<Zone>, String>,
    reverse: ReverseZones,
}

/// The reverse zones of a tag, and what is wrong with the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReverseZones {
    pub(crate) zones: Vec<Reverse>,
    pub(crate) wrong: Vec<String>,
}

/// The start of authority of a zone. The serial is counted by who serves the zone.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Soa {
    /// The primary name server.
    pub primary: String,
    /// Whom to write to: `hostmaster@example.com`, or as a name; `hostmaster` in the zone where nothing is said.
    #[serde(default)]
    pub mailbox: Option<String>,
    /// How often secondaries ask for the serial, in seconds.
    #[serde(default = "Soa::refresh")]
    pub refresh: u32,
    /// How soon they ask again after a failure, in seconds.
    #[serde(default = "Soa::retry")]
    pub retry: u32,
    /// When they stop answering without having reached the primary, in seconds.
    #[serde(default = "Soa::expire")]
    pub expire: u32,
    /// How long the absence of a name may be remembered, in seconds.
    #[serde(default = "Soa::minimum")]
    pub minimum: u32,
    /// The record's own TTL in seconds, where it is not the tag's.
    #[serde(default)]
    #[schemars(range(max = MAX_TTL))]
    pub ttl: Option<u32>,
}

impl Soa {
    fn refresh() -> u32 {
        7200
    }
    fn retry() -> u32 {
        900
    }
    fn expire() -> u32 {
        1_209_600
    }
    fn minimum() -> u32 {
        300
    }

    /// The record's data with the serial 0, as a zone file writes it.
    pub(crate) fn data(&self) -> String {
        let mailbox = match &self.mailbox {
            None => "hostmaster".to_owned(),
            Some(text) => match text.split_once('@') {
                Some((user, domain)) => {
                    format!("{}.{}.", user.replace('.', "\\."), domain.trim_end_matches('.'))
                }
                None => text.clone(),
            },
        };
        let Self { primary, refresh, retry, expire, minimum, .. } = self;
        format!("{primary} {mailbox} 0 {refresh} {retry} {expire} {minimum}")
    }
}

/// A record that each member contributes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["data"]}, {"required": ["alias"]}]))]
pub struct MemberRecord {
    /// Its owner name. A pattern; the member's name where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub rtype: TypeName,
    /// Its data as a zone file writes it, or several. Patterns.
    #[serde(default, skip_serializing_if = "Data::is_none")]
    pub data: Data,
    /// Its TTL in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_TTL))]
    pub ttl: Option<u32>,
    /// An alias instead of data, at a target that has such (Route 53); its name is a pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// How it is chosen among several sets of its name and type, at a target that chooses (Route 53).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The health check that its set depends on (Route 53): an id, or a name that the node's configuration gives to one. A pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

/// A record of the zone itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["data"]}, {"required": ["alias"]}]))]
pub struct StaticRecord {
    /// Its owner name; `@` is the zone itself.
    #[serde(default = "StaticRecord::apex")]
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub rtype: TypeName,
    /// Its data as a zone file writes it, or several.
    #[serde(default, skip_serializing_if = "Data::is_none")]
    pub data: Data,
    /// Its TTL in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_TTL))]
    pub ttl: Option<u32>,
    /// An alias instead of data, at a target that has such (Route 53).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// How it is chosen among several sets of its name and type, at a target that chooses (Route 53).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The health check that its set depends on (Route 53): an id, or a name that the node's configuration gives to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

impl StaticRecord {
    fn apex() -> String {
        "@".to_owned()
    }
}

/// The data of one record, or of several of one name and type.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Data {
    /// One record.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for Data {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Data {
    fn is_none(&self) -> bool {
        self.each().is_empty()
    }

    pub(crate) fn each(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// What a host may say under `dns` in its own document.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Leave this host out of every zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omit: Option<bool>,
    /// The TTL of this host's records, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_TTL))]
    pub ttl: Option<u32>,
    /// The fields of its document that hold its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// Further names of it, instead of those that the tag gives. Patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aliases: Option<Vec<String>>,
    /// Further records of it, by label; one with a label that the tag has too replaces that one's fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<BTreeMap<String, PartialRecord>>,
}

/// A member's record, as far as it differs from the tag's of the same label.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartialRecord {
    /// Its owner name. A pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub rtype: Option<TypeName>,
    /// Its data as a zone file writes it, or several. Patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// Its TTL in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MAX_TTL))]
    pub ttl: Option<u32>,
    /// An alias instead of data, at a target that has such (Route 53); its name is a pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// How it is chosen among several sets of its name and type, at a target that chooses (Route 53).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The health check that its set depends on (Route 53): an id, or a name that the node's configuration gives to one. A pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

impl Spec {
    /// The zone that a tag of this key feeds; `None` for a tag that only groups members.
    ///
    /// # Errors
    /// A name that is not one, or a tag that is a zone and feeds another.
    pub(crate) fn feeds(&self, key: &str) -> Result<Option<(&Zone, &ReverseZones)>, String> {
        let read = self.read.get_or_init(|| {
            let zone = self.zone_of(key);
            let reverse = zone.as_ref().ok().and_then(Option::as_ref).map(|zone| self.reverse_zones(zone));
            Read { key: key.to_owned(), zone, reverse: reverse.unwrap_or_default() }
        });
        debug_assert_eq!(read.key, key, "a document is read for one tag");
        Ok(read.zone.as_ref().map_err(String::clone)?.as_ref().map(|zone| (zone, &read.reverse)))
    }

    fn zone_of(&self, key: &str) -> Result<Option<Zone>, String> {
        match (&self.soa, &self.zone) {
            (None, None) => Ok(None),
            (Some(_), None) => Zone::parse(key).map(Some),
            (soa, Some(zone)) => {
                let zone = Zone::parse(zone)?;
                if soa.is_some() && Zone::parse(key).ok().as_ref() != Some(&zone) {
                    return Err(format!(
                        "a tag with soa is the zone of its key, and this one says zone: {zone}; drop one"
                    ));
                }
                Ok(Some(zone))
            }
        }
    }

    /// The TTL of what gives none.
    pub(crate) fn ttl(&self) -> u32 {
        self.ttl.unwrap_or(TTL).min(MAX_TTL)
    }

    /// The reverse zones that a tag feeding `zone` gives PTR records to, `zone` itself first if it is one; what
    /// is wrong with the others.
    fn reverse_zones(&self, zone: &Zone) -> ReverseZones {
        let (mut zones, mut wrong) = (Vec::new(), Vec::new());
        let own = zone.is_reverse().then(|| Ok(zone.clone()));
        for parsed in own.into_iter().chain(self.reverse.iter().map(|text| Zone::parse(text))) {
            match parsed.and_then(|zone| Reverse::parse(zone.clone(), self.holds_of(&zone))) {
                Ok(reverse) => zones.push(reverse),
                Err(why) => wrong.push(why),
            }
        }
        for name in self.holds.keys() {
            match Zone::parse(name) {
                Ok(held)
                    if held != *zone
                        && self.reverse.iter().all(|text| Zone::parse(text).as_ref() != Ok(&held)) =>
                {
                    wrong.push(format!("holds: {held} is neither this zone nor listed under reverse"));
                }
                Ok(_) => {}
                Err(why) => wrong.push(format!("holds: {why}")),
            }
        }
        ReverseZones { zones, wrong }
    }

    fn holds_of(&self, zone: &Zone) -> Option<&str> {
        let of = |(name, _): &(&String, &String)| Zone::parse(name).is_ok_and(|name| name == *zone);
        self.holds.iter().find(of).map(|(_, addresses)| addresses.as_str())
    }

    /// Where the static records of an owner name stand. Made once: a zone of many static records stays linear.
    pub(crate) fn statics_of(&self, owner: &str, zone: &Zone) -> &[usize] {
        let index = self.index.get_or_init(|| {
            let mut index: HashMap<String, Vec<usize>> = HashMap::new();
            for (at, record) in self.statics.iter().enumerate() {
                if let Ok(owner) = name::owner(&record.name, zone) {
                    index.entry(owner).or_default().push(at);
                }
            }
            index
        });
        index.get(owner).map_or(&[], Vec::as_slice)
    }
}
