//! What one item is: a host with its checks, or the server itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_agent::secrets::SecretRef;
use shoal_agent::{HostName, TagName};

use crate::define::{self, Definition};
use crate::name::{Label, Name, PAUSED, STATE, Word};
use crate::target::Server;

/// Names one item of one server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Which server.
    pub server: Server,
    /// What of it.
    pub subject: Subject,
}

/// What an item is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The server itself: whether it has what stands in its files.
    Server,
    /// Who is told, or when.
    Definition(define::Kind, Name),
    /// A host with its checks.
    Host(HostName),
    /// The alert rules of a tag.
    Rules(TagName),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Server => write!(f, "{}", self.server),
            Subject::Definition(kind, name) => write!(f, "{}/{kind}/{name}", self.server),
            Subject::Host(name) => write!(f, "{}/{name}", self.server),
            Subject::Rules(tag) => write!(f, "{}/rules/{tag}", self.server),
        }
    }
}

/// What should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// The server, with what stands in its files.
    Server,
    /// Who is told, or when.
    Definition(Arc<Definition>),
    /// A host.
    Host(Arc<Host>),
    /// What is scraped of a host, by job.
    Targets(Arc<BTreeMap<Name, Scrape>>),
    /// The alert rules of a tag, by name.
    Rules(Arc<BTreeMap<Name, Rule>>),
}

/// An alert rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What fires, in PromQL.
    pub expr: String,
    /// How long it has to be so: `90s`.
    #[serde(rename = "for")]
    pub lasts: String,
    /// Labels of the alert.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What people are told.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What is scraped of a host as one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    /// Address and port.
    pub target: String,
    /// The labels of what is scraped, and those that tell Prometheus how (`__scheme__`, …).
    pub labels: BTreeMap<String, String>,
}

impl Item {
    /// The same while a person holds the host as it is: with a downtime and a label. One that drains has both already.
    pub(crate) fn paused(&self) -> Option<Self> {
        if self.rests() {
            return None;
        }
        match self {
            Self::Server | Self::Definition(_) | Self::Rules(_) => None,
            Self::Host(host) => {
                let mut host = Host::clone(host);
                host.paused = true;
                host.labels.insert(Label::state(), Word::paused());
                Some(Self::Host(Arc::new(host)))
            }
            Self::Targets(targets) => {
                let mut targets = BTreeMap::clone(targets);
                for scrape in targets.values_mut() {
                    scrape.labels.insert(STATE.to_owned(), PAUSED.to_owned());
                }
                Some(Self::Targets(Arc::new(targets)))
            }
        }
    }

    /// Whether nobody is to be told of it.
    pub(crate) fn rests(&self) -> bool {
        match self {
            Self::Server | Self::Definition(_) | Self::Rules(_) => false,
            Self::Host(host) => host.rests(),
            // Nobody else says this label.
            Self::Targets(targets) => targets.values().any(|scrape| scrape.labels.contains_key(STATE)),
        }
    }

    pub(crate) fn host(&self) -> Option<&Arc<Host>> {
        match self {
            Self::Host(host) => Some(host),
            _ => None,
        }
    }

    pub(crate) fn definition(&self) -> Option<&Arc<Definition>> {
        match self {
            Self::Definition(definition) => Some(definition),
            _ => None,
        }
    }

    pub(crate) fn targets(&self) -> Option<&Arc<BTreeMap<Name, Scrape>>> {
        match self {
            Self::Targets(targets) => Some(targets),
            _ => None,
        }
    }

    pub(crate) fn rules(&self) -> Option<&Arc<BTreeMap<Name, Rule>>> {
        match self {
            Self::Rules(rules) => Some(rules),
            _ => None,
        }
    }
}

/// A host with its checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Where it is checked: an address or a name.
    pub address: Word,
    /// It drains: it has a downtime.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// A person holds it as it is: it has a downtime.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How it is seen whether it is up; `None`: it is taken for up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Call>,
    /// How often, when, and who is told.
    pub timing: Timing,
    /// Its host groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<Name>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Label, Word>,
    /// The hosts that it is reached through, also those that the server does not know.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parents: BTreeSet<HostName>,
    /// The hosts without which it cannot work, also those that the server does not know.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub depends_on: BTreeSet<HostName>,
    /// What is checked on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<Name, Service>,
}

impl Host {
    /// Whether it has a downtime.
    pub(crate) fn rests(&self) -> bool {
        self.draining || self.paused
    }

    /// The secrets that its checks name.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = SecretRef> {
        let calls = self.check.iter().chain(self.services.values().map(|service| &service.check));
        calls.flat_map(Call::secrets)
    }

    /// When a check of it is made and who is told.
    pub(crate) fn timing_of<'a>(&'a self, service: &'a Service) -> &'a Timing {
        service.timing.as_ref().unwrap_or(&self.timing)
    }

    /// The other hosts that it names.
    pub(crate) fn others(&self) -> impl Iterator<Item = &HostName> {
        self.parents.iter().chain(&self.depends_on)
    }
}

/// One check of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What is called.
    pub check: Call,
    /// How often, when, and who is told, where it is not as for the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Its service groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<Name>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Label, Word>,
    /// Other checks of the host without which it cannot work.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub depends_on: BTreeSet<Name>,
}

/// A command of the server's, with arguments. Written as Nagios does, `check_http!80`: neither a name nor a word has a `!`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Call {
    /// The command's name.
    pub command: Name,
    /// Its arguments.
    pub args: Vec<Word>,
}

impl Call {
    /// The secrets that its arguments name.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = SecretRef> {
        self.args.iter().filter_map(Word::secret)
    }

    /// Appends it as it is written.
    pub(crate) fn write(&self, out: &mut String) {
        out.push_str(self.command.as_str());
        for arg in &self.args {
            out.push('!');
            out.push_str(arg.as_str());
        }
    }
}

impl Serialize for Call {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(64);
        self.write(&mut text);
        serializer.serialize_str(&text)
    }
}

impl TryFrom<String> for Call {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = text.split('!');
        let command = parts.next().unwrap_or_default().parse()?;
        Ok(Self { command, args: parts.map(str::parse).collect::<Result<_, _>>()? })
    }
}

/// How often a check is made, when, and who is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// How often, in seconds.
    pub interval: u32,
    /// How soon again after a failure, in seconds.
    pub retry: u32,
    /// How many failures are told.
    pub attempts: u32,
    /// The time period; `None`: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Name>,
    /// The contacts.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub contacts: BTreeSet<Name>,
    /// The contact groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub contact_groups: BTreeSet<Name>,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Have {
    /// What it was made from.
    pub item: Item,
    /// It is not as that is made: somebody edited it, or the server has not read it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub odd: bool,
    /// Whether it has Shoal's downtime, or silence; `None`: nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime: Option<bool>,
}

impl From<Item> for Have {
    /// What a look shows right after it was made.
    fn from(item: Item) -> Self {
        Self { item, odd: false, downtime: None }
    }
}

impl PartialEq<Item> for Have {
    fn eq(&self, want: &Item) -> bool {
        !self.odd && self.item == *want && self.downtime.is_none_or(|has| has == want.rests())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.command)?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}
