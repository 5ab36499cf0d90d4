//! A daemon that chooses, while it runs with one configuration: it wakes on every commit, chooses, and says how things stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::Revision;
use shoal_engine::{Clock as _, Counters, Moment, Verdict};
use shoal_store::Database;
use tokio::time::Instant;

use super::program::{MOST, Part, told, told_holds};
use super::said::{self, Speaker};
use super::{Choice, Chooser, How, pass};
use crate::cli::Args;
use crate::clock::Wall;
use crate::daemon::{Ears, Word};
use crate::effects::millis;
use crate::faults::Faults;
use crate::metrics::Board;

/// For how long a report is good, where the configuration says nothing.
const GOOD: Duration = Duration::from_secs(60);
/// After how long everything is looked at again, where nothing says another.
const RESYNC: Duration = Duration::from_secs(600);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(30);
/// How long the database is waited for when a daemon ends.
const LAST_WORD: Duration = Duration::from_secs(4);

/// A daemon at work with one configuration.
pub(super) struct Daemon<'a, K> {
    part: &'a Part<K>,
    how: How,
    database: Database,
    board: &'a Arc<Board>,
    clock: Wall,
    instance: String,
    good: Duration,
    resync: Duration,
    /// What the last pass that was made says, and at which revision.
    choice: Choice,
    seen: Revision,
    failing: Option<String>,
    failures: u32,
    faults: Faults,
    /// What was reported last, and when.
    reported: Option<(Instant, Revision)>,
    counters: Counters,
    /// What was chosen and committed, by verb and cause.
    changes: BTreeMap<(&'static str, &'static str), u64>,
}

impl<'a, K: Chooser> Daemon<'a, K> {
    pub(super) fn new(args: &Args, part: &'a Part<K>, database: Database, board: &'a Arc<Board>) -> Self {
        Self {
            part,
            how: part.how(part.common.max_batch.unwrap_or(MOST).max(1)),
            database,
            board,
            clock: Wall::new(),
            instance: format!("{}/{}", part.name(args), uuid::Uuid::now_v7()),
            good: part.common.claim.unwrap_or(GOOD),
            resync: args.resync.or(part.common.resync).unwrap_or(RESYNC),
            choice: Choice::default(),
            seen: Revision(0),
            failing: None,
            failures: 0,
            faults: Faults::default(),
            reported: None,
            counters: Counters::default(),
            changes: BTreeMap::new(),
        }
    }

    /// Chooses whenever something changed, until it is told something.
    pub(super) async fn work(&mut self, ears: &mut Ears) -> Word {
        loop {
            let Some(()) = ears.unless_stopped(self.turn()).await else { return Word::Stop };
            let more = self.choice.more && self.failing.is_none();
            let pause = if more { Duration::ZERO } else { self.pause() };
            let seen = self.seen;
            let (database, failing) = (self.database.clone(), self.failing.is_some());
            let news = async {
                match failing {
                    true => std::future::pending().await,
                    false => database.wait_past(seen).await,
                }
            };
            tokio::select! {
                biased;
                word = ears.next() => return word,
                _ = news => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How long nothing need be done if nothing happens.
    fn pause(&self) -> Duration {
        match self.failures {
            0 => (self.good / 3).min(self.resync),
            n => {
                let full = Duration::from_millis(200).saturating_mul(1 << n.min(10)).min(LONGEST);
                full.mul_f64(0.5 + crate::chance::fraction() / 2.0).min(self.good / 3)
            }
        }
    }

    /// One pass, and what is said of it.
    async fn turn(&mut self) {
        self.counters.steps += 1;
        match pass(&self.database, &self.part.chooser, &self.how).await {
            Ok(passed) => {
                told(&passed);
                told_holds(&self.choice, &passed.choice);
                if !passed.choice.edits.is_empty() {
                    self.counters.batches += 1;
                    for chosen in &passed.choice.chosen {
                        *self.changes.entry((chosen.verb, "intent")).or_insert(0) += 1;
                    }
                }
                self.counters.commits += passed.at.0.saturating_sub(self.seen.0);
                (self.choice, self.seen) = (passed.choice, passed.at);
                // Nothing wakes it for that, and until then it has not seen all that it would say it had.
                self.choice.more |= passed.overlooked;
                (self.failing, self.failures) = (None, 0);
            }
            Err(error) => {
                self.counters.failures += 1;
                self.failures += 1;
                let why = error.to_string();
                self.faults.say(&why, Instant::now());
                self.failing = Some(why);
            }
        }
        self.board.set_down(self.database.trouble().map(|why| why.to_string()));
        let verdict = if self.failing.is_some() { Verdict::Failed } else { said::verdict(&self.choice) };
        let changes = self.changes.clone();
        if self.seen > Revision(0) || self.failing.is_none() {
            self.board.tell(self.seen.0, said::sizes(&self.choice), verdict, self.counters, changes);
        }
        let late = |at: Instant| at.elapsed() >= self.good / 3;
        let due = |(at, seen): (Instant, Revision)| seen != self.seen || late(at);
        let say = match self.reported {
            // Who is silent for long is taken for dead, and not waited for: it says once more how far it was.
            Some((at, seen)) if self.choice.more => late(at).then_some(seen),
            None if self.choice.more => None,
            said => (self.failing.is_some() || said.is_none_or(due)).then_some(self.seen),
        };
        if let Some(seen) = say {
            self.report(seen, self.clock.now().saturating_add(millis(self.good))).await;
        }
    }

    async fn report(&mut self, seen: Revision, expires: Moment) {
        let speaker = Speaker {
            agent: &self.part.namespace,
            instance: &self.instance,
            epoch: self.database.epoch(),
            now: self.clock.now(),
            expires: Some(expires),
        };
        let status = said::status(&speaker, seen, &self.choice, self.failing.as_deref());
        match self.part.store.store.report(status).await {
            Ok(()) => self.reported = Some((Instant::now(), seen)),
            Err(error) => self.faults.say(&format!("report: {error}"), Instant::now()),
        }
    }

    /// That it was stopped on purpose: the report's end is its beginning.
    pub(super) async fn last_word(&mut self) {
        let now = self.clock.now();
        let speaker = Speaker {
            agent: &self.part.namespace,
            instance: &self.instance,
            epoch: self.database.epoch(),
            now,
            expires: Some(now),
        };
        let status = said::status(&speaker, self.seen, &self.choice, self.failing.as_deref());
        let said = self.part.store.store.report(status);
        match tokio::time::timeout(LAST_WORD, said).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the last word was not heard: {error}"),
            Err(_) => tracing::warn!("the last word was not heard: the database does not answer"),
        }
    }
}
