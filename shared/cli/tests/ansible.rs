//! Inventories against Ansible's own idea of them.
//!
//! What Ansible thinks is worked out from the JSON again, the other way round than the importer does it (from each group down), and
//! where `ansible-inventory` is installed, asked of it (`SHOAL_ANSIBLE_INVENTORY` names the program). The small example
//! inventory is always there; the real one where `SHOAL_FLEET` says, or beside the repository.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use shoal_cli::import::ansible::{self, Rows};
use shoal_core::{Change, Document, HostId, Proposal, Revision, Row, View, prepare};

type Groups = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// The real inventory's folder.
fn fleet() -> Option<PathBuf> {
    let named = std::env::var_os("SHOAL_FLEET").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| root().join("../shared/data/fedora"));
    dir.join("inventory.json").exists().then_some(dir)
}

/// Each host's groups as Ansible has them: from each group down to its hosts.
fn groups_of(inventory: &Value) -> Groups {
    fn below(inventory: &Value, group: &str, into: &mut BTreeSet<String>) {
        let texts =
            |of: &str| inventory[group][of].as_array().into_iter().flatten().filter_map(Value::as_str);
        into.extend(texts("hosts").map(str::to_owned));
        texts("children").for_each(|child| below(inventory, child, into));
    }
    let mut out = Groups::new();
    for group in inventory.as_object().unwrap().keys().filter(|g| *g != "_meta") {
        let mut hosts = BTreeSet::new();
        below(inventory, group, &mut hosts);
        for host in hosts {
            out.entry(host).or_default().insert(group.clone());
        }
    }
    out
}

fn import(inventory: &str, mapping: &str, rows: &mut Rows) -> ansible::Import {
    let mut ids = rows.len();
    let before = view(rows);
    let import = ansible::read(inventory, mapping)
        .unwrap()
        .against(rows, false, || {
            ids += 1;
            HostId(format!("id{ids}"))
        })
        .unwrap();
    for change in &import.changes {
        let row =
            Row { key: change.key.clone(), value: change.value.clone(), revision: Revision(1), moved: None };
        rows.insert(change.key.clone(), row);
    }
    proposed(&before, &import);
    import
}

fn view(rows: &Rows) -> View {
    let mut view = View::new();
    rows.values().for_each(|row| view.load(row.clone()));
    view.loaded(Revision(1));
    view
}

/// What is proposed passes every check, and writes the rows that the import says it does, each with its precondition.
fn proposed(view: &View, import: &ansible::Import) {
    let mut proposal = Proposal::new("tests", "import", import.edits.clone());
    proposal.pre.clone_from(&import.pre);
    let prepared = prepare(view, &proposal, &mut || HostId("unasked".to_owned())).unwrap();
    let rows = |changes: &[Change]| -> BTreeMap<String, Option<Document>> {
        changes.iter().map(|c| (c.key.to_string(), c.value.clone())).collect()
    };
    assert_eq!(rows(&prepared.commit.changes), rows(&import.changes));
    assert!(import.pre.iter().all(|pre| prepared.commit.pre.contains(pre)));
}

