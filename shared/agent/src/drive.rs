//! The loop: what happened goes into the engine, what the engine asks for goes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_core::{LeftOut, Range};
use shoal_engine::{
    Act, Agent, Answer, Applied, Batch, Claimed, Engine, Moment, Outcome, Snapshot, Target, Trouble, Unit,
};
use shoal_store::Head;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::until;
use crate::effects::{Hands, name_of};
use crate::faults::Faults;
use crate::feed::{self, Down, News};
use crate::metrics::Board;

/// How many answers may wait to be taken in.
const ANSWERS: usize = 1024;
/// How much news may wait.
const NEWS: usize = 256;
/// How often a target may wake the engine.
const WAKES: std::time::Duration = std::time::Duration::from_millis(100);
/// How many answers and how much news are taken in between two decisions: signals and the watchdog have their turn, too.
const TURN: usize = 64;
/// How many things that are waited for are named.
const TOLD: usize = 5;
/// How many changes of a batch, or things that are not as they should be, are logged one by one.
pub(crate) const LOGGED: usize = 20;

/// An engine with what carries its effects out.
pub(crate) struct Driver<A: Agent, T> {
    pub(crate) engine: Engine<A>,
    hands: Arc<Hands<T>>,
    give: mpsc::Sender<(u64, Answer<A>)>,
    answers: mpsc::Receiver<(u64, Answer<A>)>,
    news: Option<mpsc::Receiver<News>>,
    following: Option<JoinHandle<()>>,
    woken: Option<mpsc::Receiver<Vec<Unit>>>,
    listening: Option<JoinHandle<()>>,
    pub(crate) board: Arc<Board>,
    held: BTreeMap<String, String>,
    left_out: LeftOuts,
    /// Whether what is held or left out is told by a plan, and not by the log.
    plans: bool,
    under_way: BTreeMap<u64, UnderWay>,
    /// The batches among it: what became of them is told when it is known.
    sent: BTreeMap<u64, (Unit, Arc<Batch<A>>)>,
    /// The units that it holds since the log was told.
    taken: Vec<Unit>,
    /// How many answers said more than that there is none.
    heard: u64,
    faults: Faults,
}

/// What was begun and not answered yet.
struct UnderWay {
    what: String,
    since: Instant,
    /// Whether the target does it, and not the store.
    in_target: bool,
    /// The unit that is asked for.
    claims: Option<Unit>,
}

impl<A: Agent, T: Target<A>> Driver<A, T> {
    /// Starts with the whole database as it was read.
    pub(crate) fn new(
        mut engine: Engine<A>,
        hands: Arc<Hands<T>>,
        snapshot: Snapshot,
        board: Arc<Board>,
    ) -> Self {
        engine.load(snapshot);
        let (give, answers) = mpsc::channel(ANSWERS);
        Self {
            engine,
            hands,
            give,
            answers,
            news: None,
            following: None,
            woken: None,
            listening: None,
            board,
            held: BTreeMap::new(),
            left_out: LeftOuts::default(),
            plans: false,
            under_way: BTreeMap::new(),
            sent: BTreeMap::new(),
            taken: Vec::new(),
            heard: 0,
            faults: Faults::default(),
        }
    }

    pub(crate) fn target(&self) -> &T {
        &self.hands.target
    }

    /// From now on, the log says nothing of what is held or left out: the plan does.
    pub(crate) fn plans(&mut self) {
        self.plans = true;
    }

    /// From now on, the target may say what to look at.
    pub(crate) fn listen(&mut self) {
        let (tell, woken) = mpsc::channel(1);
        let hands = self.hands.clone();
        self.woken = Some(woken);
        self.listening = Some(tokio::spawn(async move {
            while tell.send(hands.target.woken().await).await.is_ok() {
                tokio::time::sleep(WAKES).await;
            }
        }));
    }

    /// From now on, what is committed after `head` in this range is told.
    pub(crate) fn follow(&mut self, range: Range, head: Head) {
        let (tell, news) = mpsc::channel(NEWS);
        self.news = Some(news);
        self.following = Some(tokio::spawn(feed::follow(self.hands.store.clone(), range, head, tell)));
    }

    pub(crate) fn now(&self) -> Moment {
        self.hands.clock.now()
    }

