//! Why a command failed, and the one place that turns it into an exit code.
//!
//! A failure says what was attempted and on what; its source says why. It is printed once, by [`report`], with
//! what to do next.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use shoal_core::codec::BadText;
use shoal_core::{Refusal, Sort};
use shoal_hostdb::OpenError;
use shoal_store::{StoreError, TransactError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// What was asked for is not there.
    #[error("{0}")]
    Missing(String),
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database refused or failed.
    #[error("{what}")]
    Store {
        /// What was attempted.
        what: String,
        /// Why not.
        #[source]
        error: StoreError,
    },
    /// A commit that means nothing good.
    #[error("nothing was written")]
    Refused(#[source] Box<Refusal>),
    /// Others were faster each time.
    #[error("nothing was written")]
    Busy(#[source] TransactError),
    /// A file or an argument that cannot be read.
    #[error("nothing was written: {place}")]
    Text {
        /// Where.
        place: String,
        /// Why not.
        #[source]
        error: BadText,
    },
    /// A file that cannot be opened.
    #[error("cannot read {path} (name a file, or - for standard input)")]
    File {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// `--plan` found something to do.
    #[error("changes are pending: run it without --plan to make them")]
    Pending,
    /// Something waits for a person.
    #[error("{0}")]
    Held(String),
    /// The answer is no, and was given.
    #[error("no")]
    No,
    /// It is not done yet.
    #[error("{0}")]
    Waiting(String),
    /// Standard output is closed: nobody reads any more, which is not for us to complain about.
    #[error("standard output was closed")]
    Closed(#[source] std::io::Error),
    /// Standard output took only a part.
    #[error("cannot print all of the result, what was printed is only a part: {0}")]
    Cut(std::io::Error),
    /// A failure by which a text that a person typed is not lost.
    #[error("{}; what you typed is kept as {}", report(.failure).unwrap_or_default(), .path.display())]
    Kept {
        /// Where the text is.
        path: PathBuf,
        /// What failed.
        failure: Box<Failure>,
    },
    /// Anything else, already said in full.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What commands answer.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The exit code: 1 failed, 2 usage, 3 changes pending, 4 conflict or held, 5 still waiting.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Pending => 3,
            Self::Held(_) | Self::Busy(_) => 4,
            Self::Store { error: StoreError::Conflict { .. } | StoreError::Fenced { .. }, .. } => 4,
            Self::Refused(refusal) if matches!(refusal.sort(), Sort::Conflict | Sort::Stale) => 4,
            Self::Waiting(_) => 5,
            Self::Closed(_) => 0,
            Self::Kept { failure, .. } => failure.code(),
            _ => 1,
        }
    }

    /// The failure of printing.
    pub(crate) fn printing(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::Closed(error) } else { Self::Cut(error) }
    }

    /// The failure of reading `what` out of the database.
    pub(crate) fn reading(what: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        move |error| Self::Store { what: format!("cannot read {}", what.into()), error }
    }
}

/// The failure as it is printed: what, why, and nothing twice. `None`: nothing is to be printed.
pub(crate) fn report(failure: &Failure) -> Option<String> {
    if matches!(failure, Failure::Closed(_) | Failure::Pending | Failure::No) {
        return None;
    }
    let mut text = failure.to_string();
    let mut source = failure.source();
    while let Some(error) = source {
        let why = error.to_string();
        // Transparent errors and those that quote their source say the same again.
        if !text.contains(&why) {
            let _ = write!(text, ": {why}");
        }
        source = error.source();
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once() {
        let error = StoreError::Unavailable { place: "x.db".into(), why: "gone".into() };
        let failure = Failure::Store { what: "cannot read host web1".into(), error };
        assert_eq!(report(&failure).unwrap(), "cannot read host web1: x.db did not answer: gone");
        assert_eq!(failure.code(), 1);
        let twice = Failure::Other(anyhow::anyhow!("inner").context("inner: outer"));
        assert_eq!(report(&twice).unwrap(), "inner: outer");
        assert_eq!(report(&Failure::Pending), None);
    }
}
