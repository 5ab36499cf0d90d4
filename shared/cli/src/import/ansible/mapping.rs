//! How an inventory's words become Shoal's: the mapping file.
//!
//! ```yaml
//! name: fleet                      # what this import calls itself; what it wrote is remembered in facts/fleet/…
//! groups:
//!   namespace: tags                # group web becomes tags/web
//!   absent: leave_out              # child groups that are named and not there: leave_out, or empty (make empty tags)
//!   skip: []                       # groups that do not become tags
//! hosts:
//!   domain: example.com            # put behind names that have no dot
//!   rename:                        # the first rule that fits, on the name as Ansible has it
//!     - {suffix: .internal, to: .example.com}
//!   state: {var: status, values: {live: active, leaving: draining}}   # only when the host is made
//!   owner: team                    # a variable; or {var: …} as for fields
//!   environment: {var: env}
//!   variables: all                 # also kept as they are, in the field `variables`, for `shoal inventory`: none, all, or a list of names
//!   fields:                        # field of the host's document: where it comes from
//!     site: datacenter             # short for {var: datacenter, as: any}
//!     address: {var: [ip, ansible_host], as: ipv4}       # the first of them that the host has
//!     memory: {var: mem_size, as: size, unit: MiB}       # octets; the unit is that of plain numbers
//!     box: {var: vmhost, as: host}
//! tags:                            # tags to make beside the groups
//!   - tag: dns/example.com
//!     document: {…}
//!     members: ["@tags/web", "select: has(host.address)"]
//! each:                            # tags of the values that a variable has, one for each, with the hosts that have it
//!   - from: {var: tcp_ports, as: integer}    # one value, a list, or a map of names of which those count that are true
//!     only: monitored                        # only of hosts of which this variable is true
//!     tag: monitoring/tcp-{value}
//!     document: {checks: {"tcp-{value}": {command: check_tcp, args: ["{value}"]}}}
//! pools:                           # what `shoal import haproxy` makes of a load balancer's pools
//!   name: fleet-pools              # what that import calls itself: another name than the first
//!   namespace: lb                  # backend web becomes lb/web
//!   domain: example.com            # put behind names of servers that have no dot
//!   rename: [{host: www, to: web1.example.com}]        # other names, as for hosts
//!   skip: [local1]                 # servers that are to be left out, by the name that they have there
//!   tls: {/etc/haproxy/ipa.pem: ipa}                   # what a pool says in `tls` for a server's `ssl verify required ca-file /etc/haproxy/ipa.pem`
//!   bind: 0.0.0.0                  # where frontends take requests; without it, HAProxy's own configuration has them
//! ```
//!
//! Unknown words in the file are errors, with their place. What an inventory's *data* holds is never one.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use shoal_core::{Member, Namespace, TagName};

use super::ImportError;

/// The mapping file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// What this import calls itself. Two inventories that feed one database need two names.
    pub name: Namespace,
    /// How groups become tags.
    #[serde(default)]
    pub groups: Groups,
    /// How hosts become hosts.
    #[serde(default)]
    pub hosts: Hosts,
    /// Tags to make beside the groups.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Tags to make of the values that hosts have.
    #[serde(default)]
    pub each: Vec<Each>,
    /// How a load balancer's pools become tags.
    #[serde(default)]
    pub pools: Option<Pools>,
}

/// How a load balancer's pools become tags.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pools {
    /// What that import calls itself.
    pub name: Namespace,
    /// Where the tags stand.
    #[serde(default = "lb")]
    pub namespace: Namespace,
    /// Put behind names without a dot.
    #[serde(default)]
    pub domain: Option<String>,
    /// Other names; the first rule that fits.
    #[serde(default)]
    pub rename: Vec<Rename>,
    /// Servers that are left out.
    #[serde(default)]
    pub skip: Vec<String>,
    /// Files of who signs servers' certificates, and how the load balancers' nodes call them.
    #[serde(default)]
    pub tls: BTreeMap<String, String>,
    /// Where frontends take requests; `None`: they are not Shoal's.
    #[serde(default)]
    pub bind: Option<std::net::IpAddr>,
}

#[allow(clippy::expect_used, reason = "the word is a namespace; a test makes it")]
fn lb() -> Namespace {
    "lb".parse().expect("lb is a namespace")
}

/// How groups become tags.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Groups {
    /// Where the tags stand.
    pub namespace: Namespace,
    /// What becomes of groups that are named as children and not there.
    pub absent: Absent,
    /// Groups that do not become tags.
    pub skip: Vec<String>,
}

impl Default for Groups {
    #[allow(clippy::expect_used, reason = "the word is a namespace; a test makes the default")]
    fn default() -> Self {
        Self {
            namespace: "tags".parse().expect("tags is a namespace"),
            absent: Absent::LeaveOut,
            skip: Vec::new(),
        }
    }
}

