//! The agent for machines: makes those that have a place on a box of its own, and removes those that have a reason to go.
//!
//! A host that is a member of a `vm/…` tag, and was placed, is a machine. The pure half ([`Vm`]) turns it into one item of the box that it
//! was placed on, and says what comes next: make, start, wait, report, drain, destroy. The [`target`] half has a provider make it so, and
//! writes back where the host is in its life. `docs/agents/vm.md` is the manual, `docs/decisions/0023-machines.md` says why it is so.
//!
//! Nothing that stands in the database becomes a path or a command: images and networks are named there, and what they are stands in
//! the node's own configuration.

mod agent;
mod item;
mod step;
pub mod target;

pub use agent::Vm;
pub use item::{Attempt, Given, Have, Item, Key, Stage};
pub use target::{Machines, Settings};
