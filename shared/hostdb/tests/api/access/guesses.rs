//! What is kept from somebody is not guessed either: not by writes that do nothing, not by conditions, not by another's keys, not as
//! nobody.

use super::*;

/// Whoever may not read a document learns nothing by a write that would change nothing if they guessed right.
#[tokio::test]
async fn writes_that_change_nothing_tell_nothing() {
    let g = Guarded::new().await;
    let key = "lb/secret";
    for who in ["dns", "vm", "carl"] {
        for edit in [
            json!({"edit": "patch", "key": key, "patch": {"document": {"key": "planted"}}}),
            json!({"edit": "patch", "key": key, "patch": {"document": {"key": "guessed"}}}),
            json!({"edit": "put_tag", "tag": key, "document": {"key": "planted"}}),
            json!({"edit": "put_tag", "tag": key, "document": {"key": "guessed"}, "expect": "absent"}),
            json!({"edit": "add_members", "tag": key, "members": ["web1.example.com"]}),
            json!({"edit": "add_members", "tag": key, "members": ["web2.example.com"]}),
            json!({"edit": "remove_members", "tag": key, "members": ["web2.example.com"]}),
            json!({"edit": "set_members", "tag": key, "members": ["web1.example.com"]}),
            json!({"edit": "delete", "key": key, "expect": {"at": 1}}),
            json!({"edit": "rename", "from": key, "to": "lb/web"}),
            json!({"edit": "row", "key": "lb/secret/members/web1.example.com", "value": {}}),
            json!({"edit": "write", "key": "access/users/ann", "value": {}}),
            json!({"edit": "delete", "key": "access/users/nobody"}),
        ] {
            for path in ["/api/v2/commits", "/api/v2/commits?plan"] {
                let body = json!({"edits": [edit], "author": who, "message": "m"});
                let (status, said) = g.post(who, path, &body).await;
                assert_eq!(status, 403, "{who} {edit}: {said}");
                let rule = said["rule"].as_str().unwrap();
                let named = ["access/rules/lb/secret: *", "built-in: access/ is for administrators"];
                assert!(named.iter().any(|name| rule.starts_with(name)), "{who} {edit}: {said}");
            }
        }
        for (header, value) in [("if-match", "\"1\""), ("if-none-match", "*")] {
            let put = g.write(who, "PUT", "/api/v2/tags/lb/secret", &json!({"document": {"key": "planted"}}));
            refused(put.header(header, value), 403, "denied", &["access/rules/lb/secret"]).await;
        }
    }
    // What an agent may read it may find as it wants it.
    let same = json!({"edit": "patch", "key": "lb/web", "patch": {"document": {"port": 80}}});
    let body = json!({"edits": [same], "author": "dns", "message": "m"});
    assert_eq!(g.post("dns", "/api/v2/commits", &body).await.0, 200);
    g.server.stop().await;
}

