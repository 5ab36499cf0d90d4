//! What is kept from somebody shows neither by how many were left out, nor by where a page ends, nor by why a write is refused.

use super::*;

/// Of one thing, how many are left out is the thing itself.
#[tokio::test]
async fn what_is_asked_about_one_thing_is_answered_or_refused() {
    let g = Guarded::new().await;
    for query in [
        "key=lb/secret",
        "key=lb/secret/members/web1.example.com",
        "key=access/users/bob",
        "prefix=lb/secret/members/",
        "prefix=access/users/",
        "tag=lb/secret",
        "naming=web1.example.com",
    ] {
        for path in [format!("/api/v2/commits?{query}"), format!("/api/v2/diff?from=0&{query}")] {
            let body = refused(g.ask("carl", "GET", &path), 403, "denied", &[]).await;
            assert!(body["rule"].as_str().is_some_and(|rule| !rule.is_empty()), "{path}: {body}");
            assert_eq!(g.ask("root", "GET", &path).send().await.unwrap().status(), 200, "{path}");
        }
    }
    // Of what is theirs, and of a whole namespace, they hear as before.
    for query in ["tag=lb/web", "key=hosts/web1.example.com", "prefix=lb/", "prefix=access/", "prefix="] {
        for path in [format!("/api/v2/commits?{query}"), format!("/api/v2/diff?from=0&{query}")] {
            assert_eq!(g.ask("carl", "GET", &path).send().await.unwrap().status(), 200, "{path}");
        }
    }
    // Who says nothing of themselves, with a rule that names them.
    g.put(&[("access/rules/dns", json!({"allow": {"anonymous": {"data": "ro"}, "*": "ro"}}))]).await;
    refused(g.server.ask("GET", "/api/v2/commits?key=lb/web"), 401, "unauthenticated", &[]).await;
    g.server.stop().await;
}

/// A commit of which nothing is for somebody is not shown to them, and the no is the same for each: neither the key nor the rule about it. Nor
/// does a proposal that is not for them say what it is about.
#[tokio::test]
async fn a_commit_of_which_nothing_is_shown_is_not_told_of() {
    let g = Guarded::new().await;
    let row = json!({"proposer": "root", "message": "planted", "at": "2026-01-01T00:00:00Z",
        "changes": [{"key": "lb/secret", "value": {}}], "ground": {"lb/secret": 1}, "state": "open"});
    g.put(&[("access/reviews/one", row)]).await;
    let mut paths = vec![format!("/api/v2/commits/{}", g.database.view().revision())];
    g.put(&[("access/rules/hr", json!({"allow": {"*": "none"}}))]).await;
    for edit in [
        json!({"edit": "put_tag", "tag": "lb/secret", "document": {"key": "another"}}),
        json!({"edit": "put_tag", "tag": "hr/salaries", "document": {}, "members": []}),
        json!({"edit": "write", "key": "access/users/eve", "value": {}}),
    ] {
        g.edits(vec![edit]).await;
        paths.push(format!("/api/v2/commits/{}", g.database.view().revision()));
    }
    let mut said = Vec::new();
    for path in &paths {
        let body = refused(g.ask("carl", "GET", path), 403, "denied", &[]).await;
        assert!(body["rule"].as_str().unwrap().starts_with("built-in: a commit is shown"), "{path}: {body}");
        let text = body.to_string();
        assert!(
            ["secret", "hr/", "salaries", "users/eve"].iter().all(|kept| !text.contains(kept)),
            "{path}: {text}"
        );
        said.push(body);
        assert_eq!(g.ask("root", "GET", path).send().await.unwrap().status(), 200, "{path}");
    }
    assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
    let one = refused(g.ask("carl", "GET", "/api/v2/access/reviews/one"), 403, "denied", &[]).await;
    let query = json!({"range": {"prefix": "access/reviews/"}, "limit": 10});
    let (status, range) = g.post("carl", "/api/v2/store/read", &query).await;
    assert_eq!(status, 403, "{range}");
    for body in [&one, &range] {
        assert!(body["rule"].as_str().unwrap().starts_with("built-in: a proposal is shown"), "{body}");
        assert!(!body.to_string().contains("secret"), "{body}");
    }
    // Who says nothing of themselves, where a rule names them, hears no more.
    g.put(&[("access/rules/dns", json!({"allow": {"anonymous": {"data": "ro"}, "*": "ro"}}))]).await;
    for path in &paths {
        let body = refused(g.server.ask("GET", path), 401, "unauthenticated", &[]).await;
        let text = body.to_string();
        assert!(
            ["secret", "hr/", "salaries", "users/eve"].iter().all(|kept| !text.contains(kept)),
            "{path}: {text}"
        );
    }
    g.server.stop().await;
}

