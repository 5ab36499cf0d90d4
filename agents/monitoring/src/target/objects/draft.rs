//! What goes into the candidate, and what is left out of it.
//!
//! One bad definition must not hold up the others. What the checker names is left out: a check whose command the server does
//! not have, a contact group that it does not know, a host that somebody has defined already. The host's change is then
//! reported as failed, with what the checker said, and everything else goes live. A check that stood before stays as it stood.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_agent::secrets::SecretRef;
use shoal_agent::{Fault, HostName};

use super::Dialect;
use super::file::{self, Around};
use super::known::{Entry, Known};
use super::tree::Shard;
use super::vault::Vault;
use crate::define::{self, Definition};
use crate::item::{Host, Service, Subject, Timing};
use crate::name::Name;

/// When enough is said of one host.
const MAX_SAID: usize = 1_000;

/// What defines one thing for the whole server.
type Defined = (define::Kind, Name);

/// The files as they shall be: changed in place, and put back if it comes to nothing.
pub(super) struct Draft<'a> {
    pub(super) known: &'a mut Known,
    unit: u32,
    /// What was there before.
    before: BTreeMap<HostName, Option<Entry>>,
    defined: BTreeMap<Defined, Option<Arc<Definition>>>,
    /// The shards to write.
    pub(super) touched: BTreeSet<Shard>,
    /// What does not go in as it was wanted, and why.
    pub(super) faults: BTreeMap<Subject, Fault>,
}

