//! What each command prints.

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use shoal_store::Store as _;

use crate::fleet::Fleet;

#[tokio::test]
async fn get_lists_and_shows() {
    let fleet = Fleet::new().await;
    assert_snapshot!("get_hosts", fleet.ok(&["get"]).await);
    assert_snapshot!("get_tags", fleet.ok(&["get", "tags"]).await);
    assert_snapshot!("get_namespace", fleet.ok(&["get", "dns/"]).await);
    assert_snapshot!("get_host", fleet.ok(&["get", "web2.example.com"]).await);
    assert_snapshot!("get_two", fleet.ok(&["get", "dns/web", "web1.example.com"]).await);
    let json: Value = serde_json::from_str(&fleet.ok(&["get", "dns/web", "-o", "json"]).await).unwrap();
    assert_eq!(json["members"], json!(["select: site == 'ams1'", "web1.example.com"]));
}

/// A schema is pages long: a list says which there are and whose.
#[tokio::test]
async fn schemas_are_listed_without_their_text() {
    let fleet = Fleet::new().await;
    let docs = "{edit: write, key: schemas/lb, value: {tag: {type: object}, agent: shoal-lb 1.0}}";
    fleet.ok(&["apply", "-f", &fleet.file("schema.yaml", docs), "-m", "lb"]).await;
    for line in [["get", "schemas"], ["get", "schemas/"]] {
        let shown = fleet.ok(&line).await;
        let rows = "KEY         REVISION  AGENT\nschemas/lb  2         shoal-lb 1.0\n";
        assert_eq!(shown, format!("{rows}`shoal get schemas/lb` shows that one\n"));
    }
    assert!(fleet.ok(&["get", "schemas/lb"]).await.contains("type: object"));
    assert!(fleet.ok(&["get", "schemas", "-o", "json"]).await.contains("object"));
}

#[tokio::test]
async fn put_makes_and_changes() {
    let fleet = Fleet::new().await;
    let made = ["put", "web4.example.com", "address=192.0.2.4", "cpus=4", "dns.ttl=60", "-m", "a fourth"];
    assert_snapshot!("put_new", fleet.ok(&made).await);
    let again = ["put", "web4.example.com", "cpus=4", "-m", "again"];
    assert_snapshot!("put_same", fleet.ok(&again).await);
    let plan = ["put", "web4.example.com", "cpus=8", "dns.ttl-", "--state", "draining", "--plan"];
    let planned = fleet.run(&plan).await;
    assert_eq!(planned.code, 3, "{}", planned.error);
    assert_snapshot!("put_plan", planned.out);
    let tag =
        ["put", "dns/new.example", "ttl=5", "--member", "@web", "--member", "db1.example.com", "-m", "zone"];
    fleet.ok(&tag).await;
    assert_snapshot!("put_tag", fleet.ok(&["get", "dns/new.example"]).await);
    // What was read can be edited and sent back, once.
    let file =
        fleet.file("web4.yaml", &fleet.ok(&["get", "web4.example.com"]).await.replace("cpus: 4", "cpus: 16"));
    fleet.ok(&["put", "-f", &file, "-m", "edited"]).await;
    let stale = fleet.fails(4, &["put", "-f", &file, "-m", "edited again"]).await;
    assert_snapshot!("put_stale", stale);
}

#[tokio::test]
async fn tag_adds_and_removes() {
    let fleet = Fleet::new().await;
    let line = ["tag", "dns/example.com", "+web1.example.com", "-db1.example.com", "-m", "replace db1"];
    let plan: Vec<&str> = line.iter().copied().chain(["--plan"]).collect();
    let planned = fleet.run(&plan).await;
    assert_eq!(planned.code, 3, "{}", planned.error);
    assert_snapshot!("tag_plan", planned.out);
    assert_snapshot!("tag_done", fleet.ok(&line).await);
    assert_snapshot!("members", fleet.ok(&["members", "dns/example.com"]).await);
    assert_snapshot!("members_direct", fleet.ok(&["members", "dns/example.com", "--direct"]).await);
    assert_snapshot!("members_before", fleet.ok(&["members", "dns/example.com", "--revision", "1"]).await);
}

