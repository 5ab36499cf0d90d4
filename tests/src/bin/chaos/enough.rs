//! Whether enough was done and seen: what is asked of nothing holds always.
//!
//! In a short run each thing that clients do was done, and something went wrong. In a long one, each kind of trouble that there can be
//! here came, what was done to clocks and to the disk was felt, and clients read at one server what others wrote at another.

use std::collections::{BTreeMap, BTreeSet};

use stateright::semantics::register::RegisterRet;

use crate::checks::Logged;
use crate::clients::THREADS;
use crate::schedule::{CLOCK, DISK};
use crate::seen::{Answer, Moment, Said, Seen, Taken};

/// Two commits that follow each other are not so many seconds apart, unless a clock is off.
const JUMP: u64 = 1_800;
/// How many registers a long run has at least that were read at another server than they were written at, if there are several.
const CROSSED: usize = 20;

/// What was done to the world.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    /// How often each kind came.
    pub(crate) counts: BTreeMap<String, u32>,
    /// Kinds of which each has to come: in a long run all that there can be here, in a short one none.
    pub(crate) kinds: BTreeSet<String>,
    /// How many servers there are.
    pub(crate) servers: usize,
}

impl Troubles {
    fn is_long(&self) -> bool {
        !self.kinds.is_empty()
    }

    fn came(&self, kind: &str) -> bool {
        self.counts.get(kind).is_some_and(|times| *times > 0)
    }
}

/// Of what nothing was done or seen, though it has to be.
pub(crate) fn enough(seen: &Seen, log: &[Logged], troubles: &Troubles) -> Vec<String> {
    let done = |said: &Said| matches!(said.answer, Answer::Done(_));
    let always = [
        (seen.said.iter().any(done), "commit was acknowledged"),
        (seen.reads > seen.views, "read of a row was answered"),
        (seen.views > 0, "read was answered from a server's memory"),
        (!seen.taken.is_empty(), "ID was given"),
        (!seen.grants.is_empty(), "claim was given"),
        (seen.writes.iter().any(|write| write.taken == Taken::Done), "write under a claim was taken"),
        (troubles.counts.values().any(|times| *times > 0), "fault came"),
    ];
    let lacking = always.iter().filter(|(happened, _)| !happened);
    let mut wrong: Vec<String> = lacking.map(|(_, what)| no(what)).collect();
    let absent = troubles.kinds.iter().filter(|kind| !troubles.came(kind));
    wrong.extend(absent.map(|kind| no(&format!("fault came of the kind {kind:?}"))));
    let felt = [
        (CLOCK, jumps(log) > 0, "commit bears a time that is off"),
        (DISK, !seen.full.is_empty(), "client was told that there is no room"),
    ];
    let idle = felt.iter().filter(|(kind, felt, _)| troubles.kinds.contains(*kind) && !felt);
    wrong.extend(idle.map(|(_, _, what)| no(what)));
    if troubles.is_long() && seen.writes.iter().all(|write| write.taken != Taken::Fenced) {
        wrong.push(no("write was refused because its claim was over"));
    }
    let crossed = seen.registers.values().filter(|moments| is_crossed(moments)).take(CROSSED).count();
    if troubles.is_long() && troubles.servers > 1 && crossed < CROSSED {
        wrong.push(format!(
            "{crossed} registers were read at another server than they were written at, so this run says little of that"
        ));
    }
    wrong
}

/// Whether something that a client wrote was read by others afterwards, at one server and at another: wherever it was written, one of
/// them is not where that was.
pub(crate) fn is_crossed(moments: &[Moment]) -> bool {
    // By whom each was written, and at which servers it was read.
    let mut written: Vec<(u64, BTreeSet<usize>)> = Vec::new();
    // How many of them there were when a thread began to read, and which server answered it.
    let (mut before, mut at) = (BTreeMap::<u64, usize>::new(), BTreeMap::<u64, usize>::new());
    for moment in moments {
        match moment {
            Moment::Begins(thread, _) => {
                before.insert(*thread, written.len());
                at.remove(thread);
            }
            Moment::At(thread, server) => {
                at.insert(*thread, *server);
            }
            Moment::Ends(thread, RegisterRet::WriteOk) => written.push((thread % THREADS, BTreeSet::new())),
            Moment::Ends(thread, RegisterRet::ReadOk(_)) => {
                let count = before.get(thread).copied().unwrap_or(0);
                let others = written.iter_mut().take(count).filter(|(writer, _)| *writer != thread % THREADS);
                others.for_each(|(_, servers)| servers.extend(at.get(thread)));
            }
        }
    }
    written.iter().any(|(_, servers)| servers.len() > 1)
}

/// How often the time that commits bear leaps to that of a clock that is off by much, or back.
pub(crate) fn jumps(log: &[Logged]) -> usize {
    log.windows(2).filter(|pair| pair[0].time.abs_diff(pair[1].time) > JUMP).count()
}

