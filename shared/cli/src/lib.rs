//! The `shoal` command: the host database for people.
//!
//! Every command opens the store, does one thing, prints it as a text for people or as JSON or YAML for programs, and
//! ends with a code that says how it went: 0 done, 1 failed, 2 wrong usage, 3 `--plan` found changes, 4 a conflict
//! or something held, 5 still waiting. A write names its author and says why; `--plan` shows what it would change
//! and writes nothing. An error says what was attempted, why it failed and what to do next, once.
//!
//! [`main`] is the program, [`run`] the same on a store that a test hands in.

mod args;
mod changes;
mod commands;
mod failure;
pub mod import;
mod meant;
mod names;
mod out;
mod partly;
mod progress;
mod run;
mod session;

pub use run::{main, run};
