//! The real program in front of a real Alertmanager: of which hosts nobody is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;

use common::{Alertmanager, Scratch, has};
use serde_json::json;

const COMMENT: &str = "draining or paused (Shoal)";

const FLEET: &str = r#"
host: web1.example.com
document: {address: 192.0.2.1}
---
host: web2.example.com
document: {address: 192.0.2.2}
---
host: web3.example.com
document: {address: 192.0.2.3}
---
tag: monitoring/web
document: {scrape: {node: {port: 9100}}}
members: [web1.example.com, web2.example.com, web3.example.com]
"#;

async fn state(scratch: &Scratch, host: &str, state: &str) {
    scratch.edit(json!([{"edit": "set_state", "host": format!("{host}.example.com"), "state": state}])).await;
}

/// What the files say of a host.
fn written(scratch: &Scratch, host: &str) -> String {
    let files = fs::read_dir(scratch.path().join("targets")).unwrap().map(|file| file.unwrap().path());
    let lines: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines.into_iter().find(|line| line.contains(&format!("\"{host}.example.com\""))).unwrap_or_default()
}

async fn start() -> (Alertmanager, Scratch) {
    let alertmanager = Alertmanager::start();
    let scratch = Scratch::new("");
    fs::create_dir(scratch.path().join("targets")).unwrap();
    let folder = scratch.path().join("targets").display().to_string();
    scratch.configure(&format!("[agent.prometheus]\ndirectory = '{folder}'\n{}", alertmanager.table()));
    scratch.apply(FLEET).await;
    scratch.converge();
    (alertmanager, scratch)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_a_host_that_drains_or_is_paused() {
    if !has("nobody_is_told_of_a_host_that_drains_or_is_paused", "prometheus-alertmanager") {
        return;
    }
    let (alertmanager, scratch) = start().await;
    let hosts = ["web1.example.com", "web2.example.com", "web3.example.com"];
    alertmanager.silence(hosts[0], "ann", "mine", 60);
    alertmanager.silence(hosts[2], "ann", COMMENT, 60);
    state(&scratch, "web1", "draining").await;
    scratch.pause(hosts[1], true).await;
    scratch.converge();
    let all = [
        "web1.example.com by ann",
        "web1.example.com by shoal",
        "web2.example.com by shoal",
        "web3.example.com by ann",
    ];
    assert_eq!(alertmanager.silenced(), all);
    assert_eq!(alertmanager.fires(&hosts), [].into());
    assert!(written(&scratch, "web1").contains("\"state\":\"draining\""));
    assert!(written(&scratch, "web2").contains("\"state\":\"paused\""));
    // Nothing is done again.
    let before = alertmanager.silences();
    scratch.converge();
    assert_eq!(alertmanager.silences(), before);
    // What is paused changes no further, and is planned.
    scratch.apply("{host: web2.example.com, document: {address: 192.0.2.22}}").await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 4 && said.contains("hands off"), "{code} {said}");
    assert!(written(&scratch, "web2").contains("192.0.2.2:9100"));
    // Back at work.
    state(&scratch, "web1", "active").await;
    scratch.pause(hosts[1], false).await;
    scratch.converge();
    assert_eq!(alertmanager.silenced(), ["web1.example.com by ann", "web3.example.com by ann"]);
    assert_eq!(alertmanager.fires(&hosts), ["web2.example.com".to_owned()].into());
    assert!(
        !written(&scratch, "web1").contains("state") && written(&scratch, "web2").contains("192.0.2.22:9100")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alertmanager_that_does_not_answer_is_not_one_without_silences() {
    if !has("an_alertmanager_that_does_not_answer_is_not_one_without_silences", "prometheus-alertmanager") {
        return;
    }
    let (mut alertmanager, scratch) = start().await;
    state(&scratch, "web1", "draining").await;
    state(&scratch, "web2", "draining").await;
    scratch.converge();
    alertmanager.stop();
    // One begins to drain, one comes back, one leaves, and one has another address.
    state(&scratch, "web3", "draining").await;
    state(&scratch, "web1", "active").await;
    state(&scratch, "web2", "retired").await;
    let more = "host: web4.example.com\ndocument: {address: 192.0.2.4}\n---\n";
    let tag = FLEET.split("---\n").last().unwrap().replace("members: [", "members: [web4.example.com, ");
    scratch.apply(&format!("{more}{tag}")).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("does not answer"), "{code} {said}");
    assert!(
        written(&scratch, "web1").contains("draining") && !written(&scratch, "web3").contains("draining")
    );
    assert!(written(&scratch, "web2").is_empty() && written(&scratch, "web4").contains("192.0.2.4"));
    alertmanager.again();
    scratch.converge();
    // Of the one that left nothing fires; its silence ends by itself.
    assert_eq!(alertmanager.silenced(), ["web2.example.com by shoal", "web3.example.com by shoal"]);
    assert!(
        !written(&scratch, "web1").contains("draining") && written(&scratch, "web3").contains("draining")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_renewed_before_it_ends_and_made_good() {
    if !has("a_silence_is_renewed_before_it_ends_and_made_good", "prometheus-alertmanager") {
        return;
    }
    let (alertmanager, scratch) = start().await;
    // As one that was made a while ago.
    alertmanager.silence("web1.example.com", "shoal", COMMENT, 30);
    let id = alertmanager.silences()[0]["id"].clone();
    state(&scratch, "web1", "draining").await;
    scratch.converge();
    let ends =
        |silence: &serde_json::Value| silence["endsAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48);
    let [silence] = &alertmanager.silences()[..] else { panic!("{:?}", alertmanager.silences()) };
    assert!(ends(silence) > soon && silence["id"] == id, "{silence}");
    // Somebody ends it, and two more appear of which one is enough.
    alertmanager.end(&id);
    scratch.converge();
    assert_eq!(alertmanager.silenced(), ["web1.example.com by shoal"]);
    alertmanager.silence("web2.example.com", "shoal", COMMENT, 30);
    scratch.converge();
    assert_eq!(alertmanager.silenced(), ["web1.example.com by shoal"]);
}
