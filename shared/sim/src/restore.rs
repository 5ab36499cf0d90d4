//! A restore: the database as of an earlier time, as another life of itself.
//!
//! In some runs somebody takes a backup at one of the commits, and puts it in place at a later one: rows, history, ledger and
//! reports of then, under a new epoch, without a lease, with fencing numbers that were never given out. For so long
//! that nothing of the life before is under way any more, the store is not there. Some instances live through it; in half of
//! these runs all are stopped, as the manual asks for.
//!
//! People know of their fleet what stands in the backup. What they agreed to since is not agreed to any more.

use std::collections::BTreeMap;

use shoal_core::{Change, Key};
use shoal_engine::Moment;
use shoal_store::Memory;

use crate::dice::Dice;
use crate::faults::FaultKind;
use crate::fleet::Fleet;
use crate::swarm::{Event, Swarm};
use crate::word::Words;

/// How long the store is not there: no claim lasts longer, nor does what was begun under one.
const OUTAGE: Moment = 110_000;

/// When somebody takes a backup and when it is restored, in commits of people that are still to come.
#[derive(Debug)]
pub(crate) struct Plan {
    back_up: usize,
    restore: usize,
}

impl Plan {
    pub(crate) fn new(steps: usize, dice: &mut Dice) -> Self {
        let back_up = dice.below(steps);
        Self { back_up, restore: dice.below(back_up + 1) }
    }
}

/// Everything as of one moment.
pub(crate) struct Backup {
    memory: Memory,
    fleet: Fleet,
    words: Words,
    owed: BTreeMap<Key, BTreeMap<String, Change>>,
}

impl Swarm {
    /// Somebody has committed: it may be the time for a backup, or for going back to it.
    pub(crate) fn before_the_next_commit(&mut self) {
        let Some(Plan { back_up, restore }) = self.plan else { return };
        if self.steps == back_up {
            self.note(|s| format!("a backup is taken at revision {}", s.store.head().revision));
            self.backup = Some(Backup {
                memory: self.store.memory.clone(),
                fleet: self.fleet.clone(),
                words: self.check.words.clone(),
                owed: self.check.owed.clone(),
            });
        }
        if self.steps == restore && self.backup.is_some() {
            self.plan = None;
            if self.faults.strikes(FaultKind::Restore) {
                self.take_down();
            }
        }
    }

    fn take_down(&mut self) {
        self.note(|_| "the store is stopped for a restore".to_owned());
        self.outage = true;
        if self.faults.dice.chance(500) {
            for node in 0..self.nodes.len() {
                if self.nodes[node].engine.is_some() {
                    self.crash(node, "for a restore");
                }
            }
        }
        self.queue.after(OUTAGE, Event::Restored);
    }

    /// The backup is in place.
    pub(crate) fn restored(&mut self) {
        let Some(Backup { memory, fleet, words, owed }) = self.backup.take() else { return };
        self.outage = false;
        self.store.restore(&memory);
        self.fleet.go_back_to(fleet);
        self.check.restored(words, owed);
        for world in &mut self.worlds {
            let ledger = self.store.whole_ledger(world.kind);
            world.restored(&ledger);
            self.check.unknown.extend(ledger.keys().map(|key| (world.kind, key.unit().to_owned())));
        }
        self.summary.restores += 1;
        self.note(|s| format!("the backup of revision {} is in place", s.store.head().revision));
        self.committed();
    }
}
