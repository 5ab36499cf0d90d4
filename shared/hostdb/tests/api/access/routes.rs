//! Every route, with a token and without; ways to write a path; who says nothing of themselves; and HostDB's own interface.

use super::*;

/// Of every route of the document: nobody gets in without a token, and who has no rights gets a refusal, or nothing.
#[tokio::test]
async fn no_route_is_forgotten() {
    let g = Guarded::new().await;
    let document = g.server.get("/api/v2/openapi.json").await;
    let open = [
        "GET /healthz",
        "GET /readyz",
        "GET /api/v2/openapi.json",
        "POST /api/v2/sessions",
        "PUT /api/v2/password",
    ];
    let (mut opened, mut asked, mut said) = (Vec::new(), 0, Vec::new());
    for (method, path, entry) in operations(&document) {
        let name = format!("{method} {path}");
        let at = example(&document, path, entry);
        let request = |request| with_body(request, &method, &name);
        if entry["security"] == json!([]) {
            opened.push(name);
            continue;
        }
        assert_eq!(entry.get("security"), None, "{name}");
        for bad in [None, Some("Bearer nonsense"), Some("Bearer shoal_none_wrong"), Some("Basic x")] {
            let mut asks = request(g.server.ask(&method, &at));
            if let Some(bad) = bad {
                asks = asks.header("authorization", bad);
            }
            let response = asks.send().await.unwrap();
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"shoal\"", "{name}");
            let refused = problem(response, 401, "unauthenticated", &[]).await;
            assert!(refused["rule"].as_str().is_some_and(|rule| !rule.is_empty()), "{name}: {refused}");
        }
        let query = query(&name);
        let response = request(g.ask("none", &method, &format!("{at}{query}"))).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        let harmless = [
            "GET /metrics",
            "GET /api/v2/store/head",
            "GET /api/v2/whoami",
            "GET /api/v2/can",
            // Their own.
            "GET /api/v2/tokens",
        ];
        match status {
            403 => {
                let refused: Value = serde_json::from_str(&text).unwrap();
                assert!(refused["rule"].as_str().is_some_and(|rule| !rule.is_empty()), "{name}: {text}");
            }
            // Nothing of the database is in it.
            200 if harmless.contains(&name.as_str()) => {}
            // A token that was made is no session.
            404 if name == "DELETE /api/v2/sessions" => {}
            // Nor is it theirs.
            404 if name == "DELETE /api/v2/tokens/{id}" => {}
            200 => {
                let list: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(list["items"], json!([]), "{name}: {text}");
                // It says that it left something out, where there is something.
                let none = ["GET /api/v2/claims", "GET /api/v2/status", "GET /api/v2/store/reports"];
                assert!(none.contains(&name.as_str()) || list["hidden"].as_u64() > Some(0), "{name}: {text}");
                said.push(name.clone());
            }
            _ => panic!("{name}{query}: {status} {text}"),
        }
        assert!(!text.contains("planted"), "{name}: {text}");
        asked += 1;
    }
    opened.sort();
    let mut open: Vec<String> = open.map(str::to_owned).into();
    open.sort();
    assert_eq!(opened, open);
    assert!(asked > 60, "{asked}");
    assert!(said.len() > 5, "{said:?}");
    g.server.stop().await;
}

/// The request with what it needs to be well formed.
fn with_body(request: RequestBuilder, method: &str, name: &str) -> RequestBuilder {
    let request = request.header("shoal-author", "x").header("shoal-message", "m");
    match (body(name), method) {
        (Some(body), "PATCH") => {
            request.header("content-type", "application/merge-patch+json").body(body.to_string())
        }
        (Some(body), _) => request.json(&body),
        (None, _) => request,
    }
}

