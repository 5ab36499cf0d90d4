//! Commits handed to who is committing anyway.
//!
//! Every commit is conditional on the head, so of several processes that try at once one wins and the others have tried in vain. Who lost
//! twice therefore lays its commits down at `queue/<id>`, where `id` is its own, and waits. Who commits next takes what lies there along: it judges those
//! commits with its own, as of the same moment and on the same conditions, and the transaction that writes them removes `queue/<id>` and says
//! at `answer/<id>` what became of them. One watch on that key is how their owner hears of it.
//!
//! * *Never twice.* Whatever lays commits down, takes them or does without is conditional on `answer/<id>` being as it was (taking: on `queue/<id>`, which no
//!   longer stands once there is an answer), and whatever takes them or does without writes `answer/<id>`. So of all of that, however late it arrives at etcd, one
//!   transaction happens. What became of an attempt whose answer was lost stands there, too.
//! * *Never forgotten.* Who is not answered within some tens of milliseconds commits by itself, and takes what others laid down along. So nobody is appointed
//!   and nobody need be noticed to be dead.
//! * *Never refused by others.* What may not happen is given back, and its owner judges it itself: reasons travel nowhere.
//!
//! Both keys are under one lease: nothing is left of who died, and its commits are not done later than that.

use std::time::{Duration, Instant};

use etcd_client::{Compare, Event, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp};
use rand::Rng;
use serde::{Deserialize, Serialize};
use shoal_core::{Change, Commit, Committed, Pre, Range};
use shoal_store::parts::Where;
use shoal_store::{Result, StoreError};

use crate::keys::Keys;
use crate::known::octets_asked;
use crate::link::{Link, Listen, get, unmoved};
use crate::record::{Stored, parse, write};

/// The most of a commit that is handed to others: changes and preconditions each, claims, and octets of all that one hands over.
const CHANGES: usize = 8;
const CLAIMS: usize = 2;
const OCTETS: usize = 64 << 10;
/// How many that others handed over are looked at together.
const GUESTS: i64 = 12;
/// How long it is waited for an answer in milliseconds, by chance, beside some times as long as answers took lately; and at most.
const PATIENCE: std::ops::Range<u64> = 20..60;
const TIMES: u32 = 3;
const LONGEST: Duration = Duration::from_millis(500);
/// How long what is handed over stands when its owner is gone.
const LEASE: Duration = Duration::from_secs(20);
/// When the lease is renewed, and when it may have ended for all that is known here.
const RENEW: Duration = Duration::from_secs(4);
const STALE: Duration = Duration::from_secs(12);
/// How often it is seen whether that is due, while something else is waited for.
const BEAT: Duration = Duration::from_secs(1);

/// At `queue/<id>`: commits that may be done by whoever commits. A field that is not known here might be a condition, so what has one is
/// left to its owner. Of a change alone that is not seen, because the log has the same: a new field of it needs a version here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Queued {
    commits: Vec<Handed>,
}

/// One of them. Its changes stand apart: as they are kept in the log, where a `null` is a value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handed {
    commit: Commit,
    changes: Vec<Stored>,
}

/// At `answer/<id>`: what became of the first of them; the others were given back.
#[derive(Debug, Serialize, Deserialize)]
struct Answers {
    done: Vec<Committed>,
}

/// What somebody handed over.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) commits: Vec<Commit>,
    id: String,
    /// Etcd's revision of it.
    at: i64,
    lease: i64,
}

/// Asks for what was handed over, the oldest first.
pub(crate) fn waiting(keys: &Keys) -> TxnOp {
    let (from, to) = keys.queue();
    let oldest = GetOptions::new().with_range(to).with_limit(GUESTS);
    TxnOp::get(from, Some(oldest.with_sort(SortTarget::Mod, SortOrder::Ascend)))
}

/// What was handed over by others than `own`. What this program does not understand is left to its owner.
pub(crate) fn guests(link: &Link, keys: &Keys, found: Vec<KeyValue>, own: Option<&str>) -> Vec<Guest> {
    let guest = |kv: KeyValue| {
        let id = keys.of_queue(kv.key()).filter(|id| Some(id.as_str()) != own)?;
        let queued: Queued = match parse(&link.place, kv.key(), kv.value()) {
            Ok(queued) => queued,
            Err(error) => {
                tracing::debug!(%error, "what was handed over is left to its owner");
                return None;
            }
        };
        let commits: Vec<_> = queued.commits.into_iter().map(Handed::back).collect();
        // Who would hand over more is of another version: for that nothing was read.
        if !may_be_handed(commits.iter()) {
            return None;
        }
        Some(Guest { commits, id, at: kv.mod_revision(), lease: kv.lease() })
    };
    found.into_iter().filter_map(guest).collect()
}

