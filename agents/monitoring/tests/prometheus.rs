//! The real program in front of a real Prometheus: what the server scrapes is what the tags say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{Daemon, Prometheus, Scratch, has, until};
use serde_json::json;

const SCRAPE: &str = "scrape_configs: [{job_name: shoal, file_sd_configs: [{files: ['DIR/shoal-*.json'], refresh_interval: 1s}]}]\n";

const FLEET: &str = r#"
host: web1.example.com
document: {address: 192.0.2.1, site: ams}
---
host: web2.example.com
document: {address: "2001:db8::2", site: fra, monitoring: {scrape: {app: {port: 9999}}}}
---
tag: monitoring/web
document:
  labels: {site: "{site}"}
  scrape:
    node: {port: 9100}
    app: {port: 8080, path: "/metrics/{label}", scheme: https, interval: 90, labels: {tier: front}}
members: [web1.example.com, web2.example.com]
"#;

fn table(folder: &Path) -> String {
    format!("[agent.prometheus]\ndirectory = '{}'\n", folder.display())
}

fn set<const N: usize>(lines: [&str; N]) -> std::collections::BTreeSet<String> {
    lines.map(str::to_owned).into()
}

/// The files of a folder that are not hidden, with what tells one from another that was written again.
fn everything(folder: &Path) -> BTreeMap<String, (u64, String)> {
    use std::os::unix::fs::MetadataExt;
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, (entry.metadata().unwrap().ino(), fs::read_to_string(entry.path()).unwrap()))
    };
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| one(entry.unwrap()))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_what_the_tags_say() {
    if !has("prometheus_scrapes_what_the_tags_say", "prometheus") {
        return;
    }
    let prometheus = Prometheus::start(SCRAPE);
    let scratch = Scratch::new(&table(&prometheus.targets_folder()));
    scratch.apply(FLEET).await;
    scratch.converge();
    let app1 = "app https://192.0.2.1:8080/metrics/web1 90s host=web1.example.com,instance=web1.example.com:8080,site=ams,tier=front";
    let node1 =
        "node http://192.0.2.1:9100/metrics 1h host=web1.example.com,instance=web1.example.com:9100,site=ams";
    let app2 = "app https://[2001:db8::2]:9999/metrics/web2 90s host=web2.example.com,instance=web2.example.com:9999,site=fra,tier=front";
    let node2 = "node http://[2001:db8::2]:9100/metrics 1h host=web2.example.com,instance=web2.example.com:9100,site=fra";
    until("the targets", || prometheus.targets().len() == 4);
    assert_eq!(prometheus.targets(), set([app1, node1, app2, node2]));
    // One drains, the other leaves.
    scratch
        .edit(json!([
            {"edit": "set_state", "host": "web1.example.com", "state": "draining"},
            {"edit": "set_state", "host": "web2.example.com", "state": "retired"},
        ]))
        .await;
    scratch.converge();
    let drains = |line: &str| line.replace("site=ams", "site=ams,state=draining");
    until("the change", || prometheus.targets() == set([&drains(app1), &drains(node1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_writes_one_file_and_an_edit_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = Scratch::new(&table(folder.path()));
    let hosts: String = (0..300)
        .map(|n| format!("host: web{n}.example.com\ndocument: {{address: 192.0.2.1}}\n---\n"))
        .collect();
    let members: Vec<String> = (0..300).map(|n| format!("web{n}.example.com")).collect();
    let scrape = "scrape: {node: {port: 9100}}";
    scratch
        .apply(&format!(
            "{hosts}tag: monitoring/web\ndocument: {{{scrape}}}\nmembers: [{}]\n",
            members.join(", ")
        ))
        .await;
    scratch.converge();
    let before = everything(folder.path());
    scratch.apply("{host: web7.example.com, document: {address: 192.0.2.77}}").await;
    scratch.converge();
    let after = everything(folder.path());
    let written: Vec<_> = after.iter().filter(|(name, now)| before[*name] != **now).collect();
    assert_eq!(written.len(), 1);
    assert!(written[0].1.1.contains("\"192.0.2.77:9100\""));
    // Somebody changes a target, adds one, and breaks another file.
    let path = folder.path().join(written[0].0);
    let foreign = "[\n{\"targets\":[\"198.51.100.1:1\"],\"labels\":{}},";
    fs::write(&path, written[0].1.1.replace("192.0.2.77:9100", "192.0.2.66:9100").replacen('[', foreign, 1))
        .unwrap();
    let other = after.keys().find(|name| *name != written[0].0).unwrap();
    fs::write(folder.path().join(other), "[").unwrap();
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3 && said.contains("drift") && said.contains("web7.example.com"), "{code} {said}");
    scratch.converge();
    let text = |files: BTreeMap<String, (u64, String)>| -> Vec<String> {
        files.into_values().map(|(_, text)| text).collect()
    };
    assert_eq!(text(everything(folder.path())), text(after));
    // An empty database in the same folder.
    let empty = Scratch::new(&table(folder.path()));
    empty.apply("{host: other.example.com, document: {}}").await;
    empty.run(&["--once"]);
    empty
        .apply(&format!("{{tag: monitoring/x, document: {{{scrape}}}, members: [other.example.com]}}"))
        .await;
    let before = everything(folder.path());
    let (code, said) = empty.run(&["--once"]);
    assert!(code != 0 && said.contains("One folder, one database"), "{code} {said}");
    assert_eq!(everything(folder.path()), before);
    // None at all.
    fs::rename(scratch.path().join("db"), scratch.path().join("away")).unwrap();
    assert_ne!(scratch.run(&["--once"]).0, 0);
    assert_eq!(everything(folder.path()), before);
    fs::rename(scratch.path().join("away"), scratch.path().join("db")).unwrap();
    // And all leave in one commit: a person has to agree.
    scratch.edit(json!([{"edit": "set_members", "tag": "monitoring/web", "members": []}])).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, everything(folder.path())), (4, before), "{said}");
}

/// A Prometheus that does not reach the folder asks the agent, and keeps what it has while that has nothing to say.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_what_the_agent_answers() {
    if !has("prometheus_scrapes_what_the_agent_answers", "prometheus") {
        return;
    }
    let port = common::free();
    let folder = tempfile::tempdir().unwrap();
    let scratch = Scratch::new(&format!("{}listen = '127.0.0.1:{port}'\n", table(folder.path())));
    scratch.apply(FLEET).await;
    let daemon = Daemon::start(&scratch);
    let asks = format!(
        "scrape_configs: [{{job_name: shoal, http_sd_configs: [{{url: 'http://127.0.0.1:{port}/targets', refresh_interval: 1s}}]}}]\n"
    );
    let prometheus = Prometheus::start(&asks);
    until("the targets", || prometheus.targets().len() == 4);
    let before = prometheus.targets();
    // The files are lost, or broken: that is no list without targets.
    let said = |path: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    };
    let files = everything(folder.path());
    let (name, _) = files.first_key_value().unwrap();
    let whole = fs::read_to_string(folder.path().join(name)).unwrap();
    fs::write(folder.path().join(name), "[").unwrap();
    assert!(
        said("/targets").contains("503") && said("/targets").contains("was edited"),
        "{}",
        said("/targets")
    );
    // One of them is lost: what the others say is not all.
    fs::write(folder.path().join(name), whole).unwrap();
    let (with, _) = files.iter().find(|(_, (_, text))| text.contains("web2.example.com")).unwrap();
    let lost = fs::read_to_string(folder.path().join(with)).unwrap();
    fs::remove_file(folder.path().join(with)).unwrap();
    let answer = said("/targets");
    assert!(answer.contains("503") && answer.contains("is lost") && answer.contains(with), "{answer}");
    fs::write(folder.path().join(with), lost).unwrap();
    assert!(said("/targets").contains("200 OK"), "{}", said("/targets"));
    files.keys().for_each(|name| fs::remove_file(folder.path().join(name)).unwrap());
    assert!(said("/targets").contains("503") && said("/targets").contains("nothing was written yet"));
    prometheus.asks_in_vain();
    assert_eq!(prometheus.targets(), before);
    // Nor is an agent that is gone.
    drop(daemon);
    prometheus.asks_in_vain();
    assert_eq!(prometheus.targets(), before);
}

