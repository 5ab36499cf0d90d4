//! The suite that every store passes.
//!
//! [`conformance!`](crate::conformance!) makes one test of each case:
//!
//! ```text
//! mod suite {
//!     async fn store() -> shoal_store::conformance::Made { … }
//!     shoal_store::conformance!(store);
//! }
//! ```
//!
//! The argument is an async function that makes a new, empty database and opens it. It is called many times. The cases need a tokio runtime with time; they wait for
//! conditions and for claims to expire (tenths of a second), never for a guessed time.
//!
//! The property tests draw histories from a fixed seed: the same on every run, printed when one fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a case that fails panics")]

mod claims;
mod copies;
mod cut;
mod history;
mod model;
mod past;
mod properties;
mod rows;
mod watches;

use std::any::Any;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use shoal_core::{Change, Commit, Document, Key};

pub use claims::*;
pub use copies::*;
pub use history::*;
pub use past::*;
pub use properties::*;
pub use rows::*;
pub use watches::*;

use crate::Store;

/// A new, empty database, and what must stay for as long as it is used: its folder, its server.
pub struct Made {
    store: Arc<dyn Store>,
    _keep: Box<dyn Any>,
}

impl Made {
    /// `keep` is dropped after the store.
    pub fn new(store: impl Store, keep: impl Any) -> Self {
        Self { store: Arc::new(store), _keep: Box::new(keep) }
    }

    /// Another handle.
    fn handle(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }
}

impl Deref for Made {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

/// A database that is being made.
pub type Making = Pin<Box<dyn Future<Output = Made>>>;
/// Makes a new, empty database.
pub type Factory = fn() -> Making;

/// Makes a test of every case of the suite; see [the module](mod@crate::conformance).
#[macro_export]
macro_rules! conformance {
    ($factory:path) => {
        $crate::conformance!(@cases $factory:
            commits_are_read_back, pages_are_whole, tombstones_show_when_asked, naming_finds_members,
            concerning_finds_what_concerns_a_host,
            nonsense_is_refused, preconditions_hold, no_change_writes_nothing, retries_answer_the_first,
            retries_are_known_by_their_intent,
            renames_stay_in_sight, large_values_page, the_newest_is_no_older_than_what_was_acknowledged,
            old_revisions_are_read, logs_are_of_the_range, the_future_is_refused,
            watches_tell_all, filtered_watches_say_how_far, only_those_concerned_are_woken, lost_positions_are_reset, slow_watchers_miss_nothing,
            claims_exclude, claims_are_counted, claims_expire, lost_claims_fence, the_ledger_is_apart,
            reports_replace, claims_never_have_two_holders,
            claims_equal_the_model, histories_equal_the_model, excerpts_equal_the_whole, watches_equal_the_history, one_of_many_wins,
        );
    };
    (@cases $factory:path: $($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::run(|| ::std::boxed::Box::pin($factory()), $crate::conformance::$case);
            }
        )*
    };
}

/// Makes a test of every case about copies of one kind of store in another: the first argument is as for [`conformance!`](crate::conformance!), the second a
/// function that makes a new [`Place`](crate::conformance::Place) in a box.
#[macro_export]
macro_rules! copies {
    ($factory:path, $place:path) => {
        $crate::copies!(@cases $factory, $place:
            copies_are_the_same, copies_go_on_after_a_kill, copies_wait_until_the_source_rests, copies_of_others_are_refused,
            copies_are_finished_by_who_took_them_up_last, copies_tell_of_what_came_too_late,
        );
    };
    (@cases $factory:path, $place:path: $($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                let case = |new| $crate::conformance::$case(new, $place);
                $crate::conformance::run(|| ::std::boxed::Box::pin($factory()), case);
            }
        )*
    };
}

/// Runs one case. For [`conformance!`](crate::conformance!).
pub fn run<F: Future<Output = ()>>(factory: Factory, case: impl FnOnce(Factory) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test");
    runtime.block_on(case(factory));
}

/// The key of this text.
pub(crate) fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

/// A commit of these changes by Ann.
pub(crate) fn commit(changes: impl IntoIterator<Item = Change>) -> Commit {
    Commit::new("ann", "because", changes.into_iter().collect())
}

/// A change that puts a number at a key.
pub(crate) fn put(at: &str, value: u64) -> Change {
    Change::put(key(at), Document::trusted(&format!("{{\"n\":{value}}}")))
}

/// A change that deletes a key.
pub(crate) fn delete(at: &str) -> Change {
    Change::delete(key(at))
}
