//! What must hold of what was seen. Each check answers what does not, for people; they touch nothing and wait for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::linear::is_linear;
use crate::seen::{Answer, Grant, Moment, Said, Taken, Write};

/// How long after there is room again somebody may still be told that there is none: what a server was about to say.
const MOMENTS: Duration = Duration::from_secs(5);

/// A commit of the database's log, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) revision: u64,
    /// When, by the clock of whoever wrote it: seconds since 1970.
    pub(crate) time: i64,
    pub(crate) id: String,
    /// What it wrote: key, and the number in it, where there is one.
    pub(crate) wrote: Vec<(String, Option<u64>)>,
}

/// Revisions are one line; every commit that was acknowledged stands once, where it was said to; none that was refused does.
pub(crate) fn commits(said: &[Said], log: &[Logged]) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in log.windows(2) {
        if pair[0].revision >= pair[1].revision {
            wrong.push(format!("revision {} is followed by {}", pair[0].revision, pair[1].revision));
        }
    }
    let mut stands = BTreeMap::<&str, Vec<u64>>::new();
    for commit in log {
        stands.entry(&commit.id).or_default().push(commit.revision);
    }
    for Said { id, answer } in said {
        let at = stands.get(id.as_str()).map_or(&[][..], Vec::as_slice);
        match (answer, at) {
            (Answer::Done(revision), [one]) if one == revision => {}
            (Answer::Refused | Answer::Full | Answer::Unknown, []) => {}
            (Answer::Full | Answer::Unknown, [_]) => {}
            (Answer::Done(revision), []) => {
                wrong.push(format!("{id} was acknowledged at {revision}, and is lost"));
            }
            _ => wrong.push(format!("{id} was answered with {answer:?}, and stands at {at:?}")),
        }
    }
    wrong
}

/// What a watch gives is newer than all that it told, and the same that any other one that began with it gave there; `given` is what
/// they gave before. Where two of them part is said once.
pub(crate) fn follows(
    watcher: usize,
    told: u64,
    revision: u64,
    given: &BTreeMap<usize, Vec<u64>>,
) -> Option<String> {
    if revision <= told {
        return Some(format!("watch {watcher} gives {revision}, and had told everything up to {told}"));
    }
    let own = given.get(&watcher).map_or(&[][..], Vec::as_slice);
    given.iter().find_map(|(other, gave)| {
        let (before, next) = gave.split_at_checked(own.len())?;
        let next = next.first()?;
        let parts = before.last() == own.last() && *next != revision;
        parts.then(|| format!("watch {watcher} gives {revision} where watch {other} gave {next}"))
    })
}

/// A watch that began after `from` gave every commit up to `to` once, in order.
pub(crate) fn watched(watcher: usize, gave: &[u64], log: &[Logged], from: u64, to: u64) -> Vec<String> {
    let gave: Vec<u64> = gave.iter().copied().filter(|revision| *revision <= to).collect();
    let all = log.iter().map(|commit| commit.revision).filter(|revision| from < *revision && *revision <= to);
    let all: Vec<u64> = all.collect();
    if gave == all {
        return Vec::new();
    }
    let (have, want): (BTreeSet<u64>, BTreeSet<u64>) =
        (gave.iter().copied().collect(), all.iter().copied().collect());
    let (lacks, more): (Vec<_>, Vec<_>) =
        (want.difference(&have).collect(), have.difference(&want).collect());
    let disorder = gave.windows(2).find(|pair| pair[0] >= pair[1]);
    vec![format!("watch {watcher} lacks {lacks:?}, has {more:?} too much, first out of order: {disorder:?}")]
}

/// No ID was given to two, and each is with whom it was given to.
pub(crate) fn ids(taken: &[(u64, u64)], log: &[Logged]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut holders = BTreeMap::<u64, u64>::new();
    for (id, by) in taken {
        if let Some(other) = holders.insert(*id, *by) {
            wrong.push(format!("the ID {id} was given to {other} and to {by}"));
        }
    }
    let mut stands = BTreeMap::<u64, u64>::new();
    for (key, value) in log.iter().flat_map(|commit| &commit.wrote) {
        let Some(id) = key.strip_prefix("ids/n").and_then(|id| id.parse().ok()) else { continue };
        let Some(by) = value else { continue };
        if let Some(other) = stands.insert(id, *by) {
            wrong.push(format!("the ID {id} was written for {other}, then for {by}"));
        }
    }
    for (id, by) in holders {
        if stands.get(&id) != Some(&by) {
            wrong.push(format!("the ID {id} was given to {by}, and stands for {:?}", stands.get(&id)));
        }
    }
    wrong
}

/// No claim had two holders at once, and numbers only rise.
pub(crate) fn holders(grants: &[Grant]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, one) in grants.iter().enumerate() {
        for other in grants[..n].iter().filter(|other| other.name == one.name) {
            let same = one.number == other.number;
            if same && one.holder != other.holder {
                wrong.push(format!("two holders have one number: {other:?} and {one:?}"));
            }
            if !same && one.granted < other.until && other.granted < one.until {
                wrong.push(format!("two holders at once: {other:?} and {one:?}"));
            }
            let fell = other.granted <= one.asked && other.number > one.number
                || one.granted <= other.asked && one.number > other.number;
            if fell {
                wrong.push(format!("a number fell: {other:?} and {one:?}"));
            }
        }
    }
    wrong
}