/// The same through HostDB's own interface: what a write inside a document comes to is not said to who may not write there.
#[tokio::test]
async fn writes_through_hostdb_v1_tell_nothing() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    g.put(&[("access/rules/hosts/hid.example.com", json!({"allow": {"root": "rw", "*": "none"}}))]).await;
    let document = json!({"a": {"b": 1}, "l": ["10.1.2.3"], "s": "text"});
    g.edits(vec![
        json!({"edit": "put_tag", "tag": "lb/secret", "document": document, "members": ["web1.example.com"]}),
        json!({"edit": "put_host", "host": "hid.example.com", "document": document}),
    ])
    .await;
    let say = async |who: &str, method: &str, path: &str, form: &str| {
        let (kind, form) =
            ("application/x-www-form-urlencoded", format!("log=why&session={}{form}", bearer(who)));
        let answer = g.server.ask(method, path).header("content-type", kind).body(form).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for who in ["dns", "vm", "bob", "carl", "ann"] {
        for object in ["lb/secret", "lb/nothing", "hosts/hid.example.com", "hosts/none.example.com"] {
            if who == "ann" && !matches!(object, "lb/secret" | "hosts/hid.example.com") {
                continue;
            }
            // Agents read what no rule keeps from them, and are told what stands there.
            if matches!(who, "dns" | "vm") && object.contains("no") {
                continue;
            }
            let mut said = Vec::new();
            for (method, inside, form) in [
                ("PUT", "", "&value=a: 1"),
                ("POST", "", "&newname=x.example.com"),
                ("DELETE", "", ""),
                ("PUT", "/a/b", "&value=1"),
                ("PUT", "/a/b/x", "&value=1"),
                ("PUT", "/c/x", "&value=1"),
                ("PUT", "/s/x", "&value=1"),
                ("POST", "/a/b", "&newname=c"),
                ("POST", "/a/c", "&newname=b"),
                ("DELETE", "/a/b", ""),
                ("DELETE", "/a/c", ""),
                ("DELETE", "/l/10.1.2.3", ""),
                ("DELETE", "/l/10.1.2.4", ""),
            ] {
                let (status, text) = say(who, method, &format!("/v1/{object}{inside}"), form).await;
                assert_eq!(status, 403, "{who} {method} {object}{inside}: {text}");
                said.push(text);
            }
            assert!(said.iter().all(|one| *one == said[0]), "{who} {object}: {said:?}");
        }
        let mut said = Vec::new();
        for (method, member, form) in [
            ("PUT", "", "&value=web1.example.com"),
            ("DELETE", "", ""),
            ("PUT", "/web1.example.com", ""),
            ("PUT", "/web2.example.com", ""),
            ("POST", "/web1.example.com", "&newname=web2.example.com"),
            ("POST", "/x.example.com", "&newname=web1.example.com"),
            ("POST", "/x.example.com", "&newname=web2.example.com"),
            ("DELETE", "/web1.example.com", ""),
            ("DELETE", "/web2.example.com", ""),
        ] {
            let (status, text) = say(who, method, &format!("/v1/lb/secret/members{member}"), form).await;
            assert_eq!(status, 403, "{who} {method} {member}: {text}");
            said.push(text);
        }
        assert!(said.iter().all(|one| *one == said[0]), "{who}: {said:?}");
    }
    // Who may write there is told what is wrong with it.
    for (method, inside, status) in [("DELETE", "a/c", 404), ("PUT", "s/x", 404), ("DELETE", "a/b", 200)] {
        let (found, text) = say("root", method, &format!("/v1/lb/secret/{inside}"), "&value=1").await;
        assert_eq!(found, status, "{inside}: {text}");
    }
    g.server.stop().await;
}

/// What goes with a host, or moves with it, is theirs to read who says so row by row.
#[tokio::test]
async fn what_goes_along_is_not_guessed() {
    let g = Guarded::new().await;
    g.put(&[("access/rules/facts/vm", json!({"allow": {"root": "rw", "*": "none"}}))]).await;
    for fact in ["facts/vm/web1.example.com", "facts/vm/web2.example.com"] {
        for row in [
            json!({"edit": "row", "key": fact, "value": null}),
            json!({"edit": "row", "key": "facts/dns/x", "value": {"up": true}, "moved": fact}),
        ] {
            let body = json!({"edits": [row], "author": "ann", "message": "m"});
            let (status, said) = g.post("ann", "/api/v2/commits", &body).await;
            assert_eq!(
                (status, said["rule"].as_str().map(|r| r.contains("facts/vm"))),
                (403, Some(true)),
                "{said}"
            );
        }
    }
    // A host that goes takes them along all the same.
    let gone = g.write("root", "DELETE", "/api/v2/hosts/web1.example.com", &Value::Null);
    assert_eq!(gone.send().await.unwrap().status(), 200);
    g.server.stop().await;
}

