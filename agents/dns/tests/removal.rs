//! A zone is gone when the real BIND says so, and not before.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::fleet::Fleet;
use common::scratch::Scratch;
use common::{Named, converge, dig, files, here, observe, step};
use serde_json::json;
use shoal_agent::{Revision, Seen, Why};
use shoal_core::Edit;
use shoal_dns::target::ZoneFiles;
use shoal_dns::{Key, Node};

const ZONE: &str = "example.com";
const TOOLS: &[&str] = &["named", "rndc", "dig"];

fn zone() -> BTreeMap<Key, Node> {
    let statics = json!([{"name": "ns1", "type": "A", "data": "192.0.2.53"}]);
    Fleet::default()
        .tag("dns/example.com", json!({"soa": {"primary": "ns1"}, "static": statics}), &[])
        .zone(ZONE)
}

fn gone() -> Why {
    Why::TagGone("dns/example.com".parse().unwrap(), Revision(8))
}

fn served(named: &Named) -> bool {
    dig(named.address, "example.com SOA").status() == "NOERROR"
}

#[tokio::test]
async fn a_zone_that_is_still_served_is_still_there() {
    if !here("a_zone_that_is_still_served_is_still_there", TOOLS) {
        return;
    }
    let named = Named::start(&[]);
    let mut settings = named.settings();
    settings.add = named.addzone();
    let nothing = BTreeMap::new();
    let target = |remove: &[&str], within: u64| {
        let mut settings = settings.clone();
        settings.remove = remove.iter().map(|&word| word.to_owned()).collect();
        settings.within = within;
        ZoneFiles::open(settings).unwrap()
    };
    converge(&target(&[], 30), ZONE, &zone()).await;
    // A command that fails, one that does nothing, and none: the file and every name stay, and each says why.
    let broken = ["sh", "-c", "echo no such key; exit 1"];
    for (remove, why) in
        [(&broken[..], "no such key"), (&["true"], "still serves example.com"), (&[], "still serves")]
    {
        let bind = target(remove, 4);
        let fault = step(&bind, ZONE, &nothing, &gone()).await.unwrap_err();
        assert!(fault.to_string().contains(why) && !fault.permanent, "{fault}");
        assert_eq!(files(&named.zones()), ["example.com.zone"]);
        assert_eq!(observe(&bind, ZONE).await.seen.len(), zone().len());
        assert!(served(&named));
    }
    // Somebody takes the file. Whose the zone is, the ledger knows; that it is there, the server says.
    fs::remove_file(named.file(ZONE)).unwrap();
    let delzone = named.delzone();
    let delzone: Vec<&str> = delzone.iter().map(String::as_str).collect();
    let bind = target(&delzone, 30);
    let seen = observe(&bind, ZONE).await.seen;
    assert!(
        matches!(seen.values().collect::<Vec<_>>()[..], [Seen::There(have)] if have.unserved),
        "{seen:?}"
    );
    assert!(seen.keys().all(Key::is_apex));
    step(&bind, ZONE, &nothing, &gone()).await.unwrap();
    assert!(!served(&named) && observe(&bind, ZONE).await.seen.is_empty());
    // Stopped after the server forgot it and before the file went: the command cannot succeed twice.
    converge(&target(&[], 30), ZONE, &zone()).await;
    assert!(served(&named) && named.rndc(&["delzone", ZONE]));
    step(&target(&delzone, 30), ZONE, &nothing, &gone()).await.unwrap();
    assert!(files(&named.zones()).is_empty());
}

#[tokio::test]
async fn a_file_that_was_taken_is_made_again_with_a_later_serial() {
    if !here("a_file_that_was_taken_is_made_again_with_a_later_serial", TOOLS) {
        return;
    }
    let named = Named::start(&[ZONE]);
    let bind = ZoneFiles::open(named.settings()).unwrap();
    converge(&bind, ZONE, &zone()).await;
    fs::remove_file(named.file(ZONE)).unwrap();
    assert_eq!(converge(&bind, ZONE, &zone()).await, zone().len());
    assert!(dig(named.address, "example.com SOA").answer()[0].contains(" 2 7200 "));
}

/// Without `server` nobody can be asked: then the command's exit code decides.
#[tokio::test]
async fn without_a_server_the_exit_code_decides() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = shoal_dns::target::ZoneFileSettings::files(dir.path());
    converge(&ZoneFiles::open(settings.clone()).unwrap(), ZONE, &zone()).await;
    settings.remove = vec!["false".to_owned()];
    let fault =
        step(&ZoneFiles::open(settings.clone()).unwrap(), ZONE, &BTreeMap::new(), &gone()).await.unwrap_err();
    assert!(fault.to_string().contains("false ended with"), "{fault}");
    assert_eq!(files(dir.path()), ["example.com.zone"]);
    settings.remove = vec!["true".to_owned()];
    step(&ZoneFiles::open(settings).unwrap(), ZONE, &BTreeMap::new(), &gone()).await.unwrap();
    assert!(files(dir.path()).is_empty());
}

/// The whole program: a deleted tag is not done before the server has let go of its zone.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_tries_until_the_server_lets_go() {
    if !here("the_agent_tries_until_the_server_lets_go", TOOLS) {
        return;
    }
    let named = Named::start(&[]);
    let config = |remove: &[String]| named.config(&named.addzone(), remove);
    let scratch = Scratch::new(&config(&["false".to_owned()]));
    let ns = "static: [{name: ns1, type: A, data: 192.0.2.53}]";
    scratch.apply(&format!("{{tag: dns/example.com, document: {{soa: {{primary: ns1}}, {ns}}}}}")).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, served(&named)), (0, true), "{said}");
    let key = "dns/example.com".parse().unwrap();
    scratch.commit(vec![Edit::Delete { key, follow: false, expect: Default::default() }]).await;
    // Not done, and not forgotten: also when the file is gone by then.
    for file in [true, false] {
        let (code, said) = scratch.run(&["--once"]);
        assert!(
            code == 1 && said.contains("still serves example.com") && said.contains("false ended"),
            "{code} {said}"
        );
        assert_eq!(named.file(ZONE).exists(), file);
        let _ = fs::remove_file(named.file(ZONE));
    }
    fs::write(scratch.path().join("dns.toml"), config(&named.delzone())).unwrap();
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, served(&named)), (0, false), "{said}");
    let (code, said) = scratch.run(&["--plan"]);
    assert_eq!(code, 0, "{said}");
}
