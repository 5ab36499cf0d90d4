//! Writes: rules, agents, and what a second person approves.

use super::*;

#[tokio::test]
async fn a_write_is_refused_by_the_rule_that_is_named() {
    let g = Guarded::new().await;
    let done = g.write("ann", "PUT", "/api/v2/tags/lb/web", &json!({"document": {"port": 81}}));
    assert_eq!(done.send().await.unwrap().status(), 200);
    let says = ["carl may not write lb/web", "access/rules/lb: * has data ro", "shoal acl set lb/web"];
    let body = refused(
        g.write("carl", "PUT", "/api/v2/tags/lb/web", &json!({"document": {}})),
        403,
        "denied",
        &says,
    )
    .await;
    assert_eq!(body["rule"], "access/rules/lb: * has data ro, members ro");
    assert_eq!((&body["attempted"], &body["principal"]), (&json!("write lb/web"), &json!("carl")));
    // Where no row speaks, too.
    let body =
        refused(g.write("ann", "PUT", "/api/v2/tags/dns/x", &json!({"document": {}})), 403, "denied", &[])
            .await;
    assert!(body["rule"].as_str().unwrap().starts_with("built-in:"), "{body}");
    // What follows counts: the host is in a tag that ann may not write.
    let body =
        refused(g.write("ann", "DELETE", "/api/v2/hosts/web1.example.com", &Value::Null), 403, "denied", &[])
            .await;
    assert_eq!(body["attempted"], "write the members of dns/example.com");
    assert_eq!(
        g.write("ann", "DELETE", "/api/v2/hosts/web2.example.com", &Value::Null)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    // A dry run says the same.
    let plan = json!({"edits": [{"edit": "set_state", "host": "web1.example.com", "state": "draining"}]});
    assert_eq!(g.post("carl", "/api/v2/commits?plan", &plan).await.0, 403);
    assert_eq!(g.post("ann", "/api/v2/commits?plan", &plan).await.0, 200);
    g.server.stop().await;
}

#[tokio::test]
async fn an_agent_writes_its_own_and_what_its_manifest_declares() {
    let g = Guarded::new().await;
    let commit = async |who: &str, key: &str, value: Value| {
        let body = json!({"changes": [{"key": key, "value": value}], "author": "ann", "message": "m"});
        g.post(who, "/api/v2/store/commit", &body).await
    };
    assert_eq!(commit("dns", "facts/dns/web1.example.com", json!({"served": 1})).await.0, 200);
    assert_eq!(commit("dns", "schemas/dns", json!({"tag": {"type": "object"}})).await.0, 200);
    for (who, key, value, rule) in [
        ("dns", "facts/vm/web1.example.com", json!({}), "built-in: an agent"),
        ("dns", "facts/power/web1.example.com", json!({}), "built-in: an agent"),
        ("dns", "schemas/vm", json!({"tag": true}), "built-in: an agent"),
        ("dns", "dns/example.com", json!({}), "built-in: an agent"),
        (
            "dns",
            "schemas/dns",
            json!({"tag": true, "writes": {"host_fields": ["address"]}}),
            "schemas/dns: an agent does not widen",
        ),
        ("dns", "access/rules/dns", json!({}), "built-in: access/ is for administrators"),
        ("dns", "pauses/host/web2.example.com", json!({"why": "x"}), "built-in: an agent"),
    ] {
        let (status, body) = commit(who, key, value).await;
        assert_eq!(status, 403, "{key}: {body}");
        assert!(body["rule"].as_str().unwrap().starts_with(rule), "{key}: {body}");
    }
    // Fields of hosts.
    let host = |document: Value, state: &str| {
        let rows = g.database.view().row(&"hosts/web1.example.com".parse().unwrap()).unwrap().value();
        json!({"id": rows["id"], "state": state, "document": document})
    };
    let with = |place: &str, address: &str| json!({"address": address, "place": place});
    assert_eq!(
        commit("vm", "hosts/web1.example.com", host(with("box1", "192.0.2.1"), "draining")).await.0,
        200
    );
    assert_eq!(commit("vm", "facts/power/web1.example.com", json!({"on": true})).await.0, 200);
    let (status, body) =
        commit("vm", "hosts/web1.example.com", host(with("box2", "192.0.2.9"), "draining")).await;
    assert!(status == 403 && body["rule"].as_str().unwrap().contains("\"address\""), "{body}");
    assert_eq!(commit("vm", "hosts/web2.example.com", Value::Null).await.0, 403);
    assert_eq!(
        commit("dns", "hosts/web1.example.com", host(with("box3", "192.0.2.1"), "active")).await.0,
        403
    );
    // A token may be narrower than the manifest.
    g.token("narrow", "agent vm", json!({"scope": {"writes": {"host_fields": ["state"]}}})).await;
    assert_eq!(
        commit("narrow", "hosts/web1.example.com", host(with("box9", "192.0.2.1"), "draining")).await.0,
        403
    );
    assert_eq!(
        commit("narrow", "hosts/web1.example.com", host(with("box1", "192.0.2.1"), "active")).await.0,
        200
    );
    let log = g.get("root", "/api/v2/history/facts/dns/web1.example.com").await;
    let by = |field: &str| log["items"][0][field].as_str().unwrap();
    assert_eq!((by("author"), by("principal")), ("agent dns", "agent dns"));
    assert!(by("origin").contains("token dns"), "{log}");
    g.server.stop().await;
}

/// Claims, ledger and reports of its own alone.
#[tokio::test]
async fn an_agent_does_its_own_work_and_nobody_elses() {
    let g = Guarded::new().await;
    let claim = |name: &str| json!({"name": name, "of": 1, "holder": "h", "ttl": {"secs": 60, "nanos": 0}});
    let (status, granted) = g.post("dns", "/api/v2/store/claim", &claim("unit/dns/a")).await;
    assert_eq!(status, 200, "{granted}");
    let held = granted["Granted"].clone();
    for (who, path, body, good) in [
        ("dns", "/api/v2/store/claim", claim("unit/vm/a"), false),
        ("ann", "/api/v2/store/claim", claim("unit/lb/a"), false),
        (
            "dns",
            "/api/v2/store/ledger/write",
            json!({"rows": [{"key": "dns/a/0", "value": "eA=="}], "held": held}),
            true,
        ),
        (
            "dns",
            "/api/v2/store/ledger/write",
            json!({"rows": [{"key": "vm/a/0", "value": "eA=="}], "held": held}),
            false,
        ),
        ("vm", "/api/v2/store/release", held.clone(), false),
        ("dns", "/api/v2/store/release", held.clone(), true),
    ] {
        let (status, body) = g.post(who, path, &body).await;
        assert_eq!(status < 300, good, "{who} {path}: {body}");
        assert!(good || body["rule"].as_str().is_some(), "{body}");
    }
    g.server.stop().await;
}

#[tokio::test]
async fn what_is_protected_needs_a_second_person() {
    let g = Guarded::new().await;
    let put = |who: &'static str| {
        g.write(who, "PUT", "/api/v2/tags/lb/gold/members/web1.example.com", &Value::Null)
    };
    for who in ["ann", "root"] {
        let body = refused(put(who), 403, "denied", &["shoal review propose"]).await;
        assert_eq!(body["rule"], "access/rules/lb/gold: protected", "{who}");
    }
    let change = json!({"key": "lb/gold/members/web1.example.com", "value": {}});
    let now = |key: &str| g.database.view().revision_of(&key.parse().unwrap()).unwrap_or_default();
    let review = |proposer: &str, state: &str, reviewer: Option<&str>| {
        let mut row = json!({"proposer": proposer, "message": "more gold", "at": "2026-01-01T00:00:00Z", "changes": [change.clone()],
            "ground": {"lb/gold": now("lb/gold"), "lb/gold/members/web1.example.com": 0}, "state": state});
        if let Some(reviewer) = reviewer {
            row["reviewer"] = reviewer.into();
        }
        row
    };
    let write = |value: Value| json!({"edit": "write", "key": "access/reviews/r1", "value": value});
    let row = json!({"edit": "row", "key": change["key"], "value": {}});
    let commit =
        async |who: &str, edits: Value| g.post(who, "/api/v2/commits", &json!({"edits": edits})).await;
    // Only what one may write oneself, and under one's own name.
    assert_eq!(commit("carl", json!([write(review("carl", "open", None))])).await.0, 403);
    let (status, body) = commit("ann", json!([write(review("dora", "open", None))])).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(g.get("dora", "/api/v2/access/reviews/r1").await["document"]["proposer"], "ann");
    refused(g.ask("bob", "GET", "/api/v2/access/reviews/r1"), 403, "denied", &[]).await;
    let approve = |who: &str| write(review("ann", "approved", Some(who)));
    for (who, edits, why) in [
        ("ann", json!([approve("ann"), row]), "own proposal"),
        ("carl", json!([approve("carl"), row]), "access/rules/lb: *"),
        ("dora", json!([approve("dora")]), "exactly what was proposed"),
        (
            "dora",
            json!([approve("dora"), row, {"edit": "set_state", "host": "web2.example.com", "state": "draining"}]),
            "exactly",
        ),
    ] {
        let (status, body) = commit(who, edits).await;
        assert_eq!(status, 403, "{who} {body}");
        assert!(body["rule"].as_str().unwrap().contains(why), "{who} {why}: {body}");
    }
    let (status, body) = commit("dora", json!([approve("dora"), row])).await;
    assert_eq!(status, 201, "{body}");
    let log = g.get("root", "/api/v2/history/lb/gold").await;
    assert_eq!((&log["items"][0]["author"], &log["items"][0]["principal"]), (&json!("ann"), &json!("dora")));
    // One whose ground has moved.
    let mut second = review("ann", "open", None);
    let other = "lb/gold/members/web2.example.com";
    second["changes"] = json!([{"key": other, "value": {}}]);
    second["ground"] = json!({"lb/gold": 1, other: 0});
    let row = json!({"edit": "row", "key": other, "value": {}});
    let write = |value: Value| json!({"edit": "write", "key": "access/reviews/r2", "value": value});
    // It says what each of its rows was; and nothing is no proposal.
    for (field, value) in [("ground", json!({})), ("ground", json!({other: 7})), ("changes", json!([]))] {
        let mut bad = second.clone();
        bad[field] = value;
        let (status, body) = commit("ann", json!([write(bad)])).await;
        assert_eq!(status, 403, "{field} {body}");
    }
    assert_eq!(commit("vm", json!([write(second.clone())])).await.0, 403, "no person");
    assert_eq!(commit("ann", json!([write(second.clone())])).await.0, 201);
    (second["state"], second["reviewer"]) = (json!("approved"), json!("dora"));
    let (status, body) = commit("dora", json!([write(second), row])).await;
    assert_eq!(status, 403);
    assert!(body["rule"].as_str().unwrap().contains("lb/gold was at revision 1 and is at"), "{body}");
    g.server.stop().await;
}

