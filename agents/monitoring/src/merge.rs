//! One host from all the sources that say something of it.
//!
//! What they say is put together. Where two say what excludes each other, the tag that comes first by name is right, and
//! the other is left out with both named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use shoal_agent::{Blocked, Desired, HostName, Lifecycle, Source};

use crate::agent::Commands;
use crate::item::{Call, Host, Item, Scrape, Service, Timing};
use crate::name::{AUTHORIZATION, DRAINING, Label, Name, STATE, Word};
use crate::offer::{Offer, Offered, Scraped, Times};
use crate::spec::{Scheme, Spec};
use crate::target::Server;

/// What is used where nobody says anything, in seconds and attempts.
const INTERVAL: u32 = 300;
const RETRY: u32 = 60;
const ATTEMPTS: u32 = 3;
/// How long Prometheus waits for an answer where nobody says it, in seconds.
const TIMEOUT: u32 = 10;

/// What one host should be at a server.
///
/// # Errors
/// It has no address that could be checked.
pub(crate) fn decide(
    server: Server,
    from: &[Source<'_, Spec>],
    commands: &Commands,
) -> Result<Desired<Item>, Blocked> {
    let mut merge = Merge::default();
    let mut draining = false;
    for source in from {
        draining |= source.host.is_some_and(|host| host.state == Lifecycle::Draining);
        if let Some(offer) = Offer::of(source, commands) {
            merge.add(offer);
        }
    }
    match server {
        Server::Nagios | Server::Icinga2 => merge.host(draining),
        Server::Prometheus => {
            let name = from.iter().find_map(Source::host_name).map(ToString::to_string).unwrap_or_default();
            merge.targets(&name, draining)
        }
    }
}

/// Something with the source that said it.
type Said<T> = Option<(T, Arc<str>)>;

/// Labels with the source that said each.
type Labels = BTreeMap<Label, (Word, Arc<str>)>;

/// A check of several sources.
struct Together {
    /// As the first says it; what the others add is in the other fields, or in its sets.
    first: Offered,
    /// Who that is.
    by: Arc<str>,
    timing: Merged,
    labels: Labels,
}

#[derive(Default)]
struct Merge {
    address: Said<Word>,
    check: Said<Call>,
    timing: Merged,
    labels: Labels,
    services: BTreeMap<Name, Together>,
    scrape: BTreeMap<Name, (Scraped, Arc<str>)>,
    bare: BTreeMap<Name, Arc<str>>,
    groups: BTreeSet<Name>,
    parents: BTreeSet<HostName>,
    depends_on: BTreeSet<HostName>,
    left_out: Vec<Blocked>,
}

#[derive(Default)]
struct Merged {
    interval: Said<u32>,
    retry: Said<u32>,
    attempts: Said<u32>,
    period: Said<Name>,
    contacts: BTreeSet<Name>,
    contact_groups: BTreeSet<Name>,
}

impl Merge {
    fn add(&mut self, offer: Offer) {
        let who: Arc<str> = offer.who.into();
        let left_out = &mut self.left_out;
        left_out.extend(offer.faults.into_iter().map(|why| Blocked::new(&*who, why)));
        one(&mut self.address, offer.address, &who, "address", left_out);
        one(&mut self.check, offer.check, &who, "host_check", left_out);
        self.timing.add(offer.timing, &who, "the host", left_out);
        labels(&mut self.labels, offer.labels, &who, "labels", left_out);
        self.groups.extend(offer.groups);
        self.parents.extend(offer.parents);
        self.depends_on.extend(offer.depends_on);
        for (name, mut offered) in offer.services {
            let timing = std::mem::take(&mut offered.timing);
            let said = std::mem::take(&mut offered.labels);
            let what = format!("checks.{name}");
            let Some(have) = self.services.get_mut(&name) else {
                let mut new = Together {
                    first: offered,
                    by: who.clone(),
                    timing: Merged::default(),
                    labels: Labels::new(),
                };
                new.timing.add(timing, &who, &what, left_out);
                labels(&mut new.labels, said, &who, &what, left_out);
                self.services.insert(name, new);
                continue;
            };
            if offered.own {
                // The host says it itself, and so says every tag of it.
                continue;
            }
            if have.first.call != offered.call {
                left_out.push(clash(&what, &offered.call, &who, &have.first.call, &have.by));
                continue;
            }
            have.timing.add(timing, &who, &what, left_out);
            labels(&mut have.labels, said, &who, &format!("{what}.labels"), left_out);
            have.first.groups.extend(offered.groups);
            have.first.depends_on.extend(offered.depends_on);
        }
        for (job, scraped) in offer.scrape {
            match self.scrape.get(&job) {
                Some((have, _)) if *have == scraped => {}
                Some((_, by)) => left_out.push(Blocked {
                    who: vec![who.to_string(), by.to_string()],
                    why: format!("scrape.{job}: {who} says it otherwise than {by}, which is used; one of them must give way"),
                }),
                None => drop(self.scrape.insert(job, (scraped, who.clone()))),
            }
        }
        for name in offer.bare {
            self.bare.entry(name).or_insert_with(|| who.clone());
        }
    }

    /// What Prometheus scrapes of it.
    fn targets(self, name: &str, draining: bool) -> Result<Desired<Item>, Blocked> {
        let Some((address, _)) = self.address else { return Err(nowhere(self.left_out)) };
        let own = bare(self.labels);
        let scrape = |(job, (scraped, _)): (Name, (Scraped, Arc<str>))| {
            let Scraped { port, authorization, scheme, path, interval, labels } = scraped;
            let target = match address.as_str().parse() {
                Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
                _ => format!("{address}:{port}"),
            };
            let mut all: BTreeMap<String, String> = own
                .iter()
                .chain(&labels)
                .map(|(label, value)| (label.to_string(), value.to_string()))
                .collect();
            all.insert("instance".to_owned(), format!("{name}:{port}"));
            let how = [
                (STATE, draining.then(|| DRAINING.to_owned())),
                (
                    "__scheme__",
                    scheme.map(|scheme| if scheme == Scheme::Http { "http" } else { "https" }.to_owned()),
                ),
                (AUTHORIZATION, authorization.map(|secret| secret.name().to_owned())),
                ("__metrics_path__", path.map(|path| path.to_string())),
                ("__scrape_interval__", interval.map(|seconds| format!("{seconds}s"))),
                // Prometheus drops a target that may be waited for longer than until its next turn.
                (
                    "__scrape_timeout__",
                    interval.filter(|seconds| *seconds < TIMEOUT).map(|seconds| format!("{seconds}s")),
                ),
            ];
            all.extend(how.into_iter().filter_map(|(label, value)| Some((label.to_owned(), value?))));
            (job, Scrape { target, labels: all })
        };
        let jobs: BTreeMap<_, _> = self.scrape.into_iter().map(scrape).collect();
        let item = (!jobs.is_empty()).then(|| Item::Targets(Arc::new(jobs)));
        Ok(Desired { item, left_out: self.left_out })
    }

    /// How a server checks it that makes checks of its own.
    fn host(self, draining: bool) -> Result<Desired<Item>, Blocked> {
        let mut left_out = self.left_out;
        for (name, who) in self.bare.iter().filter(|(name, _)| !self.services.contains_key(name)) {
            let why = format!("checks.{name}: no tag gives it a command");
            left_out.push(Blocked::new(&**who, why));
        }
        let Some((address, _)) = self.address else { return Err(nowhere(left_out)) };
        let host_timing = self.timing.finish();
        let names: Vec<Name> = self.services.keys().cloned().collect();
        let service = |(name, Together { first, by, timing, labels }): (Name, Together)| {
            let Offered { call, groups, mut depends_on, .. } = first;
            depends_on.retain(|on| {
                let known = *on != name && names.binary_search(on).is_ok();
                if !known {
                    let why = format!("checks.{name}.depends_on: {on} is no other check of this host");
                    left_out.push(Blocked::new(&*by, why));
                }
                known
            });
            let timing = Some(timing.finish()).filter(|timing| *timing != host_timing);
            (name, Service { check: call, timing, groups, labels: bare(labels), depends_on })
        };
        let services = self.services.into_iter().map(service).collect();
        let mut labels = bare(self.labels);
        if draining {
            labels.insert(Label::state(), Word::draining());
        }
        let host = Host {
            address,
            draining,
            paused: false,
            check: self.check.map(|(call, _)| call),
            timing: host_timing,
            groups: self.groups,
            labels,
            parents: self.parents,
            depends_on: self.depends_on,
            services,
        };
        Ok(Desired { item: Some(Item::Host(Arc::new(host))), left_out })
    }
}

impl Merged {
    fn add(&mut self, said: Times, who: &Arc<str>, what: &str, left_out: &mut Vec<Blocked>) {
        one(&mut self.interval, said.interval, who, &format!("{what}: interval"), left_out);
        one(&mut self.retry, said.retry, who, &format!("{what}: retry"), left_out);
        one(&mut self.attempts, said.attempts, who, &format!("{what}: attempts"), left_out);
        one(&mut self.period, said.period, who, &format!("{what}: period"), left_out);
        self.contacts.extend(said.contacts);
        self.contact_groups.extend(said.contact_groups);
    }

    fn finish(self) -> Timing {
        let or = |said: Said<u32>, usual| said.map_or(usual, |(number, _)| number);
        Timing {
            interval: or(self.interval, INTERVAL),
            retry: or(self.retry, RETRY),
            attempts: or(self.attempts, ATTEMPTS),
            period: self.period.map(|(name, _)| name),
            contacts: self.contacts,
            contact_groups: self.contact_groups,
        }
    }
}

/// Why there is no address.
fn nowhere(left_out: Vec<Blocked>) -> Blocked {
    let said = left_out.into_iter().find(|blocked| blocked.why.starts_with("address"));
    said.unwrap_or_else(|| Blocked::new("monitoring", "no source has a host"))
}

/// Of several that say one thing the first is right.
fn one<T: PartialEq + Display>(
    first: &mut Said<T>,
    said: Option<T>,
    who: &Arc<str>,
    what: &str,
    left_out: &mut Vec<Blocked>,
) {
    let Some(said) = said else { return };
    match first {
        Some((have, _)) if *have == said => {}
        Some((have, by)) => left_out.push(clash(what, &said, who, have, by)),
        None => *first = Some((said, who.clone())),
    }
}

fn labels(
    first: &mut Labels,
    said: BTreeMap<Label, Word>,
    who: &Arc<str>,
    what: &str,
    left_out: &mut Vec<Blocked>,
) {
    for (label, value) in said {
        match first.get(&label) {
            Some((have, _)) if *have == value => {}
            Some((have, by)) => left_out.push(clash(&format!("{what}.{label}"), &value, who, have, by)),
            None => drop(first.insert(label, (value, who.clone()))),
        }
    }
}

fn bare(labels: Labels) -> BTreeMap<Label, Word> {
    labels.into_iter().map(|(label, (value, _))| (label, value)).collect()
}

fn clash(what: &str, said: &dyn Display, who: &str, have: &dyn Display, by: &str) -> Blocked {
    Blocked {
        who: vec![who.to_owned(), by.to_owned()],
        why: format!(
            "{what}: {who} says {said}, and {by} says {have}, which is used; one of them must give way"
        ),
    }
}
