//! Finds room for machines: which physical box, or which availability zone.
//!
//! [`choose`] is pure, and so is the agent's decision; `shoal_agent::chooser` commits it. The feature `agent` (on unless turned off) has
//! what reads the database, and the program.
//! `docs/agents/placement.md` is the manual.

#[cfg(feature = "agent")]
pub mod agent;
pub mod choose;
