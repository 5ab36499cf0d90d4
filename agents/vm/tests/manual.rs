//! The configuration that is installed, as it is and with everything in it that stands behind a `#`; and the documents of the manual.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

use shoal_agent::Base;
use shoal_machine::{Care, Spec};
use shoal_vm::Settings;

fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The table `[agent]` of a text.
fn settings(text: &str) -> Settings {
    let table: toml::Table = text.parse().unwrap();
    table["agent"].clone().try_into().unwrap()
}

#[test]
fn the_configuration_that_is_installed_is_read() {
    let text = file("deploy/config/vm.toml");
    let (_, own) = text.split_once("\n[agent]").unwrap();
    let mut bare = settings(&format!("[agent]{own}"));
    bare.room = Some("box1.example.com".to_owned());
    bare.open(Base::default()).unwrap();
    let all = own.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    let mut all = settings(&format!("[agent]{}", all.collect::<Vec<_>>().join("\n")));
    assert!(all.ec2.is_some() && all.aws.is_some());
    if cfg!(not(feature = "ec2")) {
        (all.ec2, all.aws) = (None, None);
    }
    let nspawn = all.nspawn.as_ref().unwrap();
    assert_eq!((nspawn.images.len(), nspawn.networks.len()), (1, 1));
    assert!(all.libvirt.is_some());
    if !cfg!(feature = "libvirt") {
        let fault = all.clone().open(Base::default()).unwrap_err().to_string();
        assert!(fault.contains("no libvirt"), "{fault}");
        all.libvirt = None;
    }
    let (agent, _) = all.open(Base::default()).unwrap();
    assert_eq!(agent.rooms.iter().map(|room| room.as_str()).collect::<Vec<_>>(), ["box1.example.com"]);
}

#[test]
fn what_cannot_work_is_said_when_it_starts() {
    let fault = |text: &str| settings(text).open(Base::default()).unwrap_err().to_string();
    assert!(fault("[agent]\nbox = \"b.example.com\"").contains("no provider"));
    assert!(fault("[agent]\nbox = \"no name\"\n[agent.nspawn]").contains("`box`"));
    let comma = "[agent]\nbox = \"b.example.com\"\n[agent.nspawn]\nimages = {a = \"/x,y\"}";
    assert!(fault(comma).contains("without commas"));
    let long = "[agent]\nbox = \"b.example.com\"\n[agent.nspawn]\nnetworks = {a = {bridge = \"a-bridge-with-a-long-name\"}}";
    assert!(fault(long).contains("at most 15"));
}

/// The manual's blocks of this kind.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let all = text.split("\n```").skip(1).step_by(2);
    all.filter_map(|block| block.strip_prefix(kind)?.strip_prefix('\n')).collect()
}

#[cfg(feature = "libvirt")]
#[test]
fn the_settings_of_the_manual_are_read() {
    let text = file("docs/agents/vm.md");
    let block = blocks(&text, "toml").into_iter().find(|block| block.starts_with("[agent.libvirt]")).unwrap();
    let all = settings(&format!("[agent]\nbox = \"b.example.com\"\n{block}"));
    assert_eq!(all.libvirt.as_ref().unwrap().images.len(), 1);
    all.open(Base::default()).unwrap();
}

#[test]
fn the_documents_of_the_manual_are_machines() {
    let text = file("docs/agents/vm.md");
    let blocks = blocks(&text, "yaml");
    let mut machines = 0;
    for document in blocks.iter().flat_map(|block| block.split("\n---\n")) {
        let document: serde_json::Value = serde_saphyr::from_str(document).unwrap();
        for said in [&document["document"]["vm"], &document["document"]] {
            if let Ok(spec) = serde_json::from_value::<Spec>(said.clone()) {
                Care::new(&spec).unwrap();
                machines += 1;
            }
        }
    }
    assert!(machines >= 2, "the manual shows {machines}");
}

#[cfg(feature = "ec2")]
#[test]
fn every_setting_of_instances_is_one() {
    let manual = file("docs/agents/ec2.md");
    let block = manual.split("\n```toml\n").find(|block| block.starts_with("[agent]")).unwrap();
    let block = block.split("\n```").next().unwrap();
    let read = |text: &str| -> toml::Table {
        let table: toml::Table = text.parse().unwrap();
        let mut agent = table["agent"].as_table().unwrap().clone();
        agent.insert("box".to_owned(), "b.example.com".into());
        toml::Value::Table(agent.clone()).try_into::<Settings>().unwrap().open(Base::default()).unwrap();
        agent["ec2"].as_table().unwrap().clone()
    };
    let shown = read(block);
    let installed = file("deploy/config/vm.toml");
    let (_, installed) = installed.split_once("\n#[agent.ec2]\n").unwrap();
    let installed = installed.split("\n\n").next().unwrap();
    let installed = read(&format!("[agent.ec2]\n{}", installed.replace('#', "")));
    // Written one by one there.
    let words = |table: &toml::Table| table.keys().cloned().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(words(&shown), words(&installed));
    // What is left out has the value that is shown.
    let bare: shoal_vm::target::ec2::Ec2Settings = toml::from_str("zone = 'a'\nimages = {}").unwrap();
    let numbers = [
        ("tries", i64::try_from(bare.tries).unwrap()),
        ("wait", bare.wait.into()),
        ("at_once", bare.at_once.into()),
    ];
    for table in [&shown, &installed] {
        assert!(numbers.iter().all(|(name, value)| table[*name].as_integer() == Some(*value)));
        assert_eq!(
            (table["rate"].as_float(), table["protect"].as_bool()),
            (Some(bare.rate), Some(bare.protect))
        );
        assert_eq!(table["ready"].as_str(), Some("checked"));
    }
}

#[cfg(not(feature = "ec2"))]
#[test]
fn a_program_without_instances_says_so() {
    let text = "[agent]\nbox = \"b.example.com\"\n[agent.ec2]\nzone = \"eu-west-1a\"";
    let why = settings(text).open(Base::default()).unwrap_err().to_string();
    assert!(why.contains("built without"), "{why}");
}
