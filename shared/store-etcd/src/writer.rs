//! One task that commits for all of a process.
//!
//! It takes what waits, reads all that those commits ask for as of one moment, judges them one after the other, and writes
//! those that fit in one transaction, on the condition that the head is as it was read. So commits of one process never
//! stand in each other's way. One of another process costs a second attempt, and who has to try a third time hands its
//! commits to who is faster (see `queue`); what others handed over is taken along.
//!
//! While nobody else commits, it does not ask for what it knows since its last commit (see `memory`), and asks for what the next commits rest on
//! while it writes those before them. So a commit is one transaction where all is known, and what is not is asked for before, or meanwhile.
//!
//! An answer may be lost on the way. Each attempt has a number of its own, which stands in the log: whoever does not know
//! looks there, and nothing is done twice, also without an idempotency key.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use etcd_client::{Compare, Txn};
use shoal_core::{Commit, Committed, Revision};
use shoal_store::{Result, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::decide::commit_large;
use crate::fault::is_compacted;
use crate::keys::Keys;
use crate::known::{Known, Questions, Want, same_head};
use crate::large::{as_ops, settle};
use crate::link::{Answer, Link, Pause, absent, get, made, put};
use crate::memory::{Memory, Recalled, ahead};
use crate::plan::{Plan, Planned, plan, take_back};
use crate::queue::{Laid, Seat, ended, has_ended, may_be_handed, maybe_done};
use crate::record::{Entry, Identity, parse, write};

/// The most commits that are judged together: as many of one row each as fit in a transaction.
const GROUP: usize = 28;
/// A commit of more changes is looked at alone.
const SMALL: usize = 50;
/// The longest queue; whoever comes later waits.
const QUEUE: usize = 256;
/// The most commits that are handed over together.
const HANDED: usize = 8;

/// How long a commit gives way to a large one that waits for its turn.
const TURN: Duration = Duration::from_millis(50);
/// Who loses so often in a row hands over, and goes on with that until nobody was faster for this long.
const LOSSES: u32 = 2;
const RIVALRY: Duration = Duration::from_secs(1);
/// How long, and how often, it is looked for what others hand over when there is nothing of one's own.
const LINGER: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(1);
/// How long it may take to get a seat, and after how long without a commit it is given up.
const SEAT: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(10);

/// A commit that somebody waits for.
pub(crate) struct Task {
    pub(crate) commit: Commit,
    pub(crate) answer: oneshot::Sender<Result<Committed>>,
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
        self.0.send(Task { commit, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn run(link: Link, keys: Keys, queue: mpsc::Receiver<Task>) {
    let mut committer = Committer {
        link,
        keys,
        queue,
        waiting: VecDeque::new(),
        memory: Memory::default(),
        ahead: None,
        seat: None,
        lost: 0,
        rival: None,
        hosted: None,
        missed: None,
    };
    loop {
        if committer.waiting.is_empty() {
            let Some(task) = committer.next().await else { return committer.leave().await };
            committer.waiting.push_back(task);
        }
        committer.fill();
        // One that is not small is tried alone.
        let count = committer.small().max(1);
        let group: Vec<_> = committer.waiting.drain(..count).collect();
        let rest = committer.commit_some(group).await;
        rest.into_iter().rev().for_each(|task| committer.waiting.push_front(task));
    }
}

/// What was asked for while something else was written.
struct Ahead {
    wants: Vec<Want>,
    answer: JoinHandle<Result<Answer>>,
}

/// One transaction that may have been done.
struct Tried {
    revision: Revision,
    attempt: String,
    /// What the first of the group are told if it was.
    answers: Vec<Result<Committed>>,
}

/// What became of commits that were handed over, or were to be.
enum Over {
    /// Of the first of them this.
    Done(Vec<Committed>),
    /// Nobody took them yet.
    Kept,
    /// They are to be committed by their owner.
    Back,
}

/// Who commits, and what it knows of others who do.
struct Committer {
    link: Link,
    keys: Keys,
    queue: mpsc::Receiver<Task>,
    /// What was taken from the queue, and is not tried yet.
    waiting: VecDeque<Task>,
    memory: Memory,
    ahead: Option<Ahead>,
    seat: Option<Seat>,
    /// How often in a row somebody else was faster.
    lost: u32,
    /// When somebody else last was, since when nothing was won.
    rival: Option<Instant>,
    /// When something of others was last taken along.
    hosted: Option<Instant>,
    /// When what was known was last not so any more.
    missed: Option<Instant>,
}

/// How one attempt at a group ended.
enum Attempt {
    Answered(Vec<Result<Committed>>),
    /// It has to be tried again, by what came with the refusal.
    Refused(Answer),
    Again,
}

/// What is known while a group is tried.
struct Trying<'a> {
    group: &'a [Task],
    questions: Questions<'a>,
    pause: Pause,
    tried: Vec<Tried>,
    /// Whether its commits may be handed to others, and those of others be taken along.
    hands: bool,
    takes: bool,
    /// What has to be so besides, where the next attempt rests on what was not asked for.
    guess: Option<Vec<Compare>>,
}

impl Committer {
    /// The next commit. While others handed something over just now, it is looked for more of that.
    async fn next(&mut self) -> Option<Task> {
        loop {
            let hosting = self.hosted.is_some_and(|at| at.elapsed() < LINGER);
            if !hosting && self.seat.is_none() {
                return self.queue.recv().await;
            }
            let came = tokio::time::timeout(if hosting { LOOK } else { IDLE }, self.queue.recv()).await;
            match came {
                Ok(task) => return task,
                Err(_) if hosting => {
                    if let Err(error) = self.try_some(&[]).await {
                        tracing::debug!(%error, "what others handed over is left to them");
                        self.hosted = None;
                    }
                }
                Err(_) => self.leave().await,
            }
        }
    }

    /// Takes what came meanwhile from the queue.
    fn fill(&mut self) {
        while self.waiting.len() < GROUP
            && let Ok(task) = self.queue.try_recv()
        {
            self.waiting.push_back(task);
        }
    }

    /// How many of those that wait are tried together: the first of them, as long as they are small.
    fn small(&self) -> usize {
        let small = |task: &&Task| task.commit.changes.len() <= SMALL && task.commit.pre.len() <= SMALL;
        self.waiting.iter().take(GROUP).take_while(small).count()
    }

    /// Whether nobody else commits, for all that was seen lately.
    fn alone(&self) -> bool {
        let lately = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < RIVALRY);
        self.lost == 0
            && !self.has_laid()
            && !lately(self.rival)
            && !lately(self.hosted)
            && !lately(self.missed)
    }

    /// Asks for what those that wait rest on, while others are written.
    fn look_ahead(&mut self) {
        if !self.alone() {
            return;
        }
        self.fill();
        let waiting = self.waiting.iter().take(self.small()).map(|task| &task.commit);
        let wants = self.memory.missing(&Questions::of(waiting));
        if wants.is_empty() {
            return;
        }
        let (link, txn) = (self.link.clone(), Txn::new().and_then(ahead(&self.keys, &wants)));
        let ask = async move { link.once("reading what commits rest on", txn).await };
        self.ahead = Some(Ahead { wants, answer: tokio::spawn(ask) });
    }

    /// Takes up what was asked for, where that came to something: if not, it is asked for once more.
    async fn look_back(&mut self) {
        let Some(Ahead { wants, answer }) = self.ahead.take() else { return };
        let Ok(Ok(answer)) = answer.await else { return };
        if let Err(error) = self.memory.look_back(&self.link, &self.keys, &wants, answer) {
            tracing::debug!(%error, "what was read ahead is read again");
        }
    }

    async fn leave(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.leave(&self.link).await;
        }
    }

    /// Commits the first ones and answers them; gives back the others.
    async fn commit_some(&mut self, mut group: Vec<Task>) -> Vec<Task> {
        match self.try_some(&group).await {
            Ok(answers) => {
                let rest = group.split_off(answers.len());
                for (task, answer) in group.into_iter().zip(answers) {
                    // Who does not wait any more is not told.
                    let _ = task.answer.send(answer);
                }
                rest
            }
            Err(error) => {
                let laid = if self.has_laid() { HANDED } else { 0 };
                if laid > 0 {
                    self.leave().await;
                }
                for (n, task) in group.into_iter().enumerate() {
                    let error = error.clone();
                    let error = if n < laid { maybe_done(&self.link.place, error) } else { error };
                    let _ = task.answer.send(Err(error));
                }
                Vec::new()
            }
        }
    }

    fn has_laid(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.laid)
    }

    /// Waits until no large commit is being carried out, for up to minutes. What was laid down stays there meanwhile.
    async fn settle(&mut self) -> Result<()> {
        let settled = Box::pin(settle(&self.link, &self.keys));
        match self.seat.as_mut().filter(|seat| seat.laid) {
            Some(seat) => tokio::select! {
                done = settled => done,
                () = seat.keep(&self.link) => Ok(()),
            },
            None => settled.await,
        }
    }

    /// Commits some, and says how they are answered. Of none, it commits what others handed over.
    async fn try_some(&mut self, group: &[Task]) -> Result<Vec<Result<Committed>>> {
        let commits = || group.iter().map(|task| &task.commit);
        let mut trying = Trying {
            group,
            questions: Questions::of(commits()),
            pause: Pause::new(),
            tried: Vec::new(),
            hands: may_be_handed(commits()),
            takes: true,
            guess: None,
        };
        let (mut answer, mut gave_way) = match self.attempt_recalled(&mut trying).await? {
            Attempt::Answered(answers) => return Ok(answers),
            Attempt::Refused(refused) => (Some(refused), false),
            Attempt::Again => (None, false),
        };
        loop {
            let rival = self.rival.is_some_and(|at| at.elapsed() < RIVALRY);
            if self.has_laid() || (trying.hands && rival && trying.tried.is_empty()) {
                answer = None;
                match self.hand_over(group).await? {
                    Over::Done(done) => return Ok(done.into_iter().map(Ok).collect()),
                    Over::Back => trying.hands = false,
                    Over::Kept => {}
                }
            }
            let (link, keys, seat) = (&self.link, &self.keys, self.seat.as_ref());
            let known = match answer.take() {
                // What it failed by comes with the failure.
                Some(answer) => match trying.questions.take_up(link, keys, seat, answer).await {
                    Err(error) if is_compacted(&error) => continue,
                    other => other?,
                },
                None => trying.questions.ask(link, keys, seat).await?,
            };
            let Some(mut known) = known else {
                self.settle().await?;
                continue;
            };
            if known.turn && !gave_way {
                // Once: or who commits all the time would never let a large commit come to its decision.
                gave_way = true;
                tokio::time::sleep(TURN).await;
                continue;
            }
            if !trying.takes {
                known.guests.clear();
            }
            let attempt = match self.has_laid() {
                true => Box::pin(self.attempt_laid(&mut trying, known)).await?,
                false => Box::pin(self.attempt(&mut trying, known)).await?,
            };
            match attempt {
                Attempt::Answered(answers) => return Ok(answers),
                Attempt::Again => {}
                Attempt::Refused(refused) => {
                    self.lost += 1;
                    if self.lost >= LOSSES {
                        self.rival = Some(Instant::now());
                    }
                    if group.is_empty() {
                        self.hosted = None;
                        return Ok(Vec::new());
                    }
                    answer = Some(refused);
                }
            }
        }
    }

    /// Tries to commit by what is known, without asking. Others need not be there for it to be refused, so it does not count as lost.
    async fn attempt_recalled(&mut self, trying: &mut Trying<'_>) -> Result<Attempt> {
        if trying.group.is_empty() {
            return Ok(Attempt::Again);
        }
        self.look_back().await;
        let recalled = if self.alone() { self.memory.recall(&self.keys, &trying.questions) } else { None };
        let Some(Recalled { known, guess }) = recalled else { return Ok(Attempt::Again) };
        trying.guess = Some(guess);
        let attempt = Box::pin(self.attempt(trying, known)).await?;
        if matches!(attempt, Attempt::Refused(_)) {
            self.missed = Some(Instant::now());
        }
        Ok(attempt)
    }

    /// Hands the first commits over, if they are not yet, and waits for what becomes of them.
    async fn hand_over(&mut self, group: &[Task]) -> Result<Over> {
        if self.seat.is_none() {
            // Where that takes long there are other troubles than rivals.
            let seat = tokio::time::timeout(SEAT, Seat::take(&self.link)).await;
            self.seat = seat.ok().and_then(Result::ok);
        }
        let Some(seat) = &mut self.seat else { return Ok(Over::Back) };
        if !seat.laid {
            let commits: Vec<_> = group.iter().take(HANDED).map(|task| &task.commit).collect();
            if seat.lay(&self.link, &self.keys, &commits).await? == Laid::Never {
                self.leave().await;
                return Ok(Over::Back);
            }
        }
        let Some(done) = seat.wait(&self.link).await? else { return Ok(Over::Kept) };
        Ok(self.was_answered(done))
    }

    fn was_answered(&mut self, done: Vec<Committed>) -> Over {
        self.rival = Some(Instant::now());
        if done.is_empty() { Over::Back } else { Over::Done(done) }
    }

    /// Tries to commit what was handed over and nobody took.
    async fn attempt_laid(&mut self, trying: &mut Trying<'_>, mut known: Known) -> Result<Attempt> {
        let Some(seat) = &mut self.seat else { return Ok(Attempt::Again) };
        if let Some(done) = seat.read(&self.link, known.answer.as_ref())? {
            return Ok(match self.was_answered(done) {
                Over::Done(done) => Attempt::Answered(done.into_iter().map(Ok).collect()),
                _ => {
                    trying.hands = false;
                    Attempt::Again
                }
            });
        }
        let (before, head) = (known.head, same_head(&self.keys, known.head_at, &known.head_text));
        let own = trying.group.iter().take(HANDED).map(|task| &task.commit);
        let (plan, done) = take_back(&mut known, &self.keys, seat, own)?;
        let others = plan.takings.len() > 1;
        let txn = txn(&self.keys, plan, before, head, Vec::new())?;
        let txn = txn.or_else(trying.questions.ops(&self.keys, Some(seat)));
        match self.link.once("committing", txn).await {
            Ok(answer) if answer.done => {
                seat.answered_at(answer.revision);
                self.won(others);
                if done.is_empty() {
                    trying.hands = false;
                    return Ok(Attempt::Again);
                }
                Ok(Attempt::Answered(done.into_iter().map(Ok).collect()))
            }
            Ok(refused) => Ok(Attempt::Refused(refused)),
            Err(error) if has_ended(&error) => Err(ended(&self.link)),
            Err(error) => trying.after(error, others).await,
        }
    }

    /// Tries to commit.
    async fn attempt(&mut self, trying: &mut Trying<'_>, mut known: Known) -> Result<Attempt> {
        let (link, keys) = (&self.link, &self.keys);
        // What is not there by now never will be: it was conditional on an older head.
        for one in std::mem::take(&mut trying.tried) {
            if one.revision <= known.head.revision && was_done(link, keys, one.revision, &one.attempt).await?
            {
                return Ok(Attempt::Answered(one.answers));
            }
            if one.revision > known.head.revision {
                trying.tried.push(one);
            }
        }
        let (before, guess) = (known.head, trying.guess.take());
        let head = same_head(keys, known.head_at, &known.head_text);
        let mut plan = match plan(&mut known, keys, trying.group.iter().map(|task| &task.commit))? {
            Planned::Small(plan) if guess.as_ref().is_some_and(|guess| !plan.proves(before, guess.len())) => {
                return Ok(Attempt::Again);
            }
            Planned::Small(plan) => plan,
            _ if guess.is_some() => return Ok(Attempt::Again),
            Planned::Alone => {
                trying.takes = false;
                return Ok(Attempt::Again);
            }
            Planned::Large(verdict) => {
                let commit = &trying.group[0].commit;
                return Ok(match commit_large(link, keys, &known, *verdict, commit).await? {
                    Some(answer) => Attempt::Answered(vec![answer]),
                    None => Attempt::Again,
                });
            }
        };
        if plan.ops.is_empty() && plan.takings.is_empty() {
            return Ok(Attempt::Answered(plan.answers));
        }
        let (answers, first) = (std::mem::take(&mut plan.answers), plan.first.take());
        let (others, moves) = (!plan.takings.is_empty(), plan.head != before);
        let txn = txn(keys, plan, before, head, guess.unwrap_or_default())?;
        let txn = txn.or_else(trying.questions.ops(keys, self.seat.as_ref()));
        self.look_ahead();
        match self.link.once("committing", txn).await {
            Ok(done) if done.done => {
                if moves {
                    self.memory.wrote(&trying.questions, before, known, done.revision);
                }
                self.won(others);
                Ok(Attempt::Answered(answers))
            }
            Ok(refused) => Ok(Attempt::Refused(refused)),
            Err(error) => {
                if let (true, Some((revision, attempt))) = (error.is_transient(), first) {
                    trying.tried.push(Tried { revision, attempt, answers });
                }
                trying.after(error, others).await
            }
        }
    }

    fn won(&mut self, others: bool) {
        (self.lost, self.rival) = (0, None);
        if others {
            self.hosted = Some(Instant::now());
        }
    }
}

