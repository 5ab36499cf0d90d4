//! Two databases and one directory of zone files, by the real program: the first has it, whatever the other wants.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::scratch::{Daemon, FILES, Scratch};
use common::until_async;
use serde_json::json;
use shoal_store_sqlite::SqliteStore;

const OWNER: &str = ".shoal-database";

fn fleet(web: &str, address: &str) -> String {
    format!(
        "{{host: {web}.example.com, document: {{address: {address}}}}}\n---\n\
         {{tag: dns/example.com, document: {{soa: {{primary: {web}}}}}, members: [{web}.example.com]}}\n"
    )
}

/// Every file of a directory, with what tells it from one that was written again.
fn everything(dir: &Path) -> BTreeMap<String, (u64, String)> {
    use std::os::unix::fs::MetadataExt;
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, (entry.metadata().unwrap().ino(), fs::read_to_string(entry.path()).unwrap()))
    };
    fs::read_dir(dir).unwrap().map(|entry| one(entry.unwrap())).collect()
}

/// The configuration of an agent that writes into another's directory.
fn beside(first: &Scratch) -> String {
    FILES.replace("DIR/zones", &first.path().join("zones").display().to_string())
}

/// A database of its own that would write into another's directory.
async fn second(first: &Scratch) -> Scratch {
    let second = Scratch::new(&beside(first));
    second.apply(&fleet("app1", "198.51.100.1")).await;
    second.apply("{tag: dns/example.net, document: {soa: {primary: ns1.example.org.}}}").await;
    second
}

/// Agrees that its zones stand, or are to stand, where its configuration says by now.
async fn moves(scratch: &Scratch, zones: &[&str]) {
    assert_eq!(scratch.run(&["--once"]).0, 4);
    for zone in zones {
        scratch.approve(zone).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_database_touches_nothing_of_the_first() {
    let first = Scratch::new(FILES);
    first.apply(&fleet("web1", "192.0.2.1")).await;
    assert_eq!(first.run(&["--once"]).0, 0);
    let zones = first.path().join("zones");
    let before = everything(&zones);
    assert_eq!(before.len(), 2, "{before:?}");
    let second = second(&first).await;
    let epoch = async |scratch: &Scratch| {
        let store = SqliteStore::open(scratch.path().join("db")).await.unwrap();
        format!("{:016x}", shoal_store::Store::head(&store).await.unwrap().epoch.0)
    };
    let (code, said) = second.run(&["--once"]);
    assert_eq!(code, 1, "{said}");
    for part in [epoch(&first).await, epoch(&second).await, format!("remove {}", zones.join(OWNER).display())]
    {
        assert!(said.contains(&part), "{part} is not in: {said}");
    }
    assert_eq!(everything(&zones), before);
    // Nor what it has no more.
    let gone = serde_json::from_value(json!({"edit": "delete", "key": "dns/example.com"})).unwrap();
    second.commit(vec![gone]).await;
    assert_ne!(second.run(&["--once"]).0, 0);
    assert_eq!(everything(&zones), before);
    // The first goes on.
    first.apply("{host: web1.example.com, document: {address: 192.0.2.2}}").await;
    let (code, said) = first.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert!(first.zone("example.com").contains("192.0.2.2\n"));
    assert_eq!(first.run(&["--once"]).0, 0);
    // In a directory of its own there is nothing that it must not touch; that its zones are to be there, a person says.
    second.configure(FILES);
    moves(&second, &["example.com", "example.net"]).await;
    let (code, said) = second.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert!(second.zone("example.net").contains("ns1.example.org."));
    // The daemon says it too.
    let before = everything(&zones);
    second.configure(&beside(&first));
    moves(&second, &["example.net"]).await;
    let _daemon = Daemon::start(&second);
    until_async(async || second.status().await.contains(OWNER)).await;
    assert_eq!(everything(&zones), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_has_the_directory_by_a_persons_word() {
    let scratch = Scratch::new(FILES);
    scratch.apply(&fleet("web1", "192.0.2.1")).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    let zones = scratch.path().join("zones");
    let before = everything(&zones);
    let store = SqliteStore::open(scratch.path().join("db")).await.unwrap();
    let epoch = store.new_epoch().await.unwrap();
    drop(store);
    scratch.apply("{host: web1.example.com, document: {address: 192.0.2.3}}").await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, everything(&zones)), (4, before.clone()), "{said}");
    let agreed =
        json!({"edit": "write", "key": "approvals/dns", "value": {"digest": format!("{:016x}", epoch.0)}});
    scratch.commit(vec![serde_json::from_value(agreed).unwrap()]).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, everything(&zones)), (1, before), "{said}");
    assert!(said.contains("restored") && said.contains(OWNER), "{said}");
    fs::remove_file(zones.join(OWNER)).unwrap();
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert!(scratch.zone("example.com").contains("192.0.2.3\n"));
    // And is refused to who comes then.
    let before = everything(&zones);
    assert_eq!(second(&scratch).await.run(&["--once"]).0, 1);
    assert_eq!(everything(&zones), before);
}