    /// Carries out all that can be begun now.
    pub(crate) fn pump(&mut self) {
        let (now, mut given) = (self.now(), Vec::new());
        while let Some(effect) = self.engine.poll(now) {
            let mut claims = None;
            match &effect.act {
                Act::Apply { unit, batch, .. } => {
                    self.sent.insert(effect.id, (unit.clone(), batch.clone()));
                }
                Act::Claim { unit, .. } => claims = Some(unit.clone()),
                Act::Release { unit, .. } => given.push(unit.clone()),
                _ => {}
            }
            let in_target = matches!(effect.act, Act::Observe { .. } | Act::Apply { .. });
            let begun = UnderWay { what: name_of(&effect.act), since: Instant::now(), in_target, claims };
            self.under_way.insert(effect.id, begun);
            let (hands, give) = (self.hands.clone(), self.give.clone());
            tokio::spawn(async move {
                let answer = hands.carry_out(effect).await;
                // Nobody listens any more: the program is ending.
                let _ = give.send(answer).await;
            });
        }
        log_units("works on", &std::mem::take(&mut self.taken));
        log_units("gives back", &given);
        if !self.plans {
            self.log_holds();
            self.left_out.tell(&self.engine);
        }
        self.board.set(&self.engine);
    }

    /// Waits until something happens: an answer, news, or a time that has come; at most until `deadline`.
    pub(crate) async fn wait(&mut self, deadline: Option<Instant>) {
        let now = self.now();
        let wake = self.engine.next_wake().map(|at| Instant::now() + until(at, now));
        let wake = [wake, deadline].into_iter().flatten().min();
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let news = async {
            match &mut self.news {
                Some(news) => news.recv().await,
                None => std::future::pending().await,
            }
        };
        let woken = async {
            match &mut self.woken {
                Some(woken) => woken.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((id, answer)) = self.answers.recv() => self.take(id, answer),
            Some(news) = news => self.hear(news),
            Some(units) = woken => units.iter().for_each(|unit| self.engine.look_at(unit)),
            () = sleep => {}
        }
        // What else is there by now is taken in before the next decision.
        for _ in 0..TURN {
            let Ok((id, answer)) = self.answers.try_recv() else { break };
            self.take(id, answer);
        }
        for _ in 0..TURN {
            let Some(Ok(news)) = self.news.as_mut().map(mpsc::Receiver::try_recv) else { break };
            self.hear(news);
        }
    }

    fn take(&mut self, id: u64, answer: Answer<A>) {
        let sent = self.sent.remove(&id);
        let begun = self.under_way.remove(&id);
        let what = begun.as_ref().map(|begun| begun.what.clone()).unwrap_or_default();
        let claims = begun.and_then(|begun| begun.claims);
        match &answer {
            // One that it held before has no head with it.
            Answer::Claim(Claimed::Held { head: Some(_), .. }) => self.taken.extend(claims),
            Answer::Fault(fault) => self.faults.say(&fault.to_string(), Instant::now()),
            Answer::Fenced => {
                tracing::warn!(
                    "the claim was lost or had run out, so this was not done and all is looked at again: {what}"
                );
            }
            Answer::Applied(applied) => {
                if let Some((unit, batch)) = sent {
                    log_batch(&unit.0, &batch, applied);
                }
            }
            _ => {}
        }
        self.heard += u64::from(!matches!(answer, Answer::Fault(_)));
        let now = self.now();
        self.engine.answer(id, answer, now);
    }

    /// Whether the database does not let this agent work.
    pub(crate) fn is_refused(&self) -> bool {
        self.hands.is_refused()
    }

    /// What it waits for right now, the longest first.
    pub(crate) fn waits_for(&self) -> String {
        if self.under_way.is_empty() {
            return self.tried_again();
        }
        let mut all: Vec<_> = self.under_way.values().collect();
        all.sort_by_key(|one| one.since);
        let seconds = |one: &&UnderWay| format!("{} ({} s)", one.what, one.since.elapsed().as_secs());
        let told: Vec<_> = all.iter().take(TOLD).map(seconds).collect();
        let more = all.len().saturating_sub(TOLD);
        told.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    }

    /// What it waits for while nothing is under way.
    fn tried_again(&self) -> String {
        let troubles = self.engine.troubles();
        // Who is left out stays so until somebody writes otherwise.
        let mut open = troubles.iter().filter(|(_, _, why)| !why.starts_with("left out "));
        let Some((unit, item, why)) = open.next() else {
            return format!("commits newer than revision {}", self.engine.seen().0);
        };
        let of = if item.is_empty() || unit == item { unit.clone() } else { format!("{unit}, {item}") };
        let more = open.count();
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let fault = self.faults.last().map(|fault| format!("; the last fault: {fault}"));
        let fault = fault.filter(|_| *why == Trouble::Dirty.to_string()).unwrap_or_default();
        format!("the next attempt at {of}: {why}{fault}{more}")
    }

    /// How many answers there were that said more than that there is none.
    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether the target is being looked at or changed.
    pub(crate) fn is_in_target(&self) -> bool {
        self.under_way.values().any(|one| one.in_target)
    }

    fn hear(&mut self, news: News) {
        if !matches!(news, News::Down(_)) {
            self.board.set_down(None);
        }
        match news {
            News::All(snapshot) => self.engine.load(*snapshot),
            News::Commit(entry) => self.engine.apply(entry.info.revision, &entry.changes),
            News::Upto(revision) => self.engine.upto(revision),
            News::Down(Down { why, refused }) => {
                let what =
                    if refused { "the database refuses this agent" } else { "the database is out of reach" };
                tracing::warn!("{what}, trying again: {why}");
                self.board.set_down(Some(why));
            }
        }
    }

    /// Says once what newly waits for a person.
    fn log_holds(&mut self) {
        let mut held = BTreeMap::new();
        for (unit, hold) in self.engine.holds() {
            if self.held.get(&unit.0) != Some(&hold.digest) {
                tracing::warn!(unit = %unit, digest = hold.digest, "held: {}; see `shoal approve`", hold.why);
            }
            held.insert(unit.0.clone(), hold.digest.clone());
        }
        self.held = held;
    }
}

/// Says which units came to this instance, or go from it.
fn log_units(what: &str, units: &[Unit]) {
    if units.is_empty() {
        return;
    }
    let named: Vec<_> = units.iter().take(LOGGED).map(|unit| unit.0.as_str()).collect();
    let more = match units.len().saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    tracing::info!(units = units.len(), "{what} {}{more}", named.join(", "));
}

/// Who is left out, as far as the log was told.
#[derive(Default)]
struct LeftOuts {
    changes: u64,
    told: BTreeSet<(String, Vec<String>, String)>,
}

impl LeftOuts {
    /// Says once who newly is left out of an item. Costs who is left out, and only when that changed.
    fn tell<A: Agent>(&mut self, engine: &Engine<A>) {
        if self.changes == engine.left_out_changes() {
            return;
        }
        self.changes = engine.left_out_changes();
        let new = self.learn(engine.left_out().map(|(unit, left_out)| (unit.0.clone(), left_out)));
        for (unit, LeftOut { key, who, why }) in new.iter().take(LOGGED) {
            tracing::warn!(unit, item = key, "left out {}: {why}", who.join(", "));
        }
        if let Some(more) = new.len().checked_sub(LOGGED).filter(|more| *more > 0) {
            tracing::warn!("and {more} more are left out; see `shoal status`");
        }
    }