#[tokio::test]
async fn apply_is_one_commit_and_plans_first() {
    let fleet = Fleet::new().await;
    let file = fleet.file(
        "more.json",
        r#"[{"host": "web3.example.com", "document": {"site": "ams1"}}, {"tag": "dns/web", "document": {"ttl": 240}}]"#,
    );
    let planned = fleet.run(&["apply", "-f", &file, "--plan"]).await;
    assert_eq!(planned.code, 3);
    assert_snapshot!("apply_plan", planned.out);
    assert_snapshot!("apply_done", fleet.ok(&["apply", "-f", &file, "-m", "more"]).await);
    assert_snapshot!("apply_again", fleet.ok(&["apply", "-f", &file, "-m", "more"]).await);
    assert_eq!(fleet.run(&["apply", "-f", &file, "--plan"]).await.code, 0, "nothing is pending");
}

#[tokio::test]
async fn parents_and_effective_say_how() {
    let fleet = Fleet::new().await;
    assert_snapshot!("parents_host", fleet.ok(&["parents", "web2.example.com"]).await);
    assert_snapshot!("parents_tag", fleet.ok(&["parents", "dns/web"]).await);
    assert_snapshot!("effective", fleet.ok(&["effective", "dns/example.com", "web2.example.com"]).await);
    assert_snapshot!("effective_tag", fleet.ok(&["effective", "dns/example.com"]).await);
}

/// A few commits more.
async fn history() -> Fleet {
    let fleet = Fleet::new().await;
    fleet.ok(&["put", "dns/example.com", "ttl=60", "-m", "shorter"]).await;
    fleet.ok(&["tag", "dns/example.com", "-db1.example.com", "-m", "db1 goes", "--author", "bob"]).await;
    fleet.ok(&["mv", "web1.example.com", "www.example.com", "-m", "a better name"]).await;
    fleet.ok(&["rm", "db1.example.com", "-m", "db1 is gone"]).await;
    fleet
}

#[tokio::test]
async fn history_is_told() {
    let fleet = history().await;
    assert_snapshot!("log", fleet.ok(&["log"]).await);
    assert_snapshot!("log_tag", fleet.ok(&["log", "dns/example.com", "-n", "2"]).await);
    // Of a namespace it is all that was ever below it.
    let tag = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let of = tag(fleet.ok(&["log", "dns/"]).await);
    let one = tag(fleet.ok(&["log", "dns/example.com"]).await);
    assert!(
        one.len() > 1 && one.len() <= of.len() && of.len() < tag(fleet.ok(&["log"]).await).len(),
        "{of:?}"
    );
    assert!(
        of.iter().any(|line| line.contains("shorter")) && !of.iter().any(|line| line.contains("db1 is gone")),
        "{of:?}"
    );
    assert_snapshot!("show", fleet.ok(&["show", "2"]).await);
    assert_snapshot!("show_rename", fleet.ok(&["show", "4"]).await);
    assert_snapshot!("blame_tag", fleet.ok(&["blame", "dns/example.com"]).await);
    assert_snapshot!("blame_renamed", fleet.ok(&["blame", "www.example.com"]).await);
    assert_snapshot!("diff", fleet.ok(&["diff", "1", "3"]).await);
    assert_snapshot!("diff_one", fleet.ok(&["diff", "1", "5", "db1.example.com"]).await);
    assert_snapshot!("get_then", fleet.ok(&["get", "db1.example.com", "--revision", "4"]).await);
}

#[tokio::test]
async fn rollback_shows_and_does() {
    let fleet = history().await;
    let planned = fleet.run(&["rollback", "dns/example.com", "--to", "2", "--plan"]).await;
    // A member that is gone must come back first.
    assert_eq!(planned.code, 1, "{}", planned.out);
    assert_snapshot!("rollback_refused", planned.error);
    let planned = fleet.run(&["rollback", "--all", "--to", "1", "--plan"]).await;
    assert_eq!(planned.code, 3, "{}", planned.error);
    assert_snapshot!("rollback_plan", planned.out);
    fleet.ok(&["rollback", "--all", "--to", "1", "-m", "as it was"]).await;
    assert_snapshot!("rollback_nothing", fleet.ok(&["diff", "1"]).await);
}