/// The configuration of a Prometheus that reads rules, and that of the agent.
fn with_rules(prometheus: &Prometheus) -> String {
    let folder = prometheus.rules_folder().display().to_string();
    format!(
        "{}[agent.prometheus.rules]\ndirectory = '{folder}'\nserver = '{}'\n",
        table(&prometheus.targets_folder()),
        prometheus.url()
    )
}

const RULES: &str = r#"
tag: monitoring/web
document:
  rules:
    Down: {expr: 'up{job="node"} == 0', for: 90, labels: {severity: page}, annotations: {summary: "{{ $labels.host }} is down"}}
    Slow: {expr: "scrape_duration_seconds > 5"}
---
tag: monitoring/ab
document: {rules: {Deep: {expr: "up == 2"}}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_has_the_rules_that_the_tags_say() {
    if !has("prometheus_has_the_rules_that_the_tags_say", "promtool") {
        return;
    }
    let prometheus = Prometheus::start("rule_files: ['RULES/shoal-*.json']\n");
    let scratch = Scratch::new(&with_rules(&prometheus));
    scratch.apply(RULES).await;
    scratch.converge();
    let down = "monitoring/web Down up{job=\"node\"} == 0";
    let (slow, deep) = ("monitoring/web Slow scrape_duration_seconds > 5", "monitoring/ab Deep up == 2");
    assert_eq!(prometheus.rules(), set([deep, down, slow]));
    // Bad ones are left out alone: one that is none, one whose template is none, one that Shoal itself refuses.
    scratch
        .apply(
            r#"
tag: monitoring/web
document:
  rules:
    Down: {expr: 'up{job="node"} == 0'}
    Broken: {expr: "rate("}
    Slow: {expr: "scrape_duration_seconds > ("}
    Template: {expr: "up == 3", labels: {a: "{{ $nothing }}"}}
    "no name": {expr: "up"}
    New: {expr: "up == 4"}
"#,
        )
        .await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(
        code == 1 && said.contains("Broken: could not parse") && said.contains("Template"),
        "{code} {said}"
    );
    assert!(scratch.status().await.contains("no name"), "{said}");
    // What stood before goes on: a mistyped rule is no reason to lose the good one.
    assert_eq!(prometheus.rules(), set([deep, down, slow, "monitoring/web New up == 4"]));
    // A tag goes, and its rules with it.
    scratch.apply(RULES.split_once("---").unwrap().0).await;
    scratch.edit(json!([{"edit": "delete", "key": "monitoring/ab"}])).await;
    scratch.converge();
    assert_eq!(prometheus.rules(), set([down, slow]));
    // Written and not read, as an agent leaves it that was killed there.
    let file = prometheus.rules_folder().join("shoal-web.json");
    fs::File::options().append(true).open(&file).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3, "{code} {said}");
    scratch.converge();
    // An edit by hand.
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("> 5", "> 50")).unwrap();
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3 && said.contains("drift"), "{code} {said}");
    scratch.converge();
    assert_eq!(prometheus.rules(), set([down, slow]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_read_its_rules_gets_the_last_good_ones_back() {
    if !has("a_server_that_cannot_read_its_rules_gets_the_last_good_ones_back", "promtool") {
        return;
    }
    let prometheus = Prometheus::start("rule_files: ['RULES/shoal-*.json']\n");
    let scratch = Scratch::new(&with_rules(&prometheus));
    scratch.apply(RULES).await;
    scratch.converge();
    let before = everything(&prometheus.rules_folder());
    // Its own configuration is broken by now, so it reads nothing new.
    let config = fs::read_to_string(prometheus.config()).unwrap();
    fs::write(prometheus.config(), "nonsense: [").unwrap();
    scratch.apply("{tag: monitoring/ab, document: {rules: {Deep: {expr: 'up == 7'}}}}").await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("the last good rules are back"), "{code} {said}");
    let text = |files: BTreeMap<String, (u64, String)>| -> Vec<String> {
        files.into_values().map(|(_, text)| text).collect()
    };
    assert_eq!(text(everything(&prometheus.rules_folder())), text(before));
    fs::write(prometheus.config(), config).unwrap();
    scratch.converge();
    assert!(prometheus.rules().contains("monitoring/ab Deep up == 7"));
}