/// Each host's tags in a namespace, as the database answers it.
fn tags_of(rows: &Rows, namespace: &str) -> Groups {
    let view = view(rows);
    let tags = |host: &str| -> BTreeSet<String> {
        let all = view.memberships(host).into_iter().map(|(tag, _)| tag);
        all.filter(|t| t.namespace() == namespace).map(|t| t.key().to_owned()).collect()
    };
    view.hosts().map(|host| (host.name.to_string(), tags(host.name.as_str()))).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

#[test]
fn the_real_fleet_is_as_ansible_has_it() {
    let Some(dir) = fleet() else {
        println!("SKIPPED: the_real_fleet_is_as_ansible_has_it: no inventory (SHOAL_FLEET names its folder)");
        return;
    };
    let text = read(&dir.join("inventory.json"));
    let mapping = read(&root().join("deploy/example/fedora/mapping.yaml"));
    let mut rows = Rows::new();
    let first = import(&text, &mapping, &mut rows);
    let inventory: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(tags_of(&rows, "tags"), groups_of(&inventory), "every host's set of groups");

    let hosts: BTreeSet<&str> = rows.keys().filter_map(|k| k.as_str().strip_prefix("hosts/")).collect();
    let theirs: BTreeSet<&str> =
        inventory["_meta"]["hostvars"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(hosts, theirs);
    let tags = rows.keys().filter_map(|k| k.as_str().strip_prefix("tags/").filter(|t| !t.contains('/')));
    let groups = inventory.as_object().unwrap().keys().map(String::as_str).filter(|g| *g != "_meta");
    assert_eq!(tags.collect::<BTreeSet<_>>(), groups.collect::<BTreeSet<_>>());
    let absent = first.report.notes.iter().filter(|n| n.what.starts_with("named as a child"));
    assert_eq!((absent.count(), first.report.hosts.new), (15, hosts.len()), "{:#?}", first.report.notes);
    // And one that has a range where the mapping makes a tag of each port.
    let ranges = first.report.notes.iter().filter(|n| n.what.contains("\"6881-6999\" is not a whole number"));
    assert_eq!((ranges.count(), first.report.notes.len()), (1, 16), "{:#?}", first.report.notes);

    let mut unread = 0;
    for (name, vars) in inventory["_meta"]["hostvars"].as_object().unwrap() {
        let row = &rows[&format!("hosts/{name}").parse::<shoal_core::Key>().unwrap()];
        let document = row.value.as_ref().unwrap().value()["document"].clone();
        for (var, field) in
            [("eth0_ipv4_ip", "address"), ("vmhost", "box"), ("datacenter", "site"), ("num_cpus", "cpus")]
        {
            unread += usize::from(vars[var] != document[field] && !vars[var].is_null());
        }
        let disk = document["disk"].as_u64().unwrap() >> 20;
        match (&vars["lvm_size"], disk) {
            (Value::Number(mib), disk) => assert_eq!(mib.as_u64(), Some(disk)),
            (text, disk) => assert!(disk >= 50 * 1024, "{text}: {disk} MiB"),
        }
    }
    assert_eq!(unread, 0);
    assert!(import(&text, &mapping, &mut rows).changes.is_empty(), "a second import changes nothing");
}

#[test]
fn the_example_is_as_ansible_has_it() {
    let dir = root().join("deploy/example/ansible");
    let (text, mapping) = (read(&dir.join("inventory.json")), read(&dir.join("mapping.yaml")));
    let mut rows = Rows::new();
    let import = import(&text, &mapping, &mut rows);
    let renamed = |host: &str| match host.strip_suffix(".lab.internal") {
        Some(stem) => format!("{stem}.lab.example.com"),
        None => format!("{host}.example.com"),
    };
    let theirs = groups_of(&serde_json::from_str(&text).unwrap());
    let theirs: Groups = theirs.into_iter().map(|(host, groups)| (renamed(&host), groups)).collect();
    assert_eq!(tags_of(&rows, "ansible"), theirs);
    let about: Vec<&str> = import.report.notes.iter().map(|n| n.about.as_str()).collect();
    assert_eq!(
        about,
        ["group decommissioned", "group ungrouped", "kvm2.example.com", "stage1.lab.example.com"]
    );
}

#[test]
fn ansible_itself_agrees() {
    let program = std::env::var("SHOAL_ANSIBLE_INVENTORY").unwrap_or_else(|_| "ansible-inventory".to_owned());
    let dir = std::env::temp_dir().join(format!("shoal-ansible-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let yaml = dir.join("inventory.yaml");
    std::fs::write(&yaml, "all:\n  children:\n    a:\n      hosts:\n        h[1:3].example.com: {mem: 512}\n    b:\n      children:\n        a:\n        c:\n          hosts: {h9.example.com: }\n    empty:\n").unwrap();
    let listed = Command::new(&program).arg("-i").arg(&yaml).arg("--list").env("ANSIBLE_HOME", &dir).output();
    let Ok(listed) = listed else {
        println!("SKIPPED: ansible_itself_agrees: there is no {program}");
        return;
    };
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).unwrap();
    let mut rows = Rows::new();
    import(&text, "name: fleet\nhosts: {fields: {memory: {var: mem, as: size}}}\n", &mut rows);
    let drawn = Command::new(&program)
        .arg("-i")
        .arg(&yaml)
        .args(["--graph"])
        .env("ANSIBLE_HOME", &dir)
        .output()
        .unwrap();
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    let ours = tags_of(&rows, "tags");
    for host in ["h1.example.com", "h3.example.com", "h9.example.com"] {
        assert_eq!(ours[host], graph(&drawn, host), "{host}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The groups above a host in what `ansible-inventory --graph` draws: `  |  |--@group:` and `|--host`, deeper is to the right.
fn graph(text: &str, host: &str) -> BTreeSet<String> {
    let (mut path, mut found) = (Vec::<(usize, String)>::new(), BTreeSet::new());
    for line in text.lines() {
        let Some(at) = line.find(|c: char| c != ' ' && c != '|' && c != '-') else { continue };
        path.retain(|(depth, _)| *depth < at);
        match line[at..].strip_prefix('@') {
            Some(group) => path.push((at, group.trim_end_matches(':').to_owned())),
            None if &line[at..] == host => found.extend(path.iter().map(|(_, group)| group.clone())),
            None => {}
        }
    }
    found
}
