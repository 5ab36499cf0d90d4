//! Zone files without a server: what stands after commands that take too long, fail, or were given up.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::fleet::Fleet;
use common::{batch, converge, fence, files, observe, step};
use serde_json::json;
use shoal_agent::{Clock, Epoch, Fence, Moment, Revision, Target, Unit, Why};
use shoal_dns::target::{ZoneFileSettings, ZoneFiles};
use shoal_dns::{Key, Node};

const ZONE: &str = "example.com";

fn zone(web1: &str) -> BTreeMap<Key, Node> {
    Fleet::default()
        .tag("dns/example.com", json!({"soa": {"primary": "web1"}}), &["web1.example.com"])
        .host("web1.example.com", json!({"address": web1}))
        .zone(ZONE)
}

fn wanted() -> Why {
    Why::Wanted(Revision(7))
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

/// Past every claim's end as soon as a file stands there.
struct Until(PathBuf);

impl Clock for Until {
    fn now(&self) -> Moment {
        Moment::from(self.0.exists()) * 100
    }
}

async fn apply_until(bind: &ZoneFiles, loaded: &Path, want: &BTreeMap<Key, Node>) -> Result<(), String> {
    let batch = batch(&observe(bind, ZONE).await, want, &wanted()).unwrap();
    let fence = Fence { number: 1, not_after: 1, epoch: Epoch(7), clock: Arc::new(Until(loaded.to_owned())) };
    bind.apply(&Unit::from(ZONE), &batch, &fence).await.map(drop).map_err(|fault| fault.to_string())
}

#[tokio::test]
async fn what_takes_longer_to_load_than_a_claim_lasts_is_settled_unless_somebody_else_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = dir.path().join("loaded");
    let mut settings = ZoneFileSettings::files(dir.path());
    settings.reload = words(&["touch", loaded.to_str().unwrap()]);
    let bind = ZoneFiles::open(settings.clone()).unwrap();
    apply_until(&bind, &loaded, &zone("192.0.2.1")).await.unwrap();
    assert_eq!(files(dir.path()), ["example.com.zone", "loaded"]);
    assert!(batch(&observe(&bind, ZONE).await, &zone("192.0.2.1"), &wanted()).is_none());
    // Somebody else wrote meanwhile: what stands beside the file is theirs.
    fs::remove_file(&loaded).unwrap();
    settings.reload = words(&["sh", "-c", &format!("echo >> {{file}}; touch {}", loaded.display())]);
    let bind = ZoneFiles::open(settings).unwrap();
    let why = apply_until(&bind, &loaded, &zone("192.0.2.2")).await.unwrap_err();
    assert!(why.contains("claim"), "{why}");
    assert!(dir.path().join(".example.com.zone.good").exists());
}

#[tokio::test]
async fn an_edit_that_no_server_ever_loaded_is_not_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = ZoneFileSettings::files(dir.path());
    converge(&ZoneFiles::open(settings.clone()).unwrap(), ZONE, &zone("192.0.2.1")).await;
    let path = dir.path().join("example.com.zone");
    let good = fs::read_to_string(&path).unwrap();
    settings.reload = words(&["false"]);
    let bind = ZoneFiles::open(settings).unwrap();
    // What Shoal wrote goes back.
    let fault = step(&bind, ZONE, &zone("192.0.2.2"), &wanted()).await.unwrap_err();
    assert!(fault.to_string().contains("the last good file is back"), "{fault}");
    assert_eq!(fs::read_to_string(&path).unwrap(), good);
    // An edit does not.
    fs::write(&path, format!("{good}broken.example.com. 60 IN A 192.0.2.66\n")).unwrap();
    let fault = step(&bind, ZONE, &zone("192.0.2.2"), &wanted()).await.unwrap_err();
    assert!(fault.to_string().contains("there is no earlier file to go back to"), "{fault}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("192.0.2.2\n") && !text.contains("broken"), "{text}");
}

#[tokio::test]
async fn an_attempt_that_was_given_up_does_not_write_into_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let bind = ZoneFiles::open(ZoneFileSettings::files(dir.path())).unwrap();
    // Whoever opens this to write waits for a reader.
    let candidate = dir.path().join(".example.com.zone.new");
    assert!(std::process::Command::new("mkfifo").arg(&candidate).status().unwrap().success());
    let batch = batch(&observe(&bind, ZONE).await, &zone("192.0.2.1"), &wanted()).unwrap();
    let (unit, fence) = (Unit::from(ZONE), fence(1));
    let most = Duration::from_millis(300);
    assert!(tokio::time::timeout(most, bind.apply(&unit, &batch, &fence)).await.is_err());
    let read = async {
        // The second one stands before the lock now, or comes to it later: both must end well.
        tokio::time::sleep(most).await;
        tokio::task::spawn_blocking(move || fs::read(candidate)).await.unwrap().unwrap()
    };
    // The first one ends with an error that nobody hears; the second one has the place to itself.
    let (second, _) = tokio::join!(bind.apply(&unit, &batch, &fence), read);
    second.unwrap();
    assert_eq!(files(dir.path()), ["example.com.zone"]);
    assert!(
        batch.changes.len() > 1
            && common::batch(&observe(&bind, ZONE).await, &zone("192.0.2.1"), &wanted()).is_none()
    );
}