#[tokio::test]
async fn status_and_wait_name_what_is_behind() {
    let fleet = Fleet::new().await;
    assert_snapshot!("status_none", fleet.ok(&["status"]).await);
    let behind = json!([{"key": "web1.example.com A", "since": 1, "why": "waiting: 3 connections", "hosts": ["web1.example.com"]}]);
    let units = json!({"example.com": {"items": 12, "behind": behind, "behind_total": 7}});
    let odd = json!([{"what": "dns/example.com: db1.example.com", "why": "bad address", "since": 1}]);
    fleet.report("dns", 1, Some(30), units, odd).await;
    fleet.report("lb", 0, Some(-30), json!({}), json!([])).await;
    fleet
        .report("backup", 1, None, json!({"repo": {"items": 3, "behind": [], "behind_total": 0}}), json!([]))
        .await;
    assert_snapshot!("status", fleet.ok(&["status"]).await);
    assert_snapshot!("wait_late", fleet.fails(5, &["wait", "--timeout", "1ms"]).await);
    fleet.report("dns", 1, Some(30), json!({}), json!([])).await;
    // Who died is named on success, too; `--settle` ends when everything has been calm for a while.
    assert_snapshot!("wait_done", fleet.ok(&["wait"]).await);
    assert!(fleet.ok(&["wait", "--settle"]).await.contains("is done: dns"));
    assert_snapshot!("wait_agent", fleet.fails(5, &["wait", "--timeout", "1ms", "--agent", "lb"]).await);
    assert_snapshot!("wait_future", fleet.fails(1, &["wait", "--revision", "99"]).await);
    // Somebody who waits is told when it is done, not at the end of the time.
    fleet.report("dns", 0, Some(30), json!({}), json!([])).await;
    let (waited, ()) = tokio::join!(fleet.ok(&["wait", "--timeout", "30s"]), async {
        tokio::task::yield_now().await;
        fleet.report("dns", 1, Some(30), json!({}), json!([])).await;
    });
    assert!(waited.contains("is done: dns"), "{waited}");
}

#[tokio::test]
async fn what_a_past_instance_said_does_not_stand_before_what_a_living_one_says() {
    let fleet = Fleet::new().await;
    let old = json!({"a": {"items": 9, "behind": [], "behind_total": 7, "failing": "old"}});
    let odd = json!([{"what": "dns/a: db1", "why": "bad address", "since": 1}]);
    fleet.report("dns killed", 1, Some(-4), old.clone(), odd.clone()).await;
    fleet.report("dns told-to-stop", 1, Some(-5), old, odd).await;
    let nobody = fleet.ok(&["status"]).await;
    assert_eq!(nobody.matches("failing: dns/a: old").count(), 2, "{nobody}");
    assert!(nobody.contains("dead") && nobody.contains("stopped"), "{nobody}");
    let unit = json!({"a": {"items": 9, "behind": [], "behind_total": 0}});
    fleet.report("dns living", 1, Some(30), unit, json!([])).await;
    let taken = fleet.ok(&["status"]).await;
    assert!(taken.contains("killed") && taken.contains("dead"), "{taken}");
    assert!(
        ["told-to-stop", ": old", "bad address", " 7 "].iter().all(|word| !taken.contains(word)),
        "{taken}"
    );
    assert!(fleet.ok(&["status", "-v"]).await.contains("told-to-stop"));
    assert!(!fleet.ok(&["wait"]).await.contains("dead since"));
}