/// A key that somebody else used is as good as a new one.
#[tokio::test]
async fn an_idempotency_key_is_ones_own() {
    let g = Guarded::new().await;
    let commit = async |who: &str, port: u32, key: &str| {
        let edit = json!({"edit": "put_tag", "tag": "lb/web", "document": {"port": port}});
        let body = json!({"edits": [edit], "author": "ann", "message": "m", "idempotency": key});
        g.post(who, "/api/v2/commits", &body).await
    };
    let (status, first) = commit("ann", 81, "k").await;
    assert_eq!((status, &first["replayed"]), (201, &json!(false)), "{first}");
    let (_, again) = commit("ann", 81, "k").await;
    assert_eq!((&again["replayed"], &again["revision"]), (&json!(true), &first["revision"]), "{again}");
    // An administrator who speaks for ann, and somebody of her group.
    for (who, port) in [("root", 82), ("dora", 83)] {
        let (status, said) = commit(who, port, "k").await;
        assert_eq!((status, &said["replayed"]), (201, &json!(false)), "{who}: {said}");
    }
    // Of one's own one is told, by the name that one gave it.
    let (status, said) = commit("ann", 84, "k").await;
    assert!(status == 422 && said["detail"].as_str().unwrap().contains("\"k\""), "{status} {said}");
    let long = "k".repeat(5000);
    let (status, said) = commit("ann", 85, &long).await;
    assert!(status == 422 || status == 400, "{status} {said}");
    g.server.stop().await;
}

/// One rule for `anonymous` opens what it names, and nothing that names no key.
#[tokio::test]
async fn a_rule_for_anonymous_opens_no_other_door() {
    let g = Guarded::new().await;
    g.put(&[("access/rules/dns", json!({"allow": {"anonymous": {"data": "ro"}, "*": "ro"}}))]).await;
    let document = g.server.get("/api/v2/openapi.json").await;
    let mut answered = Vec::new();
    for (method, path, entry) in operations(&document) {
        if method != "GET" || entry["security"] == json!([]) {
            continue;
        }
        let at = example(&document, path, entry);
        let query = routes::query(&format!("GET {path}"));
        let response = g.server.ask("GET", &format!("{at}{query}")).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        if status == 200 && !text.contains("\"items\":[]") {
            assert!(
                !["lb", "planted", "192.0.2.1", "place"].iter().any(|kept| text.contains(kept)),
                "{path}: {text}"
            );
            answered.push(path.to_owned());
        } else {
            assert!(matches!(status, 200 | 401 | 404), "{path}: {status} {text}");
        }
    }
    answered.sort();
    // Who one is, what one may, what the rule names, and of lists what is of that.
    let named = [
        "/api/v2/approvals",
        "/api/v2/approvals/{rest}",
        "/api/v2/can",
        "/api/v2/commits",
        "/api/v2/diff",
        "/api/v2/effective/{ns}/{key}",
        "/api/v2/tags",
        "/api/v2/tags/{ns}",
        "/api/v2/whoami",
    ];
    assert_eq!(answered, named);
    for path in ["/metrics", "/api/v2/store/head"] {
        refused(g.server.ask("GET", path), 401, "unauthenticated", &[path]).await;
    }
    g.server.stop().await;
}

/// What is wrong with a login is said without what was sent.
#[tokio::test]
async fn a_login_that_is_refused_repeats_nothing() {
    let g = Guarded::new().await;
    let json = "application/json";
    for (kind, body) in [
        (json, r#"{"user": "ann", "password": 73577357}"#),
        (json, r#"{"user": "ann", "password": ["73577357"]}"#),
        (json, r#"{"user": "ann", "73577357": "password"}"#),
        (json, r#"{"user": "ann", "password": "73577357"#),
        (json, r#"["ann", "73577357"]"#),
        (json, r#""73577357""#),
        ("application/yaml", "user: ann\npassword: 73577357\n"),
        ("application/yaml", "user: ann\npassword: [73577357\n"),
    ] {
        let login = g.server.ask("POST", "/api/v2/sessions").header("content-type", kind).body(body);
        let response = login.send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert!(status == 400 || status == 422, "{body}: {status} {text}");
        assert!(!text.contains("7357"), "{body}: {text}");
        assert!(text.contains("password"), "it says what to send: {text}");
    }
    g.server.stop().await;
}
