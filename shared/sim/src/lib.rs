//! Whole swarms in virtual time, with everything that can go wrong going wrong.
//!
//! A run ([`simulate`]) is several instances of the real engine over the real in-memory store and simulated
//! targets. People change the fleet, instances die at every boundary of every effect, answers get lost, come
//! twice or late, networks part, claims expire under effects in flight, targets refuse and are edited by hand. One
//! number, the seed, decides all of it: the same seed is the same run, to the last event. There are no tasks, no real
//! time and no threads.
//!
//! What has to hold, whatever happens:
//!
//! * What rests is what the database says, but for what people hold.
//! * Nothing of somebody else is touched, nothing is made twice, nothing is made before it is written down.
//! * Nothing goes without a reason that the database states at the revision of the decision.
//! * Nothing begins without the right to it, and nothing of an older right lands where the target can tell.
//! * Nobody works on more than one unit more than another, and what somebody held that died is in other hands within twice the lease.
//! * Mass changes wait for a person.
//! * When `wait` would return, it is true.
//! * Queues are bounded, and nothing spins.
//!
//! A run that breaks one of these is a [`Failure`]. It prints its seed and the command that runs it again, and
//! [`shrink`] cuts it down. [`Breakage`] has engines that are broken on purpose: each must be caught.

mod agent;
mod broken;
mod check;
mod dice;
mod faults;
mod fleet;
mod job;
mod node;
mod oracle;
mod queue;
mod restore;
mod setup;
mod share;
mod shrink;
mod store;
mod swarm;
mod word;
mod world;

pub use broken::Breakage;
pub use faults::FaultKind;
pub use setup::{Failure, Setup, Summary};
pub use shrink::shrink;
pub use swarm::simulate;