/// What a proposal rests on is shown to who may read it, stays in it whoever decides, and counts.
#[tokio::test]
async fn what_a_review_rests_on_is_shown_to_who_may_read_it() {
    let g = Guarded::new().await;
    // dora approves, and does not read all that ann does.
    g.put(&[("access/rules/dns", json!({"allow": {"dora": "none", "*": "ro"}}))]).await;
    let now = |key: &str| g.database.view().revision_of(&key.parse().unwrap()).unwrap_or_default();
    let (member, kept) = ("lb/gold/members/web1.example.com", "dns/example.com");
    let row = |id: &str| {
        let value = json!({"proposer": "ann", "message": "more gold", "at": "2026-01-01T00:00:00Z",
            "changes": [{"key": member, "value": {}}], "ground": {member: 0, kept: now(kept)}, "state": "open"});
        json!({"edit": "write", "key": format!("access/reviews/{id}"), "value": value})
    };
    let commit =
        async |who: &str, edits: Value| g.post(who, "/api/v2/commits", &json!({"edits": edits})).await;
    for id in ["one", "two"] {
        let (status, body) = commit("ann", json!([row(id)])).await;
        assert_eq!(status, 201, "{body}");
    }
    // It rests on nothing that is kept from its proposer, whatever stands there: who approves would be told of it.
    for key in ["lb/secret", "lb/secret/members/web1.example.com", "access/users/ann", "access/reviews/one"] {
        let mut probe = row("three");
        for seen in [0, 7] {
            probe["value"]["ground"][key] = seen.into();
            let (status, body) = commit("ann", json!([probe])).await;
            let rule = body["rule"].as_str().unwrap_or_default();
            assert!(status == 403 && rule.contains("what its proposer may read"), "{key}: {status} {body}");
        }
    }
    let mut shown = g.get("dora", "/api/v2/access/reviews/one").await["document"].clone();
    assert_eq!(shown["ground"], json!({member: 0}));
    for list in [
        g.get("dora", "/api/v2/access?prefix=access/reviews/").await,
        g.get("dora", "/api/v2/commits?limit=1").await,
        g.get("dora", &format!("/api/v2/commits/{}", g.database.view().revision())).await,
        g.post("dora", "/api/v2/store/read", &json!({"range": {"prefix": "access/reviews/"}, "limit": 10}))
            .await
            .1,
    ] {
        assert!(list.to_string().contains("reviews/") && !list.to_string().contains(kept), "{list}");
    }
    assert_eq!(
        g.get("carl", "/api/v2/access/reviews/one").await["document"]["ground"][kept],
        json!(now(kept))
    );
    // As it was shown it is written back, and the record is whole.
    shown["state"] = "approved".into();
    let approve = |id: &str| json!({"edit": "write", "key": format!("access/reviews/{id}"), "value": shown});
    let edits = json!([approve("one"), {"edit": "row", "key": member, "value": {}}]);
    let (status, body) = commit("dora", edits).await;
    assert_eq!(status, 201, "{body}");
    let stands = g.get("root", "/api/v2/access/reviews/one").await["document"].clone();
    assert!(stands["ground"][kept].as_u64() > Some(0) && stands["reviewer"] == "dora", "{stands}");
    // What moved is named to who may read it.
    g.edits(vec![
        json!({"edit": "put_tag", "tag": kept, "document": {"ttl": 301}}),
        json!({"edit": "remove_members", "tag": "lb/gold", "members": ["web1.example.com"]}),
    ])
    .await;
    let shown = g.get("dora", "/api/v2/access/reviews/two").await["document"].clone();
    for (who, named) in [("dora", false), ("root", true)] {
        let mut review = shown.clone();
        (review["state"], review["reviewer"]) = ("approved".into(), who.into());
        if named {
            review["ground"][kept] = stands["ground"][kept].clone();
        }
        let write = json!({"edit": "write", "key": "access/reviews/two", "value": review});
        let (status, body) = commit(who, json!([write, {"edit": "row", "key": member, "value": {}}])).await;
        let rule = body["rule"].as_str().unwrap_or_default();
        assert!(status == 403 && rule.contains("it rests on has changed"), "{who}: {status} {body}");
        assert_eq!((rule.contains(kept), rule.contains("kept from you")), (named, !named), "{who}: {body}");
    }
    g.server.stop().await;
}

