//! What is kept from somebody is not read by way of a tag of one's own: not by nesting, not by a rule, not by naming a host; and the tags of
//! others show no more of it.

use super::*;

impl Guarded {
    /// A host, facts and a tag that are kept from ann, who writes `lb/`.
    async fn with_secrets() -> Self {
        let g = Self::new().await;
        g.put(&[
            ("access/rules/hosts/hid.example.com", json!({"allow": {"root": "rw", "*": "none"}})),
            ("access/rules/facts/puppet", json!({"allow": {"root": "rw", "*": "none"}})),
        ])
        .await;
        g.edits(vec![
            json!({"edit": "put_host", "host": "hid.example.com", "document": {"pw": "abcd"}}),
            json!({"edit": "write", "key": "facts/puppet/web1.example.com", "value": {"family": "Debian"}}),
        ])
        .await;
        g
    }
}

fn edits(edits: &Value) -> Value {
    json!({"edits": edits, "author": "ann", "message": "m"})
}

#[tokio::test]
async fn a_member_names_only_what_its_writer_may_read() {
    let g = Guarded::with_secrets().await;
    let hidden = "access/rules/hosts/hid.example.com";
    for (member, rule) in [
        ("@secret", "access/rules/lb/secret"),
        ("@lb/secret", "access/rules/lb/secret"),
        ("hid.example.com", hidden),
        ("select: pw.startsWith(\"a\")", hidden),
        ("select: facts.puppet.family == \"Debian\"", hidden),
    ] {
        for edit in [
            json!({"edit": "add_members", "tag": "lb/web", "members": [member]}),
            json!({"edit": "set_members", "tag": "lb/web", "members": ["web1.example.com", member]}),
            json!({"edit": "put_tag", "tag": "lb/oracle", "document": {}, "members": [member]}),
            json!({"edit": "patch", "key": "lb/web", "patch": {"members": [member]}}),
            json!({"edit": "row", "key": format!("lb/web/members/{member}"), "value": {}}),
        ] {
            for path in ["/api/v2/commits", "/api/v2/commits?plan"] {
                let (status, said) = g.post("ann", path, &edits(&json!([edit]))).await;
                assert_eq!(status, 403, "{edit}: {said}");
                assert!(said["rule"].as_str().unwrap().starts_with(rule), "{edit}: {said}");
                assert!(said["attempted"].as_str().unwrap().contains("write the member"), "{said}");
            }
        }
    }
    // A host that is not there is refused in the same way, where its name is kept from them.
    g.put(&[("access/rules/hosts/nil.example.com", json!({"allow": {"*": "none"}}))]).await;
    let add = json!({"edit": "add_members", "tag": "lb/web", "members": ["nil.example.com"]});
    assert_eq!(g.post("ann", "/api/v2/commits", &edits(&json!([add]))).await.0, 403);
    // A proposal of it, too.
    let row = json!({"proposer": "ann", "state": "open", "at": Timestamp::now(), "message": "m", "ground": {"lb/gold/members/@secret": 0},
        "changes": [{"key": "lb/gold/members/@secret", "value": {}}]});
    let edit = json!({"edit": "write", "key": "access/reviews/one", "value": row});
    let (status, said) = g.post("ann", "/api/v2/commits", &edits(&json!([edit]))).await;
    assert_eq!(status, 403, "{said}");
    g.server.stop().await;
}

#[tokio::test]
async fn a_rule_is_written_by_who_reads_what_it_reads() {
    let g = Guarded::with_secrets().await;
    g.delete("access/rules/hosts/hid.example.com").await;
    let add = async |member: &str| {
        let edit = json!({"edit": "add_members", "tag": "lb/web", "members": [member]});
        g.post("ann", "/api/v2/commits", &edits(&json!([edit]))).await
    };
    for member in
        ["select: facts.puppet.family == \"x\"", "select: size(facts) > 1", "select: facts[name].up"]
    {
        let (status, said) = add(member).await;
        let rule = said["rule"].as_str().unwrap_or_default();
        assert!(status == 403 && rule.starts_with("access/rules/facts/puppet"), "{member}: {status} {said}");
    }
    for member in ["select: has(host.pw)", "select: facts.vm.up == true", "@gold", "web2.example.com"] {
        let (status, said) = add(member).await;
        assert_eq!(status, 201, "{member}: {said}");
    }
    // The tag takes it along to another name, and what stands is written again with the others.
    g.edits(vec![
        json!({"edit": "add_members", "tag": "lb/web", "members": ["select: facts.puppet.family == \"x\""]}),
    ])
    .await;
    let set = json!({"edit": "set_members", "tag": "lb/web", "members": ["select: facts.puppet.family == \"x\"", "web1.example.com"]});
    let rename = json!({"edit": "rename", "from": "lb/web", "to": "lb/front"});
    for edit in [set, rename] {
        let (status, said) = g.post("ann", "/api/v2/commits", &edits(&json!([edit]))).await;
        assert_eq!(status, 201, "{said}");
    }
    g.server.stop().await;
}

