//! Every command as it is seen: what it prints as text and as JSON, and the mistake that is made most. One snapshot each; a
//! command without one fails the test.
//!
//! What needs the database runs on the small fleet, on a clock that stands still; what needs the process itself runs as a
//! process. Paths and epochs are replaced. What cannot be shown in one line succeeds in a test of its own: `edit` (`edit.rs`), `serve`
//! (`program.rs`), `completions` (`manual.rs`), and `import zone`, which needs BIND (`tests/tests/zone.rs`).

use std::collections::BTreeSet;

use insta::assert_snapshot;
use serde_json::json;

use crate::fleet::Fleet;
use crate::program::{shoal, text};

/// A command's manual page, and its lines: two that do it, as text and as JSON, and one that does not.
const ON_THE_FLEET: &[(&str, &[&str])] = &[
    ("shoal-get", &["get dns/web", "get hosts -o json", "get web9.example.com"]),
    (
        "shoal-put",
        &[
            "put web1.example.com cpus=4 -m x",
            "put web1.example.com cpus=8 -m x -o json",
            "put web1.example.com cpus -m x",
        ],
    ),
    ("shoal-rm", &["rm web1.example.com --plan", "rm web1.example.com -m x -o json", "rm dns/web -m x"]),
    (
        "shoal-mv",
        &[
            "mv web1.example.com www.example.com --plan",
            "mv web1.example.com www.example.com -m x -o json",
            "mv db1.example.com web2.example.com -m x",
        ],
    ),
    (
        "shoal-tag",
        &[
            "tag dns/web +db1.example.com -m x",
            "tag dns/web -db1.example.com -m x -o json",
            "tag dns/web +nobody.example.com -m x",
        ],
    ),
    ("shoal-apply", &["apply -f {docs} --plan", "apply -f {docs} -m x -o json", "apply -f {bad} -m x"]),
    ("shoal-search", &["search site=='rdu3'", "search site=='rdu3' -o json", "search site="]),
    ("shoal-members", &["members dns/example.com", "members dns/example.com -o json", "members dns/none"]),
    ("shoal-parents", &["parents web1.example.com", "parents dns/web -o json", "parents web9.example.com"]),
    (
        "shoal-effective",
        &[
            "effective dns/example.com web2.example.com",
            "effective dns/web -o json",
            "effective dns/web db1.example.com",
        ],
    ),
    ("shoal-log", &["log", "log dns/web -o json", "log dns/none"]),
    ("shoal-show", &["show 2", "show 2 -o json", "show 99"]),
    ("shoal-blame", &["blame web1.example.com", "blame dns/web -o json", "blame dns/none"]),
    ("shoal-diff", &["diff 1 2", "diff 1 2 -o json", "diff 1 99"]),
    (
        "shoal-rollback",
        &[
            "rollback web1.example.com --to 1 --plan",
            "rollback web1.example.com --to 1 -m x -o json",
            "rollback web1.example.com --to 99 -m x",
        ],
    ),
    ("shoal-status", &["status", "status dns -o json", "status lb"]),
    ("shoal-wait", &["wait --revision 1", "wait --revision 1 -o json", "wait --timeout 1ms"]),
    ("shoal-explain", &["explain web1.example.com", "explain web1.example.com -o json", "explain dns/web"]),
    (
        "shoal-pause",
        &["pause web1.example.com -m x", "pause dns/web -m x -o json", "pause web9.example.com -m x"],
    ),
    (
        "shoal-resume",
        &["resume db1.example.com -m x", "resume web1.example.com -m x -o json", "resume dns/web -m x"],
    ),
    ("shoal-approve", &["approve", "approve -o json", "approve dns/none -m x"]),
    ("shoal-adopt", &["adopt", "adopt -o json", "adopt dns/none -m x"]),
    ("shoal-scale", &["scale vm/web 3 --plan", "scale vm/web 3 -m x -o json", "scale dns/web 3 -m x"]),
    ("shoal-range-list", &["range list", "range list -o json", "range list x"]),
    ("shoal-range-show", &["range show ports", "range show ports -o json", "range show none"]),
    (
        "shoal-range-free",
        &["range free ports 7 --plan", "range free ports 7 -m x -o json", "range free ports 1 -m x"],
    ),
    ("shoal-acl-show", &["acl show", "acl show lb/ -o json", "acl show lb/a/b"]),
    (
        "shoal-acl-set",
        &[
            "acl set dns/ @net=rw *=ro -m x",
            "acl set dns/web ann=data:rw --protected -m x -o json",
            "acl set dns/web ann=all -m x",
        ],
    ),
    ("shoal-acl-remove", &["acl remove lb/gold -m x", "acl remove lb -m x -o json", "acl remove dns -m x"]),
    ("shoal-can", &["can root write lb/web/members", "can bob read lb/web -o json", "can bob write lb/web"]),
    (
        "shoal-token-create",
        &[
            "token create --owner ann --expires 90d -m x",
            "token create --agent dns --host-field place -m x -o json",
            "token create --owner ann --expires 2001-01-01T00:00:00Z -m x",
        ],
    ),
    ("shoal-token-list", &["token list", "token list -o json", "token list x"]),
    (
        "shoal-token-revoke",
        &["token revoke shoal_0a1b_secret -m x", "token revoke 0c3d -m x -o json", "token revoke none -m x"],
    ),
    (
        "shoal-user-add",
        &["user add carl -m x", "user add dns1 --agent dns -m x -o json", "user add @carl -m x"],
    ),
    (
        "shoal-user-password",
        &[
            "user password ann -f {password} -m x",
            "user password ann -f {password} -m x -o json",
            "user password nobody -f {password} -m x",
        ],
    ),
    (
        "shoal-user-disable",
        &["user disable ann -m x", "user disable bob -m x -o json", "user disable @x -m x"],
    ),
    (
        "shoal-user-remove",
        &["user remove ann -m x", "user remove bob -m x -o json", "user remove nobody -m x"],
    ),
    ("shoal-user-list", &["user list", "user list -o json", "user list x"]),
    (
        "shoal-group-add",
        &["group add web ann -m x", "group add net ann bob -m x -o json", "group add web -m x"],
    ),
    (
        "shoal-group-remove",
        &[
            "group remove web bob -m x",
            "group remove admins root --last -m x -o json",
            "group remove web nobody -m x",
        ],
    ),
    ("shoal-group-list", &["group list", "group list -o json", "group list x"]),
    (
        "shoal-review-propose",
        &[
            "review propose -f {docs} -m x",
            "review propose -f {docs} -m x -o json",
            "review propose -f {bad} -m x",
        ],
    ),
    ("shoal-review-list", &["review list", "review list --all -o json", "review list x"]),
    ("shoal-review-show", &["review show r1", "review show r1 -o json", "review show none"]),
    (
        "shoal-review-approve",
        &[
            "review approve r1 --author dora -m x",
            "review approve r2 --author dora -m x -o json",
            "review approve r3 -m x",
        ],
    ),
    (
        "shoal-review-reject",
        &["review reject r1 -m x", "review reject r2 -m x -o json", "review reject r1 -m x"],
    ),
    ("shoal-export", &["export dns/web", "export dns/web -o json", "export lb/"]),
    (
        "shoal-import-ansible",
        &[
            "import ansible {inventory} --mapping {mapping} --plan",
            "import ansible {inventory} --mapping {mapping} -m x -o json",
            "import ansible {docs} --mapping {mapping} -m x",
        ],
    ),
    (
        "shoal-import-haproxy",
        &[
            "import haproxy {pools} --mapping {mapping} --plan",
            "import haproxy {pools} --mapping {mapping} -m x -o json",
            "import haproxy {docs} --mapping {mapping} -m x",
        ],
    ),
    (
        "shoal-facts-upload",
        &[
            "facts upload web1.example.com -f {facts} --plan",
            "facts upload web1.example.com -f {facts} -o json",
            "facts upload web9.example.com -f {facts}",
        ],
    ),
    (
        "shoal-inventory",
        &[
            "inventory --list --namespace dns",
            "inventory --host web2.example.com --namespace dns",
            "inventory --list --where site=",
        ],
    ),
    ("shoal-import-zone", &["import zone DIR/none.example -m x"]),
];