/// A body that is well formed, for what has one.
fn body(name: &str) -> Option<Value> {
    let key = "hosts/web1.example.com";
    let claim = json!({"name": "unit/dns/a", "slot": 0, "holder": "h", "number": 1, "ttl": null});
    Some(match name {
        "PUT /api/v2/hosts/{fqdn}" | "PUT /api/v2/tags/{ns}/{key}" => json!({"document": {}}),
        "PUT /api/v2/tags/{ns}/{key}/members" => json!([]),
        "POST /api/v2/commits" => json!({"edits": [{"edit": "delete", "key": key}]}),
        "POST /api/v2/rollback" => json!({"to": 1, "keys": [key]}),
        "POST /api/v2/store/read" => json!({"range": "all", "limit": 10}),
        "POST /api/v2/store/log" => json!({"range": "all", "limit": 10}),
        "POST /api/v2/store/watch" => json!({"ranges": ["all"], "after": {"epoch": 1, "revision": 0}}),
        "POST /api/v2/store/commit" => {
            json!({"changes": [{"key": key, "value": null}], "author": "x", "message": "m"})
        }
        "POST /api/v2/store/claim" => json!({"name": "unit/dns/a", "of": 1, "holder": "h", "ttl": null}),
        "POST /api/v2/store/release" => claim,
        "POST /api/v2/store/ledger/read" => json!({"prefix": "dns/", "limit": 1}),
        "POST /api/v2/store/ledger/write" => {
            json!({"rows": [{"key": "dns/a/0", "value": null}], "held": claim})
        }
        "POST /api/v2/store/report" => json!({"agent": "dns", "instance": "i", "epoch": 1, "seen": 1,
            "at": "2026-01-01T00:00:00Z", "expires": null, "units": {}}),
        "PUT /api/v2/access/{rest}" => json!({}),
        "PUT /api/v2/pauses/{rest}" => json!({"why": "x"}),
        "PUT /api/v2/schemas/{rest}" => json!({"tag": true}),
        "PUT /api/v2/approvals/{rest}" => json!({"digest": "x"}),
        _ if name.starts_with("PUT") || name.starts_with("PATCH") => json!({}),
        _ => return None,
    })
}

/// What a route cannot do without.
pub(super) fn query(name: &str) -> &'static str {
    match name {
        "GET /api/v2/diff" => "?from=1",
        "GET /api/v2/store/around" => "?host=web1.example.com",
        "GET /api/v2/search" => "?where=true",
        "GET /api/v2/can" => "?verb=read&on=lb/web",
        _ => "",
    }
}

/// Other ways to write a key are the same key, or none.
#[tokio::test]
async fn tricks_in_paths_lead_nowhere() {
    let g = Guarded::new().await;
    for path in [
        "/api/v2/tags/lb/%73ecret",
        "/api/v2/tags/lb/secret?revision=11",
        "/api/v2/hosts/../tags/lb/secret",
        "/api/v2/tags/lb/x/../secret",
        "/api/v2/tags/lb/x%2F..%2Fsecret",
        "/api/v2/tags/lb%2Fsecret",
        "/api/v2//tags/lb/secret",
        "/api/v2/history/lb/secret/members/web1.example.com",
        "/api/v2/history/lb//secret",
        "/api/v2/facts/../access/tokens/ann",
        "/api/v2/facts/..%2Faccess%2Ftokens%2Fann",
        "/api/v2/facts/vm/..%2F..%2Faccess/tokens/ann",
        "/api/v2/access/tokens/ann",
        "/api/v2/access/tokens%2Fann",
        "/api/v2/history/access/tokens/ann",
        "/api/v2/facts?prefix=access/",
        "/api/v2/schemas?prefix=schemas/../access/",
        "/api/v2/tags/access",
        "/api/v2/tags/access/tokens",
        "/api/v2/watch?prefix=access/",
        "/api/v2/watch?key=access/tokens/ann",
        "/api/v2/commits?prefix=access/",
    ] {
        let response = g.ask("carl", "GET", path).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert!(!text.contains("planted") && !text.contains("hash"), "{path}: {text}");
        let empty = status == 200 && text.contains("\"items\":[]");
        assert!((400..500).contains(&status) || empty, "{path}: {status} {text}");
    }
    // A rule about a host is about it however it is written.
    g.put(&[("access/rules/hosts/WEB1.example.com", json!({"allow": {"*": "none"}}))]).await;
    for path in [
        "/api/v2/hosts/web1.example.com",
        "/api/v2/hosts/WEB1.Example.com.",
        "/api/v2/history/hosts/WEB1.example.com",
    ] {
        let body = refused(g.ask("carl", "GET", path), 403, "denied", &[]).await;
        assert!(
            body["rule"].as_str().unwrap().starts_with("access/rules/hosts/web1.example.com"),
            "{path}: {body}"
        );
    }
    g.server.stop().await;
}