/// What becomes of groups that are named as children and not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// No tag, and no nesting, until the group appears. The set of tags is the set of groups.
    LeaveOut,
    /// An empty tag, nested where it is named.
    Empty,
}

/// How hosts become hosts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hosts {
    /// Put behind names without a dot.
    pub domain: Option<String>,
    /// Other names; the first rule that fits.
    pub rename: Vec<Rename>,
    /// The lifecycle state a host is made with. Later it belongs to people and agents.
    #[serde(deserialize_with = "short")]
    pub state: Option<From>,
    /// Who answers for it.
    #[serde(deserialize_with = "short")]
    pub owner: Option<From>,
    /// What it belongs to.
    #[serde(deserialize_with = "short")]
    pub environment: Option<From>,
    /// Which variables are kept as they are.
    pub variables: Keep,
    /// The document's fields.
    #[serde(deserialize_with = "shorts")]
    pub fields: BTreeMap<String, From>,
}

/// The field in which variables are kept as they are.
pub(super) const VARIABLES: &str = "variables";

/// Which variables are kept as they are, in the field `variables` of the host's document: `shoal inventory` gives those back, and
/// nothing else of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// None.
    #[default]
    None,
    /// Every one whose name does not say that it is a secret.
    All,
    /// These.
    These(Vec<String>),
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Keep;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("none, all, or a list of variables")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Keep, E> {
                match word {
                    "none" => Ok(Keep::None),
                    "all" => Ok(Keep::All),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Keep, A::Error> {
                let names = serde::de::value::SeqAccessDeserializer::new(list);
                Vec::deserialize(names).map(Keep::These)
            }
        }
        from.deserialize_any(Words)
    }
}

/// One rule for names: of the two conditions, those that stand there must fit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// What the name ends with; `to` stands there instead.
    #[serde(default)]
    pub suffix: Option<String>,
    /// The whole name; `to` is used instead.
    #[serde(default)]
    pub host: Option<String>,
    /// The new name, or its end.
    pub to: String,
}

/// Where a value comes from. Written as a map, or as the name of one variable.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// Variables; the first that the host has.
    #[serde(rename = "var", deserialize_with = "one_or_several")]
    pub vars: Vec<String>,
    /// What it is.
    #[serde(default, rename = "as")]
    pub kind: Kind,
    /// For sizes, the unit of plain numbers, in octets.
    #[serde(default)]
    pub unit: Unit,
    /// Other words for its values, before it is taken for `kind`.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// What it is for hosts that have none of the variables.
    #[serde(default)]
    pub default: Option<Value>,
}

/// A [`From`] that may be written short. By hand and not `untagged`, which would hide which word is unknown.
struct Short;

impl<'de> Visitor<'de> for Short {
    type Value = From;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a variable, or a map with `var`")
    }

    fn visit_str<E: serde::de::Error>(self, var: &str) -> Result<From, E> {
        let vars = vec![var.to_owned()];
        Ok(From { vars, kind: Kind::Any, unit: Unit::MiB, values: BTreeMap::new(), default: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<From, A::Error> {
        From::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de> DeserializeSeed<'de> for Short {
    type Value = From;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<From, D::Error> {
        from.deserialize_any(self)
    }
}

fn short<'de, D: Deserializer<'de>>(from: D) -> Result<Option<From>, D::Error> {
    Short.deserialize(from).map(Some)
}

fn long<'de, D: Deserializer<'de>>(from: D) -> Result<From, D::Error> {
    Short.deserialize(from)
}

fn shorts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, From>, D::Error> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = BTreeMap<String, From>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map from field to variable")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = BTreeMap::new();
            while let Some(field) = map.next_key::<String>()? {
                if field.starts_with('@') {
                    return Err(serde::de::Error::custom(format!(
                        "{field}: a field does not start with '@'"
                    )));
                }
                fields.insert(field, map.next_value_seed(Short)?);
            }
            Ok(fields)
        }
    }
    from.deserialize_map(Fields)
}

fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a variable, or a list of variables")
        }

        fn visit_str<E: serde::de::Error>(self, var: &str) -> Result<Self::Value, E> {
            Ok(vec![var.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut vars = Vec::new();
            while let Some(var) = list.next_element()? {
                vars.push(var);
            }
            Ok(vars)
        }
    }
    from.deserialize_any(Names)
}

/// What a value is; it is checked, and written in one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As it is.
    #[default]
    Any,
    /// Text; numbers and booleans are written out.
    Text,
    /// A whole number, also as text.
    Integer,
    /// True or false, also as `yes`, `no`, `on`, `off`.
    Boolean,
    /// A size: a plain number in the given unit, or text with a unit of its own (`50g`, `1.5t`, `512 MiB`). In octets.
    Size,
    /// An IPv4 address; a prefix length behind it is dropped.
    Ipv4,
    /// An IPv6 address; likewise.
    Ipv6,
    /// A host's name, renamed like the hosts themselves.
    Host,
}