#[tokio::test]
async fn a_token_of_one_namespace_puts_hosts_into_its_tags() {
    let g = Guarded::with_secrets().await;
    g.token("lb", "ann", json!({"scope": {"namespaces": ["lb"]}})).await;
    let add = async |member: &str| {
        let edit = json!({"edit": "add_members", "tag": "lb/web", "members": [member]});
        g.post("lb", "/api/v2/commits", &edits(&json!([edit]))).await
    };
    assert_eq!(add("web2.example.com").await.0, 201);
    for (member, rule) in [
        ("hid.example.com", "access/rules/hosts/hid.example.com"),
        ("@dns/example.com", "access/tokens/lb"),
        ("select: has(host.pw)", "access/tokens/lb"),
    ] {
        let (status, said) = add(member).await;
        assert!(status == 403 && said["rule"].as_str().unwrap().starts_with(rule), "{member}: {said}");
    }
    g.server.stop().await;
}

#[tokio::test]
async fn the_tags_of_others_show_no_more_than_one_may_read() {
    let g = Guarded::with_secrets().await;
    g.edits(vec![
        json!({"edit": "put_tag", "tag": "lb/probe", "document": {}, "members": ["@secret"]}),
        json!({"edit": "put_tag", "tag": "lb/all", "document": {}, "members": ["select: true"]}),
    ])
    .await;
    let tags = g.get("ann", "/api/v2/hosts/web1.example.com/tags").await;
    assert!(!tags.to_string().contains("secret") && !tags.to_string().contains("lb/probe"), "{tags}");
    assert_eq!(tags["hidden"], 2, "{tags}");
    for path in ["/api/v2/tags/lb/probe/members?expand", "/api/v2/effective/lb/probe?host=web1.example.com"] {
        refused(g.ask("ann", "GET", path), 403, "denied", &["access/rules/lb/secret"]).await;
    }
    let all = g.get("ann", "/api/v2/tags/lb/all/members?expand").await;
    let hosts: Vec<&str> =
        all["items"].as_array().unwrap().iter().map(|i| i["host"].as_str().unwrap()).collect();
    assert_eq!((hosts, &all["hidden"]), (vec!["web1.example.com", "web2.example.com"], &json!(1)));
    // No page ends with a name that is kept from them.
    for path in ["/api/v2/tags/lb/all/members?expand&limit=1", "/api/v2/hosts?limit=1"] {
        let (mut after, mut seen) = (String::new(), Vec::new());
        loop {
            let page = g.get("ann", &format!("{path}{after}")).await;
            assert!(!page.to_string().contains("hid.example.com"), "{page}");
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|i| i["host"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(seen, ["web1.example.com", "web2.example.com"], "{path}");
    }
    g.server.stop().await;
}

/// Who changes a nested tag alone changes who is in the one that nests it; and a pause holds up what two people agreed on.
#[tokio::test]
async fn what_is_protected_nests_only_such_and_is_not_paused_alone() {
    let g = Guarded::new().await;
    let commit = async |edit: Value| g.post("root", "/api/v2/commits", &edits(&json!([edit]))).await;
    let propose = async |member: &str| {
        let key = format!("lb/gold/members/{member}");
        let row = json!({"proposer": "root", "state": "open", "at": Timestamp::now(), "message": "m",
            "ground": {&key: 0}, "changes": [{"key": &key, "value": {}}]});
        commit(json!({"edit": "write", "key": format!("access/reviews/{}", &member[1..]), "value": row}))
            .await
    };
    let (status, said) = propose("@web").await;
    assert_eq!(status, 403, "{said}");
    assert!(said["hint"].as_str().unwrap().contains("shoal acl set lb/web --protected"), "{said}");
    g.put(&[("access/rules/lb/web", json!({"protected": true}))]).await;
    let (status, said) = propose("@web").await;
    assert_eq!(status, 201, "{said}");
    let pause = |key: &str| json!({"edit": "write", "key": key, "value": {"why": "x"}});
    let (status, said) = commit(pause("pauses/tag/lb/gold")).await;
    assert!(status == 403 && said["rule"] == "access/rules/lb/gold: protected", "{said}");
    assert_eq!(commit(pause("pauses/tag/lb/other")).await.0, 201);
    // Nobody waits for another to stop an agent.
    g.put(&[("access/rules/lb", json!({"allow": {"*": "ro"}, "protected": true}))]).await;
    assert_eq!(commit(pause("pauses/agent/lb")).await.0, 201);
    g.server.stop().await;
}
