//! What goes into the candidate, and what is left out of it.
//!
//! One bad definition must not hold up the others. What the checker names is left out: a check whose command the server does
//! not have, a contact group that it does not know, a host that somebody has defined already. The host's change is then
//! reported as failed, with what the checker said, and everything else goes live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_agent::{Fault, HostName};

use super::Dialect;
use super::file::{self, Around};
use super::known::{Entry, Known};
use super::tree::Shard;
use crate::item::{Host, Timing};
use crate::name::Name;

/// When enough is said of one host.
const MAX_SAID: usize = 1_000;

/// The files as they shall be: changed in place, and put back if it comes to nothing.
pub(super) struct Draft<'a> {
    pub(super) known: &'a mut Known,
    unit: u32,
    /// What was there before.
    before: BTreeMap<HostName, Option<Entry>>,
    /// The shards to write.
    pub(super) touched: BTreeSet<Shard>,
    /// What does not go in as it was wanted, and why.
    pub(super) faults: BTreeMap<HostName, Fault>,
}

/// What a checker complains about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::target) enum Blame {
    /// The server does not have this one.
    Unknown(Kind, Name),
    /// The server has this group already.
    Twice(&'static str, Name),
    /// This check of this host.
    Service(HostName, Name),
    /// This host.
    Host(HostName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::target) enum Kind {
    Command,
    Contact,
    ContactGroup,
    Period,
}

impl<'a> Draft<'a> {
    pub(super) fn new(known: &'a mut Known, unit: u32) -> Self {
        known.unsettled = true;
        let touched = known.stray.clone();
        Self { known, unit, before: BTreeMap::new(), touched, faults: BTreeMap::new() }
    }

    /// This host shall stand so, or not at all.
    pub(super) fn put(&mut self, name: &HostName, host: Option<Arc<Host>>) {
        let had = self.known.hosts.get(name).cloned();
        let appears = had.is_some() != host.is_some();
        self.before.entry(name.clone()).or_insert(had);
        self.known.put(name.clone(), host.map(|host| Entry { host, odd: None }));
        self.touched.insert(Shard::of(name));
        if appears {
            self.touched.extend(self.known.namers(name).map(Shard::of));
        }
    }

    /// The text of every shard to write; empty: without that shard.
    pub(super) fn render<D: Dialect>(&self) -> BTreeMap<Shard, String> {
        let known = &*self.known;
        let knows = |name: &HostName| known.hosts.contains_key(name);
        let around = Around { unit: self.unit, knows: &knows };
        let text = |shard: Shard| {
            let mut hosts = known
                .in_shard(shard)
                .filter_map(|name| {
                    known.hosts.get(name).map(|entry| (name, &*entry.host, entry.odd.as_deref()))
                })
                .peekable();
            if hosts.peek().is_none() { String::new() } else { file::file::<D>(hosts, &around) }
        };
        self.touched.iter().map(|&shard| (shard, text(shard))).collect()
    }

    /// It came to nothing: all is as it was.
    pub(super) fn undo(self) {
        for (name, entry) in self.before {
            self.known.put(name, entry);
        }
        self.known.unsettled = false;
    }

    /// Leaves out what the checker blames, and says of each host what was said; `false` if it names nothing that could be
    /// left out.
    pub(super) fn leave_out_all<D: Dialect>(&mut self, mut blames: BTreeMap<Blame, String>) -> bool {
        // What is unknown is behind much of what else is said.
        if blames.keys().any(|blame| matches!(blame, Blame::Unknown(..) | Blame::Twice(..))) {
            blames.retain(|blame, _| matches!(blame, Blame::Unknown(..) | Blame::Twice(..)));
        }
        let mut found = false;
        for (blame, said) in blames {
            found |= self.leave_out::<D>(&blame, &said);
        }
        found
    }

    fn leave_out<D: Dialect>(&mut self, blame: &Blame, said: &str) -> bool {
        match blame {
            Blame::Twice(kind, name) => self.known.elsewhere.insert((kind, name.clone())),
            Blame::Unknown(kind, name) => self.without::<D>(*kind, name, said),
            Blame::Service(name, service) => {
                self.reduce::<D>(name, said, |host| host.services.remove(service).is_some())
            }
            Blame::Host(name) => {
                if !self.known.hosts.contains_key(name) {
                    return false;
                }
                let before = self.before.get(name).cloned().flatten().map(|entry| entry.host);
                let now = self.known.hosts.get(name).map(|entry| entry.host.clone());
                // As it was, if that was something else; else not at all.
                let back =
                    before.filter(|before| Some(before) != now.as_ref() && !self.faults.contains_key(name));
                self.put(name, back);
                self.faulty::<D>(name, said);
                true
            }
        }
    }

    /// Takes out of every host what the server does not have.
    fn without<D: Dialect>(&mut self, kind: Kind, name: &Name, said: &str) -> bool {
        let timing = |timing: &mut Timing| match kind {
            Kind::Command => false,
            Kind::Contact => timing.contacts.remove(name),
            Kind::ContactGroup => timing.contact_groups.remove(name),
            Kind::Period => timing.period.take_if(|period| period == name).is_some(),
        };
        let strip = |host: &mut Host| {
            let mut found = timing(&mut host.timing);
            if kind == Kind::Command {
                found |= host.check.take_if(|check| check.command == *name).is_some();
                let all = host.services.len();
                host.services.retain(|_, service| service.check.command != *name);
                found |= host.services.len() < all;
            }
            for service in host.services.values_mut() {
                found |= service.timing.as_mut().is_some_and(timing);
            }
            found
        };
        let all: Vec<HostName> = self.known.hosts.keys().cloned().collect();
        let mut found = false;
        for host in all {
            found |= self.reduce::<D>(&host, said, strip);
        }
        found
    }

    /// Takes something out of a host; whether it was there.
    fn reduce<D: Dialect>(&mut self, name: &HostName, said: &str, strip: impl Fn(&mut Host) -> bool) -> bool {
        let Some(entry) = self.known.hosts.get(name) else { return false };
        let mut host = (*entry.host).clone();
        if !strip(&mut host) {
            return false;
        }
        let names: BTreeSet<Name> = host.services.keys().cloned().collect();
        for service in host.services.values_mut() {
            service.depends_on.retain(|on| names.contains(on));
        }
        self.put(name, Some(Arc::new(host)));
        self.faulty::<D>(name, said);
        true
    }

    fn faulty<D: Dialect>(&mut self, name: &HostName, said: &str) {
        let new = || {
            Fault::new(
                format!("write the checks of {name}"),
                format!("{} refuses part of them, which is left out", D::NAME),
            )
            .next("correct the tag or the host that it comes from, or give the server what it lacks")
            .permanent()
        };
        let fault = self.faults.entry(name.clone()).or_insert_with(new);
        if fault.why.len() < MAX_SAID {
            fault.why += if fault.why.contains(": ") { "; " } else { ": " };
            fault.why += said;
        }
    }
}
