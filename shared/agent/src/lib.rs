//! The trait crate: all that an agent depends on. The two traits, the runtime, and the laws.
//!
//! An agent is an [`Agent`] (pure: what should be), a [`Target`] (what is, and how to change it), and
//!
//! ```text
//! fn main() -> shoal_agent::ExitCode {
//!     shoal_agent::main(|config: Config| Ok((Motd, Files::new(config.dir))))
//! }
//! ```
//!
//! which gives it the same program as every other: a daemon, `--once`, `--plan`, `--preview FILE`, claims, the ledger,
//! the guard, retries, metrics, systemd. `docs/custom-agents.md` explains a whole one.

mod base;
mod chance;
mod checked;
pub mod chooser;
mod cli;
mod clock;
pub mod command;
mod config;
mod daemon;
mod drive;
mod effects;
mod exit;
mod faults;
mod feed;
pub mod files;
mod http;
pub mod laws;
mod logs;
mod manual;
mod metrics;
pub mod owner;
pub mod pattern;
mod preview;
mod program;
mod publish;
pub mod secrets;
mod setup;
mod stores;
mod text;

pub use std::process::ExitCode;

pub use base::{Base, Place, Turn};
pub use config::settings;

pub use program::{Program, main};
pub use {schemars, serde, serde_json};

pub use schemars::JsonSchema;
pub use serde::{Deserialize, Serialize};
pub use serde_json::Value;
pub use shoal_core::{
    Change, Document, Epoch, Fact, Host, HostId, HostName, Key as DbKey, Lifecycle, Revision, TagName, span,
};
pub use shoal_engine::{
    Agent, Applied, At, Batch, Blocked, Clock, Desired, Edit, Fault, Fence, Holder, Known, Line, Look,
    Millis, Moment, Nature, Observed, Outcome, Scope, Seen, Source, Step, Target, Unit, Why,
};