/// The same of what runs as a process.
const AS_A_PROCESS: &[(&str, &[&str])] = &[
    ("shoal-edit", &["edit web1.example.com -m x"]),
    (
        "shoal-enc",
        &[
            "enc web1.example.com --cache {dir}/enc",
            "enc web1.example.com --cache {dir}/enc --strict",
            "enc web9.example.com --cache {dir}/enc",
        ],
    ),
    (
        "shoal-database-backup",
        &["database backup {dir}/a.db", "database backup {dir}/b.db -o json", "database backup {dir}/a.db"],
    ),
    (
        "shoal-database-verify",
        &["database verify", "database verify {dir}/a.db -o json", "database verify {dir}/none.db"],
    ),
    (
        "shoal-database-restore",
        &[
            "database restore {dir}/a.db --replace",
            "database restore {dir}/a.db --replace -o json",
            "database restore {dir}/a.db",
        ],
    ),
    ("shoal-database-renew", &["database renew --yes"]),
    (
        "shoal-migrate",
        &[
            "migrate --from sqlite:{dir}/shoal.db --to sqlite:{dir}/moved.db",
            "migrate --from sqlite:{dir}/shoal.db --to sqlite:{dir}/again.db -o json",
            "migrate --from sqlite:{dir}/shoal.db --to sqlite:{dir}/moved.db",
        ],
    ),
    // What it does is the backup agent's, whose tests show it.
    ("shoal-restore", &["restore web1.example.com"]),
    // What these say is the placement agent's, whose tests show it.
    ("shoal-capacity", &["capacity --only-free -o yaml"]),
    ("shoal-evacuate", &["evacuate box1.example.com -o yaml"]),
    ("shoal-rebalance", &["rebalance --plan -o yaml"]),
    ("shoal-serve", &["serve --listen 0.0.0.0:1"]),
    ("shoal-completions", &["completions tcsh"]),
    ("shoal-man", &["man {dir}/man", "man {dir}/man -o json", "man {dir}/shoal.db/man"]),
];

