//! What each mistake is told: the thing, the place and the way out, once.

use insta::assert_snapshot;

use crate::fleet::Fleet;

#[tokio::test]
async fn writes_need_an_author_and_a_reason() {
    let fleet = Fleet::new().await;
    assert_snapshot!("no_message", fleet.fails(2, &["put", "web1.example.com", "a=1"]).await);
    let nobody = fleet.run_as(None, &["put", "web1.example.com", "a=1", "-m", "x"]).await;
    assert_eq!(nobody.code, 2);
    assert_snapshot!("no_author", nobody.error);
    assert_eq!(
        fleet.run_as(None, &["put", "web1.example.com", "a=1", "-m", "x", "--author", "eve"]).await.code,
        0
    );
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let fleet = Fleet::new().await;
    fleet.ok(&["mv", "web1.example.com", "www.example.com", "-m", "x"]).await;
    fleet.ok(&["rm", "db1.example.com", "-m", "x"]).await;
    let all = [
        fleet.fails(1, &["get", "web9.example.com"]).await,
        fleet.fails(1, &["get", "web1.example.com"]).await,
        fleet.fails(1, &["get", "db1.example.com"]).await,
        fleet.fails(1, &["get", "dns/none"]).await,
        fleet.fails(1, &["get", "www.example.com", "--revision", "99"]).await,
        fleet.fails(1, &["effective", "dns/example.com", "db1.example.com"]).await,
        fleet.fails(1, &["rm", "web9.example.com", "-m", "x"]).await,
        fleet.fails(1, &["tag", "dns/none", "+web2.example.com", "-m", "x"]).await,
        fleet.fails(1, &["tag", "dns/web", "+web9.example.com", "-m", "x"]).await,
        fleet.fails(4, &["tag", "dns/web", "-db1.example.com", "-m", "x"]).await,
        fleet.fails(1, &["mv", "web9.example.com", "web8.example.com", "-m", "x"]).await,
        fleet.fails(4, &["mv", "web2.example.com", "www.example.com", "-m", "x"]).await,
        fleet.fails(4, &["rm", "dns/web", "-m", "x"]).await,
        fleet.fails(1, &["show", "99"]).await,
        fleet.fails(1, &["explain", "web9.example.com"]).await,
        fleet.fails(1, &["rollback", "dns/none", "--to", "1", "-m", "x"]).await,
        fleet.fails(1, &["rollback", "dns/web", "--to", "99", "-m", "x"]).await,
        fleet.fails(1, &["blame", "dns/none"]).await,
        fleet.fails(1, &["members", "dns/none"]).await,
        fleet.fails(1, &["resume", "dns", "-m", "x"]).await,
        fleet.fails(1, &["approve", "dns/none", "-m", "x"]).await,
    ];
    assert_snapshot!("missing", all.join("\n"));
}

