//! How long `shoal wait` waits for what waits for a person, and what it says beside what is done.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fleet::Fleet;

/// By a clock that goes on when nothing else does.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_person_is_told_soon() {
    let fleet = Fleet::new().await;
    let paused = json!([{"key": "web1.example.com A", "since": 1, "why": "held: paused: host/web1.example.com: disk"}]);
    let unit = json!({"example.com": {"items": 12, "behind": paused, "behind_total": 1, "held_total": 1}});
    let odd = json!([{"what": "dns/example.com: db1.example.com", "why": "bad address", "since": 1}]);
    for (code, odd) in [(4, json!([])), (5, odd)] {
        fleet.report("dns", 1, Some(30), unit.clone(), odd).await;
        let began = tokio::time::Instant::now();
        let said = fleet.fails(code, &["wait", "--timeout", "1h"]).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(said.contains("revision 1 is not done, and what is left waits for a person"), "{said}");
        assert!(said.contains("host/web1.example.com: disk") && said.contains("`shoal resume`"), "{said}");
        assert_eq!(said.contains("is quarantined"), code == 5, "{said}");
        // The end of the time comes first where it is nearer.
        let late = fleet.fails(code, &["wait", "--timeout", "1s"]).await;
        assert!(late.contains("not done after 1 s"), "{late}");
    }
    // What another one has still to do may be what lets it go on, whoever is asked for.
    fleet.report("lb", 0, Some(30), json!({}), json!([])).await;
    let late = fleet.fails(5, &["wait", "--agent", "dns", "--timeout", "20s"]).await;
    assert!(late.contains("not done after 20 s"), "{late}");
    // Who lets it go in time is waited for.
    fleet.report("lb", 1, Some(30), json!({}), json!([])).await;
    let lets_go = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let done = json!({"example.com": {"items": 12, "behind": [], "behind_total": 0}});
        fleet.report("dns", 1, Some(30), done, json!([])).await;
    };
    let waits = fleet.ok(&["wait", "--timeout", "1h"]);
    let (waited, ()) = tokio::join!(Box::pin(waits), Box::pin(lets_go));
    assert!(waited.contains("revision 1 is done: dns, lb"), "{waited}");
}

/// What was committed after the revision that is waited for may be what lets it go on: no person is called before all have seen that.
#[tokio::test(start_paused = true)]
async fn what_was_committed_later_is_seen_first() {
    let fleet = Fleet::new().await;
    let paused = json!([{"key": "a", "since": 1, "why": "held: paused: host/web1.example.com: disk"}]);
    let unit = json!({"example.com": {"items": 12, "behind": paused, "behind_total": 1, "held_total": 1}});
    fleet.ok(&["put", "web1.example.com", "n=1", "-m", "later"]).await;
    fleet.report("dns", 1, Some(30), unit.clone(), json!([])).await;
    let late = fleet.fails(4, &["wait", "--revision", "1", "--timeout", "20s"]).await;
    assert!(late.contains("not done after 20 s"), "{late}");
    fleet.report("dns", 2, Some(30), unit, json!([])).await;
    let soon = fleet.fails(4, &["wait", "--revision", "1", "--timeout", "1h"]).await;
    assert!(soon.contains("what is left waits for a person"), "{soon}");
}

/// Held for as long as one likes, but each time for something else, or while others commit: it goes on.
#[tokio::test(start_paused = true)]
async fn what_changes_is_waited_for() {
    let fleet = Fleet::new().await;
    let restless = async |commits: bool| {
        for n in 0.. {
            let why = format!("held: guard: {}", if commits { 0 } else { n });
            let item = json!([{"key": "a", "since": 1, "why": why}]);
            let unit =
                json!({"example.com": {"items": 12, "behind": item, "behind_total": 1, "held_total": 1}});
            if commits {
                fleet.ok(&["put", "web1.example.com", &format!("n={n}"), "-m", "again"]).await;
            }
            fleet.report("dns", 1_000_000, Some(30), unit, json!([])).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    for commits in [false, true] {
        let waits = fleet.fails(4, &["wait", "--revision", "1", "--timeout", "20s"]);
        let error = Box::pin(async {
            tokio::select! { error = waits => error, () = restless(commits) => unreachable!() }
        });
        let error = error.await;
        assert!(error.contains("not done after 20 s"), "{error}");
    }
}

#[tokio::test]
async fn what_was_done_and_cannot_be_seen_or_was_left_out_is_noted() {
    let fleet = Fleet::new().await;
    let unit = |left_out: u64, failing: Option<&str>| {
        json!({"files": {
            "items": 3, "behind": [], "behind_total": 0, "left_out_total": left_out, "failing": failing
        }})
    };
    fleet.report("notes", 1, Some(30), unit(0, Some("read /x: no such folder")), json!([])).await;
    fleet.report("dns", 1, Some(30), unit(1, None), json!([])).await;
    let done = fleet.ok(&["wait"]).await;
    assert_eq!(
        done,
        "revision 1 is done: dns, notes; 1 left out, see `shoal status`\n\
         note: the last look failed, so what was made may not stand any more: notes/files: read /x: no such folder\n"
    );
    let json: Value = serde_json::from_str(&fleet.ok(&["wait", "-o", "json"]).await).unwrap();
    assert_eq!((&json["left_out"], json["failing"].as_array().map(Vec::len)), (&json!(1), Some(1)));
    let late = fleet.fails(5, &["wait", "--timeout", "1ms", "--agent", "notes", "--agent", "lb"]).await;
    assert!(late.contains("  note: the last look failed") && late.contains("notes/files: read /x"), "{late}");
}

/// Of each unit it is said what it is; what can be done about it stands where one looks next.
#[tokio::test]
async fn a_long_reason_is_not_repeated_for_each_unit() {
    let fleet = Fleet::new().await;
    let what = "this unit was made at another location, files in /a, and this run is for files in /b";
    let unit = |name: &str| {
        let why = format!("{what}: if that is a mistake, start the agent as before, or agree for {name}");
        let behind = json!([{"key": name, "since": 1, "why": why}]);
        let held = json!({
            "digest": name, "why": why, "create": 0, "update": 0, "remove": 0, "of": 12, "sample": []
        });
        json!({"items": 12, "behind": behind, "behind_total": 1, "held": held})
    };
    let units = json!({"example.com": unit("example.com"), "example.net": unit("example.net")});
    fleet.report("dns", 1, Some(30), units, json!([])).await;
    let status = fleet.ok(&["status"]).await;
    let waited = fleet.fails(4, &["wait", "--timeout", "1ms"]).await;
    for said in [status, waited] {
        assert!(said.contains(what) && !said.contains("a mistake"), "{said}");
        assert!(said.contains("look with `shoal approve dns/example.net --plan`"), "{said}");
    }
    let looked = fleet.run(&["approve", "dns/example.net", "--plan"]).await.out;
    assert!(looked.contains("a mistake"), "{looked}");
    let json = fleet.ok(&["status", "-o", "json"]).await;
    assert!(json.contains("a mistake"), "{json}");
}
