//! The backup agent: what is backed up, when, where to, for how long and how it is verified, from tags.
//!
//! A tag `backup/<policy>` says it for its members. The pure half ([`Backup`]) turns tags and hosts into one item for each host,
//! policy and repository, and one for the upkeep of each repository; the [`target`] half makes [restic](https://restic.net) do it.
//! `docs/agents/backup.md` is the manual, `docs/decisions/0017-backup.md` says why it is so.
//!
//! When something is done is a pure function of the time, the host and the policy ([`Schedule`]), and so is what is removed
//! ([`retention`]). Nothing that stands in the database becomes a command: dumps, repositories and their credentials are named there, and
//! what they are stands in the node's own configuration.

mod agent;
mod item;
mod name;
mod policy;
pub mod restore;
pub mod retention;
mod schedule;
mod spec;
mod step;
pub mod target;

pub use agent::Backup;
pub use item::{Have, Item, Job, Key, Last, Purge, Record, Running, Test, Track, Upkeep};
pub use name::{AbsPath, Label, Word};
pub use retention::Keep;
pub use schedule::Schedule;
pub use spec::{KeepSpec, PurgeSpec, ScheduleSpec, Spec, VerifySpec};
pub use target::{Restic, Settings};

use shoal_agent::ExitCode;

/// The program: the agent, or with `restore` as its first argument the command that restores.
#[must_use]
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "restore") {
        return restore::main();
    }
    shoal_agent::Program::with_base(|settings: Settings, secrets, base| settings.open(secrets, base)).main()
}