fn no(what: &str) -> String {
    format!("no {what}, so this run says nothing of any")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stateright::semantics::register::RegisterOp;

    use super::*;
    use crate::seen::{Grant, Write};

    /// What a run may see in which everything is done once.
    fn seen() -> Seen {
        let (name, at) = ("x".to_owned(), Duration::from_secs);
        let grant =
            Grant { name: name.clone(), holder: 1, number: 3, asked: at(0), granted: at(1), until: at(2) };
        let write = Write { name, number: 3, begun: at(1), taken: Taken::Unknown };
        Seen {
            said: vec![Said { id: "a".to_owned(), answer: Answer::Done(1) }],
            reads: 2,
            views: 1,
            taken: vec![(1, 7)],
            grants: vec![grant],
            writes: [Taken::Done, Taken::Fenced].map(|taken| Write { taken, ..write.clone() }).into(),
            ..Seen::default()
        }
    }

    /// These came, each once.
    fn came(kinds: &[&str]) -> Troubles {
        let counts = kinds.iter().map(|kind| ((*kind).to_owned(), 1)).collect();
        Troubles { counts, ..Troubles::default() }
    }

    /// Commits at these times.
    fn log(times: &[i64]) -> Vec<Logged> {
        let logged = |(revision, time): (u64, &i64)| Logged {
            revision,
            time: *time,
            id: revision.to_string(),
            wrote: Vec::new(),
        };
        (1..).zip(times).map(logged).collect()
    }

    #[test]
    fn a_run_in_which_a_thing_never_happened_is_caught() {
        let (mut seen, troubles) = (seen(), came(&["clock set"]));
        assert_eq!(enough(&seen, &[], &troubles), Vec::<String>::new());
        seen.writes[0].taken = Taken::Unknown;
        assert_eq!(enough(&seen, &[], &troubles).len(), 1);
        seen.grants.clear();
        assert_eq!(enough(&seen, &[], &troubles).len(), 2);
        assert_eq!(enough(&Seen::default(), &[], &troubles).len(), 6);
    }

    #[test]
    fn a_run_without_a_fault_and_a_long_one_without_one_of_a_kind_are_caught() {
        assert_eq!(enough(&seen(), &[], &Troubles::default()).len(), 1);
        // What could not be done is counted as 0.
        let none = Troubles { counts: BTreeMap::from([("clock set".to_owned(), 0)]), ..Troubles::default() };
        assert_eq!(enough(&seen(), &[], &none).len(), 1);
        let mut troubles = came(&["clock set", "disk full"]);
        troubles.kinds = ["clock set", "disk full", "server killed"].map(str::to_owned).into();
        let wrong = enough(&seen(), &[], &troubles);
        assert!(wrong.len() == 3 && wrong[0].contains("server killed"), "{wrong:?}");
    }

    fn write(thread: u64) -> [Moment; 2] {
        [Moment::Begins(thread, RegisterOp::Write(9)), Moment::Ends(thread, RegisterRet::WriteOk)]
    }

    fn read(thread: u64, server: usize) -> [Moment; 3] {
        let [begins, ends] =
            [Moment::Begins(thread, RegisterOp::Read), Moment::Ends(thread, RegisterRet::ReadOk(9))];
        [begins, Moment::At(thread, server), ends]
    }

    #[test]
    fn what_others_read_afterwards_at_two_servers_is_crossed() {
        let all = |parts: &[&[Moment]]| is_crossed(&parts.concat());
        let of_two = THREADS + 2;
        assert!(all(&[&write(1), &read(2, 0), &read(3, 1)]));
        assert!(all(&[&write(1), &read(2, 0), &read(of_two, 1)]));
        // At one server, before it was written, by who wrote it, and where nobody knows which server it was.
        assert!(!all(&[&write(1), &read(2, 0), &read(3, 0)]));
        assert!(!all(&[&read(2, 0), &write(1), &read(3, 1)]));
        assert!(!all(&[&write(1), &read(2, 0), &read(THREADS + 1, 1)]));
        let [begins, _, ends] = read(3, 1);
        assert!(!all(&[&write(1), &read(2, 0), &[begins.clone(), ends.clone()]]));
        // One that began before the write ended may have been answered before it.
        assert!(!all(&[&[begins], &write(1), &read(2, 0), &[Moment::At(3, 1), ends]]));
        // Each of two may be read where it was written.
        assert!(!all(&[&write(1), &read(2, 0), &write(2), &read(1, 1)]));
    }

    #[test]
    fn a_long_run_at_two_servers_that_never_met_is_caught() {
        let (mut seen, mut troubles) = (seen(), came(&["server killed"]));
        troubles.kinds = ["server killed".to_owned()].into();
        assert!(enough(&seen, &[], &troubles).is_empty(), "of one server nobody asks it");
        troubles.servers = 2;
        assert_eq!(enough(&seen, &[], &troubles).len(), 1);
        let crossed = [&write(1)[..], &read(2, 0), &read(3, 1)].concat();
        seen.registers = (0..20).map(|window| (window, crossed.clone())).collect();
        assert!(enough(&seen, &[], &troubles).is_empty());
    }

    #[test]
    fn a_long_run_in_which_no_stale_holder_tried_is_caught() {
        let (mut seen, mut troubles) = (seen(), came(&["server killed"]));
        seen.writes[1].taken = Taken::Unknown;
        assert!(enough(&seen, &[], &troubles).is_empty(), "a short run has no time for it");
        troubles.kinds = ["server killed".to_owned()].into();
        assert_eq!(enough(&seen, &[], &troubles).len(), 1, "that nobody answered refuses nothing");
    }

    #[test]
    fn a_long_run_in_which_a_clock_or_the_disk_was_not_felt_is_caught() {
        let (mut seen, mut troubles) = (seen(), came(&[CLOCK, DISK]));
        let (right, off) = (log(&[100, 101, 160]), log(&[5_000, 5_001, 1_402, 1_403, 5_004]));
        assert_eq!([jumps(&right), jumps(&off)], [0, 2]);
        assert_eq!(enough(&seen, &right, &troubles), Vec::<String>::new(), "a short run has no time for it");
        troubles.kinds = [CLOCK, DISK].map(str::to_owned).into();
        assert_eq!(enough(&seen, &right, &troubles).len(), 2);
        assert_eq!(enough(&seen, &off, &troubles).len(), 1);
        seen.full.push((Duration::ZERO, Duration::ZERO));
        assert_eq!(enough(&seen, &off, &troubles), Vec::<String>::new());
    }
}
