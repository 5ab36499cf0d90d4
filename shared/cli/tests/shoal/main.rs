//! The `shoal` command on a small fixed fleet: what each command prints, and what each mistake is told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

mod commands;
mod edit;
mod every;
mod export;
mod fleet;
mod groups;
mod manual;
mod migrate;
mod mistakes;
mod partly;
mod program;
mod progress;
mod served;
mod terminal;
mod tools;
mod waiting;
