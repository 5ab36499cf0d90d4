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
