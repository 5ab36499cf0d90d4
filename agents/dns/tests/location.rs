//! Runs with another configuration than the one that a zone is kept with: by mistake, and because it moved.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use common::scratch::{FILES, Scratch};
use common::{Named, SECRET, dig, here};

const TOOLS: [&str; 3] = ["named", "rndc", "dig"];

const FLEET: &str = "
host: x1.example.com
document: {address: 192.0.2.131}
---
tag: dns/hosts
document: {zone: example.com}
members: [x1.example.com]
";

/// A BIND that has somebody's `x1`, and an agent that may update it.
fn world() -> (Named, Scratch, String) {
    let named = Named::start_with(&["example.com"], "allow-update { key k; }; allow-transfer { key k; };");
    let zone = "$TTL 600\n@ IN SOA ns1 admin 7 7200 900 1209600 300\n@ IN NS ns1\nns1 IN A 192.0.2.53\nx1 IN A 192.0.2.31\n";
    fs::write(named.file("example.com"), zone).unwrap();
    assert!(named.rndc(&["reload", "example.com"]));
    for _ in 0..3_000 {
        if address(&named, "x1") == ["192.0.2.31"] {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let key = "key = { name = 'k', secret_file = 'DIR/secret' }";
    let updates = format!("[agent.update]\nserver = '{}'\n{key}\n", named.address);
    let scratch = Scratch::new(&updates);
    fs::write(scratch.path().join("secret"), format!("{SECRET}\n")).unwrap();
    (named, scratch, updates)
}

fn address(named: &Named, host: &str) -> Vec<String> {
    let lines = dig(named.address, &format!("{host}.example.com A")).answer();
    lines.iter().filter_map(|line| Some(line.rsplit(' ').next()?.to_owned())).collect()
}

/// A configuration of the built-in server, as it is without one, but on a port that is free, or on one that is taken.
fn built_in(address: SocketAddr) -> String {
    format!("[agent.server]\nlisten = '{address}'\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_the_configuration_gives_shoal_nothing_of_what_others_have() {
    if !here("a_run_without_the_configuration_gives_shoal_nothing_of_what_others_have", &TOOLS) {
        return;
    }
    for fails in [false, true] {
        let (named, scratch, updates) = world();
        scratch.apply(FLEET).await;
        let (code, said) = scratch.run(&["--once"]);
        assert!(code == 4 && said.contains("x1 is there already"), "{said}");
        // The mistake, while nothing is Shoal's yet that would tell it so.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind(taken.local_addr().unwrap());
        let free: SocketAddr = ([127, 0, 0, 1], 0).into();
        scratch.configure(&built_in(if fails { taken.local_addr().unwrap() } else { free }));
        scratch.apply("tag: dns/example.com\ndocument: {soa: {primary: ns1}}").await;
        let (code, said) = scratch.run(&["--once", "--wait", if fails { "5s" } else { "60s" }]);
        assert!(if fails { code != 0 } else { code == 0 }, "{code}: {said}");
        drop((taken, udp));
        scratch.configure(&updates);
        for mode in ["--once", "--plan", "--once"] {
            let (code, said) = scratch.run(&[mode]);
            assert_eq!((code, address(&named, "x1")), (4, vec!["192.0.2.31".to_owned()]), "{mode}: {said}");
            let (from, to) = ("location, built-in server", format!("for updates at {}", named.address));
            assert!(said.contains(from) && said.contains(&to), "{said}");
        }
        // Where it listens makes it no other place.
        scratch.configure(&built_in(free));
        let (code, said) = scratch.run(&["--once"]);
        assert_eq!(code, 0, "{said}");
        scratch.configure(&updates);
        assert_eq!(scratch.run(&["--once"]).0, 4);
        // A person's word, and what it shows to be changed is.
        scratch.approve("example.com").await;
        let (code, said) = scratch.run(&["--once"]);
        assert_eq!((code, address(&named, "x1")), (0, vec!["192.0.2.131".to_owned()]), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_run_over_a_zone_that_is_kept_elsewhere_does_nothing_and_is_forgotten() {
    if !here("a_wrong_run_over_a_zone_that_is_kept_elsewhere_does_nothing_and_is_forgotten", &TOOLS) {
        return;
    }
    let (named, scratch, updates) = world();
    scratch.apply(FLEET).await;
    scratch.apply("host: y1.example.com\ndocument: {address: 192.0.2.1}").await;
    scratch.apply("tag: dns/more\ndocument: {zone: example.com}\nmembers: [y1.example.com]").await;
    assert_eq!(scratch.run(&["--once"]).0, 4);
    assert_eq!(address(&named, "y1"), ["192.0.2.1"]);
    scratch.configure(&built_in(([127, 0, 0, 1], 0).into()));
    for mode in ["--plan", "--once"] {
        let (code, said) = scratch.run(&[mode]);
        assert!(code == 4 && said.contains("for built-in server"), "{said}");
    }
    scratch.configure(&updates);
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 4 && said.contains("x1 is there already") && !said.contains("location"), "{said}");
    assert_eq!(address(&named, "x1"), ["192.0.2.31"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_moved_is_gone_on_with_once_a_person_said_so() {
    let scratch = Scratch::new(FILES);
    scratch.apply(FLEET).await;
    scratch.apply("tag: dns/example.com\ndocument: {soa: {primary: x1}}").await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    let zone = scratch.zone("example.com");
    fs::rename(scratch.path().join("zones"), scratch.path().join("moved")).unwrap();
    scratch.configure(&FILES.replace("zones", "moved"));
    let moved = || fs::read_to_string(scratch.path().join("moved/example.com")).unwrap();
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 4 && said.contains("zone files in /") && said.contains("/moved"), "{said}");
    assert!(scratch.status().await.contains("made at another location"));
    scratch.approve("example.com").await;
    assert_eq!(scratch.run(&["--plan"]).0, 0);
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, moved()), (0, zone), "nothing was to be changed: {said}");
    scratch.apply("host: x1.example.com\ndocument: {address: 192.0.2.132}").await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    assert!(moved().contains("192.0.2.132"));
}
