//! What every store needs and none should write again: the checks that come before a commit, the names under
//! which a change is found again, the digest that tells a retry from another commit, and the watch.
//!
//! For those who write stores. Users of a store need none of it.

mod check;
mod hub;
mod index;
mod seats;
mod watcher;

pub use check::{digest, validate, validate_claim, validate_ledger, validate_query};
pub use hub::{Found, History, Hub};
pub use index::{INDEXED, Where, scopes};
