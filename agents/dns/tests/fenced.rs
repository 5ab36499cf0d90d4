//! What an instance may still do that was stopped, lost its claim to another, and goes on with what it had decided: for each
//! target, what its page says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use common::fleet::Fleet;
use common::{Named, SECRET, batch, converge, dig, fence, files, here, observe, until};
use serde_json::json;
use shoal_agent::{Clock, Epoch, Fence, Moment, Outcome, Revision, Target, Unit, Why};
use shoal_dns::target::{
    Listen, Server, ServerSettings, Update, UpdateSettings, ZoneFileSettings, ZoneFiles,
};
use shoal_dns::{Dns, Key, Node};

const ZONE: &str = "example.com";

fn zone(web1: &str) -> BTreeMap<Key, Node> {
    Fleet::default()
        .tag("dns/example.com", json!({"soa": {"primary": "ns1.example.net."}}), &["web1.example.com"])
        .host("web1.example.com", json!({"address": web1}))
        .zone(ZONE)
}

/// Past every claim's end as soon as a file stands there.
struct Until(PathBuf);

impl Clock for Until {
    fn now(&self) -> Moment {
        Moment::from(self.0.exists()) * 100
    }
}

/// What became of every change that was decided from what is there now, once `meanwhile` has happened.
async fn late(
    target: &impl Target<Dns>,
    want: &BTreeMap<Key, Node>,
    fence: &Fence,
    meanwhile: impl Future<Output = ()>,
) -> Result<Vec<Outcome>, String> {
    let decided = batch(&observe(target, ZONE).await, want, &Why::Wanted(Revision(7))).unwrap();
    meanwhile.await;
    let applied = target.apply(&Unit::from(ZONE), &decided, fence).await;
    applied
        .map(|done| done.each.into_iter().map(|(_, outcome)| outcome).collect())
        .map_err(|why| why.to_string())
}

/// Nothing is begun once the claim has ended, and a claim that ends while the checker runs keeps the file from being replaced.
#[tokio::test]
async fn a_zone_file_is_not_replaced_after_the_claims_end() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ZoneFileSettings::files(dir.path());
    let (old, new) = (ZoneFiles::open(settings.clone()).unwrap(), ZoneFiles::open(settings.clone()).unwrap());
    let written = async { assert!(converge(&new, ZONE, &zone("192.0.2.2")).await > 0) };
    let why = Box::pin(late(&old, &zone("192.0.2.1"), &fence(-1), written)).await.unwrap_err();
    assert!(why.contains("claim"), "{why}");
    let path = dir.path().join("example.com.zone");
    let file = fs::read_to_string(&path).unwrap();
    assert!(file.contains("192.0.2.2"), "{file}");
    // In time, but not by what is there any more.
    let written = async { assert!(converge(&new, ZONE, &zone("192.0.2.3")).await > 0) };
    let outcomes = Box::pin(late(&old, &zone("192.0.2.1"), &fence(1), written)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stale), "{outcomes:?}");
    // The claim ends between the candidate and the rename.
    let ended = dir.path().join("ended");
    let mut slow = settings;
    slow.check = vec!["touch".to_owned(), ended.display().to_string()];
    let slow = ZoneFiles::open(slow).unwrap();
    let end = Fence { number: 1, not_after: 1, epoch: Epoch(7), clock: Arc::new(Until(ended)) };
    let why = late(&slow, &zone("192.0.2.1"), &end, async {}).await.unwrap_err();
    assert!(why.contains("claim"), "{why}");
    let file = fs::read_to_string(&path).unwrap();
    assert!(file.contains("192.0.2.3") && !file.contains("192.0.2.1\n"), "{file}");
    assert!(files(dir.path()).iter().all(|name| !name.ends_with(".good")), "{:?}", files(dir.path()));
}