/// A token that may not write decides on nothing, whatever its owner may: also where nothing is left to write.
#[tokio::test]
async fn a_token_that_only_reads_decides_on_no_proposal() {
    let g = Guarded::new().await;
    let only = json!({"scope": {"data": "ro", "members": "ro"}});
    g.token("reads", "dora", only.clone()).await;
    g.token("annreads", "ann", only).await;
    let gold = g.database.view().row(&"lb/gold".parse().unwrap()).unwrap().value();
    let at = g.database.view().revision_of(&"lb/gold".parse().unwrap());
    let member = "lb/gold/members/web1.example.com";
    let write = |id: &str, state: &str, reviewer: Option<&str>| {
        let (changes, ground) = match id {
            "stands" => (json!([{"key": "lb/gold", "value": gold}]), json!({"lb/gold": at})),
            _ => (json!([{"key": member, "value": {}}]), json!({"lb/gold": at, member: 0})),
        };
        let row = json!({"proposer": "ann", "message": "more gold", "at": "2026-01-01T00:00:00Z",
            "changes": changes, "ground": ground, "state": state, "reviewer": reviewer});
        json!({"edit": "write", "key": format!("access/reviews/{id}"), "value": row})
    };
    let commit =
        async |who: &str, edits: Value| g.post(who, "/api/v2/commits", &json!({"edits": edits})).await;
    for id in ["stands", "moves"] {
        let (status, body) = commit("ann", json!([write(id, "open", None)])).await;
        assert_eq!(status, 201, "{body}");
    }
    let row = json!({"edit": "row", "key": member, "value": {}});
    for (token, edits) in [
        ("reads", json!([write("stands", "approved", Some("dora"))])),
        ("reads", json!([write("moves", "approved", Some("dora")), row])),
        ("reads", json!([write("moves", "rejected", Some("dora"))])),
        ("annreads", json!([write("moves", "rejected", Some("ann"))])),
    ] {
        let (status, body) = commit(token, edits).await;
        let rule = format!("access/tokens/{token}: the scope of the token");
        assert!(status == 403 && body["rule"] == rule, "{token}: {body}");
    }
    assert_eq!(commit("dora", json!([write("stands", "approved", Some("dora"))])).await.0, 201);
    assert_eq!(commit("dora", json!([write("moves", "approved", Some("dora")), row])).await.0, 201);
    g.server.stop().await;
}