impl Handed {
    fn of(commit: &Commit) -> Self {
        let changes = commit.changes.iter().cloned().map(Stored::from).collect();
        Self { commit: Commit { changes: Vec::new(), ..commit.clone() }, changes }
    }

    fn back(self) -> Commit {
        Commit { changes: self.changes.into_iter().map(Change::from).collect(), ..self.commit }
    }
}

/// What takes it: on which condition, and what is written with its commits.
pub(crate) struct Taking {
    pub(crate) condition: Compare,
    pub(crate) ops: [TxnOp; 2],
}

fn answering(keys: &Keys, id: &str, lease: i64, done: &[Committed]) -> Result<[TxnOp; 2]> {
    let text = write(&Answers { done: done.to_vec() })?;
    Ok([
        TxnOp::delete(keys.queued(id), None),
        TxnOp::put(keys.answer(id), text, Some(PutOptions::new().with_lease(lease))),
    ])
}

impl Guest {
    #[cfg(test)]
    pub(crate) fn new(id: &str, commits: Vec<Commit>) -> Self {
        Self { commits, id: id.to_owned(), at: 1, lease: 0 }
    }

    pub(crate) fn taking(&self, keys: &Keys, done: &[Committed]) -> Result<Taking> {
        let condition = unmoved(keys.queued(&self.id), self.at);
        Ok(Taking { condition, ops: answering(keys, &self.id, self.lease, done)? })
    }
}

/// Whether these commits may be handed to others: small, and read with a question each.
pub(crate) fn may_be_handed<'a>(commits: impl Iterator<Item = &'a Commit>) -> bool {
    let mut octets = 0;
    for commit in commits {
        let claims = commit.pre.iter().filter(|pre| matches!(pre, Pre::Held { .. })).count();
        let walked = commit.pre.iter().any(|pre| match pre {
            Pre::Unchanged(range, _) => {
                matches!(range, Range::Naming(_)) || matches!(Where::of(range), Where::Within(_))
            }
            _ => false,
        });
        if walked || claims > CLAIMS || commit.changes.len() > CHANGES || commit.pre.len() > CHANGES {
            return false;
        }
        let value = |change: &Change| change.value.as_ref().map_or(0, |value| value.as_str().len());
        octets += commit.changes.iter().map(value).sum::<usize>() + octets_asked(commit);
        octets += commit.message.len() + 512;
    }
    octets > 0 && octets <= OCTETS
}

/// One's own place in the queue.
pub(crate) struct Seat {
    id: String,
    lease: i64,
    renewed: Instant,
    /// Etcd's revision of the last answer; 0 where there was none yet.
    answered: i64,
    listen: Option<Listen>,
    /// How long answers took lately.
    usual: Duration,
    /// Whether something may lie there.
    pub(crate) laid: bool,
}

/// What became of the attempt to hand something over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Laid {
    /// It lies there, or may.
    Down,
    /// It does not and never will; the seat is worth nothing any more.
    Never,
}