#[tokio::test]
async fn anonymous_reads_what_a_rule_gives_them_and_no_more() {
    let g = Guarded::new().await;
    g.put(&[("access/rules/dns", json!({"allow": {"anonymous": {"data": "ro"}, "*": "ro"}}))]).await;
    let status = async |method: &str, path: &str| {
        g.server.write(method, path, &json!({"document": {}})).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("GET", "/api/v2/effective/dns/example.com").await, 200);
    for (method, path) in [
        ("GET", "/api/v2/tags/dns/example.com/members"),
        ("GET", "/api/v2/hosts/web1.example.com"),
        ("PUT", "/api/v2/tags/dns/example.com"),
        ("GET", "/api/v2/access/tokens/ann"),
        ("GET", "/api/v2/watch"),
    ] {
        assert_eq!(status(method, path).await, 401, "{method} {path}");
    }
    g.server.stop().await;
}

/// Below `/v1` reads need no session unless a rule forbids them, and writes need one that may.
#[tokio::test]
async fn hostdb_v1_has_the_same_rules() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    let get = async |path: &str| {
        let response = g.server.ask("GET", path).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/v1/hosts/web1.example.com").await.0, 200);
    assert_eq!(get("/v1/dns/example.com/members?raw=true").await, (200, "web1.example.com".to_owned()));
    for path in [
        "/v1/lb/secret",
        "/v1/lb/secret/key",
        "/v1/lb/secret/members?raw=true",
        "/v1/lb?meta=revisions",
        "/v1/lb",
        "/v1/lb/secret?meta=revisions",
        "/v1/lb/secret?meta=blame",
        "/v1/lb/*?foreach=lb",
        "/v1/access?meta=revisions",
        "/v1/hosts/web1.example.com?meta=derived&from=lb",
        "/v1/access/tokens/ann",
    ] {
        let (status, text) = get(path).await;
        assert!([401, 403, 404].contains(&status) && !text.contains("planted"), "{path}: {status} {text}");
    }
    let put = async |session: &str| {
        let form = format!("log=why&value=port: 1&session={session}");
        g.server
            .ask("PUT", "/v1/lb/web")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap()
    };
    let status = async |session: &str| put(session).await.status().as_u16();
    assert_eq!(
        (status("").await, status("ann").await, status(&bearer("carl")).await, status(&bearer("ann")).await),
        (401, 401, 403, 201)
    );
    let reason = put(&bearer("carl")).await.headers()["calltrace"].to_str().unwrap().to_owned();
    assert!(reason.contains("access/rules/lb: * has data ro"), "{reason}");
    assert_eq!(get("/v1/auth/can_modify?user=ann&id=lb/web").await.1, "1");
    assert_eq!(get("/v1/auth/can_modify?user=carl&id=lb/web").await.1, "0");
    // What takes two people nobody modifies here.
    g.put(&[("access/rules/hosts/web2.example.com", json!({"protected": true}))]).await;
    let ids = [
        "lb/gold",
        "lb/gold/members",
        "lb/gold/members/web1.example.com",
        "lb/gold/x",
        "hosts/web2.example.com",
    ];
    for id in ids {
        for user in ["ann", "root"] {
            let said = get(&format!("/v1/auth/can_modify?user={user}&id={id}")).await;
            assert_eq!(said, (200, "0".to_owned()), "{user} {id}");
        }
    }
    g.server.stop().await;
}

