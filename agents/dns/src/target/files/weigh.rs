//! What goes into the candidate, and what is refused.
//!
//! One bad record must not hold up a zone. A name that the checker or Shoal itself refuses is put back to what the file
//! has now. Where it has nothing, or where that is what is refused, the name goes on without the bad record. Either way
//! its change is reported as failed, and the rest goes on.

use std::collections::{BTreeMap, BTreeSet};

use shoal_agent::{Applied, Batch, Edit, Fault, Line, Outcome};

use super::kind::ServerKind;
use crate::Dns;
use crate::name::{self, Zone};
use crate::rdata::Rtype;
use crate::record::{Key, Node};
use crate::target::zonefile::Rendered;

/// A zone as it shall be written.
pub(super) struct Draft<'a> {
    zone: &'a Zone,
    kind: ServerKind,
    current: &'a BTreeMap<Key, Node>,
    after: Vec<(&'a Key, &'a Node)>,
    /// What stays as it is in the file, and why.
    refused: BTreeMap<Key, Fault>,
    /// What is written without the records that cannot be, and why they cannot.
    reduced: BTreeMap<Key, (Node, Fault)>,
}

impl<'a> Draft<'a> {
    /// What the batch wants.
    pub(super) fn new(
        zone: &'a Zone,
        kind: ServerKind,
        batch: &'a Batch<Dns>,
        current: &'a BTreeMap<Key, Node>,
    ) -> Self {
        let node = |line: &'a Line<Dns>| match line {
            Line::Want(node) => node,
            Line::Keep(have) => &have.records,
        };
        let after = batch.after.iter().map(|(key, line)| (key, node(line))).collect();
        Self { zone, kind, current, after, refused: BTreeMap::new(), reduced: BTreeMap::new() }
    }

    /// Whether it has a start of authority, so that it is a zone at all.
    pub(super) fn is_zone(&self) -> bool {
        self.get(&Key::apex(self.zone)).is_some_and(|node| node.set(Rtype::SOA).is_some())
    }

    /// The records of a name as they shall be.
    fn get(&self, key: &Key) -> Option<&Node> {
        if let Some((node, _)) = self.reduced.get(key) {
            return Some(node).filter(|node| !node.sets.is_empty());
        }
        if self.refused.contains_key(key) {
            return self.current.get(key);
        }
        self.after.binary_search_by(|(at, _)| (*at).cmp(key)).ok().map(|at| self.after[at].1)
    }

    /// All names with their records, in order.
    pub(super) fn lines(&self) -> Vec<(&Key, &Node)> {
        if self.refused.is_empty() && self.reduced.is_empty() {
            return self.after.clone();
        }
        let mut keys: Vec<&Key> = self.after.iter().map(|(key, _)| *key).chain(self.refused.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter().filter_map(|key| self.get(key).map(|node| (key, node))).collect()
    }

    /// What differs from the file: what each such name shall be.
    pub(super) fn differences(&self) -> Vec<(Key, Option<Node>)> {
        let mut found = Vec::new();
        let lines = self.lines();
        let mut current = self.current.iter().peekable();
        for (key, node) in lines {
            while let Some((gone, _)) = current.next_if(|(at, _)| *at < key) {
                found.push((gone.clone(), None));
            }
            match current.next_if(|(at, _)| *at == key) {
                Some((_, now)) if now == node => {}
                _ => found.push((key.clone(), Some(node.clone()))),
            }
        }
        found.extend(current.map(|(gone, _)| (gone.clone(), None)));
        found
    }

    /// Leaves out what is more than the server keeps under one name and type: it would load no part of the zone. Which
    /// records stay does not depend on what stood there before, so that none of them is a stale one.
    pub(super) fn bound(&mut self, most: usize) {
        let over = |node: &Node| node.sets.len() > most || node.sets.iter().any(|set| set.data.len() > most);
        let over: Vec<(Key, Node)> = self
            .lines()
            .into_iter()
            .filter(|(_, node)| over(node))
            .map(|(key, node)| (key.clone(), node.clone()))
            .collect();
        for (key, mut node) in over {
            let mut why = Vec::new();
            if node.sets.len() > most {
                why.push(format!("it has records of {} types", node.sets.len()));
                node.sets_mut().truncate(most);
            }
            for set in node.sets_mut().iter_mut().filter(|set| set.data.len() > most) {
                why.push(format!("it has {} {} records", set.data.len(), set.rtype));
                set.data.truncate(most);
            }
            let why = format!(
                "{}, and {} loads no zone with more than {most} of them; the others are left out",
                why.join(" and "),
                self.kind.traits().name
            );
            let raise = match self.kind {
                ServerKind::Bind => "raise max-records-per-type and max-types-per-name in named.conf and ",
                ServerKind::Nsd | ServerKind::Knot => "raise ",
            };
            let fault = Fault::new(format!("write {}", key.name()), why)
                .next(format!("take members out, or {raise}max_records in {}", self.kind.traits().table));
            let fault = fault.permanent();
            tracing::warn!(zone = %self.zone, "{fault}");
            self.reduced.insert(key, (node, fault));
        }
    }

    /// Leaves out what stands below a DNAME, where the server would load no part of the zone for it. No server answers
    /// for such names.
    pub(super) fn below_dnames(&mut self) {
        let server = self.kind.traits();
        let lines = self.lines();
        let is_top = |node: &Node| node.set(Rtype::DNAME).is_some();
        if !server.bare_dnames || !lines.iter().any(|(_, node)| is_top(node)) {
            return;
        }
        let tops: BTreeSet<&str> =
            lines.iter().filter(|(_, node)| is_top(node)).map(|(key, _)| key.owner()).collect();
        let above = |key: &Key| {
            let mut ways = std::iter::successors(Some(key.owner()), |owner| Some(owner.split_once('.')?.1));
            let top = ways.find(|way| *way != key.owner() && tops.contains(way));
            top.map(str::to_owned).or_else(|| (!key.is_apex() && tops.contains("@")).then(|| "@".to_owned()))
        };
        let below: Vec<(Key, String)> =
            lines.iter().filter_map(|(key, _)| Some(((*key).clone(), above(key)?))).collect();
        for (key, top) in below {
            let top = Key::new(self.zone, &top).name();
            let why = format!(
                "it is below the DNAME {top}, which hides it, and {} loads no zone with such names; it is left out",
                server.name
            );
            let fault = Fault::new(format!("write {}", key.name()), why);
            let fault = fault.next(format!("take it or the DNAME {top} out of the tags")).permanent();
            tracing::warn!(zone = %self.zone, "{fault}");
            self.reduced.insert(key, (Node::default(), fault));
        }
    }

    /// Sees to it that every name server inside the zone has an address, without which no server loads the zone.
    ///
    /// # Errors
    /// No name server is left.
    pub(super) fn name_servers(&mut self) -> Result<(), Fault> {
        let apex = Key::apex(self.zone);
        let Some(node) = self.get(&apex) else { return Ok(()) };
        let Some(servers) = node.set(Rtype::NS) else {
            return Err(self.fault("it has no name server", "give the tag ns, or a primary in its soa"));
        };
        let bad: Vec<String> =
            servers.data.iter().filter(|server| !self.has_address(server)).cloned().collect();
        if bad.is_empty() {
            return Ok(());
        }
        let mut node = node.clone();
        let mut drop = Vec::new();
        for server in bad {
            let why = format!("{server} is a name server of the zone and needs an address here");
            let key = self.inside(&server);
            match key.filter(|key| {
                self.current.get(key).is_some_and(has_address) && !self.refused.contains_key(key)
            }) {
                // Its address is about to go: keep it.
                Some(key) => {
                    let fault = Fault::new(format!("change {}", key.name()), why);
                    self.refused.insert(key, fault.next("take it out of the zone's ns first").permanent());
                }
                None => drop.push((server, why)),
            }
        }
        let Some((_, why)) = drop.first() else { return Ok(()) };
        let fault = Fault::new(format!("write the name servers of {}", self.zone), why);
        let fault = fault.next("give it an A or AAAA record, or take it out of ns").permanent();
        if let Some(set) = node.sets_mut().iter_mut().find(|set| set.rtype == Rtype::NS) {
            set.data.retain(|server| drop.iter().all(|(bad, _)| bad != server));
            if set.data.is_empty() {
                return Err(fault);
            }
        }
        tracing::warn!(zone = %self.zone, "{fault}");
        self.reduced.insert(apex, (node, fault));
        Ok(())
    }

    fn fault(&self, why: &str, next: &str) -> Fault {
        Fault::new(format!("write the zone {}", self.zone), why).next(next).permanent()
    }

    /// The key of a complete name, if it lies in the zone.
    fn inside(&self, name: &str) -> Option<Key> {
        let name = name.trim_end_matches('.');
        name::within(name, self.zone)
            .map(|owner| Key::new(self.zone, if owner.is_empty() { "@" } else { owner }))
    }

    /// Whether a name has an address, itself or through a wildcard, or is none of this zone's business. As BIND looks it
    /// up: a name below a DNAME has none, whatever stands there, and one that is given away need not have any.
    fn has_address(&self, name: &str) -> bool {
        let Some(key) = self.inside(name) else { return true };
        let ways: Vec<&str> =
            std::iter::successors(Some(key.owner()), |owner| Some(owner.split_once('.')?.1)).collect();
        let at = |owner: &str| self.get(&Key::new(self.zone, owner));
        if !key.is_apex()
            && self.get(&Key::apex(self.zone)).is_some_and(|node| node.set(Rtype::DNAME).is_some())
        {
            return false;
        }
        for owner in ways.iter().rev().filter(|owner| **owner != "@") {
            match at(owner) {
                Some(node) if node.set(Rtype::NS).is_some() => return true,
                Some(node) if *owner != key.owner() && node.set(Rtype::DNAME).is_some() => return false,
                _ => {}
            }
        }
        if let Some(node) = self.get(&key) {
            return has_address(node);
        }
        // A wildcard stands for what is below the closest name that is there, if only as the end of longer names.
        let lines = self.lines();
        let there = |owner: &str| {
            let below = format!(".{owner}");
            lines.iter().any(|(key, _)| key.owner() == owner || key.owner().ends_with(&below))
        };
        if there(key.owner()) {
            return false;
        }
        let closest = ways.iter().skip(1).find(|owner| there(owner));
        let wildcard = closest.map_or_else(|| "*".to_owned(), |owner| format!("*.{owner}"));
        at(&wildcard).is_some_and(has_address)
    }

    /// Leaves out what the checker complains about; `false` if it names nothing that could be left out.
    pub(super) fn blame(&mut self, complaint: &str, file: &str, rendered: &Rendered) -> bool {
        let mut blamed: BTreeMap<&Key, (Vec<usize>, &str)> = BTreeMap::new();
        for line in complaint.lines().filter(|line| !line.contains("warning") && !line.contains("ignoring")) {
            let Some((_, rest)) = line.split_once(file) else { continue };
            // `FILE:7: …` of named-checkzone and nsd-checkzone, `'FILE', line 7 (…)` of kzonecheck.
            let Some(rest) = rest.strip_prefix(':').or_else(|| rest.strip_prefix("', line ")) else {
                continue;
            };
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, what) = rest.split_at(digits);
            let Some((key, record)) = number.parse().ok().and_then(|number| rendered.record_at(number))
            else {
                continue;
            };
            let what = what.trim_start_matches([':', ' ']);
            blamed.entry(key).or_insert((Vec::new(), what)).0.push(record);
        }
        let mut found = false;
        for (key, (records, what)) in blamed {
            let fault =
                Fault::new(format!("write {}", key.name()), format!("the checker refuses it: {what}"));
            found |= self.leave_out(
                key,
                &records,
                fault.next("correct the tag or the host it comes from").permanent(),
            );
        }
        found
    }

    /// Puts a name back to what it is in the file, or goes on with it without these of its records.
    fn leave_out(&mut self, key: &Key, records: &[usize], fault: Fault) -> bool {
        let now = self.current.get(key);
        let untried = !self.refused.contains_key(key) && !self.reduced.contains_key(key);
        if untried && now.is_some() && now != self.get(key) {
            self.refused.insert(key.clone(), fault);
            return true;
        }
        let Some(node) = self.get(key) else { return false };
        let mut node = node.clone();
        // Without it there is no zone.
        let soa = node.set(Rtype::SOA).map_or(0, |set| set.data.len());
        if records.iter().all(|record| *record < soa) {
            return false;
        }
        let mut at = soa;
        for set in node.sets_mut().iter_mut().filter(|set| set.rtype != Rtype::SOA) {
            set.data.retain(|_| {
                at += 1;
                !records.contains(&(at - 1))
            });
        }
        node.sets_mut().retain(|set| !set.data.is_empty());
        tracing::warn!(zone = %self.zone, "{fault}");
        self.reduced.insert(key.clone(), (node, fault));
        true
    }

    /// What became of each change once the draft is written.
    pub(super) fn applied(&self, batch: &Batch<Dns>) -> Applied<Dns> {
        let fault = |key: &Key| self.reduced.get(key).map(|(_, fault)| fault).or(self.refused.get(key));
        let outcome =
            |edit: &Edit<Dns>| fault(&edit.key).map_or(Outcome::Done, |fault| Outcome::Failed(fault.clone()));
        let each = batch.changes.iter().map(|edit| (edit.key.clone(), outcome(edit))).collect();
        Applied { each, facts: Vec::new() }
    }
}

fn has_address(node: &Node) -> bool {
    node.set(Rtype::A).is_some() || node.set(Rtype::AAAA).is_some()
}