/// What an agent commits in answer is waited for as well; who asks for one revision waits for that alone.
#[tokio::test]
async fn what_follows_from_a_commit_is_waited_for() {
    let fleet = Fleet::new().await;
    let unit = json!({"box1": {"items": 1, "behind": [], "behind_total": 0}});
    let all = async |placement: u64, vm: u64| {
        fleet.report("placement", placement, Some(30), json!({}), json!([])).await;
        fleet.report("vm box1", vm, Some(30), unit.clone(), json!([])).await;
    };
    all(0, 1).await;
    let answered = async {
        tokio::task::yield_now().await;
        fleet.ok(&["put", "web1.example.com", "n=1", "-m", "in answer"]).await;
        // What was asked for first is done by now, and nobody has heard of the answer.
        all(1, 1).await;
        assert!(fleet.ok(&["wait", "--revision", "1"]).await.contains("revision 1 is done"));
        let late = fleet.fails(5, &["wait", "--timeout", "1ms"]).await;
        assert!(late.contains("revision 2 is not done"), "{late}");
        all(2, 2).await;
    };
    let waits = fleet.ok(&["wait", "--timeout", "30s"]);
    let (waited, ()) = tokio::join!(Box::pin(waits), Box::pin(answered));
    assert!(waited.contains("revision 2 is done: placement, vm"), "{waited}");
    // Who has nothing to do yet may be the one that gets something to do.
    fleet.report("vm box2", 1, Some(30), json!({}), json!([])).await;
    let late = fleet.fails(5, &["wait", "--timeout", "1ms"]).await;
    assert!(late.contains("box2 has seen revision 1 only"), "{late}");
}

/// Agents that answer each commit with another: the end of the time is the end.
#[tokio::test]
async fn settling_does_not_outlive_the_timeout() {
    let fleet = Fleet::new().await;
    fleet.report("dns", 1_000_000, Some(30), json!({}), json!([])).await;
    let restless = async {
        for n in 0.. {
            fleet.ok(&["put", "web1.example.com", &format!("n={n}"), "-m", "again"]).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = fleet.fails(5, &["wait", "--settle", "--timeout", "300ms"]);
    let patience = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! { error = waited => error, () = restless => unreachable!() }
    });
    let error = Box::pin(patience).await.expect("it ends");
    assert!(error.contains("new ones keep coming"), "{error}");
}

#[tokio::test]
async fn what_is_left_out_is_seen() {
    let fleet = Fleet::new().await;
    let out = |n: usize| json!({"key": format!("web{n} A"), "who": [format!("dns/example.com: web{n}.example.com")], "why": "bad address"});
    let out: Vec<Value> = (1..=7).map(out).collect();
    let unit = json!({"items": 12, "behind": [], "behind_total": 0, "left_out": &out, "left_out_total": 9});
    fleet.report("dns", 1, Some(30), json!({"example.com": unit}), json!([])).await;
    assert_snapshot!("status_left_out", fleet.ok(&["status"]).await);
    let all = fleet.ok(&["status", "-v"]).await;
    assert!(all.contains("web7 A: dns/example.com: web7.example.com: bad address"), "{all}");
    assert!(all.contains("and 2 more\n"), "{all}");
    let explained = fleet.ok(&["explain", "web2.example.com"]).await;
    assert!(
        explained
            .contains("left out: dns/example.com: web2 A: dns/example.com: web2.example.com: bad address")
    );
    assert!(!explained.contains("web1 A"), "{explained}");
    assert!(explained.contains("dns has made nothing from it (it is active): see below"), "{explained}");
}