/// What somebody may is told to everybody only where everybody reads what it is about.
#[tokio::test]
async fn what_others_may_on_hostdb_v1_is_for_administrators_where_nobody_else_reads() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    let get = async |who: Option<&str>, query: &str| {
        let asked = g.server.ask("GET", &format!("/v1/{query}"));
        let asked = if let Some(who) = who { asked.bearer_auth(bearer(who)) } else { asked };
        asked.send().await.unwrap().status().as_u16()
    };
    let of = |user: &str, id: &str| format!("auth/can_modify?user={user}&id={id}");
    assert_eq!(get(None, &of("ann", "hosts/web1.example.com")).await, 200);
    assert_eq!(get(None, &of("ann", "lb/secret")).await, 401);
    g.put(&[("access/rules/hosts", json!({"allow": {"@web": "rw", "*": "ro", "anonymous": "none"}}))]).await;
    for id in ["hosts/web1.example.com", "hosts/web1.example.com/address", "hosts/.default/perms"] {
        for (who, status) in [(None, 401), (Some("carl"), 401), (Some("ann"), 200), (Some("root"), 200)] {
            assert_eq!(get(who, &of("ann", id)).await, status, "{who:?} {id}");
        }
    }
    assert_eq!(get(None, &of("anonymous", "hosts/web1.example.com")).await, 401);
    // Who wrote something, and why, is read by whoever reads it.
    for meta in ["revisions", "blame"] {
        let path = format!("hosts/web1.example.com?meta={meta}");
        assert_eq!((get(None, &path).await, get(Some("carl"), &path).await), (403, 200), "{meta}");
        assert_eq!(get(None, &format!("dns/example.com?meta={meta}")).await, 200, "{meta}");
    }
    g.server.stop().await;
}

/// What is kept from somebody refuses what it is about, and not what is read beside it.
#[tokio::test]
async fn members_on_hostdb_v1_are_refused_for_what_they_show_alone() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    g.put(&[
        ("access/rules/puppet", json!({"allow": {"*": "none"}})),
        ("access/rules/hosts/web2.example.com", json!({"allow": {"*": "none"}})),
    ])
    .await;
    g.edits(vec![
        json!({"edit": "put_tag", "tag": "lb/all", "document": {}, "members": ["select: true"]}),
        json!({"edit": "put_tag", "tag": "lb/probe", "document": {}, "members": ["@secret"]}),
    ])
    .await;
    let get = async |path: &str| {
        let said = g.server.ask("GET", path).send().await.unwrap();
        (said.status().as_u16(), said.text().await.unwrap())
    };
    assert_eq!(get("/v1/lb/web/members").await, (200, "web1.example.com".to_owned()));
    for (path, rule) in [
        ("/v1/lb/all/members", "access/rules/hosts/web2.example.com"),
        ("/v1/lb/probe/members", "access/rules/lb/secret"),
        ("/v1/hosts/web1.example.com?meta=parents&from=lb", "access/rules/"),
        ("/v1/hosts/*/address?foreach=lb/web/members", "access/rules/"),
    ] {
        let (status, said) = get(path).await;
        assert!([401, 403].contains(&status) && said.contains(rule), "{path}: {status} {said}");
    }
    g.server.stop().await;
}

