//! The reconcile machine, pure: no clock, no I/O; and the traits [`Agent`] and [`Target`].
//!
//! [`Engine`] turns commits into work and work into effects. Who drives it carries the effects out: the runtime in
//! real time, the simulator in virtual time.

mod agent;
mod batch;
mod counters;
mod decide;
mod due;
mod effect;
mod engine;
mod facts;
mod fleet;
mod guard;
mod item;
mod kept;
mod ledger;
pub mod model;
mod options;
mod paused;
mod peers;
mod plain;
mod plan;
mod preview;
mod readers;
mod recent;
mod retry;
mod settle;
mod share;
mod sorted;
mod sources;
mod status;
mod target;
mod unit;
mod work;

#[cfg(test)]
mod tests;

pub use agent::{Agent, At, Blocked, Desired, Holder, Known, Look, Source, Step, Unit};
pub use counters::Counters;
pub use effect::{Act, Answer, Claimed, Effect, LedgerRow, Roster};
pub use engine::Engine;
pub use fleet::{Reading, Snapshot};
pub use item::{Kind, Trouble};
pub use options::{MaxChange, OnDrift, Options};
pub use plan::{Idle, Plan, PlannedStep, UnitPlan};
pub use preview::{Preview, Wish};
pub use status::{Sizes, Verdict};
pub use target::{
    Applied, Batch, Clock, Edit, Fault, Fence, Line, Nature, Observed, Outcome, Scope, Seen, Target, Why,
};

/// Milliseconds since 1970-01-01T00:00Z by a clock that never goes back.
pub type Moment = i64;

/// A span of time in milliseconds.
pub type Millis = i64;
