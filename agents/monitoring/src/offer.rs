//! What one source offers for a host, before it is known what the others say.
//!
//! Every text is parsed here. What cannot be used is a fault that names its field, and the rest goes on without it.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use shoal_agent::secrets::SecretRef;
use shoal_agent::{Host, HostName, Source, pattern};

use crate::agent::Commands;
use crate::item::Call;
use crate::name::{Label, Name, STATE, Word};
use crate::spec::{CheckSpec, MAX_ATTEMPTS, MAX_SECONDS, Scheme, Spec};

/// The most checks of a host, and the most of anything else that is listed.
const MAX_LISTED: usize = 500;
/// Why what begins as a reference to a secret is none.
const NO_SECRET: &str =
    "a secret is named as secret:NAME, with letters, digits and _ - . and at most 64 of them";
/// Why a reference that a field of the host makes is none.
const FILLED_SECRET: &str = "a secret is named in the argument itself, and by no field that is put into it";
/// Labels that the agent gives itself: whether a host drains, and what tells metrics apart.
const RESERVED: [&str; 4] = [STATE, "job", "host", "instance"];

/// What a source says of a host.
#[derive(Debug)]
pub(crate) struct Offer {
    /// The source, for people.
    pub(crate) who: String,
    pub(crate) address: Option<Word>,
    pub(crate) check: Option<Call>,
    pub(crate) timing: Times,
    pub(crate) groups: BTreeSet<Name>,
    pub(crate) labels: BTreeMap<Label, Word>,
    pub(crate) parents: BTreeSet<HostName>,
    pub(crate) depends_on: BTreeSet<HostName>,
    pub(crate) services: BTreeMap<Name, Offered>,
    /// By job.
    pub(crate) scrape: BTreeMap<Name, Scraped>,
    /// What it says of checks to which it gives no command.
    pub(crate) bare: Vec<Name>,
    /// What cannot be used, and why.
    pub(crate) faults: Vec<String>,
}

/// A check that a source offers.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) call: Call,
    pub(crate) timing: Times,
    pub(crate) groups: BTreeSet<Name>,
    pub(crate) labels: BTreeMap<Label, Word>,
    pub(crate) depends_on: BTreeSet<Name>,
    /// The host says the whole check itself, so that every source of the host has it.
    pub(crate) own: bool,
}

/// What a source would have scraped as one job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scraped {
    pub(crate) port: u16,
    pub(crate) authorization: Option<SecretRef>,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) path: Option<Word>,
    pub(crate) interval: Option<u32>,
    pub(crate) labels: BTreeMap<Label, Word>,
}

/// What is said of times and people, as far as it is said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    pub(crate) interval: Option<u32>,
    pub(crate) retry: Option<u32>,
    pub(crate) attempts: Option<u32>,
    pub(crate) period: Option<Name>,
    pub(crate) contacts: BTreeSet<Name>,
    pub(crate) contact_groups: BTreeSet<Name>,
}

impl Offer {
    /// What this source offers for its host; nothing if it is a tag alone.
    pub(crate) fn of(from: &Source<'_, Spec>, commands: &Commands) -> Option<Self> {
        let host = from.host?;
        let mut reader = Reader { host, commands, faults: Vec::new() };
        let offer = reader.offer(from.spec, from.name());
        Some(Self { faults: reader.faults, ..offer })
    }
}

