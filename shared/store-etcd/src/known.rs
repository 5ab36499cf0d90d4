//! What stands in the database as far as some commits ask: read as of one moment, so that they can be judged without
//! asking again.

use std::collections::{BTreeSet, HashMap};

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, TxnOp};
use shoal_core::{Commit, Key, Pre, Range, Revision};
use shoal_store::parts::Where;
use shoal_store::{MAX_PAGE, REMEMBERED, Result};

use crate::claims::number_of;
use crate::fault::is_compacted;
use crate::keys::{Keys, Span};
use crate::link::{ASKED, Answer, Found, Link, OPS, first, get, names, unmoved};
use crate::queue::{self, Guest, Seat};
use crate::record::{ClaimRecord, Identity, Remembered, RowRecord, parse};

/// What some commits ask for.
#[derive(Debug)]
pub(crate) struct Known {
    /// The identity, etcd's revision that wrote it, and the very text.
    pub(crate) head: Identity,
    pub(crate) head_at: i64,
    pub(crate) head_text: Vec<u8>,
    pub(crate) rows: HashMap<Key, RowRecord>,
    /// Who last wrote in a range; rows that are known by themselves are not here.
    pub(crate) last: HashMap<Range, Option<Revision>>,
    pub(crate) done: HashMap<String, Remembered>,
    /// The idempotency keys by their order, where they are due to be forgotten.
    pub(crate) order: HashMap<u64, String>,
    pub(crate) claims: HashMap<String, Vec<Place>>,
    /// Whether a large commit waits for its turn.
    pub(crate) turn: bool,
    /// What was judged since, and is not written yet.
    pub(crate) written: Vec<(Key, Revision)>,
    /// What others handed over, the oldest first.
    pub(crate) guests: Vec<Guest>,
    /// What stands where one is answered who handed something over.
    pub(crate) answer: Option<KeyValue>,
}

/// A place of a claim that is held.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its key in etcd, and the revision of etcd that made that.
    pub(crate) key: Vec<u8>,
    pub(crate) made: u64,
    /// The fencing number.
    pub(crate) number: u64,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Want {
    Row(Key),
    Scope(String),
    Done(String),
    Claim(String),
}

/// The most of it that is asked for at first, beside the head, what large commits are under way, and what is handed over.
const FIRST: usize = OPS - 5;
/// Where that begins.
const BEFORE: usize = 5;
/// How many commits that others handed over are looked at; less the more there are of one's own.
const GUESTS: usize = 24;
/// How many idempotency keys beyond those that are due to be forgotten are read with them, for the commits that come.
const DUE: u64 = 32;
/// What stands around a key in a request: how the database's keys begin, and what etcd needs.
const AROUND: usize = 32;

/// What a group of commits asks for, to be asked in a transaction of its own or in one that could not be done.
pub(crate) struct Questions<'a> {
    commits: Vec<&'a Commit>,
    wants: Vec<Want>,
}

impl<'a> Questions<'a> {
    pub(crate) fn of(commits: impl Iterator<Item = &'a Commit>) -> Self {
        let commits: Vec<_> = commits.collect();
        let wants = commits.iter().flat_map(|commit| wants(commit)).collect::<BTreeSet<_>>();
        Self { commits, wants: wants.into_iter().collect() }
    }

    pub(crate) fn commits(&self) -> &[&'a Commit] {
        &self.commits
    }

    pub(crate) fn wants(&self) -> &[Want] {
        &self.wants
    }

    /// How many of the commits have an idempotency key.
    pub(crate) fn new_keys(&self) -> u64 {
        self.commits.iter().filter(|commit| commit.idempotency.is_some()).count() as u64
    }

    /// Whether all of it may be compared in the transaction that writes, instead of being asked for.
    pub(crate) fn are_comparable(&self) -> bool {
        let octets = self.wants.iter().map(Want::octets).sum::<usize>();
        self.wants.len() <= OPS && octets <= ASKED && !self.walks()
    }

    /// Whether something is asked for that no index answers for.
    fn walks(&self) -> bool {
        let walks = |pre: &Pre| match pre {
            Pre::Unchanged(range, _) => {
                matches!(range, Range::Naming(_)) || matches!(Where::of(range), Where::Within(_))
            }
            _ => false,
        };
        self.commits.iter().any(|commit| commit.pre.iter().any(walks))
    }

    /// How much is asked for at first: what there is room for in a transaction that writes, too.
    fn at_first(&self) -> usize {
        let mut octets = 0;
        let fits = |want: &&Want| {
            octets += want.octets();
            octets <= ASKED
        };
        self.wants.iter().take(FIRST).take_while(fits).count()
    }

