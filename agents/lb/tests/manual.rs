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

/// The settings of a table in a text where some of them, or all, stand behind a `#`.
fn table(text: &str, name: &str) -> toml::Table {
    let rest = text.split(&format!("[agent.{name}]")).nth(1).unwrap();
    let settings = rest.split("[agent.").next().unwrap();
    let lines = settings.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    let is_setting = |line: &&str| line.split(' ').nth(1) == Some("=");
    let lines: Vec<&str> = lines.filter(is_setting).collect();
    toml::from_str(&lines.join("\n")).unwrap()
}

#[test]
fn every_setting_of_the_examples_is_one() {
    let manual = include_str!("../../../docs/agents/lb.md");
    let installed = include_str!("../../../deploy/config/lb.toml");
    for (name, count) in [("haproxy", 8), ("nginx", 10), ("keepalived", 12)] {
        let (installed, manual) = (table(installed, name), table(manual, name));
        assert_eq!(installed.keys().collect::<Vec<_>>(), manual.keys().collect::<Vec<_>>());
        assert_eq!((installed.len(), &installed), (count, &manual), "{name}");
        let settings = toml::Table::from_iter([(name.to_owned(), installed.into())]);
        settings.try_into::<Settings>().unwrap().open().unwrap();
    }
    // One load balancer, one agent.
    let both = ["haproxy", "nginx"].map(|name| (name.to_owned(), table(installed, name).into()));
    let why = toml::Table::from_iter(both).try_into::<Settings>().unwrap().open().unwrap_err();
    assert!(why.to_string().contains("one table"), "{why}");
}

#[cfg(feature = "elbv2")]
#[test]
fn every_setting_of_target_groups_is_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents/lb.md");
    let manual = std::fs::read_to_string(path).unwrap();
    let block = manual.split("\n```toml\n").find(|block| block.starts_with("[agent.aws]")).unwrap();
    let manual = block.split("\n```").next().unwrap().to_owned();
    let installed = include_str!("../../../deploy/config/lb.toml");
    let installed = installed.split("#[agent.aws]").nth(1).unwrap().replace("\n#", "\n");
    let installed =
        format!("[agent.aws]{installed}").replace(" The group of each pool", "# The group of each pool");
    let read = |text: &str| -> toml::Table {
        let text = text.replace("\n#role_arn", "\nrole_arn");
        let mut table: toml::Table = toml::from_str(&text).unwrap();
        let agent = table.remove("agent").unwrap();
        agent.clone().try_into::<Settings>().unwrap().open().unwrap();
        let mut settings = agent["elbv2"].as_table().unwrap().clone();
        settings.remove("groups");
        settings
    };
    assert_eq!(read(&manual), read(&installed));
    // What is left out has the value that is shown.
    let bare = "[elbv2.groups]\nweb = { name = 'web-tg', type = 'instance' }\n";
    let bare: Settings = toml::from_str(bare).unwrap();
    let bare = bare.elbv2.unwrap();
    let shown = read(&manual);
    assert_eq!(shown["instance"].as_str().unwrap(), bare.instance);
    let numbers = [("look", bare.look), ("within", bare.within), ("at_once", bare.at_once)];
    assert!(numbers.iter().all(|(name, value)| shown[*name].as_integer() == Some((*value).into())));
    assert_eq!((shown["rate"].as_float(), shown.len()), (Some(bare.rate), 5));
}

#[cfg(not(feature = "elbv2"))]
#[test]
fn a_program_without_target_groups_says_so() {
    let settings: Settings =
        toml::from_str("[elbv2.groups]\nweb = { name = 'web-tg', type = 'ip' }\n").unwrap();
    let why = settings.open().unwrap_err().to_string();
    assert!(why.contains("built without"), "{why}");
}
