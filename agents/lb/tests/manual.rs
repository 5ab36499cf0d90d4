//! The examples of `docs/agents/lb.md` and the configuration that is installed: the documents are committed, and what the manual promises stands there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use common::{HaProxy, Scratch, has};
use shoal_lb::Settings;

/// The fenced block of the manual of this kind.
fn block(kind: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents/lb.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("\n```").skip(1).step_by(2);
    let mut blocks = blocks.filter_map(|block| block.split_once('\n'));
    blocks.find(|(found, _)| *found == kind).unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_run() {
    if !has("the_examples_run", "haproxy") {
        return;
    }
    let haproxy = HaProxy::start("");
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&block("yaml")).await;
    scratch.converge();
    let file = haproxy.file("web");
    let made: Vec<&str> = file
        .lines()
        .map(|line| line.split(" # shoal").next().unwrap())
        .skip_while(|line| !line.starts_with("backend"))
        .collect();
    assert_eq!(made, block("haproxy").lines().collect::<Vec<_>>());
}

#[test]
fn every_setting_of_the_examples_is_one() {
    let table = |text: &str| -> toml::Table {
        let settings = text.split("[agent.haproxy]").nth(1).unwrap();
        let lines = settings.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
        let is_setting = |line: &&str| line.split(' ').nth(1) == Some("=");
        let lines: Vec<&str> = lines.filter(is_setting).collect();
        toml::from_str(&lines.join("\n")).unwrap()
    };
    let installed = include_str!("../../../deploy/config/lb.toml");
    let (installed, manual) = (table(installed), table(&block("toml")));
    assert_eq!(installed.keys().collect::<Vec<_>>(), manual.keys().collect::<Vec<_>>());
    assert_eq!((installed.len(), &installed), (7, &manual));
    let settings = toml::Table::from_iter([("haproxy".to_owned(), installed.into())]);
    settings.try_into::<Settings>().unwrap().open().unwrap();
}