impl Trying<'_> {
    /// What is done after an error.
    async fn after(&mut self, error: StoreError, others: bool) -> Result<Attempt> {
        if error.is_transient() && !self.group.is_empty() {
            self.pause.after(error).await?;
        } else if others && self.takes && !self.group.is_empty() {
            // It may be what others handed over that etcd does not take.
            self.takes = false;
        } else {
            return Err(error);
        }
        Ok(Attempt::Again)
    }
}

/// What writes a plan, on all conditions that it rests on: beside others that the head is the one that it was judged by.
fn txn(keys: &Keys, plan: Plan, before: Identity, head: [Compare; 2], guess: Vec<Compare>) -> Result<Txn> {
    let mut conditions = vec![absent(keys.applying_commit())];
    conditions.extend(head);
    conditions.extend(guess);
    conditions.extend(plan.held.into_iter().map(|(key, at)| made(key, at)));
    let mut ops = as_ops(plan.ops);
    for taking in plan.takings {
        conditions.push(taking.condition);
        ops.extend(taking.ops);
    }
    if plan.head != before {
        ops.push(put(keys.head(), write(&plan.head)?));
    }
    Ok(Txn::new().when(conditions).and_then(ops))
}

/// Whether this revision is this attempt's.
async fn was_done(link: &Link, keys: &Keys, revision: Revision, attempt: &str) -> Result<bool> {
    let found = link.read("looking whether it was committed", vec![get(keys.entry(revision))]).await?.one(0);
    let Some(kv) = found else { return Ok(false) };
    Ok(parse::<Entry>(&link.place, kv.key(), kv.value())?.attempt == attempt)
}