/// No write under a claim was taken after another one of that name had been given, and the last one that stands is that of the
/// newest holder who was told that theirs does.
pub(crate) fn stale(
    grants: &[Grant],
    writes: &[Write],
    ledger: &BTreeMap<String, u64>,
    log: &[Logged],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for write in writes.iter().filter(|write| write.taken == Taken::Done) {
        let later = |grant: &&Grant| {
            grant.name == write.name && grant.number > write.number && grant.granted < write.begun
        };
        if let Some(grant) = grants.iter().find(later) {
            wrong.push(format!("{write:?} was taken, though {grant:?}"));
        }
        let stands = ledger.get(&write.name);
        if stands.is_none_or(|number| *number < write.number) {
            wrong.push(format!("{write:?} was taken, and what stands is of number {stands:?}"));
        }
    }
    let mut newest = BTreeMap::<&str, u64>::new();
    for (key, value) in log.iter().flat_map(|commit| &commit.wrote) {
        let (true, Some(number)) = (key.starts_with("chaos/held-"), value) else { continue };
        if let Some(before) = newest.insert(key, *number).filter(|before| before > number) {
            wrong.push(format!("{key} was written under number {number} after {before}"));
        }
    }
    wrong
}

/// Who is told that there is no room asked while the disk was full: a disk that clients fill is full for good, and the rest of the
/// run says nothing.
pub(crate) fn room(full: &[(Duration, Duration)], filled: &[(Duration, Option<Duration>)]) -> Vec<String> {
    let was_full = |asked: Duration, answered: Duration| {
        let meets = |(from, until): &(Duration, Option<Duration>)| {
            *from <= answered && until.is_none_or(|until| asked <= until + MOMENTS)
        };
        filled.iter().any(meets)
    };
    let wrong = full.iter().filter(|(asked, answered)| !was_full(*asked, *answered));
    let say = |(asked, answered): &(Duration, Duration)| {
        format!(
            "who asked at {asked:?} was told at {answered:?} that there is no room, and nothing filled the disk"
        )
    };
    wrong.map(say).collect()
}

