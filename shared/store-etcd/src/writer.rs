//! One task that commits for all of a process.
//!
//! It takes what waits, reads all that those commits ask for as of one moment, judges them one after the other, and writes
//! those that fit in one transaction, on the condition that the head is as it was read. So commits of one process never
//! stand in each other's way, and one of another process costs a second attempt.
//!
//! An answer may be lost on the way. Each commit has a number of its own, which stands in the log: whoever does not know
//! looks there, and nothing is done twice, also without an idempotency key.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use etcd_client::Txn;
use shoal_core::{Commit, Committed, Revision};
use shoal_store::{Result, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::decide::commit_large;
use crate::fault::is_compacted;
use crate::judge::{HELD, Ops, Verdict, octets};
use crate::keys::Keys;
use crate::known::{Known, Questions};
use crate::large::{as_ops, settle};
use crate::link::{BYTES, Link, OPS, Pause, absent, get, made, put, unmoved};
use crate::record::{Entry, parse, write};

/// The most commits that are judged together.
const GROUP: usize = 24;
/// A commit of more changes is looked at alone.
const SMALL: usize = 50;
/// The longest queue; whoever comes later waits.
const QUEUE: usize = 256;

/// How long a commit gives way to a large one that waits for its turn.
const TURN: Duration = Duration::from_millis(50);

/// A commit that somebody waits for.
pub(crate) struct Task {
    pub(crate) commit: Commit,
    pub(crate) answer: oneshot::Sender<Result<Committed>>,
    /// Tells it from every other, also from the same tried again by its author.
    pub(crate) attempt: String,
}

/// The way to the task. The last one to go ends it, after what was begun.
#[derive(Clone)]
pub(crate) struct Writer(mpsc::Sender<Task>);

/// A name that nobody else has.
pub(crate) fn unique() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Writer {
    pub(crate) fn start(link: Link, keys: Keys) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(link, keys, receiver));
        Self(sender)
    }

    /// Commits what was validated.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed> {
        let (answer, answered) = oneshot::channel();
        let gone = || StoreError::Unavailable { place: "the store".into(), why: "it was closed".into() };
        self.0.send(Task { commit, answer, attempt: unique() }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn run(link: Link, keys: Keys, mut queue: mpsc::Receiver<Task>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(task) = queue.recv().await else { return };
            waiting.push_back(task);
        }
        while waiting.len() < GROUP
            && let Ok(task) = queue.try_recv()
        {
            waiting.push_back(task);
        }
        let small = |task: &&Task| task.commit.changes.len() <= SMALL && task.commit.pre.len() <= SMALL;
        let count = waiting.iter().take(GROUP).take_while(small).count().max(1);
        let group: Vec<_> = waiting.drain(..count).collect();
        let rest = commit_some(&link, &keys, group).await;
        rest.into_iter().rev().for_each(|task| waiting.push_front(task));
    }
}

/// One transaction that may have been done.
struct Tried {
    revision: Revision,
    attempt: String,
    /// What the first of the group are told if it was.
    answers: Vec<Result<Committed>>,
}

/// What is to be written for the first commits of a group.
struct Plan {
    answers: Vec<Result<Committed>>,
    ops: Ops,
    held: BTreeSet<(Vec<u8>, u64)>,
    /// Number and attempt of the first entry.
    first: Option<(Revision, String)>,
    head: crate::record::Identity,
}

enum Planned {
    Small(Plan),
    /// The first alone is too large for a transaction.
    Large(Box<Verdict>),
}

/// Commits the first ones and answers them; gives back the others.
async fn commit_some(link: &Link, keys: &Keys, mut group: Vec<Task>) -> Vec<Task> {
    match try_some(link, keys, &group).await {
        Ok(answers) => {
            let rest = group.split_off(answers.len());
            for (task, answer) in group.into_iter().zip(answers) {
                // Who does not wait any more is not told.
                let _ = task.answer.send(answer);
            }
            rest
        }
        Err(error) => {
            for task in group {
                let _ = task.answer.send(Err(error.clone()));
            }
            Vec::new()
        }
    }
}