/// A rule about one namespace keeps nothing of the others from clients that gather.
#[tokio::test]
async fn what_is_gathered_on_hostdb_v1_is_refused_for_what_it_shows_alone() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    let none = json!({"allow": {"*": "none"}});
    g.put(&[("access/rules/facts/puppet", none.clone()), ("access/rules/hr", none.clone())]).await;
    g.edits(vec![
        json!({"edit": "put_tag", "tag": "hr/salaries", "document": {}, "members": ["web2.example.com"]}),
    ])
    .await;
    let then = g.database.view().revision();
    let get = async |path: &str| {
        let said = g.server.ask("GET", path).send().await.unwrap();
        (said.status().as_u16(), said.text().await.unwrap())
    };
    let address = "---\nweb1.example.com: 192.0.2.1\n".to_owned();
    for at in [String::new(), format!("&revision={then}")] {
        let address = (200, address.clone());
        for list in ["lb/web/members", "dns/example.com/members"] {
            assert_eq!(get(&format!("/v1/hosts/*/address?foreach={list}{at}")).await, address, "{list} {at}");
        }
        let all = get(&format!("/v1/hosts/*/address?foreach=hosts{at}")).await;
        assert!(all.0 == 200 && all.1.contains("192.0.2.1"), "{all:?}");
        assert_eq!(
            get(&format!("/v1/lb/web/members?{at}")).await,
            (200, "web1.example.com".to_owned()),
            "{at}"
        );
        let dns = get(&format!("/v1/hosts/web1.example.com?meta=parents&from=dns{at}")).await;
        assert_eq!(dns, (200, "example.com".to_owned()), "{at}");
        for (path, rule) in [
            ("hosts/*/address?foreach=hr/salaries/members", "access/rules/hr"),
            ("hr/*?foreach=lb/web/members", "access/rules/hr"),
            ("hr/*/members?foreach=lb/web/members", "access/rules/hr"),
            ("lb/*?foreach=hosts", "access/rules/lb/secret"),
            ("lb/*/members?foreach=dns", "access/rules/lb/secret"),
            ("dns/*?foreach=lb", "access/rules/lb/secret"),
            ("hosts/web1.example.com?meta=parents&from=lb", "access/rules/lb/secret"),
            ("hr/salaries/members?raw=false", "access/rules/hr"),
        ] {
            let (status, said) = get(&format!("/v1/{path}{at}")).await;
            assert!(status == 403 && said.contains(rule), "{path}{at}: {status} {said}");
        }
    }
    // Of the namespaces those that hold something for them; and their last change says nothing of the others.
    let root = g.server.ask("GET", "/v1").send().await.unwrap();
    assert_eq!((root.status().as_u16(), root.headers().get("mtime")), (200, None));
    assert_eq!(root.text().await.unwrap(), "dns\nhosts\nlb");
    assert_eq!(get("/v1?meta=revisions").await.0, 401);
    g.put(&[("access/rules/hosts/web1.example.com", none)]).await;
    let (status, said) = get("/v1/hosts/*/address?foreach=lb/web/members").await;
    assert!(status == 403 && said.contains("access/rules/hosts/web1.example.com"), "{status} {said}");
    g.server.stop().await;
}

/// Without a session hosts and tags are read, and nothing of the rest: neither facts and pauses, nor who wrote them and why.
#[tokio::test]
async fn hostdb_v1_is_about_hosts_and_tags_alone() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let g = Guarded {
        server: Running::guarded_v1(store.clone()).await,
        database: Database::open(store).await.unwrap(),
    };
    g.put(&[("access/groups/admins", json!({"members": ["root"]}))]).await;
    g.token("root", "root", json!({})).await;
    g.edits(vec![
        json!({"edit": "put_host", "host": "web1.example.com", "document": {}}),
        json!({"edit": "write", "key": "facts/vm/web1.example.com", "value": {"up": true}}),
    ])
    .await;
    let get = async |path: &str, who: Option<&str>| {
        let asked = g.server.ask("GET", path);
        let asked = if let Some(who) = who { asked.bearer_auth(bearer(who)) } else { asked };
        asked.send().await.unwrap().status().as_u16()
    };
    for (path, nobody, root) in [
        ("/v1/hosts?meta=revisions", 200, 200),
        ("/v1/hosts/web1.example.com?meta=revisions", 200, 200),
        ("/v1?meta=revisions", 401, 200),
        ("/v1/facts?meta=revisions", 404, 404),
        ("/v1/pauses?meta=revisions", 404, 404),
        ("/v1/access?meta=revisions", 404, 404),
        ("/v1/facts", 404, 404),
    ] {
        assert_eq!((get(path, None).await, get(path, Some("root")).await), (nobody, root), "{path}");
    }
    g.server.stop().await;
}