impl Seat {
    pub(crate) async fn take(link: &Link) -> Result<Self> {
        let lease = link.grant(LEASE).await?;
        let (id, renewed) = (crate::writer::unique(), Instant::now());
        Ok(Self { id, lease, renewed, answered: 0, listen: None, usual: Duration::ZERO, laid: false })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Hands commits over.
    pub(crate) async fn lay(&mut self, link: &Link, keys: &Keys, commits: &[&Commit]) -> Result<Laid> {
        if self.renewed.elapsed() > STALE || !self.renew(link).await {
            return Ok(Laid::Never);
        }
        if self.listen.is_none() {
            let key = keys.answer(&self.id);
            let span = (key.clone(), [&key[..], &[0]].concat());
            self.listen = link.listen(span, link.seen() + 1).await.ok();
        }
        let queued = Queued { commits: commits.iter().map(|commit| Handed::of(commit)).collect() };
        let put = TxnOp::put(
            keys.queued(&self.id),
            write(&queued)?,
            Some(PutOptions::new().with_lease(self.lease)),
        );
        let txn = Txn::new().when(vec![self.unanswered(keys)]).and_then(vec![put]);
        match link.once("handing a commit over", txn).await {
            Ok(answer) if answer.done => {}
            Ok(_) => return Ok(Laid::Never),
            Err(error) if error.is_transient() && !has_ended(&error) => {}
            Err(_) => return Ok(Laid::Never),
        }
        self.laid = true;
        Ok(Laid::Down)
    }

    /// Renews the lease where that is due. Whether it stands, for all that is known.
    async fn renew(&mut self, link: &Link) -> bool {
        if self.renewed.elapsed() <= RENEW {
            return true;
        }
        let begun = Instant::now();
        let stands = link.renew(self.lease).await.unwrap_or(false);
        if stands {
            self.renewed = begun;
        }
        stands
    }

    /// Keeps what was laid down there, for ever.
    pub(crate) async fn keep(&mut self, link: &Link) {
        loop {
            self.renew(link).await;
            tokio::time::sleep(BEAT).await;
        }
    }

    fn unanswered(&self, keys: &Keys) -> Compare {
        unmoved(keys.answer(&self.id), self.answered)
    }

    /// Asks for the answer.
    pub(crate) fn ask(&self, keys: &Keys) -> TxnOp {
        get(keys.answer(&self.id))
    }

    /// What takes back what was handed over, with these answers to its first.
    pub(crate) fn taking(&self, keys: &Keys, done: &[Committed]) -> Result<Taking> {
        let condition = self.unanswered(keys);
        Ok(Taking { condition, ops: answering(keys, &self.id, self.lease, done)? })
    }

    /// Takes for answered what was written at this revision of etcd.
    pub(crate) fn answered_at(&mut self, at: i64) {
        self.answered = self.answered.max(at);
        self.laid = false;
    }

    /// Waits for an answer, for as long as there is patience.
    pub(crate) async fn wait(&mut self, link: &Link) -> Result<Option<Vec<Committed>>> {
        // Who loses for long is not to lose its seat over it.
        self.renew(link).await;
        let patience = Duration::from_millis(rand::rng().random_range(PATIENCE)) + self.usual * TIMES;
        let begun = Instant::now();
        let heard = tokio::time::timeout(patience.min(LONGEST), self.hear(link)).await;
        // Where nobody answers any more it is waited less the next time.
        self.usual = match heard {
            Ok(_) => (self.usual * 3 + begun.elapsed()) / 4,
            Err(_) => self.usual / 2,
        };
        heard.unwrap_or(Ok(None))
    }

    async fn hear(&mut self, link: &Link) -> Result<Option<Vec<Committed>>> {
        while let Some(listen) = &mut self.listen {
            match listen.next().await {
                Ok(Some(told)) if !told.canceled() => {
                    let kvs: Vec<_> = told.events().iter().filter_map(Event::kv).collect();
                    let said = kvs.iter().map(|kv| (kv.mod_revision(), kv.value()));
                    if let Some(n) = newest(said, self.answered) {
                        return self.read(link, Some(kvs[n]));
                    }
                }
                _ => self.listen = None,
            }
        }
        std::future::pending().await
    }

    /// What stands at the key of the answer, if it is an answer to what was laid down.
    ///
    /// # Errors
    /// It is gone: nothing was heard of this process for so long that its lease ended.
    pub(crate) fn read(&mut self, link: &Link, found: Option<&KeyValue>) -> Result<Option<Vec<Committed>>> {
        let Some(kv) = found.filter(|kv| !kv.value().is_empty()) else {
            return if self.answered == 0 && found.is_none() { Ok(None) } else { Err(ended(link)) };
        };
        if kv.mod_revision() <= self.answered {
            return Ok(None);
        }
        let answers: Answers = parse(&link.place, kv.key(), kv.value())?;
        self.answered_at(kv.mod_revision());
        Ok(Some(answers.done))
    }

    /// Leaves nothing behind.
    pub(crate) async fn leave(self, link: &Link) {
        link.revoke(self.lease).await;
    }
}

/// Which of these counts, each with etcd's revision and what it put there: the newest answer, also where it was removed since. What was
/// removed, and is empty, counts where there is no answer.
fn newest<'a>(
    said: impl DoubleEndedIterator<Item = (i64, &'a [u8])> + ExactSizeIterator,
    answered: i64,
) -> Option<usize> {
    let mut new = said.enumerate().rev().filter(|(_, (at, _))| *at > answered);
    let (last, (_, value)) = new.next()?;
    let answer = if value.is_empty() { new.find(|(_, (_, value))| !value.is_empty()) } else { None };
    Some(answer.map_or(last, |(n, _)| n))
}

/// Whether etcd says that a lease ended.
pub(crate) fn has_ended(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { why, .. } if why.contains("requested lease not found"))
}