#[tokio::test]
async fn what_a_guard_stopped_is_shown_and_approved() {
    let fleet = Fleet::new().await;
    assert_snapshot!("approve_none", fleet.ok(&["approve"]).await);
    let held = json!({
        "digest": "abc123", "why": "12 of 12 items would go", "create": 0, "update": 1, "remove": 11, "of": 12,
        "sample": ["- web1.example.com A 192.0.2.1", "~ example.com SOA"]
    });
    let behind = json!([{"key": "web1.example.com A", "since": 1, "why": "guard: 12 of 12 items would go"}]);
    let unit = json!({"items": 12, "behind": behind, "behind_total": 12, "held": held});
    fleet.report("dns", 1, Some(30), json!({"example.com": unit}), json!([])).await;
    assert_snapshot!("approve_list", fleet.ok(&["approve"]).await);
    let planned = fleet.run(&["approve", "dns/example.com", "--plan"]).await;
    assert_eq!(planned.code, 3);
    assert_snapshot!("approve_plan", planned.out);
    assert_snapshot!("wait_held", fleet.fails(4, &["wait", "--timeout", "1ms"]).await);
    assert_snapshot!("approve_wrong", fleet.fails(1, &["approve", "dns/other", "-m", "x"]).await);
    // What somebody looked at a while ago is not what is held now.
    let old = fleet.fails(4, &["approve", "dns/example.com", "--digest", "abc122", "-m", "x"]).await;
    assert!(old.contains("not abc122 any more, but abc123"), "{old}");
    fleet.fails(1, &["get", "approvals/dns/example.com"]).await;
    assert_snapshot!(
        "approve_done",
        fleet.ok(&["approve", "dns/example.com", "--digest", "abc123", "-m", "the old fleet is gone"]).await
    );
    let row = fleet.ok(&["get", "approvals/dns/example.com", "-o", "json"]).await;
    assert!(row.contains("abc123"), "{row}");
    // Another instance, that waits for the claim, says later that it knows of nothing.
    let waits = json!({"items": 0, "behind": [], "behind_total": 0, "elsewhere": true});
    fleet.report("dns a", 1, Some(30), json!({"example.com": waits}), json!([])).await;
    assert_snapshot!("approve_list", fleet.ok(&["approve"]).await);
}

#[tokio::test]
async fn what_is_in_the_way_is_shown_and_adopted() {
    let fleet = Fleet::new().await;
    assert_snapshot!("adopt_none", fleet.ok(&["adopt"]).await);
    let clash = |name: &str, n: u32| {
        json!({
            "key": format!("example.com/{name}"), "digest": format!("d{n}"),
            "there": {"type": "A", "data": ["192.0.2.9"]}, "wanted": {"type": "A", "data": ["192.0.2.10"]}
        })
    };
    let clashes = [clash("printer", 1), clash("web1", 2)];
    let unit = json!({"items": 12, "behind": [], "behind_total": 3, "clashes": clashes, "clashes_total": 3});
    fleet.report("dns", 1, Some(30), json!({"example.com": unit}), json!([])).await;
    assert_snapshot!("adopt_list", fleet.ok(&["adopt"]).await);
    let planned = fleet.run(&["adopt", "dns/example.com", "--plan"]).await;
    assert_eq!(planned.code, 3);
    assert_snapshot!("adopt_plan", planned.out);
    let wrong = ["adopt", "dns/example.com", "example.com/web1", "example.com/web2", "-m", "x"];
    assert_snapshot!("adopt_wrong", fleet.fails(1, &wrong).await);
    fleet.fails(1, &["get", "approvals/dns/example.com"]).await;
    // What somebody looked at a while ago is not what is in the way now.
    let old = fleet.fails(4, &["adopt", "dns/example.com", "--digest", "d1,d3", "-m", "x"]).await;
    assert!(old.contains("not what was shown any more"), "{old}");
    fleet.fails(1, &["get", "approvals/dns/example.com"]).await;
    let one = ["adopt", "dns/example.com", "example.com/web1", "--digest", "d2", "-m", "it is ours"];
    assert_snapshot!("adopt_done", fleet.ok(&one).await);
    let row = fleet.ok(&["get", "approvals/dns/example.com", "-o", "json"]).await;
    assert!(row.contains("example.com/web1") && row.contains("d2") && !row.contains("d1"), "{row}");
    // What was said before and no agent has seen yet stays said; what is not in the way any more does not.
    let another = ["adopt", "dns/example.com", "example.com/printer", "-m", "this too"];
    fleet.ok(&another).await;
    let row = fleet.ok(&["get", "approvals/dns/example.com", "-o", "json"]).await;
    assert!(row.contains("\"d1\"") && row.contains("\"d2\""), "{row}");
    let unit = json!({"items": 12, "behind": [], "behind_total": 2, "clashes": [clash("printer", 3)], "clashes_total": 1});
    fleet.report("dns", 2, Some(30), json!({"example.com": unit}), json!([])).await;
    fleet.ok(&another).await;
    let row = fleet.ok(&["get", "approvals/dns/example.com", "-o", "json"]).await;
    assert!(row.contains("\"d3\"") && !row.contains("\"d1\"") && !row.contains("\"d2\""), "{row}");
}