    /// As much as fits in one transaction.
    pub(crate) fn ops(&self, keys: &Keys, seat: Option<&Seat>) -> Vec<TxnOp> {
        let answer = seat.map_or_else(|| get(keys.answer("")), |seat| seat.ask(keys));
        let first =
            [get(keys.head()), get(keys.applying_commit()), get(keys.turn()), queue::waiting(keys), answer];
        let wants = self.wants.iter().take(self.at_first());
        first.into_iter().chain(wants.map(|want| want.op(keys, None))).collect()
    }

    /// Asks anew. `None` while a large commit is being carried out: nothing may be decided then.
    pub(crate) async fn ask(&self, link: &Link, keys: &Keys, seat: Option<&Seat>) -> Result<Option<Known>> {
        loop {
            let answer = link.read("reading what a commit rests on", self.ops(keys, seat)).await?;
            match self.take_up(link, keys, seat, answer).await {
                Err(error) if is_compacted(&error) => {}
                other => return other,
            }
        }
    }

    /// Takes up an answer to [`Questions::ops`], and asks for the rest as of the same moment.
    pub(crate) async fn take_up(
        &self,
        link: &Link,
        keys: &Keys,
        seat: Option<&Seat>,
        mut answer: Answer,
    ) -> Result<Option<Known>> {
        let at = answer.revision;
        if answer.one(1).is_some() {
            return Ok(None);
        }
        let found = answer.one(0);
        let head_text = text_of(found.as_ref());
        let (head, head_at) = identity(link, keys, found)?;
        let mut known = Known { head_text, turn: answer.one(2).is_some(), ..Known::new(head, head_at) };
        known.answer = answer.one(4);
        let (now, later) = self.wants.split_at(self.at_first());
        for (n, want) in now.iter().enumerate() {
            known.take(link, keys, want, answer.take(n + BEFORE))?;
        }
        let mut room = GUESTS.saturating_sub(self.commits.len() / 2);
        for guest in queue::guests(link, keys, answer.take(3).kvs, seat.map(Seat::id)) {
            if guest.commits.len() > room {
                break;
            }
            room -= guest.commits.len();
            known.guests.push(guest);
        }
        let theirs = known.guests.iter().flat_map(|guest| &guest.commits);
        let asked: BTreeSet<_> = theirs.flat_map(wants).collect();
        let theirs = asked.iter().filter(|want| self.wants.binary_search(want).is_err());
        let rest: Vec<_> = later.iter().chain(theirs).collect();
        for some in rest.chunks(OPS) {
            let ops = some.iter().map(|want| want.op(keys, Some(at))).collect();
            let mut answer = link.read("reading what a commit rests on", ops).await?;
            for (n, want) in some.iter().enumerate() {
                known.take(link, keys, want, answer.take(n))?;
            }
        }
        for pre in self.commits.iter().flat_map(|commit| &commit.pre) {
            if let Pre::Unchanged(range, _) = pre
                && !known.last.contains_key(range)
                && let Some(last) = walked(link, keys, range, at).await?
            {
                known.last.insert(range.clone(), last);
            }
        }
        let theirs = known.guests.iter().flat_map(|guest| &guest.commits);
        let new = self.commits.iter().copied().chain(theirs).filter(|commit| commit.idempotency.is_some());
        known.due(link, keys, new.count() as u64, at).await?;
        Ok(Some(known))
    }
}

/// The identity that was found at the head's key.
pub(crate) fn identity(
    link: &Link,
    keys: &Keys,
    found: Option<etcd_client::KeyValue>,
) -> Result<(Identity, i64)> {
    let Some(found) = found else {
        let why = "it is gone, and was there when the database was opened";
        return Err(crate::record::damaged(&link.place, &keys.head(), &why));
    };
    let identity: Identity = parse(&link.place, found.key(), found.value())?;
    keys.count_from(identity.base);
    Ok((identity, found.mod_revision()))
}

/// The text that was found at a key.
pub(crate) fn text_of(found: Option<&KeyValue>) -> Vec<u8> {
    found.map_or_else(Vec::new, |kv| kv.value().to_vec())
}

/// That the head is the very one that was read or written at `at`. By its text, too: where a snapshot is restored etcd's revisions go back and may
/// come to the same again, and so may all that the head counts; its epoch or its nonce is another one.
pub(crate) fn same_head(keys: &Keys, at: i64, text: &[u8]) -> [Compare; 2] {
    [unmoved(keys.head(), at), Compare::value(keys.head(), CompareOp::Equal, text)]
}