#[tokio::test]
async fn what_is_counted_as_kept_does_not_say_where_it_stands() {
    let g = Guarded::new().await;
    let pause =
        |name: &str| json!({"edit": "write", "key": format!("pauses/tag/{name}"), "value": {"why": "x"}});
    g.edits(vec![pause("lb/secret"), pause("lb/web")]).await;
    for (path, names) in [
        ("tags", ["lb/secres", "lb/secret"]),
        ("tags/lb", ["lb/secres", "lb/secret"]),
        ("pauses", ["pauses/tag/lb/secres", "pauses/tag/lb/secret"]),
    ] {
        let ask = |more: String| {
            let g = &g;
            async move { g.get("carl", &format!("/api/v2/{path}?{more}")).await }
        };
        // Whatever a page holds, the list leaves out the same; and what follows a name says nothing of what stands before and after it.
        let (all, one) = (ask("limit=100".to_owned()).await, ask("limit=1".to_owned()).await);
        assert!(all["hidden"].as_u64() >= Some(1), "{path}: {all}");
        assert_eq!(all["hidden"], one["hidden"], "{path}");
        for name in names {
            for limit in [1, 100] {
                let page = ask(format!("limit={limit}&after={name}")).await;
                assert_eq!(page["hidden"], Value::Null, "{path} {name}: {page}");
            }
        }
        let (before, after) = (format!("limit=1&after={}", names[0]), format!("limit=1&after={}", names[1]));
        let (before, after) = (ask(before).await, ask(after).await);
        assert_eq!(before, after, "{path}");
    }
    g.server.stop().await;
}

/// Nor is the number of what stands below a place that somebody thinks of said: it would be whether anything does.
#[tokio::test]
async fn what_is_left_out_below_a_place_is_not_counted() {
    let g = Guarded::new().await;
    let none = json!({"allow": {"*": "none"}});
    g.put(&[("access/rules/hr", none.clone()), ("access/rules/facts/puppet", none)]).await;
    g.edits(vec![
        json!({"edit": "write", "key": "pauses/tag/hr/payroll", "value": {"why": "x"}}),
        json!({"edit": "write", "key": "approvals/hr/payroll", "value": {"digest": "x"}}),
        json!({"edit": "write", "key": "facts/puppet/web1.example.com", "value": {"up": true}}),
    ])
    .await;
    for (area, there, not) in
        [("pauses", "tag/hr", "tag/hq"), ("approvals", "hr", "hq"), ("facts", "puppet", "pippet")]
    {
        let list =
            async |prefix: &str| g.get("carl", &format!("/api/v2/{area}?prefix={area}/{prefix}/")).await;
        let (there, not) = (list(there).await, list(not).await);
        assert_eq!((&there["items"], &there["hidden"]), (&json!([]), &Value::Null), "{area}: {there}");
        assert_eq!(there, not, "{area}");
        assert!(g.get("carl", &format!("/api/v2/{area}")).await["hidden"].as_u64() > Some(0), "{area}");
    }
    g.server.stop().await;
}

