//! What only Route 53 can serve, asked of a server that cannot.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use common::scratch::{FILES, Scratch};

const FLEET: &str = "
tag: dns/example.com
document:
  soa: {primary: ns9.example.net.}
  ns: [ns9.example.net.]
  static:
    - {name: www, type: A, data: 192.0.2.1ROUTE}
    - {name: plain, type: A, data: 192.0.2.2}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_policy_is_the_fault_of_its_name_and_stops_nothing_else() {
    let scratch = Scratch::new(FILES);
    let routed = FLEET.replace("ROUTE", ", route: {set: one, weight: 1}");
    scratch.apply(&routed).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("www.example.com") && said.contains("[agent.route53]"), "{said}");
    let zone = scratch.zone("example.com");
    assert!(zone.contains("192.0.2.2") && !zone.contains("192.0.2.1"), "{zone}");
    // What was served before stays as it was while the tag asks for what cannot be.
    scratch.apply(&FLEET.replace("ROUTE", "")).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    scratch.apply(&routed.replace("192.0.2.2", "192.0.2.3")).await;
    let (code, said) = scratch.run(&["--once"]);
    let zone = scratch.zone("example.com");
    assert!(code == 1 && zone.contains("192.0.2.1") && zone.contains("192.0.2.3"), "{code} {said} {zone}");
}

#[cfg(not(feature = "route53"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_it_says_so() {
    let scratch = Scratch::new("[agent.route53]\nrate = 1\n[agent.aws]\nregion = 'eu-west-1'\n");
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("built without Route 53"), "{code} {said}");
}