/// A unit may be called anything: also what used to be the name of something else.
#[tokio::test]
async fn a_new_epoch_is_approved_apart_from_every_unit() {
    let fleet = Fleet::new().await;
    let held = |digest: &str| {
        let held = json!({
            "digest": digest, "why": "x", "create": 0, "update": 1, "remove": 0, "of": 12, "sample": []
        });
        json!({"items": 12, "behind": [], "behind_total": 0, "held": held})
    };
    let epoch = format!("{:016x}", fleet.store.head().await.unwrap().epoch.0);
    let units = json!({
        "epoch": held("abc123"), "web pool": held("abc124"), "other": held(&epoch), "third": held(&epoch)
    });
    fleet.report("dns", 1, Some(30), units, json!([])).await;
    let planned = fleet.run(&["approve", "dns/other", "--plan"]).await.out;
    assert!(planned.contains("for all units of dns, also for dns/third"), "{planned}");
    assert!(!fleet.run(&["approve", "dns/epoch", "--plan"]).await.out.contains("all units"));
    for (unit, row, digest) in [
        ("dns/epoch", "approvals/dns/epoch", "abc123"),
        ("dns/web pool", "approvals/dns/web%20pool", "abc124"),
        ("dns/other", "approvals/dns", epoch.as_str()),
    ] {
        fleet.fails(1, &["get", row]).await;
        fleet.ok(&["approve", unit, "-m", "x"]).await;
        let row = fleet.ok(&["get", row, "-o", "json"]).await;
        assert!(row.contains(digest), "{row}");
    }
}