/// Commits some, at least the first, and says how they are answered.
async fn try_some(link: &Link, keys: &Keys, group: &[Task]) -> Result<Vec<Result<Committed>>> {
    let mut pause = Pause::new();
    let mut tried: Vec<Tried> = Vec::new();
    let questions = Questions::of(group.iter().map(|task| &task.commit));
    let (mut answer, mut gave_way) = (None, false);
    loop {
        let known = match answer.take() {
            // What it failed by comes with the failure.
            Some(answer) => match questions.take_up(link, keys, answer).await {
                Err(error) if is_compacted(&error) => continue,
                other => other?,
            },
            None => questions.ask(link, keys).await?,
        };
        let Some(mut known) = known else {
            settle(link, keys).await?;
            continue;
        };
        if known.turn && !gave_way {
            // Once: or who commits all the time would never let a large commit come to its decision.
            gave_way = true;
            tokio::time::sleep(TURN).await;
            continue;
        }
        // What is not there by now never will be: it was conditional on an older head.
        for one in std::mem::take(&mut tried) {
            if one.revision <= known.head.revision && was_done(link, keys, one.revision, &one.attempt).await?
            {
                return Ok(one.answers);
            }
            if one.revision > known.head.revision {
                tried.push(one);
            }
        }
        let plan = match plan(&mut known, keys, group)? {
            Planned::Small(plan) => plan,
            Planned::Large(verdict) => {
                match commit_large(link, keys, &known, *verdict, &group[0].commit).await? {
                    Some(answer) => return Ok(vec![answer]),
                    None => continue,
                }
            }
        };
        if plan.ops.is_empty() {
            return Ok(plan.answers);
        }
        let mut conditions = vec![unmoved(keys.head(), known.head_at), absent(keys.applying_commit())];
        conditions.extend(plan.held.into_iter().map(|(key, number)| made(key, number)));
        let mut ops = as_ops(plan.ops);
        ops.push(put(keys.head(), write(&plan.head)?));
        let txn = Txn::new().when(conditions).and_then(ops).or_else(questions.ops(keys));
        match link.once("committing", txn).await {
            Ok(done) if done.done => return Ok(plan.answers),
            Ok(refused) => answer = Some(refused),
            Err(error) if error.is_transient() => {
                if let Some((revision, attempt)) = plan.first {
                    tried.push(Tried { revision, attempt, answers: plan.answers });
                }
                pause.after(error).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether this revision is this attempt's.
async fn was_done(link: &Link, keys: &Keys, revision: Revision, attempt: &str) -> Result<bool> {
    let found = link.read("looking whether it was committed", vec![get(keys.entry(revision))]).await?.one(0);
    let Some(kv) = found else { return Ok(false) };
    Ok(parse::<Entry>(&link.place, kv.key(), kv.value())?.attempt == attempt)
}

/// Judges as many commits as fit in one transaction.
fn plan(known: &mut Known, keys: &Keys, group: &[Task]) -> Result<Planned> {
    let mut plan =
        Plan { answers: Vec::new(), ops: Ops::new(), held: BTreeSet::new(), first: None, head: known.head };
    for task in group {
        let verdict = match known.judge(keys, &task.commit, &task.attempt) {
            Ok(verdict) => verdict,
            Err(refused) => {
                plan.answers.push(Err(refused));
                continue;
            }
        };
        let ops = match verdict.ops(keys) {
            Ok(Some(ops)) => ops,
            Ok(None) if plan.answers.is_empty() => return Ok(Planned::Large(Box::new(verdict))),
            Ok(None) => break,
            Err(refused) => {
                plan.answers.push(Err(refused));
                continue;
            }
        };
        let held = plan.held.len() + verdict.held.len();
        let full =
            plan.ops.len() + ops.len() > OPS || octets(&plan.ops) + octets(&ops) > BYTES || held > HELD;
        if full && !plan.answers.is_empty() {
            break;
        }
        known.take_for_written(&verdict, &task.commit);
        plan.ops.extend(ops);
        plan.held.extend(verdict.held);
        plan.head = verdict.head;
        if let (None, Some(entry)) = (&plan.first, &verdict.entry) {
            plan.first = Some((entry.revision, entry.attempt.clone()));
        }
        plan.answers.push(Ok(verdict.committed));
    }
    Ok(Planned::Small(plan))
}