/// A mistyped name is not made where somebody wanted to change something; where it is made, that is said.
#[tokio::test]
async fn what_is_made_is_said_and_not_made_by_mistake() {
    let fleet = Fleet::new().await;
    for line in [
        &["put", "wbe1.example.com", "--state", "draining", "-m", "x"][..],
        &["put", "wbe1.example.com", "a=1", "site-", "-m", "x"],
        &["put", "dns/exmaple.com", "ttl-", "-m", "x"],
    ] {
        let error = fleet.fails(1, line).await;
        assert!(
            error.contains("nothing was written: there is no") && error.contains("--new makes it"),
            "{error}"
        );
    }
    let new = ["put", "web7.example.com", "--state", "requested", "--new", "-m", "x"];
    assert!(fleet.ok(&new).await.ends_with("\nmade host web7.example.com\n"));
    assert!(!fleet.ok(&["put", "web7.example.com", "--state", "active", "-m", "x"]).await.contains("made"));
    let docs: String = (0..9).map(|n| format!("host: n{n}.example.com\n---\n")).collect();
    let file = fleet.file("many.yaml", &format!("{docs}tag: dns/web\n---\ntag: dns/wbe\n"));
    let said = fleet.ok(&["apply", "-f", &file, "-m", "x"]).await;
    assert!(said.ends_with("\nmade 9 hosts and 1 tag\n"), "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&fleet.ok(&["put", "x.example.com", "-m", "x", "-o", "json"]).await).unwrap();
    assert_eq!(json["made"], serde_json::json!(["hosts/x.example.com"]));
}

/// What a tired person types.
#[tokio::test]
async fn what_may_have_been_meant_is_offered() {
    let fleet = Fleet::new().await;
    for line in [
        &["get", "web1"][..],
        &["explain", "web1"],
        &["log", "web1"],
        &["blame", "web1"],
        &["parents", "web1"],
        &["put", "web1", "--state", "draining", "-m", "x"],
        &["rollback", "web1", "--to", "1", "-m", "x"],
        &["pause", "web1", "-m", "x"],
    ] {
        let error = fleet.fails(1, line).await;
        assert!(error.contains("there is no host web1; do you mean web1.example.com?"), "{line:?}: {error}");
    }
    for (line, meant) in [
        (&["get", "wbe1.example.com"][..], "web1.example.com?"),
        (&["get", "db1.exmaple.com"], "db1.example.com?"),
        (&["pause", "db1.exmaple.com", "-m", "x"], "db1.example.com?"),
        (&["tag", "dns/web", "+web1.example.con", "-m", "x"], "web1.example.com?"),
        (&["get", "dns/wbe"], "dns/web?"),
        (&["effective", "dns/exampel.com"], "dns/example.com?"),
        (&["get", "host"], "`shoal get hosts`?"),
        (&["get", "fact"], "`shoal get facts`?"),
        (&["get", "tag"], "`shoal get tags`?"),
    ] {
        let error = fleet.fails(1, line).await;
        assert!(error.contains(&format!("do you mean {meant}")), "{line:?}: {error}");
    }
    assert!(!fleet.fails(1, &["get", "web9.example.com"]).await.contains("do you mean"), "another number");
    assert!(fleet.fails(1, &["pause", "none", "-m", "x"]).await.contains("; an agent that was never seen"));
    assert!(fleet.fails(1, &["log", "dns/none"]).await.contains("there is no tag dns/none"));
    assert!(fleet.fails(2, &["explain", "dns/web"]).await.contains("`shoal members dns/web`"));
    assert_eq!(fleet.fails(1, &["status", "dsn"]).await, "no agent dsn has reported; nobody has");
}

/// In a zone a short name is the zone's own; elsewhere its full names are told.
#[tokio::test]
async fn short_names_are_full_ones_in_a_zone() {
    let fleet = Fleet::new().await;
    fleet.ok(&["put", "web4.example.com", "-m", "x"]).await;
    fleet.ok(&["put", "web4.ams.example.com", "-m", "x"]).await;
    let line = ["tag", "dns/example.com", "+web4", "-db1", "-m", "replace db1"];
    let plan = fleet.run(&["tag", "dns/example.com", "+web4", "-db1", "--plan"]).await;
    assert!(
        plan.code == 3 && plan.out.starts_with("web4 = web4.example.com\ndb1 = db1.example.com\n"),
        "{}",
        plan.out
    );
    let said = fleet.ok(&line).await;
    assert!(said.starts_with("web4 = web4.example.com\ndb1 = db1.example.com\nrevision 4: 2 rows"), "{said}");
    let members = fleet.ok(&["members", "dns/example.com", "--direct"]).await;
    assert!(members.contains("web4.example.com") && !members.contains("db1"), "{members}");
    let error = fleet.fails(4, &line).await;
    assert!(error.contains("db1 is no member of dns/example.com by name"), "{error}");

    // No zone, so nothing is guessed.
    for (line, says) in [
        (["tag", "dns/web", "+web2", "-m", "x"], "there is no host web2; do you mean web2.example.com?"),
        (["tag", "dns/web", "+web4", "-m", "x"], "do you mean web4.ams.example.com, or web4.example.com?"),
        (
            ["tag", "dns/web", "-web1", "-m", "x"],
            "web1 is no member of dns/web by name; do you mean web1.example.com?",
        ),
    ] {
        let error = fleet.fails(1, &line).await;
        assert!(error.contains(says), "{error}");
    }
    // A host that is called just so is meant.
    fleet.ok(&["put", "web4", "-m", "x"]).await;
    assert!(!fleet.ok(&["tag", "dns/example.com", "+web4", "-m", "x"]).await.contains('='));
    assert!(!fleet.ok(&["tag", "dns/example.com", "-web4", "-m", "x"]).await.contains('='));
}

/// Each sets a field of its own on what the others wrote; only a whole document rests on what was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_many_set_at_once_are_all_set() {
    let fleet = Fleet::new().await;
    for host in ["web1.example.com", "new.example.com"] {
        let fields: Vec<String> = (0..30).map(|n| format!("f{n}=1")).collect();
        let lines: Vec<_> = fields.iter().map(|field| ["put", host, field, "-m", "x"]).collect();
        let all = futures::future::join_all(lines.iter().map(|line| fleet.run(line))).await;
        let failed: Vec<_> = all.iter().filter(|one| one.code != 0).map(|one| &one.error).collect();
        assert!(failed.is_empty(), "{} of 30: {}", failed.len(), failed[0]);
        let got: serde_json::Value =
            serde_json::from_str(&fleet.ok(&["get", host, "-o", "json"]).await).unwrap();
        let set = (0..30).filter(|n| got["document"][format!("f{n}")] == 1);
        assert_eq!(set.count(), 30, "{got}");
    }
    let again = fleet.fails(4, &["put", "web1.example.com", "f=1", "--new", "-m", "x"]).await;
    assert!(again.contains("exists already"), "{again}");
}