#[tokio::test]
async fn explain_says_all_of_a_host() {
    let fleet = Fleet::new().await;
    let entry = json!({
        "from": [["dns/example.com", "web2.example.com"]], "revision": 1, "stage": "made",
        "last": "60 A 192.0.2.2", "token": "t", "by": 1
    });
    let other = json!({"from": [["dns/example.com", "db1.example.com"]], "revision": 1, "stage": "made", "last": null});
    let page = json!({"epoch": 7, "entries": [
        {"key": "web2.example.com A", "entry": entry}, {"key": "db1.example.com A", "entry": other}
    ]});
    fleet.ledger("dns/example.com/0", page).await;
    let behind = json!([{"key": "web2.example.com A", "since": 1, "why": "failed: no answer", "hosts": ["web2.example.com"]}]);
    let units = json!({"example.com": {"items": 2, "behind": behind, "behind_total": 1}});
    fleet.report("dns", 1, Some(30), units, json!([])).await;
    fleet.ok(&["pause", "dns/web", "-m", "registrar outage"]).await;
    assert_snapshot!("explain", fleet.ok(&["explain", "web2.example.com"]).await);
    let json: Value =
        serde_json::from_str(&fleet.ok(&["explain", "web2.example.com", "-o", "json"]).await).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn explain_says_why_there_is_nothing() {
    let fleet = Fleet::new().await;
    fleet.ok(&["put", "new.example.com", "-m", "x"]).await;
    fleet.ok(&["put", "dns/empty", "--member", "db1.example.com", "-m", "x"]).await;
    assert_snapshot!("explain_no_tag", fleet.ok(&["explain", "new.example.com"]).await);
    assert_snapshot!("explain_no_agent", fleet.ok(&["explain", "db1.example.com"]).await);
    fleet.report("dns", 1, Some(30), json!({}), json!([])).await;
    let idle = fleet.ok(&["explain", "db1.example.com"]).await;
    assert!(idle.contains("dns has made nothing from it (it is draining)"), "{idle}");
}

/// Why it is not elsewhere is what people look for, so it is broken over lines and never cut.
#[tokio::test]
async fn explain_says_where_a_machine_is_and_why_not_elsewhere() {
    let fleet = Fleet::empty();
    let text = "\
host: web1.example.com
id: h1
state: placed
---
host: web2.example.com
id: h2
state: requested
---
edit: write
key: facts/placement/web1.example.com
value:
  box: b7.example.com
  points: 2412
  fallback: b2.example.com
  over: {b2.example.com: 2290, b5.example.com: 2301}
  not: {closed: 1, 'something in the rack must be apart from vm/kafka, which it has': 14, 'memory is kept for when another box dies': 3}
  together: 3
---
edit: write
key: facts/placement/web2.example.com
value: {no_room: {draining: 1, too little cpu: 17}}
";
    fleet.ok(&["apply", "-f", &fleet.file("placed.yaml", text), "-m", "two machines"]).await;
    assert_snapshot!("explain_placed", fleet.ok(&["explain", "web1.example.com"]).await);
    assert_snapshot!("explain_no_room", fleet.ok(&["explain", "web2.example.com"]).await);
    let long = format!("no vm/{} is in the rack, and it must be near", "long-".repeat(14));
    let value = json!({"box": "b7.example.com", "not": {&long: 2}, "holds": {"x": {"cpu": 1}}});
    let more = json!({"edit": "write", "key": "facts/placement/web1.example.com", "value": value});
    fleet.ok(&["apply", "-f", &fleet.file("long.json", &more.to_string()), "-m", "a long name"]).await;
    let said = fleet.ok(&["explain", "web1.example.com"]).await;
    let whole = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(whole.contains(&format!("not 2 boxes or zones: {long}")), "{said}");
    let (tables, _) = said.split_once("Made from it").unwrap();
    assert!(tables.lines().all(|line| line.chars().count() <= 100), "{said}");
    // A box says more than where it is.
    assert!(whole.contains("placement {holds: {x: {cpu: 1}}}"), "{said}");
}

#[tokio::test]
async fn explain_fits_the_terminal() {
    let fleet = Fleet::new().await;
    let long = "long-".repeat(30);
    fleet.ok(&["put", "web2.example.com", &format!("dns.note={long}"), "-m", "x"]).await;
    let entry = json!({
        "from": [["dns/example.com", "web2.example.com"]], "revision": 1, "stage": "made", "last": {"note": long}
    });
    let page = json!({"epoch": 7, "entries": [{"key": format!("{} A", "a".repeat(50)), "entry": entry}]});
    fleet.ledger(&format!("dns/{}/0", "zone.".repeat(15)), page).await;
    let text = fleet.ok(&["explain", "web2.example.com"]).await;
    assert!(text.contains("note"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

/// Whoever only looks signs nothing.
#[tokio::test]
async fn a_plan_needs_no_author_and_no_reason() {
    let fleet = Fleet::new().await;
    let file = fleet.file("more.yaml", "host: web3.example.com\n");
    let inventory =
        fleet.file("inventory.json", r#"{"_meta": {"hostvars": {}}, "all": {"hosts": ["a.example.com"]}}"#);
    let mapping = fleet.file("mapping.yaml", "name: lab\n");
    for line in [
        &["apply", "-f", &file, "--plan"][..],
        &["put", "web1.example.com", "a=1", "--plan"],
        &["rm", "web1.example.com", "--plan"],
        &["mv", "web1.example.com", "www.example.com", "--plan"],
        &["tag", "dns/example.com", "+web1.example.com", "--plan"],
        &["import", "ansible", &inventory, "--mapping", &mapping, "--plan"],
    ] {
        let printed = fleet.run_as(None, line).await;
        assert_eq!(printed.code, 3, "{line:?}: {}", printed.error);
    }
    assert_eq!(fleet.run_as(None, &["rollback", "--all", "--to", "1", "--plan"]).await.code, 0);
    assert!(fleet.ok(&["status"]).await.starts_with("newest revision: 1\n"), "nothing was written");
}

#[tokio::test]
async fn pause_and_resume() {
    let fleet = Fleet::new().await;
    assert_snapshot!("pause", fleet.ok(&["pause", "web1.example.com", "-m", "new disk"]).await);
    fleet.ok(&["pause", "agent/dns", "-m", "upgrade"]).await;
    assert_snapshot!("pauses", fleet.ok(&["get", "pauses/"]).await);
    assert_eq!(fleet.ok(&["get", "pauses"]).await, fleet.ok(&["get", "pauses/"]).await);
    assert_eq!(fleet.ok(&["get", "dns"]).await, fleet.ok(&["get", "dns/"]).await);
    assert_snapshot!("resume", fleet.ok(&["resume", "web1.example.com", "-m", "done"]).await);
    assert_snapshot!("resume_twice", fleet.fails(1, &["resume", "web1.example.com", "-m", "done"]).await);
    assert_snapshot!("pause_unknown", fleet.fails(1, &["pause", "web9.example.com", "-m", "x"]).await);
}

#[tokio::test]
async fn an_agent_is_paused_by_its_name_alone() {
    let fleet = Fleet::new().await;
    let unknown = fleet.fails(1, &["pause", "dns", "-m", "x"]).await;
    assert!(unknown.contains("there is no host dns") && unknown.contains("agent/dns"), "{unknown}");
    let warned = fleet.ok(&["pause", "agent/dsn", "-m", "x"]).await;
    assert!(warned.contains("warning: no agent dsn has run here yet"), "{warned}");
    fleet.report("dns", 1, Some(30), json!({}), json!([])).await;
    assert!(!fleet.ok(&["pause", "dns", "-m", "upgrade"]).await.contains("warning"));
    assert!(fleet.ok(&["get", "pauses"]).await.contains("pauses/agent/dns"));
    fleet.ok(&["resume", "dns", "-m", "done"]).await;
    assert!(!fleet.ok(&["get", "pauses"]).await.contains("pauses/agent/dns"));
    // A host of this name is meant first.
    fleet.ok(&["put", "dns", "-m", "x"]).await;
    fleet.ok(&["pause", "dns", "-m", "disk"]).await;
    assert!(fleet.ok(&["get", "pauses"]).await.contains("pauses/host/dns"));
}

#[tokio::test]
async fn import_shows_a_plan_and_does_it_once() {
    let fleet = Fleet::empty();
    let inventory = fleet.file(
        "inventory.json",
        r#"{"_meta": {"hostvars": {"a.example.com": {"ip": "192.0.2.1"}}}, "all": {"children": ["web"]}, "web": {"hosts": ["a.example.com"]}}"#,
    );
    let mapping = fleet.file("mapping.yaml", "name: lab\n");
    let planned = fleet.run(&["import", "ansible", &inventory, "--mapping", &mapping, "--plan"]).await;
    assert_eq!(planned.code, 3, "{}{}", planned.error, planned.out);
    let line = ["import", "ansible", &inventory, "--mapping", &mapping, "-m", "the lab"];
    let done = fleet.ok(&line).await;
    assert!(done.contains("hosts: 1 new") && done.contains("revision 1:"), "{done}");
    let again = fleet.ok(&line).await;
    assert!(again.contains("nothing to change"), "{again}");
    assert!(fleet.ok(&["get"]).await.contains("a.example.com"));
}

#[tokio::test]
async fn search_finds_hosts_and_shows_what_was_asked_for() {
    let fleet = Fleet::new().await;
    assert_snapshot!("search", fleet.ok(&["search", "site in ['rdu3', 'ams1']"]).await);
    assert_snapshot!("search_names", fleet.ok(&["search", "name.endsWith('.example.com')", "--names"]).await);
    let json: Value =
        serde_json::from_str(&fleet.ok(&["search", "state == 'draining'", "-o", "json"]).await).unwrap();
    assert_eq!((json[0]["host"].as_str(), json.as_array().map(Vec::len)), (Some("db1.example.com"), Some(1)));
    assert_eq!(fleet.ok(&["search", "site == 'none'"]).await, "no host is meant\n");
    fleet.ok(&["put", "web1.example.com", "site=ams1", "-m", "moved"]).await;
    assert_eq!(
        fleet.ok(&["search", "site == 'rdu3'", "--names", "--revision", "1"]).await,
        "web1.example.com\n"
    );
    assert_eq!(fleet.ok(&["search", "site == 'rdu3'", "--names"]).await, "");
    assert_snapshot!("search_bad", fleet.fails(2, &["search", "site = 'x'"]).await);
}