/// Clients go on sending a session that has ended, wherever they put it; what needs none is answered all the same.
#[tokio::test]
async fn an_ended_session_is_as_none_to_who_reads_hostdb_v1() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    g.token("ended", "ann", json!({"expires": "2026-01-01T00:00:00Z"})).await;
    for session in [bearer("ended"), bearer("gone"), "nonsense".to_owned()] {
        for (name, value) in [
            ("authorization", format!("Bearer {session}")),
            ("cookie", format!("HostDB={session}")),
            ("cookie", format!("HostDB=\"{session}\"; other=1")),
        ] {
            let get = async |path: &str| {
                let asked = g.server.ask("GET", path).header(name, &value);
                let response = asked.send().await.unwrap();
                (response.status().as_u16(), response.text().await.unwrap())
            };
            assert_eq!(get("/v1/hosts/web1.example.com").await.0, 200, "{name}: {value}");
            assert_eq!(get("/v1/dns/example.com/members?raw=true").await.0, 200, "{name}: {value}");
            assert_eq!(get(&format!("/v1/hosts/web1.example.com?session={session}")).await.0, 200);
            // It opens nothing, and writes nothing.
            let (status, text) = get("/v1/lb/secret").await;
            assert!(status == 403 && !text.contains("planted"), "{status} {text}");
            assert_eq!(get("/v1/auth/session").await.0, 401, "{name}: {value}");
            let put = g.server.ask("PUT", "/v1/lb/web").header(name, &value);
            let put =
                put.header("content-type", "application/x-www-form-urlencoded").body("log=why&value=port: 1");
            assert_eq!(put.send().await.unwrap().status(), 401, "{name}: {value}");
        }
    }
    // Elsewhere it is told.
    refused(g.ask("ended", "GET", "/api/v2/hosts"), 401, "unauthenticated", &["expired"]).await;
    // A key is written as it is, also where a sentence begins with what became of it.
    assert_eq!(
        g.write("root", "DELETE", "/api/v2/hosts/web2.example.com", &Value::Null)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let gone = g.server.ask("GET", "/v1/hosts/web2.example.com").send().await.unwrap();
    let text = gone.text().await.unwrap();
    assert!(text.starts_with("Resource hosts/web2.example.com was deleted in revision "), "{text}");
    g.server.stop().await;
}

/// HostDB has one set of names for users and groups: who is made after the rule is who it meant.
#[tokio::test]
async fn perms_mean_the_group_that_is_made_later() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    let put = g.server.ask("PUT", "/v1/dns/example.com/perms").bearer_auth(bearer("root"));
    let put = put.header("content-type", "application/x-www-form-urlencoded");
    let put =
        put.body("log=why&value=ops: {data: RW}\nann: {data: RW}\nweb: {data: RO}\n").send().await.unwrap();
    assert_eq!(put.status(), 201);
    let can = async |user: &str| {
        let asked = g.server.ask("GET", &format!("/v1/auth/can_modify?user={user}&id=dns/example.com"));
        asked.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!((can("carl").await, can("ops").await, can("ann").await), ("0".into(), "1".into(), "1".into()));
    g.put(&[("access/groups/ops", json!({"members": ["carl"]}))]).await;
    // A group that is called like a user who was there is not who was meant.
    g.put(&[("access/groups/ann", json!({"members": ["bob"]}))]).await;
    assert_eq!((can("carl").await, can("bob").await), ("1".into(), "0".into()));
    let shown =
        g.server.ask("GET", "/v1/dns/example.com/perms").bearer_auth(bearer("root")).send().await.unwrap();
    let shown = shown.text().await.unwrap();
    assert_eq!(shown.matches("ops").count(), 1, "{shown}");
    assert!(shown.contains("web:") && !shown.contains('@'), "{shown}");
    g.server.stop().await;
}