/// What was handed over may have been done.
pub(crate) fn ended(link: &Link) -> StoreError {
    StoreError::Unavailable {
        place: link.place.to_string(),
        why: format!(
            "committing: this process, or etcd, stood still for longer than {} s in between, and it is not known whether it was \
             done; look, or try again with the same idempotency key",
            LEASE.as_secs()
        ),
    }
}

/// What is told to who handed something over and could not go on: also where etcd refused the last request, it may have been done.
pub(crate) fn maybe_done(place: &str, error: StoreError) -> StoreError {
    if matches!(error, StoreError::Unavailable { .. }) {
        return error;
    }
    StoreError::Unavailable {
        place: place.to_owned(),
        why: format!(
            "committing: it was handed to another process, and it is not known whether it was done; look, or try again with the \
             same idempotency key. What came in between: {error}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::{Document, Revision};

    use super::*;

    fn commit(pre: Vec<Pre>, value: Option<&str>) -> Commit {
        let change =
            Change { key: "lb/a".parse().unwrap(), value: value.map(Document::trusted), moved: None };
        Commit { pre, idempotency: Some("once".into()), ..Commit::new("ann", "because", vec![change]) }
    }

    /// The digest that idempotency keys are compared by is of the very text.
    #[test]
    fn what_is_handed_over_arrives_as_it_was() {
        for value in [Some("null"), Some("{\"b\":1.0,\"a\":1e3}"), None] {
            let given = commit(vec![Pre::Held { name: "unit/a".into(), number: u64::MAX }], value);
            let text = write(&Queued { commits: vec![Handed::of(&given)] }).unwrap();
            let mut back: Queued = parse("here", b"k", &text).unwrap();
            assert_eq!(back.commits.remove(0).back(), given);
        }
    }

    /// The answer and the end of its lease may be told together.
    #[test]
    fn an_answer_counts_also_where_it_is_gone_again() {
        let newest = |said: &[(i64, &str)]| newest(said.iter().map(|(at, text)| (*at, text.as_bytes())), 5);
        assert_eq!(newest(&[(6, "{}"), (7, "")]), Some(0));
        assert_eq!(newest(&[(6, "{}"), (7, "{}")]), Some(1));
        assert_eq!(newest(&[(6, "{}"), (7, "{}"), (8, "")]), Some(1));
        assert_eq!(newest(&[(5, "{}"), (7, "")]), Some(1), "what was heard before is no answer");
        assert_eq!(newest(&[(4, ""), (5, "{}")]), None);
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn what_was_handed_over_is_not_called_refused() {
        let (place, why) = ("etcd at h1".to_owned(), "because".to_owned());
        for refused in [
            StoreError::Denied { place: place.clone(), why: why.clone() },
            StoreError::Full { place: place.clone(), why: why.clone() },
            StoreError::Invalid(why),
        ] {
            let said = maybe_done(&place, refused);
            assert!(matches!(said, StoreError::Unavailable { .. }), "{said}");
            let said = said.to_string();
            assert!(said.contains("not known whether it was done") && said.contains("because"), "{said}");
        }
        let silent = StoreError::Unavailable { place: place.clone(), why: "no answer".into() };
        assert_eq!(maybe_done(&place, silent.clone()), silent);
    }

    #[test]
    fn what_is_large_or_costs_much_is_not_handed_over() {
        let small = commit(vec![], Some("1"));
        let changes = vec![small.changes[0].clone(); CHANGES + 1];
        let large = commit(vec![], Some(&format!("\"{}\"", "x".repeat(OCTETS))));
        let walked = Pre::Unchanged(Range::Prefix("a/b/c/d".into()), Revision(1));
        assert!(may_be_handed([&small].into_iter()));
        assert!(!may_be_handed([&small, &Commit { changes, ..small.clone() }].into_iter()));
        assert!(!may_be_handed([&large].into_iter()));
        assert!(!may_be_handed([&commit(vec![walked], Some("1"))].into_iter()));
        let rule = |n: usize| format!("dns/a/members/select: {}{n}", "x".repeat(4000));
        let absent = |n| Pre::Absent(rule(n).parse().unwrap());
        let rules = commit((0..CHANGES).map(absent).collect(), Some("1"));
        assert!(may_be_handed([&rules].into_iter()) && !may_be_handed([&rules, &rules].into_iter()));
        assert!(!may_be_handed(std::iter::empty()));
    }
}