/// Reads are linearizable.
pub(crate) fn registers(all: &BTreeMap<u64, Vec<Moment>>) -> Vec<String> {
    let judge = |(window, moments): (&u64, &Vec<Moment>)| match is_linear(moments) {
        Ok(true) => None,
        Ok(false) => Some(format!("the register {window} has no order: {moments:?}")),
        Err(why) => Some(format!("the register {window} cannot be judged: {why}")),
    };
    all.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(revision: u64, id: &str) -> Logged {
        Logged { revision, time: 0, id: id.to_owned(), wrote: Vec::new() }
    }

    fn wrote(revision: u64, key: &str, value: u64) -> Logged {
        Logged { wrote: vec![(key.to_owned(), Some(value))], ..logged(revision, &revision.to_string()) }
    }

    fn said(id: &str, answer: Answer) -> Said {
        Said { id: id.to_owned(), answer }
    }

    fn grant(holder: u64, number: u64, [asked, granted, until]: [u64; 3]) -> Grant {
        let [asked, granted, until] = [asked, granted, until].map(Duration::from_secs);
        Grant { name: "x".to_owned(), holder, number, asked, granted, until }
    }

    fn write(number: u64, begun: u64) -> Write {
        Write { name: "x".to_owned(), number, begun: Duration::from_secs(begun), taken: Taken::Done }
    }

    #[test]
    fn commits_that_are_as_they_were_said_pass() {
        let all = [
            said("a", Answer::Done(1)),
            said("b", Answer::Refused),
            said("c", Answer::Unknown),
            said("d", Answer::Unknown),
            said("e", Answer::Full),
        ];
        let log = [logged(1, "a"), logged(4, "d"), logged(5, "somebody else's")];
        assert_eq!(commits(&all, &log), Vec::<String>::new());
    }

    #[test]
    fn a_lost_a_doubled_a_moved_and_a_refused_commit_are_caught() {
        let done = [said("a", Answer::Done(1))];
        assert!(commits(&done, &[])[0].contains("is lost"));
        assert_eq!(commits(&done, &[logged(1, "a"), logged(2, "a")]).len(), 1);
        assert_eq!(commits(&done, &[logged(2, "a")]).len(), 1);
        assert_eq!(commits(&[said("a", Answer::Refused)], &[logged(1, "a")]).len(), 1);
        assert_eq!(commits(&[said("a", Answer::Unknown)], &[logged(1, "a"), logged(2, "a")]).len(), 1);
        assert_eq!(commits(&[], &[logged(2, "a"), logged(2, "b")]).len(), 1);
    }

    #[test]
    fn a_watch_with_a_gap_a_repeat_or_a_swap_is_caught() {
        let log: Vec<_> = [1, 2, 4, 5].map(|n| logged(n, "x")).into();
        assert!(watched(0, &[2, 4, 5], &log, 1, 4).is_empty());
        for gave in [&[2][..], &[2, 4, 4], &[4, 2], &[2, 3, 4], &[1, 2, 4]] {
            assert_eq!(watched(0, gave, &log, 1, 4).len(), 1, "{gave:?}");
        }
    }

    #[test]
    fn a_watch_that_goes_back_or_parts_from_another_is_caught_as_it_comes() {
        let given = |own: &[u64]| BTreeMap::from([(0, own.to_vec()), (1, vec![2, 4, 5])]);
        assert_eq!(follows(0, 1, 2, &BTreeMap::new()), None);
        assert_eq!(follows(0, 1, 2, &given(&[])), None);
        assert_eq!(follows(0, 4, 5, &given(&[2, 4])), None);
        // The other one is not so far yet.
        assert_eq!(follows(0, 5, 7, &given(&[2, 4, 5])), None);
        let wrong: [(u64, u64, &[u64]); 5] =
            [(1, 1, &[]), (1, 4, &[]), (2, 2, &[2]), (2, 3, &[2]), (4, 2, &[2, 4])];
        for (told, revision, own) in wrong {
            assert!(follows(0, told, revision, &given(own)).is_some(), "{revision} after {own:?}");
        }
        assert_eq!(follows(0, 3, 4, &given(&[2, 3])), None, "they parted before, and that was said");
    }

    #[test]
    fn a_doubled_id_is_caught() {
        let one = [wrote(1, "ids/n1", 7)];
        assert!(ids(&[(1, 7)], &one).is_empty());
        assert!(ids(&[], &one).is_empty());
        assert!(!ids(&[(1, 7), (1, 8)], &one).is_empty());
        assert!(!ids(&[(1, 8)], &one).is_empty());
        assert!(!ids(&[(2, 7)], &one).is_empty());
        assert!(!ids(&[], &[wrote(1, "ids/n1", 7), wrote(2, "ids/n1", 8)]).is_empty());
    }

    #[test]
    fn two_holders_at_once_and_a_number_that_falls_are_caught() {
        let first = grant(1, 3, [0, 1, 4]);
        assert!(holders(&[first.clone(), grant(1, 3, [2, 3, 6]), grant(2, 5, [7, 8, 9])]).is_empty());
        assert_eq!(holders(&[first.clone(), grant(2, 4, [2, 3, 6])]).len(), 1);
        assert_eq!(holders(&[first.clone(), grant(2, 2, [5, 6, 7])]).len(), 1);
        assert_eq!(holders(&[first, grant(2, 3, [5, 6, 7])]).len(), 1);
    }

    #[test]
    fn a_stale_write_is_caught() {
        let grants = [grant(1, 3, [0, 1, 2]), grant(2, 5, [3, 4, 9])];
        let stands = |number| BTreeMap::from([("x".to_owned(), number)]);
        let refused = Write { taken: Taken::Fenced, ..write(3, 5) };
        assert!(stale(&grants, &[write(3, 1), refused, write(5, 5)], &stands(5), &[]).is_empty());
        assert_eq!(stale(&grants, &[write(3, 5)], &stands(5), &[]).len(), 1);
        assert_eq!(stale(&grants, &[write(5, 5)], &stands(3), &[]).len(), 1);
        let held = |numbers: [u64; 3]| numbers.map(|n| wrote(n, "chaos/held-0", n));
        assert!(stale(&grants, &[], &stands(5), &held([3, 5, 5])).is_empty());
        assert_eq!(stale(&grants, &[], &stands(5), &held([3, 5, 3])).len(), 1);
    }

    #[test]
    fn a_disk_that_nobody_filled_and_is_full_is_caught() {
        let at = Duration::from_secs;
        let filled = [(at(10), Some(at(12))), (at(30), None)];
        let explained = [(at(8), at(11)), (at(12), at(13)), (at(16), at(20)), (at(40), at(41))];
        assert!(room(&explained, &filled).is_empty());
        assert_eq!(room(&[(at(8), at(9))], &filled).len(), 1);
        assert_eq!(room(&[(at(18), at(19))], &filled).len(), 1);
        assert_eq!(room(&[(at(1), at(2))], &[]).len(), 1);
    }

    #[test]
    fn a_read_that_is_not_linearizable_is_caught() {
        use stateright::semantics::register::{RegisterOp, RegisterRet};
        let mut moments = vec![
            Moment::Begins(1, RegisterOp::Write(9)),
            Moment::Ends(1, RegisterRet::WriteOk),
            Moment::Begins(2, RegisterOp::Read),
            Moment::Ends(2, RegisterRet::ReadOk(9)),
        ];
        assert!(registers(&BTreeMap::from([(0, moments.clone())])).is_empty());
        moments[3] = Moment::Ends(2, RegisterRet::ReadOk(0));
        assert_eq!(registers(&BTreeMap::from([(0, moments)])).len(), 1);
    }
}