/// Commands that only hold others, and the server's own page.
const NO_COMMANDS: [&str; 11] = [
    "shoal",
    "shoal-acl",
    "shoal-database",
    "shoal-facts",
    "shoal-group",
    "shoal-hostdb",
    "shoal-import",
    "shoal-range",
    "shoal-review",
    "shoal-token",
    "shoal-user",
];

/// Words, of which some name files.
fn words<'a>(line: &'a str, files: &'a [(&str, String)]) -> Vec<String> {
    let named =
        |word: &str| files.iter().fold(word.to_owned(), |word, (name, path)| word.replace(name, path));
    line.split(' ').map(named).collect()
}

#[tokio::test]
async fn every_command_on_the_fleet() {
    for (page, lines) in ON_THE_FLEET {
        let fleet = Fleet::new().await;
        fleet.ok(&["put", "web1.example.com", "note=new", "-m", "a note"]).await;
        fleet.ok(&["pause", "db1.example.com", "-m", "disk"]).await;
        if *page == "shoal-resume" {
            fleet.ok(&["pause", "web1.example.com", "-m", "disk"]).await;
        }
        if is_access(page) {
            people(&fleet).await;
        }
        if *page == "shoal-scale" || page.starts_with("shoal-range") {
            group(&fleet).await;
        }
        let held = json!({"digest": "00ff", "create": 0, "update": 0, "remove": 12, "of": 12, "why": "it removes all", "sample": ["- web1 A"]});
        let unit = json!({"example.com": {"items": 12, "behind": [], "behind_total": 0, "held": held}});
        fleet.report("dns", 1, Some(30), unit, json!([])).await;
        let files = [
            ("{docs}", fleet.file("docs.yaml", "host: web3.example.com\nid: h9\ndocument: {site: ams1}\n")),
            ("{bad}", fleet.file("bad.yaml", "host: web3.example.com\nstat: active\n")),
            ("{pools}", fleet.file("pools.json", r#"{"backends": {"web": {"servers": [{"name": "web1", "address": "web1", "port": 80}, {"name": "web9", "address": "web9", "port": 80}]}}}"#)),
            ("{inventory}", fleet.file("inventory.json", r#"{"_meta": {"hostvars": {"n1.example.com": {"rack": 4}}}, "all": {"children": ["web"]}, "web": {"hosts": ["n1.example.com"]}}"#)),
            ("{password}", fleet.file("password", "correct horse battery\n")),
            ("{mapping}", fleet.file("mapping.yaml", "name: lab\npools: {name: lab-pools, domain: example.com}\n")),
            ("{facts}", fleet.file("facts.json", r#"{"os": {"name": "Debian"}, "uptime": "3 days"}"#)),
        ];
        let (mut seen, mut codes) = (String::new(), Vec::new());
        for line in *lines {
            let words = words(line, &files);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let run = fleet.run(&words).await;
            let out = if is_access(page) { random(&run.out) } else { run.out };
            seen += &format!("$ shoal {line}\n{out}{}[{}]\n", ended(&run.error), run.code);
            codes.push(u32::from(run.code));
        }
        right_then_wrong(page, &codes);
        assert_snapshot!(format!("every_{page}"), seen);
    }
}

/// Whether a command is about who may do what.
fn is_access(page: &str) -> bool {
    ["acl", "can", "token", "user", "group", "review"]
        .iter()
        .any(|word| page.starts_with(&format!("shoal-{word}")))
}

/// Some people, with rules and what waits for a second one.
async fn people(fleet: &Fleet) {
    let hash = "00".repeat(32);
    let token = |id: &str, owner: &str, more: &str| {
        format!(
            "edit: write\nkey: access/tokens/{id}\nvalue: {{owner: {owner}, hash: \"{hash}\", created: 2026-01-01T00:00:00Z{more}}}\n---\n"
        )
    };
    let review = |id: &str, proposer: &str, host: &str| {
        format!(
            "edit: write\nkey: access/reviews/{id}\nvalue: {{proposer: {proposer}, message: more, at: 2026-01-01T00:00:00Z, changes: [{{key: dns/web/members/{host}, value: {{}}}}], ground: {{dns/web/members/{host}: 0}}}}\n---\n"
        )
    };
    let text = [
        "edit: write\nkey: access/groups/admins\nvalue: {members: [root]}\n---\n",
        "edit: write\nkey: access/groups/web\nvalue: {members: [ann, bob]}\n---\n",
        "edit: write\nkey: access/users/ann\nvalue: {}\n---\nedit: write\nkey: access/users/bob\nvalue: {disabled: false}\n---\n",
        "edit: write\nkey: access/rules/lb\nvalue: {allow: {'*': ro, '@web': {data: ro, members: rw}}}\n---\n",
        "edit: write\nkey: access/rules/lb/gold\nvalue: {protected: true}\n---\n",
        &token("0a1b", "ann", ", description: her laptop"),
        &token("0c3d", "agent dns", ", scope: {namespaces: [dns]}, expires: 2026-06-01T00:00:00Z"),
        &review("r1", "carl", "db1.example.com"),
        &review("r2", "bob", "web2.example.com"),
        &review("r3", "ann", "db1.example.com"),
    ]
    .concat();
    let file = fleet.file("people.yaml", text.trim_end_matches("---\n"));
    fleet.ok(&["apply", "-f", &file, "-m", "people"]).await;
}

/// A group of machines, of which one is there, and a range with a number that nobody can hold any more.
async fn group(fleet: &Fleet) {
    let text = "\
tag: ranges/ports
document: {ids: {first: 1, last: 9}}
---
tag: vm/web
document: {group: {count: 2, size: {cpu: 1}, slots: {name: 'n{slot}.example.com', ids: {port: ports}}}}
---
host: n0.example.com
id: n0
document: {port: 1, placement: {group: vm/web, slot: 0}}
---
edit: write
key: facts/placement/ranges/ports
value: {held: {'1': {group: vm/web, slot: 0, field: port, host: n0.example.com}, '7': {group: vm/gone, slot: 3, field: port, host: n3.example.com}}}
";
    let file = fleet.file("group.yaml", text);
    fleet.ok(&["apply", "-f", &file, "-m", "a group"]).await;
}

/// Without what is random: tokens and the ids of tokens and proposals.
fn random(text: &str) -> String {
    let mut steady = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len());
        steady += before;
        steady += match end {
            64 => "SECRET",
            12 => "ID",
            8 => "PROPOSAL",
            _ => &from[..end],
        };
        rest = &from[end..];
    }
    steady + rest
}

/// Whether the lines of a command do it (or show that something would be done), and the last one does not.
fn right_then_wrong(page: &str, codes: &[u32]) {
    let Some((last, others)) = codes.split_last() else { panic!("{page} has no lines") };
    assert!(![0, 3].contains(last), "{page}: its last line succeeds");
    assert!(others.iter().all(|code| [0, 3].contains(code)), "{page}: {codes:?}");
}

fn ended(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{}\n", text.trim_end()) }
}

#[test]
fn every_command_as_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    assert!(shoal(&store, &["put", "web1.example.com", "a=1", "-m", "first"]).status.success());
    let files = [("{dir}", dir.path().display().to_string())];
    for (page, lines) in AS_A_PROCESS {
        let (mut seen, mut codes) = (String::new(), Vec::new());
        for line in *lines {
            let words = words(line, &files);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let run = shoal(&store, &words);
            let printed = format!("{}{}", text(&run.stdout), ended(text(&run.stderr)));
            let printed = steady(&printed.replace(&files[0].1, "DIR"));
            let code = run.status.code().unwrap();
            seen += &format!("$ shoal {line}\n{printed}[{code}]\n");
            codes.push(code.unsigned_abs());
        }
        right_then_wrong(page, &codes);
        assert_snapshot!(format!("every_{page}"), seen);
    }
}

/// Without epochs, which are random, 16 digits in a row, and digests, which hold times, 64.
fn steady(text: &str) -> String {
    let mut steady = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len());
        steady += before;
        steady += match end {
            16 => "EPOCH",
            64 => "DIGEST",
            _ => &from[..end],
        };
        rest = &from[end..];
    }
    steady + rest
}

#[test]
fn no_command_is_without_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    assert!(shoal("memory:", &["man", dir.path().to_str().unwrap()]).status.success());
    let page = |name: String| name.strip_suffix(".1").map(str::to_owned);
    let pages: BTreeSet<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .filter_map(|entry| page(entry.unwrap().file_name().into_string().unwrap()))
        .filter(|page| !NO_COMMANDS.contains(&page.as_str()))
        .collect();
    let known: BTreeSet<String> =
        ON_THE_FLEET.iter().chain(AS_A_PROCESS).map(|(page, _)| (*page).to_owned()).collect();
    assert_eq!(pages, known, "give each command its lines in this file");
    let snapshots = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shoal/snapshots");
    for page in pages {
        let file = snapshots.join(format!("shoal__every__every_{page}.snap"));
        assert!(file.exists(), "{} is missing", file.display());
    }
}
