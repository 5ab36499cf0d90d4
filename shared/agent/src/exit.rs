//! From what happened to the exit code, in one place.

use std::process::ExitCode;

use shoal_engine::{Fault, Plan, Preview, Verdict};
use shoal_store::StoreError;

/// Everything is as it should be; nothing to do.
pub(crate) const DONE: u8 = 0;
/// Something failed.
pub(crate) const FAILED: u8 = 1;
/// The command line, the configuration or a file that was given is wrong.
pub(crate) const USAGE: u8 = 2;
/// `--plan`: there are changes to make; `--preview`: something would be wanted otherwise.
pub(crate) const PENDING: u8 = 3;
/// Something waits for a person.
pub(crate) const HELD: u8 = 4;
/// Something still waits.
pub(crate) const WAITING: u8 = 5;

/// Why the program ends without having done what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What it was told cannot be.
    #[error("{0}")]
    Usage(String),
    /// It was not possible.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The database says no, or does not answer.
    #[error("{doing}: {source}")]
    Store {
        /// What was attempted.
        doing: String,
        /// What the store says.
        source: StoreError,
    },
    /// `--once`, `--plan` or `--preview` took longer than it may.
    #[error(
        "not done within {within:?}: still waiting for: {doing}; see why that takes so long, or give it more time with --wait"
    )]
    Late {
        /// What was waited for.
        doing: String,
        /// How long it might take.
        within: std::time::Duration,
    },
}

impl Failure {
    pub(crate) fn store(doing: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        let doing = doing.into();
        move |source| Self::Store { doing, source }
    }
}

/// How the program ended.
pub(crate) enum End {
    /// A daemon was told to stop, and did.
    Stopped,
    /// What is known of the program itself.
    Printed,
    /// `--once`.
    Once(Verdict),
    /// `--plan`. The verdict says whether all could be seen.
    Planned(Plan, Verdict),
    /// `--preview`.
    Previewed(Preview),
    /// `--plan` and `--preview` of what chooses: whether there was something to choose, and how things stand.
    Chosen(bool, Verdict),
}

/// The one map from what happened to the exit code.
pub(crate) fn code(result: &Result<End, Failure>) -> ExitCode {
    ExitCode::from(match result {
        Ok(End::Stopped | End::Printed | End::Once(Verdict::Converged)) => DONE,
        Ok(End::Once(Verdict::Failed)) => FAILED,
        Ok(End::Once(Verdict::Held)) => HELD,
        Ok(End::Once(Verdict::Waiting | Verdict::Busy)) => WAITING,
        Ok(End::Planned(_, Verdict::Failed)) => FAILED,
        // As with `--once`, what waits for a person comes before what would go by itself.
        Ok(End::Planned(plan, verdict)) if *verdict == Verdict::Held || plan.is_held() => HELD,
        Ok(End::Planned(plan, _)) if plan.is_empty() => DONE,
        Ok(End::Previewed(preview)) if preview.is_empty() => DONE,
        Ok(End::Chosen(_, Verdict::Held)) => HELD,
        Ok(End::Chosen(false, _)) => DONE,
        Ok(End::Planned(..) | End::Previewed(_) | End::Chosen(true, _)) => PENDING,
        Err(Failure::Late { .. }) => WAITING,
        Err(Failure::Usage(_)) => USAGE,
        Err(Failure::Fault(_) | Failure::Store { .. }) => FAILED,
    })
}