#[tokio::test]
async fn a_rollback_says_what_goes_back() {
    let fleet = Fleet::new().await;
    fleet.ok(&["tag", "dns/web", "+db1.example.com", "-web1.example.com", "-m", "x"]).await;
    fleet.ok(&["put", "web2.example.com", "site=fra1", "-m", "x"]).await;
    fleet.ok(&["put", "web9.example.com", "a=1", "-m", "x"]).await;
    fleet.ok(&["rm", "db1.example.com", "-m", "x"]).await;
    let gone = fleet.fails(1, &["get", "db1.example.com"]).await;
    assert!(gone.contains("`shoal rollback db1.example.com --to 4 -m WHY`"), "{gone}");
    let said = fleet.ok(&["rollback", "--all", "--to", "1", "-m", "all back"]).await;
    insta::assert_snapshot!("rollback_names", said);
}

#[tokio::test]
async fn resume_says_what_is_paused_and_how_it_is_written() {
    let fleet = Fleet::new().await;
    let error = fleet.fails(1, &["resume", "dns", "-m", "x"]).await;
    assert_eq!(error, "neither host dns nor agent dns is paused; nothing is paused");
    fleet.ok(&["pause", "web1.example.com", "-m", "x"]).await;
    fleet.ok(&["pause", "dns/web", "-m", "x"]).await;
    for word in ["dns", "web", "agent/dns", "dns/example.com"] {
        let error = fleet.fails(1, &["resume", word, "-m", "x"]).await;
        assert!(error.contains("as `shoal resume` takes it: "), "{error}");
        assert!(error.contains("dns/web") && error.contains("web1.example.com"), "{error}");
    }
    let error = fleet.fails(1, &["resume", "web1", "-m", "x"]).await;
    assert!(error.ends_with("takes it: web1.example.com, dns/web"), "{error}");
}

