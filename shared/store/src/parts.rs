//! What every store needs and none should write again: the checks that come before a commit, the names under
//! which a change is found again, the digest that tells a retry from another commit, the watch, and what is said of copies.
//!
//! For those who write stores. Users of a store need none of it.

mod check;
mod chorus;
mod hub;
mod index;
mod seats;
mod unfinished;
mod watcher;

pub use check::{digest, too_many, validate, validate_claim, validate_ledger, validate_query};
pub use chorus::Chorus;
pub use hub::{Found, History, Hub};
pub use index::{INDEXED, Where, scopes};
pub use unfinished::{occupied, of_another, out_of_order, overtaken, unfinished};