#[tokio::test]
async fn what_a_proposal_rests_on_tells_nothing_that_is_kept() {
    let g = Guarded::new().await;
    for pre in [
        json!({"at": ["lb/secret", 1]}),
        json!({"exists": "access/users/ann"}),
        json!({"absent": "lb/secret/members/web1.example.com"}),
        json!({"unchanged": [{"prefix": "lb/secret/"}, 1]}),
    ] {
        let asked = json!({"author": "bob", "message": "m", "edits": [], "pre": [pre]});
        assert_eq!(g.post("bob", "/api/v2/commits", &asked).await.0, 403, "{asked}");
    }
    // What does nothing takes no key from who does something.
    let nothing = json!({"author": "carl", "message": "m", "edits": [], "idempotency": "k"});
    let (status, said) = g.post("carl", "/api/v2/commits", &nothing).await;
    assert_eq!(status, 200, "{said}");
    let edits = json!([{"edit": "put_tag", "tag": "lb/new", "document": {}}]);
    let does = json!({"author": "ann", "message": "m", "edits": edits, "idempotency": "k"});
    let (status, said) = g.post("ann", "/api/v2/commits", &does).await;
    assert_eq!((status, &said["replayed"]), (201, &json!(false)), "{said}");
}

#[tokio::test]
async fn bodies_that_do_not_come_hold_no_writer_up() {
    use tokio::io::AsyncWriteExt;
    let g = Guarded::with(Limits { writes: 4, ..Limits::default() }).await;
    let address = g.server.url.strip_prefix("http://").unwrap().to_owned();
    let mut slow = Vec::new();
    let head = |path: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}Content-Length: 100\r\n\r\n{{"
        )
    };
    let known = format!("Authorization: Bearer {}\r\n", bearer("carl"));
    for (path, more) in [
        ("/api/v2/sessions", ""),
        ("/api/v2/commits?author=carl&message=m", known.as_str()),
        ("/api/v2/store/commit", known.as_str()),
        ("/api/v2/store/claim", known.as_str()),
    ] {
        for _ in 0..4 {
            let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
            socket.write_all(head(path, more).as_bytes()).await.unwrap();
            slow.push(socket);
        }
    }
    // Each is being read by now, which nothing shows from outside; a machine that is slower proves less.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let done = g.write("ann", "PUT", "/api/v2/tags/lb/web", &json!({"document": {"port": 81}}));
    assert_eq!(done.send().await.unwrap().status(), 200);
}