/// The names of what agents work on are not spelled: a beginning that somebody thinks of is answered alike, whether something begins so or not.
#[tokio::test]
async fn claims_are_not_spelled() {
    let g = Guarded::new().await;
    g.put(&[("access/rules/hr", json!({"allow": {"*": "none"}}))]).await;
    for name in ["unit/hr/payroll", "unit/lb/web", "instances/hr", "instances/lb"] {
        let want = json!({"name": name, "of": 1, "holder": "h", "ttl": null});
        assert_eq!(g.post("root", "/api/v2/store/claim", &want).await.0, 200, "{name}");
    }
    for begin in ["unit/hr/", "unit/hr/p", "unit/hr/payroll", "unit/hr/q", "instances/hr/"] {
        for path in ["claims", "store/claims"] {
            let path = format!("/api/v2/{path}?name={begin}");
            let body = refused(g.ask("carl", "GET", &path), 403, "denied", &[]).await;
            assert!(body["rule"].as_str().unwrap().starts_with("access/rules/hr"), "{path}: {body}");
            assert!(!body.to_string().contains("payroll"), "{path}: {body}");
            assert_eq!(g.ask("root", "GET", &path).send().await.unwrap().status(), 200, "{path}");
        }
    }
    // What could be of that namespace is, to programs: all or nothing. People are shown what is theirs, and not how much is not.
    for begin in ["u", "unit/", "unit/h", "instances/h", "instances/hr", "instances/x", "unit/lb"] {
        let listed = g.get("carl", &format!("/api/v2/claims?name={begin}")).await;
        assert_eq!(listed["hidden"], Value::Null, "{begin}: {listed}");
        assert!(!listed.to_string().contains("hr"), "{begin}: {listed}");
        let whole = g.ask("carl", "GET", &format!("/api/v2/store/claims?name={begin}"));
        let (status, theirs) =
            (whole.send().await.unwrap().status(), !begin.contains("lb") && !begin.ends_with('x'));
        assert_eq!(status, if theirs { 403 } else { 200 }, "{begin}");
    }
    assert_eq!(g.get("carl", "/api/v2/claims").await["hidden"], 2);
    let own = g.get("carl", "/api/v2/store/claims?name=unit/lb/").await;
    assert_eq!(own["items"][0]["name"], "unit/lb/web", "{own}");
    // An agent finds its own kind, whatever is kept from it elsewhere.
    let kind = g.get("dns", "/api/v2/store/claims?name=instances/dns").await;
    assert_eq!(kind["items"], json!([]), "{kind}");
    g.server.stop().await;
}

