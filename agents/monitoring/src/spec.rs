//! What a `monitoring/…` tag says, and what a host may say otherwise.
//!
//! A host's override is merged into the tag's document before the agent sees it (maps merge, lists replace), and every field
//! makes sense for a host, so both are one type. A check without a command says something about a check of another tag.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// How the members of a tag are checked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Where a member is checked: an address or a name. A pattern; its field `address`, else `address6`, else its own name, where
    /// nothing is said.
    #[serde(default)]
    pub address: Option<String>,
    /// How it is seen whether a member is up; where nobody says it, it is taken for up.
    #[serde(default)]
    pub host_check: Option<CheckSpec>,
    /// What is checked on each member, by name.
    #[serde(default)]
    pub checks: BTreeMap<String, CheckSpec>,
    /// What Prometheus scrapes of each member, by job.
    #[serde(default)]
    pub scrape: BTreeMap<String, ScrapeSpec>,
    /// Contacts, contact groups and time periods that the tag defines for everybody. Not read of a host.
    #[serde(default)]
    pub define: DefineSpec,
    /// Alert rules of the tag itself, by name. Not read of a host.
    #[serde(default)]
    pub rules: BTreeMap<String, RuleSpec>,
    /// How often each check is made, in seconds; 300 where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub interval: Option<u32>,
    /// How soon it is made again after it failed, in seconds; 60 where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub retry: Option<u32>,
    /// How often it has to fail until somebody is told; 3 where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_ATTEMPTS))]
    pub attempts: Option<u32>,
    /// When checks are made and people are told: a time period that a tag defines or the server has; always where nothing is said.
    #[serde(default)]
    pub period: Option<String>,
    /// Who is told: contacts that a tag defines or the server has.
    #[serde(default)]
    pub contacts: Vec<String>,
    /// Who is told: contact groups that a tag defines or the server has.
    #[serde(default)]
    pub contact_groups: Vec<String>,
    /// The host groups of each member. Patterns.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Labels of each member. Patterns.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The hosts that each member is reached through, such as its box or its site's router. Patterns; `{box}` where nothing is said.
    #[serde(default)]
    pub parents: Option<Vec<String>>,
    /// The hosts without which each member cannot work: while one is down, nobody is told of the member. Patterns.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// Leave the member out. Meant for hosts.
    #[serde(default)]
    pub omit: bool,
}

/// The longest interval in seconds: 30 days.
pub(crate) const MAX_SECONDS: u32 = 30 * 24 * 3600;
/// The most attempts.
pub(crate) const MAX_ATTEMPTS: u32 = 100;

/// One check. What it leaves out is as the tag says it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// The command, one of those that the server has and the agent's configuration allows.
    #[serde(default)]
    pub command: Option<String>,
    /// Its arguments. Patterns, which know `{warn}` and `{crit}`, too; or `secret:NAME`, a secret of the node.
    #[serde(default)]
    pub args: Vec<Scalar>,
    /// Beyond this it warns: what `{warn}` stands for.
    #[serde(default)]
    pub warn: Option<Scalar>,
    /// Beyond this it is critical: what `{crit}` stands for.
    #[serde(default)]
    pub crit: Option<Scalar>,
    /// How often it is made, in seconds.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub interval: Option<u32>,
    /// How soon it is made again after it failed, in seconds.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub retry: Option<u32>,
    /// How often it has to fail until somebody is told.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_ATTEMPTS))]
    pub attempts: Option<u32>,
    /// When it is made and people are told: a time period that a tag defines or the server has.
    #[serde(default)]
    pub period: Option<String>,
    /// Who is told, instead of the tag's.
    #[serde(default)]
    pub contacts: Option<Vec<String>>,
    /// Who is told, instead of the tag's.
    #[serde(default)]
    pub contact_groups: Option<Vec<String>>,
    /// Its service groups. Patterns.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Its labels. Patterns.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Other checks of the same host without which this one cannot work: while one fails, nobody is told of this one.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// Leave it out. Meant for hosts.
    #[serde(default)]
    pub skip: bool,
}

/// What Prometheus scrapes of a host, as one job.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrapeSpec {
    /// The port, at the address of the host.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// By which protocol; as Prometheus' own configuration says it, where nothing is said.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// Under which path. A pattern; as Prometheus' own configuration says it, where nothing is said.
    #[serde(default)]
    pub path: Option<String>,
    /// How often, in seconds; as Prometheus' own configuration says it, where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub interval: Option<u32>,
    /// With which credentials it is asked for: `secret:NAME`, a secret of the node; none where nothing is said.
    #[serde(default)]
    pub authorization: Option<String>,
    /// Labels of this job's metrics, besides the host's. Patterns.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Leave it out. Meant for hosts.
    #[serde(default)]
    pub skip: bool,
}

/// Who can be told, and when.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefineSpec {
    /// Contacts, by name.
    #[serde(default)]
    pub contacts: BTreeMap<String, ContactSpec>,
    /// Groups of contacts, by name.
    #[serde(default)]
    pub contact_groups: BTreeMap<String, ContactGroupSpec>,
    /// Time periods, by name.
    #[serde(default)]
    pub periods: BTreeMap<String, PeriodSpec>,
}

/// Somebody who is told.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactSpec {
    /// Where mail goes.
    #[serde(default)]
    pub email: Option<String>,
    /// A number or address for short messages.
    #[serde(default)]
    pub pager: Option<String>,
    /// When: a time period that a tag defines or the server has; always where nothing is said.
    #[serde(default)]
    pub period: Option<String>,
    /// In which ways, of those that the node's configuration has; `mail` where nothing is said.
    #[serde(default)]
    pub via: Vec<String>,
}

/// Several who are told.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactGroupSpec {
    /// Contacts that a tag defines or the server has.
    #[serde(default)]
    pub members: Vec<String>,
}

/// When something is done.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeriodSpec {
    /// The hours of each day: `monday: "09:00-17:00,18:00-20:00"`, `"2026-12-25": "00:00-24:00"`.
    #[serde(default)]
    pub days: BTreeMap<String, String>,
    /// Periods that are cut out of it.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// An alert rule of Prometheus.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// What fires, in PromQL. It is asked for as it stands: no pattern.
    pub expr: String,
    /// How long it has to be so until somebody is told, in seconds; at once where nothing is said.
    #[serde(default, rename = "for")]
    #[schemars(range(max = MAX_SECONDS))]
    pub lasts: u32,
    /// Labels of the alert, which may be templates of Prometheus.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What people are told, which may be templates of Prometheus.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// How metrics are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In the clear.
    Http,
    /// By TLS.
    Https,
}

/// A number, or text such as `10:20`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// A whole number.
    Whole(u64),
    /// Another number.
    Number(f64),
    /// As the plugin reads it.
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}