    /// Remembers who is left out now. Answers who was not before: each once, in however many items.
    fn learn(&mut self, now: impl Iterator<Item = (String, LeftOut)>) -> Vec<(String, LeftOut)> {
        let before = std::mem::take(&mut self.told);
        let mut new = Vec::new();
        for (unit, left_out) in now {
            let one = (unit.clone(), left_out.who.clone(), left_out.why.clone());
            if self.told.insert(one.clone()) && !before.contains(&one) {
                new.push((unit, left_out));
            }
        }
        new
    }
}

impl<A: Agent, T> Drop for Driver<A, T> {
    fn drop(&mut self) {
        for task in [&self.following, &self.listening].into_iter().flatten() {
            task.abort();
        }
    }
}

/// What became of a batch: what was made or begun, and what failed.
fn log_batch<A: Agent>(unit: &str, batch: &Batch<A>, applied: &Applied<A>) {
    let edit = |(at, key): (usize, &A::Key)| {
        // Mostly told in the order in which they were asked for.
        let same = batch.changes.get(at).filter(|edit| edit.key == *key);
        let found = || batch.changes.binary_search_by(|edit| edit.key.cmp(key)).ok();
        same.or_else(|| Some(&batch.changes[found()?]))
    };
    let made = applied.each.iter().enumerate().filter_map(|(at, (key, outcome))| {
        matches!(outcome, Outcome::Done | Outcome::Running { .. }).then(|| edit((at, key))).flatten()
    });
    for edit in made.clone().take(LOGGED) {
        tracing::info!(unit, item = %edit.key, because = %edit.because, "{}", edit.verb);
    }
    if let Some(more) = made.count().checked_sub(LOGGED).filter(|more| *more > 0) {
        tracing::info!(unit, "and {more} more changes");
    }
    let failed = applied.each.iter().filter_map(|(key, outcome)| match outcome {
        Outcome::Failed(fault) | Outcome::Refused(fault) => Some((key, fault)),
        _ => None,
    });
    for (key, fault) in failed.clone().take(LOGGED) {
        tracing::warn!(item = %key, "{fault}");
    }
    if let Some(more) = failed.count().checked_sub(LOGGED).filter(|more| *more > 0) {
        tracing::warn!(unit, "and {more} more changes failed; see `shoal status`");
    }
}

#[cfg(test)]
pub(crate) mod tests;