#[tokio::test]
async fn no_page_ends_with_a_key_that_is_kept() {
    let g = Guarded::new().await;
    g.delete("access/rules/lb/secret").await;
    // Not about the facts of `vm`: about what stands before and after them.
    for namespace in ["puppet", "zfs"] {
        let key = format!("access/rules/facts/{namespace}");
        g.put(&[(key.as_str(), json!({"allow": {"root": "rw", "*": "none"}}))]).await;
        let fact = |n: u8| json!({"edit": "write", "key": format!("facts/{namespace}/h{n}.example.com"), "value": {}});
        g.edits((0..3).map(fact).collect()).await;
    }
    for limit in [1, 2, 5] {
        let (mut after, mut seen, mut hidden) = (String::new(), Vec::new(), 0);
        loop {
            let page = g.get("carl", &format!("/api/v2/facts?limit={limit}{after}")).await;
            let text = page.to_string();
            assert!(!text.contains("puppet") && !text.contains("zfs"), "{page}");
            seen.extend(page["items"].as_array().unwrap().iter().map(|i| i["key"].clone()));
            hidden += page["hidden"].as_u64().unwrap_or(0);
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!((seen, hidden), (vec![json!("facts/vm/web1.example.com")], 6), "{limit}");
    }
    for namespace in ["puppet", "zfs"] {
        g.delete(&format!("access/rules/facts/{namespace}")).await;
    }
    // Nor in pages of rows: what is below `access/` is no part of them.
    let whole = g.post("carl", "/api/v2/store/read", &json!({"range": "all", "limit": 1000})).await.1;
    for limit in [1, 3] {
        let (mut after, mut rows) = (Value::Null, Vec::new());
        loop {
            let query = json!({"range": "all", "limit": limit, "after": after});
            let (status, page) = g.post("carl", "/api/v2/store/read", &query).await;
            assert!(status == 200 && !page.to_string().contains("access/"), "{page}");
            let page_rows = page["rows"].as_array().unwrap();
            assert!(page_rows.len() <= limit, "{page}");
            rows.extend(page_rows.clone());
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
        }
        assert_eq!(json!(rows), whole["rows"], "{limit}");
    }
    g.server.stop().await;
}

/// A new name that is kept from somebody is not told by the old one.
#[tokio::test]
async fn what_was_renamed_does_not_say_where_it_went() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    g.put(&[
        ("access/rules/hosts/hid.example.com", json!({"allow": {"root": "rw", "*": "none"}})),
        ("access/rules/lb/hid", json!({"allow": {"root": "rw", "*": "none"}})),
    ])
    .await;
    // What a tag's members and facts say of a host is theirs who read those.
    g.edits(vec![
        json!({"edit": "remove_members", "tag": "dns/example.com", "members": ["web1.example.com"]}),
        json!({"edit": "set_members", "tag": "lb/web", "members": ["web2.example.com"]}),
        json!({"edit": "delete", "key": "facts/vm/web1.example.com"}),
        json!({"edit": "put_host", "host": "old.example.com", "document": {}}),
    ])
    .await;
    let before = g.database.view().revision();
    g.edits(vec![
        json!({"edit": "rename", "from": "hosts/web1.example.com", "to": "hosts/hid.example.com"}),
        json!({"edit": "rename", "from": "hosts/old.example.com", "to": "hosts/new.example.com"}),
        json!({"edit": "rename", "from": "lb/web", "to": "lb/hid"}),
    ])
    .await;
    while g.ask("root", "GET", "/api/v2/hosts/web1.example.com").send().await.unwrap().status() == 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tells = |text: &str| text.contains("hid.example.com") || text.contains("lb/hid");
    let (one, tag) = ("hosts/web1.example.com", "lb/web");
    let read = |key: &str| json!({"range": {"key": key}, "limit": 10, "tombstones": true});
    for path in [
        format!("/api/v2/{one}"),
        format!("/api/v2/{one}/tags"),
        format!("/api/v2/tags/{tag}"),
        format!("/api/v2/tags/{tag}/members"),
        format!("/api/v2/tags/{tag}/members?expand"),
        format!("/api/v2/history/{one}"),
        format!("/api/v2/history/{tag}"),
        format!("/api/v2/blame/{one}"),
        format!("/api/v2/commits/{}", g.database.view().revision()),
        format!("/api/v2/diff?from={before}"),
        format!("/api/v2/diff?from={before}&key={one}"),
        format!("/v1/{one}"),
        format!("/v1/{tag}"),
        format!("/v1/{tag}/members/web2.example.com"),
    ] {
        let answer = g.ask("carl", "GET", &path).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status == 200 || status == 404, "{path}: {status} {text}");
        assert!(!tells(&text), "{path}: {text}");
    }
    for key in [one, tag] {
        let (status, page) = g.post("carl", "/api/v2/store/read", &read(key)).await;
        assert!(status == 200 && !tells(&page.to_string()), "{page}");
        let (status, log) =
            g.post("carl", "/api/v2/store/log", &json!({"range": {"key": key}, "limit": 10})).await;
        assert!(status == 200 && !tells(&log.to_string()), "{log}");
        let (_, page) = g.post("root", "/api/v2/store/read", &read(key)).await;
        assert!(tells(&page.to_string()), "{page}");
    }
    // Where it went is said to who may read that.
    let moved = |who: &'static str, path: &'static str| {
        let g = &g;
        async move { refused(g.ask(who, "GET", path), 404, "not-found", &[]).await["moved_to"].clone() }
    };
    assert_eq!(moved("root", "/api/v2/hosts/web1.example.com").await, "hosts/hid.example.com");
    assert_eq!(moved("carl", "/api/v2/hosts/web1.example.com").await, Value::Null);
    assert_eq!(moved("carl", "/api/v2/hosts/old.example.com").await, "hosts/new.example.com");
    g.server.stop().await;
}