fn wants(commit: &Commit) -> impl Iterator<Item = Want> + '_ {
    let changed = commit.changes.iter().map(|change| Want::Row(change.key.clone()));
    let relied = commit.pre.iter().filter_map(|pre| match pre {
        Pre::At(key, _) | Pre::Exists(key) | Pre::Absent(key) => Some(Want::Row(key.clone())),
        Pre::Held { name, .. } => Some(Want::Claim(name.clone())),
        Pre::Unchanged(range, _) => match (range, Where::of(range)) {
            (_, Where::Key(key)) => Some(Want::Row(key)),
            (Range::Prefix(_), Where::Scope(scope)) => Some(Want::Scope(scope)),
            _ => None,
        },
    });
    changed.chain(relied).chain(commit.idempotency.iter().cloned().map(Want::Done))
}

/// How many octets the keys take that a commit asks for.
pub(crate) fn octets_asked(commit: &Commit) -> usize {
    wants(commit).map(|want| want.octets()).sum()
}

impl Want {
    /// How many octets it takes of a request, be it asked for or compared.
    fn octets(&self) -> usize {
        AROUND
            + match self {
                Self::Row(key) => key.as_str().len(),
                Self::Done(key) | Self::Scope(key) => key.len(),
                // From the first of its places to the last.
                Self::Claim(name) => 2 * name.len(),
            }
    }

    /// The question, as of a revision of etcd or now.
    pub(crate) fn op(&self, keys: &Keys, at: Option<i64>) -> TxnOp {
        let at = at.unwrap_or(0);
        let one = GetOptions::new().with_revision(at);
        match self {
            Self::Row(key) => TxnOp::get(keys.row(key.as_str()), Some(one)),
            Self::Done(key) => TxnOp::get(keys.done(key), Some(one)),
            Self::Claim(name) => {
                let (from, to) = keys.places(name);
                TxnOp::get(from, Some(one.with_range(to)))
            }
            Self::Scope(scope) => TxnOp::get(keys.last(scope), Some(one)),
        }
    }
}

impl Known {
    pub(crate) fn new(head: Identity, head_at: i64) -> Self {
        Self {
            head,
            head_at,
            head_text: Vec::new(),
            rows: HashMap::new(),
            last: HashMap::new(),
            done: HashMap::new(),
            order: HashMap::new(),
            claims: HashMap::new(),
            turn: false,
            written: Vec::new(),
            guests: Vec::new(),
            answer: None,
        }
    }

    /// Takes up what was found for one of the questions.
    pub(crate) fn take(&mut self, link: &Link, keys: &Keys, want: &Want, mut found: Found) -> Result<()> {
        match want {
            Want::Row(key) => {
                if let Some(kv) = found.kvs.pop() {
                    self.rows.insert(key.clone(), parse(&link.place, kv.key(), kv.value())?);
                }
            }
            Want::Done(key) => {
                if let Some(kv) = found.kvs.pop() {
                    self.done.insert(key.clone(), parse(&link.place, kv.key(), kv.value())?);
                }
            }
            Want::Scope(scope) => {
                let last = found.kvs.pop().map(|kv| parse(&link.place, kv.key(), kv.value())).transpose()?;
                self.last.insert(Range::Prefix(scope.clone()), last);
            }
            Want::Claim(name) => {
                let own =
                    found.kvs.iter().filter(|kv| keys.of_claim(kv.key()).is_some_and(|(of, _)| of == *name));
                let place = |kv: &etcd_client::KeyValue| -> Result<Place> {
                    let record: ClaimRecord = parse(&link.place, kv.key(), kv.value())?;
                    let made = kv.create_revision().unsigned_abs();
                    Ok(Place { key: kv.key().to_vec(), made, number: number_of(keys, &record, made) })
                };
                self.claims.insert(name.clone(), own.map(place).collect::<Result<_>>()?);
            }
        }
        Ok(())
    }

    /// Reads which idempotency keys are due to be forgotten when so many new ones are used.
    async fn due(&mut self, link: &Link, keys: &Keys, new: u64, at: i64) -> Result<()> {
        let due = due(self.head.remembered, new);
        if due.is_empty() {
            return Ok(());
        }
        let from = keys.order(due.start);
        let options = GetOptions::new().with_range(keys.order(due.end + DUE)).with_revision(at);
        let mut answer =
            link.read("reading old idempotency keys", vec![TxnOp::get(from, Some(options))]).await?;
        for kv in answer.take(0).kvs {
            let hex = kv.key().last_chunk::<16>().and_then(|hex| std::str::from_utf8(hex).ok());
            if let Some(n) = hex.and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
                self.order.insert(n, String::from_utf8_lossy(kv.value()).into_owned());
            }
        }
        Ok(())
    }
}

/// Which idempotency keys are due to be forgotten when so many new ones are used.
pub(crate) fn due(remembered: u64, new: u64) -> std::ops::Range<u64> {
    let last = (remembered + new).saturating_sub(REMEMBERED as u64);
    last.saturating_sub(new) + 1..last + 1
}