#[tokio::test]
async fn bad_files_are_refused_whole() {
    let fleet = Fleet::new().await;
    let mut all = Vec::new();
    for (name, text) in [
        ("broken.yaml", "host: web7.example.com\ndocument: [1\n"),
        ("unknown.yaml", "host: web7.example.com\n---\nhost: web8.example.com\ndocumnt: {}\n"),
        ("wrong.yaml", "tag: dns/x\nmembers: web1.example.com\n"),
        ("neither.yaml", "name: web7\n"),
        ("list.yaml", "host: web7.example.com\ndocument: [1]\n"),
        ("name.yaml", "host: web 7\n"),
        ("twice.yaml", "host: web7.example.com\nhost: web8.example.com\n"),
        ("state.yaml", "host: web7.example.com\nstate: up\n"),
        ("cycle.yaml", "tag: dns/web\nmembers: ['@example.com']\n"),
        ("stranger.yaml", "tag: dns/x\nmembers: [web9.example.com]\n"),
        ("rule.yaml", "tag: dns/x\nmembers: ['select: site ==']\n"),
        ("empty.yaml", "# nothing\n"),
        ("text.yaml", "just some text\n"),
        ("tab.yaml", "host: web7.example.com\n\tdocument: {}\n"),
        ("alias.yaml", "host: web7.example.com\ndocument: &a {b: *a}\n"),
        ("itself.yaml", "tag: dns/x\nmembers: ['@x']\n"),
        ("stale.yaml", "host: web1.example.com\nrevision: 0\n"),
        ("broken.json", "{\"host\": \"web7.example.com\", }"),
    ] {
        let file = fleet.file(name, text);
        let printed = fleet.run(&["apply", "-f", &file, "-m", "x"]).await;
        all.push(format!("{name} ({}): {}", printed.code, printed.error));
    }
    let huge = fleet
        .file("huge.yaml", &format!("host: web7.example.com\ndocument: {{a: {}}}\n", "x".repeat(2 << 20)));
    all.push(fleet.fails(1, &["apply", "-f", &huge, "-m", "x"]).await);
    let octets = fleet.file("octets.yaml", "");
    std::fs::write(&octets, b"host: \x80\n").unwrap();
    all.push(fleet.fails(1, &["apply", "-f", &octets, "-m", "x"]).await);
    all.push(fleet.fails(1, &["apply", "-f", "/nonexistent/x.yaml", "-m", "x"]).await);
    assert_snapshot!("bad_files", all.join("\n"));
    let log: Vec<serde_json::Value> = serde_json::from_str(&fleet.ok(&["log", "-o", "json"]).await).unwrap();
    assert_eq!(log.len(), 1, "nothing was written");
}

#[tokio::test]
async fn bad_arguments_are_usage() {
    let fleet = Fleet::new().await;
    for line in [
        &["get", "a b"][..],
        &["put", "-m", "x"],
        &["put", "web1", "a", "-m", "x"],
        &["put", "facts/x/y", "a=1", "-m", "x"],
        &["tag", "dns/web", "-m", "x"],
        &["tag", "web1", "+a", "-m", "x"],
        &["wait", "--timeout", "soon"],
        &["rollback", "--to", "1", "-m", "x"],
        &["frobnicate"],
    ] {
        let printed = fleet.run(line).await;
        assert_eq!(printed.code, 2, "{line:?}: {}", printed.error);
        assert!(!printed.error.is_empty());
    }
    for (line, says) in [
        (&["show", "newest"][..], "`shoal log`"),
        (&["get", "web1.example.com", "--revision", "x"], "whole number"),
        (&["diff", "1", "x"], "whole number"),
        (&["put", "web1.example.com", "--expires", "soon", "-m", "x"], "2027-01-31T00:00:00Z"),
        (&["put", "web1.example.com", "--state", "up", "-m", "x"], "requested, placed, building"),
        (&["wait", "--timeout", "soon"], "500ms, 90s"),
        (&["approve", "dns", "-m", "x"], "AGENT/UNIT"),
        (&["pause", "facts/vm/web1", "-m", "x"], "agent/NAME"),
    ] {
        let error = fleet.fails(2, line).await;
        assert!(error.contains(says), "{line:?}: {error}");
    }
}

#[tokio::test]
async fn errors_are_the_same_for_programs() {
    let fleet = Fleet::new().await;
    let printed = fleet.run(&["get", "web9.example.com", "-o", "json"]).await;
    assert_eq!((printed.code, printed.out.as_str()), (1, ""), "nothing half printed");
}