/// A unit of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, clippy::doc_markdown, reason = "they say it themselves")]
pub enum Unit {
    B,
    KiB,
    #[default]
    MiB,
    GiB,
    TiB,
}

impl Unit {
    /// In octets.
    #[must_use]
    pub fn octets(self) -> u64 {
        1 << (10 * self as u32)
    }
}

/// A tag to make beside the groups.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Its name.
    pub tag: TagName,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// What it belongs to.
    #[serde(default)]
    pub environment: Option<String>,
    /// What it says.
    #[serde(default)]
    pub document: Map<String, Value>,
    /// What it contains: names as in the database, not as in the inventory.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// A tag for each value that a variable has, with the hosts that have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Each {
    /// Where the values come from. A map says of each name whether it is meant.
    #[serde(deserialize_with = "long")]
    pub from: From,
    /// Only hosts of which this variable is true.
    #[serde(default)]
    pub only: Option<String>,
    /// The tag's name; `{value}` stands for the value.
    pub tag: String,
    /// What it says, with `{value}` in it.
    #[serde(default)]
    pub document: Map<String, Value>,
}

impl Mapping {
    /// Reads a mapping file.
    ///
    /// # Errors
    /// YAML that does not parse, unknown words, names that are none; with the place.
    pub fn parse(text: &str) -> Result<Self, ImportError> {
        let mapping: Self = serde_saphyr::from_str(text).map_err(|e| ImportError::Mapping(e.to_string()))?;
        let mut seen = std::collections::BTreeSet::new();
        for tag in &mapping.tags {
            if !seen.insert(&tag.tag) {
                return Err(ImportError::Mapping(format!("tags: {} stands there twice", tag.tag)));
            }
        }
        if mapping.hosts.variables != Keep::None && mapping.hosts.fields.contains_key(VARIABLES) {
            let why = format!("hosts.variables: a field is called {VARIABLES}, too: give it another name");
            return Err(ImportError::Mapping(why));
        }
        if mapping.pools.as_ref().is_some_and(|pools| pools.name == mapping.name) {
            let why = format!("pools.name: {} is the other import's name: each needs its own", mapping.name);
            return Err(ImportError::Mapping(why));
        }
        if let Some(each) = mapping.each.iter().find(|each| !each.tag.contains("{value}")) {
            return Err(ImportError::Mapping(format!(
                "each: {} has no {{value}}, so all values would make one tag; write it under tags",
                each.tag
            )));
        }
        Ok(mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_and_a_full_one() {
        let small = Mapping::parse("name: fleet\n").unwrap();
        assert_eq!((small.groups.namespace.as_str(), small.groups.absent), ("tags", Absent::LeaveOut));
        let full = Mapping::parse(
            "name: fleet
groups: {namespace: ansible, absent: empty, skip: [all]}
hosts:
  rename: [{suffix: .a, to: .b}, {host: x, to: y}]
  environment: env
  fields:
    memory: {var: [mem, memory], as: size, unit: GiB}
tags: [{tag: dns/example.com, document: {ttl: 300}, members: ['@tags/web', 'select: has(host.address)']}]
",
        )
        .unwrap();
        let keep = |text: &str| {
            Mapping::parse(&format!("name: x\nhosts: {{variables: {text}}}")).unwrap().hosts.variables
        };
        assert_eq!((keep("all"), keep("[a]")), (Keep::All, Keep::These(vec!["a".to_owned()])));
        let memory = &full.hosts.fields["memory"];
        assert_eq!((memory.kind, memory.unit.octets(), memory.vars.len()), (Kind::Size, 1 << 30, 2));
        assert_eq!(full.tags[0].members.len(), 2);
    }

    #[test]
    fn unknown_words_are_errors() {
        for (bad, word) in [
            ("name: Fleet", "namespace"),
            ("nam: x", "nam"),
            ("name: x\ngroups: {spaces: y}", "spaces"),
            ("name: x\nhosts: {fields: {a: {vra: b}}}", "vra"),
            ("name: x\nhosts: {owner: {var: b, as: tetx}}", "tetx"),
            ("name: x\nhosts: {fields: {'@owner': b}}", "@owner"),
            ("name: x\nhosts: {variables: some}", "none, all, or a list"),
            ("name: x\nhosts: {variables: all, fields: {variables: b}}", "another name"),
            ("name: x\neach: [{from: ports, tag: a/b}]", "{value}"),
            ("name: x\neach: [{from: {vra: b}, tag: 'a/{value}'}]", "vra"),
        ] {
            let error = Mapping::parse(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