/// Who last wrote in a range that no index answers for; `None` where it is not such a range. Costs its rows.
async fn walked(link: &Link, keys: &Keys, range: &Range, at: i64) -> Result<Option<Option<Revision>>> {
    let newest = |found: Vec<etcd_client::KeyValue>, mut last: Option<Revision>| -> Result<_> {
        for kv in found {
            let row: RowRecord = parse(&link.place, kv.key(), kv.value())?;
            last = last.max(Some(row.revision));
        }
        Ok(last)
    };
    match (range, Where::of(range)) {
        (Range::Naming(member), _) => {
            let rows = naming(link, keys, member.as_str(), "").await?;
            let mut last = None;
            for some in rows.chunks(OPS) {
                let at = GetOptions::new().with_revision(at);
                let ops =
                    some.iter().map(|key| TxnOp::get(keys.row(key.as_str()), Some(at.clone()))).collect();
                let mut answer = link.read("reading member rows", ops).await?;
                for n in 0..some.len() {
                    last = newest(answer.take(n).kvs, last)?;
                }
            }
            Ok(Some(last))
        }
        (Range::Prefix(prefix), Where::Within(_)) => {
            let mut last = None;
            each(link, keys.rows(prefix), Some(at), |kvs| {
                last = newest(kvs, last)?;
                Ok(true)
            })
            .await?;
            Ok(Some(last))
        }
        _ => Ok(None),
    }
}

/// The member rows that ever named a member, in order, after `after`.
pub(crate) async fn naming(link: &Link, keys: &Keys, member: &str, after: &str) -> Result<Vec<Key>> {
    let (mut from, to) = keys.all_naming(member);
    let skip = from.len();
    from.extend(after.as_bytes());
    if !after.is_empty() {
        from.push(0);
    }
    let mut rows = Vec::new();
    let mut more = true;
    while more {
        let ops = vec![names((from.clone(), to.clone()), MAX_PAGE)];
        let found = link.read("reading member rows", ops).await?.take(0);
        more = found.more;
        for kv in found.kvs {
            from = kv.key().to_vec();
            from.push(0);
            let text = String::from_utf8_lossy(&kv.key()[skip..]).into_owned();
            rows.push(text.parse().map_err(|e| crate::record::damaged(&link.place, kv.key(), &e))?);
        }
    }
    Ok(rows)
}

/// How many keys of a range are asked for at once. Etcd counts a range to its end for every page of it, so pages are large.
const AT_ONCE: usize = 2000;

/// Calls `f` with the keys of a range, some at a time, for as long as it answers yes; as of a revision of etcd, or now.
pub(crate) async fn each(
    link: &Link,
    (mut from, to): Span,
    at: Option<i64>,
    mut f: impl FnMut(Vec<etcd_client::KeyValue>) -> Result<bool>,
) -> Result<()> {
    loop {
        let op = match at {
            None => first((from.clone(), to.clone()), AT_ONCE),
            Some(at) => {
                let options =
                    GetOptions::new().with_range(to.clone()).with_limit(AT_ONCE as i64).with_revision(at);
                TxnOp::get(from.clone(), Some(options))
            }
        };
        let found = link.read("reading a range", vec![op]).await?.take(0);
        if let Some(last) = found.kvs.last() {
            from = last.key().to_vec();
            from.push(0);
        }
        if !f(found.kvs)? || !found.more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::{Change, Document};

    use super::*;

    /// A commit on so many rules, which are keys of 4 KiB, that have to be absent.
    fn on_rules(count: usize) -> Commit {
        let rule = |n: usize| format!("dns/a/members/select: {}{n:02}", "x".repeat(4000));
        let pre = (0..count).map(|n| Pre::Absent(rule(n).parse().unwrap())).collect();
        let change = Change::put("lb/a".parse().unwrap(), Document::trusted("1"));
        Commit { pre, ..Commit::new("ann", "because", vec![change]) }
    }

    /// What is asked for, or compared, travels with what is written: its keys count.
    #[test]
    fn long_keys_are_asked_for_later() {
        let (keys, few, many) = (Keys::new("x"), on_rules(10), on_rules(80));
        let (few, many) = (Questions::of([&few].into_iter()), Questions::of([&many].into_iter()));
        assert_eq!(few.ops(&keys, None).len(), BEFORE + 11);
        assert!(few.are_comparable() && !many.are_comparable());
        let asked = many.ops(&keys, None).len() - BEFORE;
        assert!(asked > 10 && asked * 4000 < ASKED, "{asked}");
        // Short ones are asked for as before.
        let short = |n: usize| Pre::Exists(format!("lb/x{n}").parse().unwrap());
        let short = Commit { pre: (0..FIRST + 20).map(short).collect(), ..on_rules(0) };
        let short = Questions::of([&short].into_iter());
        assert_eq!(short.ops(&keys, None).len(), BEFORE + FIRST);
    }
}