/// What a checker complains about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::target) enum Blame {
    /// The server does not have this one.
    Unknown(Kind, Name),
    /// The server has this group already.
    Twice(&'static str, Name),
    /// The server no longer has this group.
    Gone(&'static str, Name),
    /// What a tag defines.
    Definition(define::Kind, Name),
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

impl Kind {
    /// What a tag would define it as.
    fn defined(self) -> Option<define::Kind> {
        match self {
            Self::Command => None,
            Self::Contact => Some(define::Kind::Contact),
            Self::ContactGroup => Some(define::Kind::ContactGroup),
            Self::Period => Some(define::Kind::Period),
        }
    }

    /// Whether this timing names it.
    fn in_timing(self, timing: &Timing, name: &Name) -> bool {
        match self {
            Self::Command => false,
            Self::Contact => timing.contacts.contains(name),
            Self::ContactGroup => timing.contact_groups.contains(name),
            Self::Period => timing.period.as_ref() == Some(name),
        }
    }

    /// Takes it out of this timing.
    fn take(self, timing: &mut Timing, name: &Name) {
        match self {
            Self::Command => {}
            Self::Contact => drop(timing.contacts.remove(name)),
            Self::ContactGroup => drop(timing.contact_groups.remove(name)),
            Self::Period => drop(timing.period.take_if(|period| period == name)),
        }
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(known: &'a mut Known, unit: u32) -> Self {
        known.unsettled = true;
        let touched = known.stray.clone();
        let (before, defined, faults) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { known, unit, before, defined, touched, faults }
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

    /// This shall be defined so, or not at all.
    pub(super) fn define(&mut self, of: Defined, definition: Option<Arc<Definition>>) {
        let definitions = &mut self.known.own.definitions;
        let had = match definition {
            Some(definition) => definitions.insert(of.clone(), definition),
            None => definitions.remove(&of),
        };
        self.defined.entry(of).or_insert(had);
    }

    /// Whether what is defined changes.
    pub(super) fn defines(&self) -> bool {
        !self.defined.is_empty()
    }

    /// What is still named stays defined, and who names it is said. Proportional to all hosts, where something is to go.
    pub(super) fn keep_what_is_named(&mut self) {
        let mut going: BTreeMap<Defined, Arc<Definition>> = BTreeMap::new();
        for (of, had) in &self.defined {
            if let (Some(had), false) = (had, self.known.own.definitions.contains_key(of)) {
                going.insert(of.clone(), had.clone());
            }
        }
        // What stays names others.
        while let Some((of, by)) = going.keys().find_map(|of| Some((of.clone(), self.who_names(of)?))) {
            let fault = Fault::new(format!("remove the {} {}", of.0, of.1), format!("{by} still names it"))
                .next("take the name out there first; until then it stays");
            let had = going.remove(&of);
            self.define(of.clone(), had);
            self.faults.insert(Subject::Definition(of.0, of.1), fault);
        }
    }

    fn who_names(&self, (kind, name): &Defined) -> Option<String> {
        let named = match kind {
            define::Kind::Period => Kind::Period,
            define::Kind::Contact => Kind::Contact,
            define::Kind::ContactGroup => Kind::ContactGroup,
        };
        let is_named = |entry: &Entry| {
            let services = entry.host.services.values().filter_map(|service| service.timing.as_ref());
            services.chain([&entry.host.timing]).any(|timing| named.in_timing(timing, name))
        };
        let host = self.known.hosts.iter().find(|(_, entry)| is_named(entry));
        host.map(|(host, _)| host.to_string()).or_else(|| {
            let definitions = self.known.own.definitions.iter();
            let found = definitions.into_iter().find(|(_, definition)| definition.names(*kind, name));
            found.map(|((kind, by), _)| format!("{kind} {by}"))
        })
    }

    /// What the dialect cannot say of this server is left out.
    pub(super) fn leave_out_undefinable<D: Dialect>(&mut self, dialect: &D) {
        let of: Vec<Defined> = self.defined.keys().cloned().collect();
        for of in of {
            let definition = self.known.own.definitions.get(&of);
            if let Some(fault) = definition.and_then(|definition| dialect.refuses(&of.1, definition)) {
                self.drop_definition(&of);
                self.faults.insert(Subject::Definition(of.0, of.1), fault);
            }
        }
    }

    /// It stays as it was, or is not there.
    fn drop_definition(&mut self, of: &Defined) -> bool {
        let Some(now) = self.known.own.definitions.get(of).cloned() else { return false };
        let before = self.defined.get(of).cloned().flatten().filter(|before| *before != now);
        self.define(of.clone(), before);
        true
    }

    /// Checks that name a secret which cannot be had are left out, and said.
    pub(super) fn leave_out_without(&mut self, missing: &BTreeMap<SecretRef, Fault>) {
        let names = missing.keys().cloned().collect();
        for name in self.known.naming(&names) {
            let Some(entry) = self.known.hosts.get(&name) else { continue };
            let needs = |call: &crate::item::Call| call.secrets().find(|secret| missing.contains_key(secret));
            let mut host = (*entry.host).clone();
            let before = self.stood(&name);
            let mut why = host.check.take_if(|check| needs(check).is_some()).and_then(|check| needs(&check));
            let all: Vec<Name> = host.services.keys().cloned().collect();
            for check in all {
                if let Some(secret) = needs(&host.services[&check].check) {
                    back(&mut host, before.as_deref(), &check, |stood| needs(&stood.check).is_none());
                    why.get_or_insert(secret);
                }
            }
            // Its place in a plan and a log holds the reference alone.
            if let Some(fault) = why.and_then(|secret| missing.get(&secret)) {
                self.put(&name, Some(Arc::new(host)));
                let mut fault = fault.clone();
                fault.what = format!("write the checks of {name}: {}", fault.what);
                fault.why += "; the check that needs it is left out";
                self.faults.insert(Subject::Host(name), fault);
            }
        }
    }

    /// The shards of hosts that name one of these secrets are written anew.
    pub(super) fn rewrite(&mut self, secrets: &BTreeSet<SecretRef>) {
        for name in self.known.naming(secrets) {
            if let Some(entry) = self.known.hosts.get_mut(&name) {
                entry.odd = None;
            }
            self.touched.insert(Shard::of(&name));
        }
    }

    /// The text of every shard to write; empty: without that shard.
    pub(super) fn render<D: Dialect>(&self, vault: &Vault) -> BTreeMap<Shard, String> {
        let known = &*self.known;
        let knows = |name: &HostName| known.hosts.contains_key(name);
        let slot = |secret: &SecretRef| vault.slot(secret);
        let around = Around { unit: self.unit, knows: &knows, slot: &slot };
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
        for (of, definition) in self.defined {
            match definition {
                Some(definition) => drop(self.known.own.definitions.insert(of, definition)),
                None => drop(self.known.own.definitions.remove(&of)),
            }
        }
        self.known.unsettled = false;
    }

    /// Leaves out what the checker blames, and says of each host what was said; `false` if it names nothing that could be
    /// left out.
    pub(super) fn leave_out_all<D: Dialect>(&mut self, mut blames: BTreeMap<Blame, String>) -> bool {
        // What is unknown is behind much of what else is said.
        let first = |blame: &Blame| matches!(blame, Blame::Unknown(..) | Blame::Twice(..) | Blame::Gone(..));
        if blames.keys().any(first) {
            blames.retain(|blame, _| first(blame));
        }
        let mut found = false;
        for (blame, said) in blames {
            found |= self.leave_out::<D>(&blame, &said);
        }
        found
    }

    fn leave_out<D: Dialect>(&mut self, blame: &Blame, said: &str) -> bool {
        match blame {
            Blame::Twice(kind, name) => self.known.own.elsewhere.insert((kind, name.clone())),
            Blame::Gone(kind, name) => self.known.own.elsewhere.remove(&(kind, name.clone())),
            Blame::Unknown(kind, name) => self.without::<D>(*kind, name, said),
            Blame::Definition(kind, name) => {
                let found = self.drop_definition(&(*kind, name.clone()));
                if found {
                    self.faulty::<D>(Subject::Definition(*kind, name.clone()), said);
                }
                found
            }
            Blame::Service(name, service) => self.reduce::<D>(name, said, |host, before| {
                let Some(now) = host.services.get(service).cloned() else { return false };
                back(host, before, service, |stood| *stood != now);
                true
            }),
            Blame::Host(name) => {
                if !self.known.hosts.contains_key(name) {
                    return false;
                }
                let before = self.before.get(name).cloned().flatten().map(|entry| entry.host);
                let now = self.known.hosts.get(name).map(|entry| entry.host.clone());
                // As it was, if that was something else; else not at all.
                let subject = Subject::Host(name.clone());
                let back = before
                    .filter(|before| Some(before) != now.as_ref() && !self.faults.contains_key(&subject));
                self.put(name, back);
                self.faulty::<D>(subject, said);
                true
            }
        }
    }

    /// Takes out of everything what the server does not have.
    fn without<D: Dialect>(&mut self, kind: Kind, name: &Name, said: &str) -> bool {
        let strip = |host: &mut Host, before: Option<&Host>| match kind {
            Kind::Command => without_command(host, before, name),
            _ => without_name(host, before, kind, name),
        };
        let all: Vec<HostName> = self.known.hosts.keys().cloned().collect();
        let mut found = false;
        for host in all {
            found |= self.reduce::<D>(&host, said, strip);
        }
        let Some(kind) = kind.defined() else { return found };
        let definitions = self.known.own.definitions.iter();
        let naming: Vec<Defined> = definitions
            .filter(|(_, definition)| definition.names(kind, name))
            .map(|(of, _)| of.clone())
            .collect();
        for of in naming {
            found |= self.drop_definition(&of);
            self.faulty::<D>(Subject::Definition(of.0, of.1), said);
        }
        found
    }

    /// The host as it stood before this draft.
    fn stood(&self, name: &HostName) -> Option<Arc<Host>> {
        let before = match self.before.get(name) {
            Some(before) => before.as_ref(),
            None => self.known.hosts.get(name),
        };
        before.map(|entry| entry.host.clone())
    }

    /// Takes something out of a host; whether it was there. `strip` gets the host, and how it stood before.
    fn reduce<D: Dialect>(
        &mut self,
        name: &HostName,
        said: &str,
        strip: impl Fn(&mut Host, Option<&Host>) -> bool,
    ) -> bool {
        let Some(entry) = self.known.hosts.get(name) else { return false };
        let mut host = (*entry.host).clone();
        if !strip(&mut host, self.stood(name).as_deref()) {
            return false;
        }
        connect(&mut host);
        self.put(name, Some(Arc::new(host)));
        self.faulty::<D>(Subject::Host(name.clone()), said);
        true
    }

    fn faulty<D: Dialect>(&mut self, subject: Subject, said: &str) {
        let what = match &subject {
            Subject::Definition(kind, name) => format!("define the {kind} {name}"),
            Subject::Host(name) => format!("write the checks of {name}"),
            Subject::Server | Subject::Rules(_) => format!("write the objects of {}", D::NAME),
        };
        let new = || {
            Fault::new(what, format!("{} refuses part of them, which is left out", D::NAME))
                .next("correct the tag or the host that it comes from, or give the server what it lacks")
                .permanent()
        };
        let fault = self.faults.entry(subject).or_insert_with(new);
        if fault.why.len() < MAX_SAID {
            fault.why += if fault.why.contains(": ") { "; " } else { ": " };
            fault.why += said;
        }
    }
}

/// Checks that are there depend on checks that are there.
fn connect(host: &mut Host) {
    let names: BTreeSet<Name> = host.services.keys().cloned().collect();
    for service in host.services.values_mut() {
        service.depends_on.retain(|on| names.contains(on));
    }
}

/// A check goes back to how it stood, if that `fits`, or goes.
fn back(host: &mut Host, before: Option<&Host>, check: &Name, fits: impl Fn(&Service) -> bool) {
    let stood = before.and_then(|before| Some((before, before.services.get(check)?)));
    match stood.filter(|(_, stood)| fits(stood)) {
        Some((before, stood)) => {
            let timing = before.timing_of(stood);
            let timing = (*timing != host.timing).then(|| timing.clone());
            host.services.insert(check.clone(), Service { timing, ..stood.clone() });
        }
        None => drop(host.services.remove(check)),
    }
    connect(host);
}

/// Without a command that the server does not have.
fn without_command(host: &mut Host, before: Option<&Host>, name: &Name) -> bool {
    let found = host.check.take_if(|check| check.command == *name).is_some();
    let with = host.services.iter().filter(|(_, service)| service.check.command == *name);
    let all: Vec<Name> = with.map(|(check, _)| check.clone()).collect();
    for check in &all {
        back(host, before, check, |stood| stood.check.command != *name);
    }
    found || !all.is_empty()
}

/// Without a name that the server does not have. What the host is told with goes on without it; a check that alone says it is
/// as it stood before. One that stood with it, when the server had it, goes on without it: no check ends for that.
fn without_name(host: &mut Host, before: Option<&Host>, kind: Kind, name: &Name) -> bool {
    let of_host = kind.in_timing(&host.timing, name);
    let has = |host: &Host, check: &Name| {
        let service = host.services.get(check);
        service.is_some_and(|service| kind.in_timing(host.timing_of(service), name))
    };
    let all: Vec<Name> = host.services.keys().filter(|check| has(host, check)).cloned().collect();
    kind.take(&mut host.timing, name);
    for check in &all {
        if of_host || before.is_some_and(|before| has(before, check)) {
            if let Some(timing) = host.services.get_mut(check).and_then(|service| service.timing.as_mut()) {
                kind.take(timing, name);
            }
        } else {
            back(host, before, check, |_| true);
        }
    }
    of_host || !all.is_empty()
}
