//! The protocol of claims, fencing numbers and the ledger, gone through state by state.
//!
//! The simulator runs the real engine through histories drawn by chance. This is the other way round: a small model of what the
//! engine, the runtime and the stores agree on, and every history of it, up to so many faults of each kind. What is in the model
//! and what is not stands in docs/simulation.md; where the protocol changes in the code, it has to change here.
//!
//! A model that holds everything may be one that says nothing. So each rule of the protocol is also taken out by itself, and then
//! the checker has to find the history in which that does harm. The same goes for two limits that the docs name.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by them, and says what was seen"
)]

#[path = "model/properties.rs"]
mod properties;
#[path = "model/protocol.rs"]
mod protocol;
#[path = "model/world.rs"]
mod world;

use properties::{HARMED, KNOWN, OVERLAP, RISES, STALE_WRITE, TWICE};
use protocol::{Kind, Protocol, Wrong};
use stateright::{Checker, HasDiscoveries, Model};
use world::{A, B, Faults};

/// Two instances, and one fault of each kind.
fn protocol(kind: Kind) -> Protocol {
    // Where effects land at any time, what was withdrawn meanwhile may still come: see the last test but one.
    let wishes = match kind {
        Kind::Waits => vec![Some(A), Some(B), None],
        Kind::Checks | Kind::Tokens => vec![Some(A), Some(B)],
    };
    let faults = Faults { crashes: 1, losses: 1, lost: 1, wishes: 1, persons: 1 };
    Protocol { kind, wrong: None, wishes, instances: 2, faults, hasty: false }
}

/// Every history of it holds what is promised, and what is to happen happens in some.
fn holds(what: &str, protocol: Protocol) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{what}: {} states, the deepest {} steps from the start",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// There is a history in which this does not hold; one is shown.
fn fails(what: &str, protocol: Protocol, property: &'static str) {
    let until = HasDiscoveries::AnyOf([property].into());
    let checker = protocol.checker().finish_when(until).spawn_bfs().join();
    let found = checker.discovery(property);
    let found = found
        .unwrap_or_else(|| panic!("{what}: in all of {} states, {property}", checker.unique_state_count()));
    println!("{what}: not always, {property}: {:?}", found.into_actions());
}

fn is_caught(kind: Kind, wrong: Wrong, property: &'static str) {
    fails(&format!("{wrong:?}"), Protocol { wrong: Some(wrong), ..protocol(kind) }, property);
}

#[test]
fn it_holds_where_a_new_holder_waits_and_looks() {
    holds("a target that checks nothing", protocol(Kind::Waits));
}

#[test]
fn it_holds_where_the_target_checks_numbers() {
    holds("a target that checks numbers", protocol(Kind::Checks));
}

#[test]
fn it_holds_where_creations_bear_tokens() {
    holds("a provider", protocol(Kind::Tokens));
}

#[test]
fn it_holds_among_three_instances() {
    let faults = Faults { crashes: 1, losses: 1, lost: 0, wishes: 1, persons: 0 };
    holds("three instances", Protocol { instances: 3, faults, ..protocol(Kind::Waits) });
}

#[test]
fn a_ledger_written_after_the_effect_is_caught() {
    is_caught(Kind::Waits, Wrong::LedgerAfterEffect, KNOWN);
}

#[test]
fn a_store_that_ignores_the_fence_is_caught() {
    is_caught(Kind::Waits, Wrong::StoreIgnoresFence, STALE_WRITE);
}

#[test]
fn a_target_that_ignores_the_fence_is_caught() {
    is_caught(Kind::Checks, Wrong::TargetIgnoresFence, OVERLAP);
}

#[test]
fn an_effect_that_begins_too_late_is_caught() {
    is_caught(Kind::Waits, Wrong::BeginsLate, OVERLAP);
}

#[test]
fn a_new_holder_that_does_not_wait_is_caught() {
    is_caught(Kind::Waits, Wrong::DoesNotWait, OVERLAP);
}

#[test]
fn a_new_holder_that_does_not_look_is_caught() {
    is_caught(Kind::Waits, Wrong::DoesNotLook, KNOWN);
}

#[test]
fn a_retry_without_its_token_is_caught() {
    is_caught(Kind::Tokens, Wrong::RetriesWithoutToken, TWICE);
}

#[test]
fn a_ledger_write_that_is_made_again_under_the_same_number_is_caught() {
    is_caught(Kind::Waits, Wrong::WritesAgain, KNOWN);
}

#[test]
fn numbers_that_begin_anew_are_caught() {
    is_caught(Kind::Waits, Wrong::ForgetsNumbers, RISES);
}

/// A limit, and not a promise: what lands after the ledger rightly let go of it is nobody's.
#[test]
fn what_lands_after_it_was_let_go_of_is_known_to_nobody() {
    let wishes = vec![Some(A), None];
    fails(
        "a late creation of what is not wanted any more",
        Protocol { wishes, ..protocol(Kind::Checks) },
        KNOWN,
    );
}

/// A limit, and not a promise: where a target has no marks, what somebody puts where Shoal's is just going is taken for Shoal's.
#[test]
fn what_is_put_where_the_ledger_still_has_an_item_is_taken_for_shoals() {
    fails("a hand edit of what is just going", Protocol { hasty: true, ..protocol(Kind::Waits) }, HARMED);
}