#[tokio::test]
async fn what_refuses_a_write_or_warns_of_it_is_named_to_who_may_read_it() {
    let g = Guarded::new().await;
    let port = json!({"type": "object", "properties": {"port": {"type": "integer"}, "weight": {"type": "integer"}, "key": {}}});
    g.put(&[("schemas/lb", json!({"tag": port, "host": {"type": "object"}}))]).await;
    for tag in ["one", "two", "both"] {
        let key = format!("access/rules/lb/{tag}");
        g.put(&[(key.as_str(), json!({"allow": {"root": "rw", "*": "none"}}))]).await;
    }
    g.edits(vec![
        json!({"edit": "remove_members", "tag": "dns/example.com", "members": ["web1.example.com"]}),
        json!({"edit": "remove_members", "tag": "lb/web", "members": ["web1.example.com"]}),
        json!({"edit": "put_tag", "tag": "lb/one", "document": {"port": 4711}, "members": ["web1.example.com"]}),
        json!({"edit": "put_tag", "tag": "lb/two", "document": {"port": 4712}, "members": ["web1.example.com"]}),
        json!({"edit": "put_tag", "tag": "lb/both", "document": {}, "members": ["@one", "@two"]}),
    ])
    .await;
    let kept = |said: &Value| {
        let text = said.to_string();
        ["secret", "lb/one", "lb/two", "lb/both", "4711", "4712"].iter().all(|name| !text.contains(name))
    };
    // A value that a tag of others refuses; the tags that are changed with it; and what they say of it that is no one answer.
    let broken = json!({"edit": "patch", "key": "hosts/web1.example.com", "patch": {"document": {"lb": {"port": "x"}}}});
    let gone = json!({"edit": "row", "key": "hosts/web1.example.com", "value": null});
    let deleted = json!({"edit": "delete", "key": "hosts/web1.example.com"});
    for (edit, status, code) in [(broken, 422, "effective"), (gone, 409, "named"), (deleted, 403, "")] {
        for path in ["/api/v2/commits?plan", "/api/v2/commits"] {
            let body = json!({"edits": [edit]});
            let (found, said) = g.post("ann", path, &body).await;
            assert!(found == status && kept(&said), "{path} {edit}: {found} {said}");
            assert!(said["detail"].as_str().unwrap().contains("kept from you"), "{said}");
            // An administrator hears it all.
            let (found, said) = if code.is_empty() { continue } else { g.post("root", path, &body).await };
            assert!(found == status && !kept(&said), "{said}");
            assert!(said["code"].as_str().unwrap().starts_with(code), "{said}");
        }
    }
    let weight = |n: u8| json!({"edits": [{"edit": "patch", "key": "hosts/web1.example.com", "patch": {"document": {"lb": {"weight": n}}}}]});
    for path in ["/api/v2/commits?plan", "/api/v2/commits"] {
        let (status, said) = g.post("ann", path, &weight(1)).await;
        assert!(status < 300 && kept(&said), "{said}");
        let (status, said) = g.post("root", path, &weight(2)).await;
        assert!(status < 300 && said["warnings"].to_string().contains("lb/both"), "{said}");
    }
    g.server.stop().await;
}

/// How many hosts and tags there are is said to who may read them all.
#[tokio::test]
async fn metrics_count_what_is_kept_for_nobody() {
    let g = Guarded::new().await;
    for (who, whole) in [("root", true), ("ann", false), ("none", false)] {
        let text = g.ask(who, "GET", "/metrics").send().await.unwrap().text().await.unwrap();
        assert!(text.contains("shoal_http_connections "), "{who}: {text}");
        for name in ["shoal_hostdb_hosts", "shoal_hostdb_tags", "shoal_hostdb_revision"] {
            assert_eq!(text.contains(name), whole, "{who} {name}: {text}");
        }
    }
    g.server.stop().await;
}

/// Below `/v1`, too, each refusal is counted, and each credential that is taken for none.
#[tokio::test]
async fn refusals_of_hostdb_v1_are_counted() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    let denied = async |why: &str| {
        let text = g.ask("root", "GET", "/metrics").send().await.unwrap().text().await.unwrap();
        let name = format!("shoal_hostdb_denied_total{{why=\"{why}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u32>().ok()).unwrap_or(0)
    };
    let put = || {
        let put = g.server.ask("PUT", "/v1/lb/web");
        put.header("content-type", "application/x-www-form-urlencoded").body("log=why&value=port: 1")
    };
    let get = |path: &str| g.server.ask("GET", path);
    for (request, why, status) in [
        (put(), "unauthenticated", 401),
        (get("/v1/auth/session"), "unauthenticated", 401),
        (get("/v1/auth/can_modify?user=ann&id=lb/secret"), "unauthenticated", 401),
        (get("/v1/lb/secret"), "denied", 403),
        (get("/v1/hosts/web1.example.com").bearer_auth("shoal_ann_guess"), "ignored", 200),
        (get("/v1/hosts/web1.example.com?session=shoal_ann_guess"), "ignored", 200),
    ] {
        let before = denied(why).await;
        let answer = request.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), denied(why).await),
            (status, before + 1),
            "{why} {}",
            answer.url()
        );
    }
    g.server.stop().await;
}