struct Reader<'a> {
    host: &'a Host,
    commands: &'a Commands,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn offer(&mut self, spec: &Spec, who: String) -> Offer {
        let timing = Times {
            interval: self.bounded("interval", spec.interval, MAX_SECONDS),
            retry: self.bounded("retry", spec.retry, MAX_SECONDS),
            attempts: self.bounded("attempts", spec.attempts, MAX_ATTEMPTS),
            period: spec.period.as_ref().and_then(|name| self.parse("period", name)),
            contacts: self.listed("contacts", &spec.contacts),
            contact_groups: self.listed("contact_groups", &spec.contact_groups),
        };
        let host_check = spec.host_check.as_ref().filter(|check| !check.skip);
        let check = host_check.and_then(|check| self.call("host_check", check)).flatten();
        let host_timing = host_check.map(|check| self.timing("host_check", check, &timing));
        let (services, bare) = self.services(spec, &timing);
        let usual = ["{box}".to_owned()];
        Offer {
            who,
            address: self.address(spec),
            check,
            groups: self.filled("groups", &spec.groups),
            labels: self.labels("labels", &spec.labels),
            parents: self.filled("parents", spec.parents.as_deref().unwrap_or(&usual)),
            depends_on: self.filled("depends_on", &spec.depends_on),
            timing: host_timing.unwrap_or(timing),
            services,
            scrape: self.scrape(spec),
            bare,
            faults: Vec::new(),
        }
    }

    fn services(&mut self, spec: &Spec, timing: &Times) -> (BTreeMap<Name, Offered>, Vec<Name>) {
        let (mut services, mut bare) = (BTreeMap::new(), Vec::new());
        if spec.checks.len() > MAX_LISTED {
            self.faults
                .push(format!("checks: there are {}, and {MAX_LISTED} are the most", spec.checks.len()));
        }
        for (name, check) in spec.checks.iter().take(MAX_LISTED).filter(|(_, check)| !check.skip) {
            let field = format!("checks.{name}");
            let Some(name) = self.parse::<Name>(&field, name) else { continue };
            match self.call(&field, check) {
                // What is wrong is said; the check is left out whole.
                None => {}
                Some(None) => bare.push(name),
                Some(Some(call)) => {
                    let offered = Offered {
                        call,
                        timing: self.timing(&field, check, timing),
                        groups: self.filled(&format!("{field}.groups"), &check.groups),
                        labels: self.labels(&format!("{field}.labels"), &check.labels),
                        depends_on: self.listed(&format!("{field}.depends_on"), &check.depends_on),
                        own: self.says_itself(name.as_str()),
                    };
                    services.insert(name, offered);
                }
            }
        }
        (services, bare)
    }

    fn scrape(&mut self, spec: &Spec) -> BTreeMap<Name, Scraped> {
        let mut jobs = BTreeMap::new();
        for (name, scrape) in spec.scrape.iter().take(MAX_LISTED).filter(|(_, scrape)| !scrape.skip) {
            let field = format!("scrape.{name}");
            let Some(job) = self.parse::<Name>(&field, name) else { continue };
            let Some(port) = scrape.port.filter(|port| *port > 0) else {
                self.faults.push(format!("{field}.port: nothing says where it is scraped"));
                continue;
            };
            let path =
                match scrape.path.as_ref().map(|path| self.fill::<Word>(&format!("{field}.path"), path)) {
                    None => None,
                    Some(Some(path)) if path.as_str().starts_with('/') => Some(path),
                    Some(_) => {
                        self.faults.push(format!("{field}.path: it has to be there, and begin with a slash"));
                        continue;
                    }
                };
            let authorization = match scrape.authorization.as_ref().map(|said| said.parse::<SecretRef>()) {
                None => None,
                Some(Ok(secret)) => Some(secret),
                Some(Err(why)) => {
                    self.faults.push(format!("{field}.authorization: {why}"));
                    continue;
                }
            };
            let scraped = Scraped {
                port,
                authorization,
                scheme: scrape.scheme,
                path,
                interval: self.bounded(&format!("{field}.interval"), scrape.interval, MAX_SECONDS),
                labels: self.labels(&format!("{field}.labels"), &scrape.labels),
            };
            jobs.insert(job, scraped);
        }
        jobs
    }

    fn says_itself(&self, check: &str) -> bool {
        let said = self.host.field("monitoring");
        said.is_some_and(|said| said["checks"][check]["command"].is_string())
    }

    /// What a check calls: `None` if that cannot be used, `Some(None)` if nothing is said.
    fn call(&mut self, field: &str, check: &CheckSpec) -> Option<Option<Call>> {
        let Some(command) = &check.command else { return Some(None) };
        let command: Name = self.parse(&format!("{field}.command"), command)?;
        if !self.commands.allow(&command) {
            self.faults.push(format!(
                "{field}.command: {command} is none of the commands that the agent's configuration allows ({})",
                self.commands.0.join(", ")
            ));
            return None;
        }
        if check.args.len() > MAX_LISTED {
            self.faults.push(format!("{field}.args: there are {}", check.args.len()));
            return None;
        }
        let own = |name: &str| match name {
            "warn" => check.warn.as_ref().map(ToString::to_string),
            "crit" => check.crit.as_ref().map(ToString::to_string),
            _ => None,
        };
        let mut args = Vec::with_capacity(check.args.len());
        for (at, arg) in check.args.iter().enumerate() {
            // A missing argument would move the others to where they mean something else.
            let arg = arg.to_string();
            let filled =
                pattern::fill(&arg, self.host, own, |value, out| out.push_str(value)).and_then(|filled| {
                    filled.ok_or_else(|| format!("the host has nothing to put into {arg:?}"))?.parse::<Word>()
                });
            match filled {
                Ok(word) if word.is_reference() && (word.secret().is_none() || word.as_str() != arg) => {
                    let why = if word.secret().is_none() { NO_SECRET } else { FILLED_SECRET };
                    self.faults.push(format!("{field}.args[{at}]: {why}"));
                    return None;
                }
                Ok(word) => args.push(word),
                Err(why) => {
                    self.faults.push(format!("{field}.args[{at}]: {why}"));
                    return None;
                }
            }
        }
        Some(Some(Call { command, args }))
    }

    fn timing(&mut self, field: &str, check: &CheckSpec, tag: &Times) -> Times {
        let mut who = |name: &str, said: &Option<Vec<String>>, tag: &BTreeSet<Name>| match said {
            Some(said) => self.listed(&format!("{field}.{name}"), said),
            None => tag.clone(),
        };
        let contacts = who("contacts", &check.contacts, &tag.contacts);
        let contact_groups = who("contact_groups", &check.contact_groups, &tag.contact_groups);
        let mut number = |name: &str, said, most| self.bounded(&format!("{field}.{name}"), said, most);
        Times {
            interval: number("interval", check.interval, MAX_SECONDS).or(tag.interval),
            retry: number("retry", check.retry, MAX_SECONDS).or(tag.retry),
            attempts: number("attempts", check.attempts, MAX_ATTEMPTS).or(tag.attempts),
            period: match &check.period {
                Some(name) => self.parse(&format!("{field}.period"), name),
                None => tag.period.clone(),
            },
            contacts,
            contact_groups,
        }
    }

    fn address(&mut self, spec: &Spec) -> Option<Word> {
        let fill =
            |pattern: &str| pattern::fill(pattern, self.host, |_| None, |value, out| out.push_str(value));
        let said = match &spec.address {
            Some(pattern) => fill(pattern).transpose(),
            None => fill("{address}").transpose().or_else(|| fill("{address6}").transpose()),
        };
        let text = match said {
            None => self.host.name.to_string(),
            Some(Ok(text)) => text,
            Some(Err(why)) => {
                self.faults.push(format!("address: {why}"));
                return None;
            }
        };
        let is_address = text.parse::<std::net::IpAddr>().is_ok() || text.parse::<HostName>().is_ok();
        match text.parse() {
            Ok(word) if is_address => Some(word),
            _ => {
                self.faults.push(format!("address: {text:?} is neither an address nor a name"));
                None
            }
        }
    }

    fn labels(&mut self, field: &str, said: &BTreeMap<String, String>) -> BTreeMap<Label, Word> {
        let mut labels = BTreeMap::new();
        for (name, pattern) in said.iter().take(MAX_LISTED) {
            let field = format!("{field}.{name}");
            if RESERVED.contains(&name.as_str()) {
                self.faults.push(format!("{field}: {name} is said by the agent itself; take another name"));
                continue;
            }
            let Some(label) = self.parse(&field, name) else { continue };
            match self.fill::<Word>(&field, pattern) {
                Some(value) if value.is_reference() => {
                    self.faults.push(format!("{field}: a secret is named in args or authorization alone"));
                }
                Some(value) => drop(labels.insert(label, value)),
                None => {}
            }
        }
        labels
    }

    fn filled<T: FromStr<Err: ToString> + Ord>(&mut self, field: &str, said: &[String]) -> BTreeSet<T> {
        said.iter().take(MAX_LISTED).filter_map(|pattern| self.fill(field, pattern)).collect()
    }

    /// A pattern, filled in and parsed; nothing where the host lacks a field.
    fn fill<T: FromStr<Err: ToString>>(&mut self, field: &str, pattern: &str) -> Option<T> {
        match pattern::fill(pattern, self.host, |_| None, |value, out| out.push_str(value)) {
            Ok(filled) => self.parse(field, &filled?),
            Err(why) => {
                self.faults.push(format!("{field}: {why}"));
                None
            }
        }
    }

    fn listed(&mut self, field: &str, said: &[String]) -> BTreeSet<Name> {
        said.iter().take(MAX_LISTED).filter_map(|name| self.parse(field, name)).collect()
    }

    fn parse<T: FromStr<Err: ToString>>(&mut self, field: &str, text: &str) -> Option<T> {
        let parsed =
            text.parse().map_err(|why: T::Err| self.faults.push(format!("{field}: {}", why.to_string())));
        parsed.ok()
    }

    fn bounded(&mut self, field: &str, said: Option<u32>, most: u32) -> Option<u32> {
        let number = said?;
        if (1..=most).contains(&number) {
            return Some(number);
        }
        self.faults.push(format!("{field}: {number} is not between 1 and {most}"));
        None
    }
}
