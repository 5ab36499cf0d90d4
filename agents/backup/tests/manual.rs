//! The examples of `docs/agents/backup.md`: every document is committed and understood, every configuration is one that the program takes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Scratch, here};

/// The first fenced block of this kind.
fn block(kind: &str) -> String {
    blocks(kind).remove(0)
}

fn blocks(kind: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents/backup.md");
    let text = fs::read_to_string(path).unwrap();
    let fences = text.split("\n```").skip(1).step_by(2);
    fences.filter_map(|block| block.strip_prefix(&format!("{kind}\n")).map(str::to_owned)).collect()
}

#[tokio::test]
async fn the_examples_are_understood() {
    if !here("manual") {
        return;
    }
    let scratch = Scratch::new();
    let (password, url, state) = (scratch.text("password"), scratch.path("url"), scratch.text("state"));
    fs::write(&url, scratch.text("repo")).unwrap();
    let config: String = block("toml")
        .lines()
        .filter(|line| !line.starts_with("store") && !line.starts_with("token_file"))
        .map(|line| format!("{line}\n"))
        .collect();
    let config = config
        .replace("/etc/shoal/restic.password", &password)
        .replace("/etc/shoal/restic.url", &url.display().to_string())
        .replace("/var/lib/shoal/backup", &state)
        .replace("\"pg_dump\", \"--host=localhost\"", "\"echo\"")
        .replace("[agent]", "[agent]\nhost = \"web1.example.com\"");
    fs::write(scratch.path("backup.toml"), config).unwrap();
    let files = scratch.text("files");
    let yaml = block("yaml").replace("/srv/data/cache", "/nowhere").replace("/srv/data", &files);
    // At whatever time of the day this runs.
    let yaml = yaml.replace(", window: 6h", "");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    let edit = |mut document: Value| {
        document["edit"] = json!(if document.get("host").is_some() { "put_host" } else { "put_tag" });
        document
    };
    // The schema is published first, so that it is held against what the page says.
    scratch.store().await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    scratch.edit(documents.into_iter().map(edit).collect()).await;
    let (code, said) = scratch.run(&["--plan"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("create web1.example.com nightly@main"), "{said}");
    // The folder is none that is mounted, as the policy says it has to be.
    scratch.fails_with(&format!("{files} is not mounted"));
}

#[test]
fn the_further_examples_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.toml");
    fs::write(&path, blocks("toml").concat()).unwrap();
    let settings = shoal_agent::settings::<shoal_backup::Settings>(&path).unwrap().0;
    assert!(settings.ssh.is_some());
    let logs: Value = serde_saphyr::from_str(&blocks("yaml")[1]).unwrap();
    let spec: shoal_backup::Spec = serde_json::from_value(logs["document"].clone()).unwrap();
    assert_eq!(spec.purge.unwrap().keep_free, Some(20));
}

#[test]
fn the_configuration_that_is_installed_is_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/config/backup.toml");
    let text = fs::read_to_string(path).unwrap();
    let read = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup.toml");
        fs::write(&path, text).unwrap();
        shoal_agent::settings::<shoal_backup::Settings>(&path).unwrap().0
    };
    let settings = read(&text);
    assert_eq!(settings.repositories.len(), 1);
    assert!(settings.repositories.values().all(|one| one.removal.is_none()));
    // With every setting that stands behind a #.
    let all: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with('[') || rest.split(' ').nth(1) == Some("=") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    // It is shown twice: on this machine, and elsewhere.
    let all = all.lines().filter(|line| !line.starts_with("store = ")).collect::<Vec<_>>().join("\n");
    let settings = read(&all);
    assert!(settings.repositories.values().all(|one| one.removal.is_some()) && settings.dumps.len() == 1);
}