/// The built-in server refuses a number older than one it has seen, also in time.
#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_server_refuses_an_old_number() {
    if !here("the_built_in_server_refuses_an_old_number", &["dig"]) {
        return;
    }
    let listen = Listen::One(([127, 0, 0, 1], 0).into());
    let server = Server::open(ServerSettings { listen, ..ServerSettings::default() }).unwrap();
    server.start().await.unwrap();
    let answer = || dig(server.addresses()[0], "web1.example.com A").answer();
    let why = late(&server, &zone("192.0.2.1"), &fence(-1), async {}).await.unwrap_err();
    assert!(why.contains("claim") && answer().is_empty(), "{why}");
    let newer = Fence { number: 2, ..fence(1) };
    late(&server, &zone("192.0.2.2"), &newer, async {}).await.unwrap();
    assert_eq!(answer(), ["web1.example.com. 3600 A 192.0.2.2"]);
    let why = late(&server, &zone("192.0.2.1"), &fence(1), async {}).await.unwrap_err();
    assert!(why.contains("older than 2"), "{why}");
    assert_eq!(answer(), ["web1.example.com. 3600 A 192.0.2.2"]);
}

/// Dynamic updates check no number: none is sent after the claim's end, and one that is on its way is refused where the records do
/// not stand as its sender saw them.
#[tokio::test]
async fn an_update_of_an_old_holder_meets_its_conditions() {
    if !here("an_update_of_an_old_holder_meets_its_conditions", &["named", "rndc", "dig"]) {
        return;
    }
    let named = Named::start_with(&[ZONE], "allow-update { key k; }; allow-transfer { key k; };");
    let others = "$TTL 600\n@ IN SOA ns1.example.net. admin.example.com. 7 7200 900 1209600 300\n@ IN NS ns1.example.net.\n";
    fs::write(named.file(ZONE), others).unwrap();
    assert!(named.rndc(&["reload", ZONE]));
    until(|| !dig(named.address, "example.com SOA").answer().is_empty()).await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let settings = json!({"server": named.address, "key": {"name": "k", "secret_file": secret}});
    let settings: UpdateSettings = serde_json::from_value(settings).unwrap();
    let (old, new) = (Update::open(&settings).unwrap(), Update::open(&settings).unwrap());
    // The zone's own name is its own business here.
    let hosts = |web1: &str| {
        let mut all = zone(web1);
        all.retain(|key, _| key.to_string().contains("web1"));
        all
    };
    let answer = || dig(named.address, "web1.example.com A").answer();
    let refused =
        |outcome: &Outcome| matches!(outcome, Outcome::Failed(why) if why.to_string().contains("claim"));
    let outcomes = web1(&old, &hosts("192.0.2.1"), &fence(-1)).await;
    assert!(refused(&outcomes) && answer().is_empty(), "{outcomes:?}");
    assert_eq!(web1(&new, &hosts("192.0.2.2"), &fence(1)).await, Outcome::Done);
    assert_eq!(answer(), ["web1.example.com. 3600 A 192.0.2.2"]);
    let decided = only_web1(&old, &hosts("192.0.2.1")).await;
    assert_eq!(web1(&new, &hosts("192.0.2.3"), &fence(1)).await, Outcome::Done);
    let applied = old.apply(&Unit::from(ZONE), &decided, &fence(1)).await.unwrap();
    assert!(applied.each.iter().all(|(_, outcome)| *outcome == Outcome::Stale), "{:?}", applied.each);
    assert_eq!(answer(), ["web1.example.com. 3600 A 192.0.2.3"]);
}

/// The change of that one name, as decided from what is there now.
async fn only_web1(target: &impl Target<Dns>, want: &BTreeMap<Key, Node>) -> shoal_agent::Batch<Dns> {
    let mut decided = batch(&observe(target, ZONE).await, want, &Why::Wanted(Revision(7))).unwrap();
    decided.changes.retain(|edit| edit.key.to_string().contains("web1"));
    decided
}

async fn web1(target: &impl Target<Dns>, want: &BTreeMap<Key, Node>, fence: &Fence) -> Outcome {
    let decided = only_web1(target, want).await;
    let applied = target.apply(&Unit::from(ZONE), &decided, fence).await.unwrap();
    applied.each.into_iter().next().unwrap().1
}
