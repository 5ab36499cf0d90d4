//! Reading hosts, tags, members, facts and effective documents, now and at old revisions.

use std::sync::Arc;

use serde_json::{Value, json};
use shoal_core::{Change, Commit, Document};
use shoal_hostdb::Limits;
use shoal_store::{MemoryStore, Store};

use crate::harness::{Events, Running, refused};

pub(crate) fn change(key: &str, value: Value) -> Change {
    Change::put(key.parse().unwrap(), Document::from(value))
}

pub(crate) async fn commit(store: &dyn Store, changes: Vec<Change>) {
    let commit = Commit::new("ann", "because", changes);
    store.commit(commit).await.unwrap();
}

/// Three hosts and two tags, then one member less and one host less.
async fn fleet() -> Running {
    let store = Arc::new(MemoryStore::new());
    let host = |id: &str, document: Value| json!({"id": id, "document": document});
    let first = vec![
        change("hosts/web1.example.com", host("h1", json!({"address": "192.0.2.1", "site": "a"}))),
        change("hosts/web2.example.com", host("h2", json!({"site": "b", "dns": {"ttl": 9}}))),
        change("hosts/web3.example.com", host("h3", json!({"site": "b"}))),
        change("dns/example.com", json!({"owner": "net", "document": {"ttl": 300}})),
        change("dns/example.com/members/@inner", json!({})),
        change("dns/example.com/members/web1.example.com", json!({})),
        change("dns/inner", json!({"document": {"ttl": 60, "mail": true}})),
        change("dns/inner/members/select: site == 'b'", json!({})),
        change("facts/vm/web1.example.com", json!({"box": "b1"})),
    ];
    commit(&*store, first).await;
    commit(&*store, vec![Change::delete("dns/example.com/members/web1.example.com".parse().unwrap())]).await;
    commit(&*store, vec![Change::delete("hosts/web3.example.com".parse().unwrap())]).await;
    Running::on(store, Limits::default(), false).await
}

#[tokio::test]
async fn hosts_are_read_and_listed() {
    let server = fleet().await;
    let host = server.get("/api/v2/hosts/WEB1.example.com").await;
    let expected = json!({
        "host": "web1.example.com", "id": "h1", "state": "active",
        "document": {"address": "192.0.2.1", "site": "a"}, "revision": 1
    });
    assert_eq!(host, expected);
    let page = server.get("/api/v2/hosts?limit=1&revision=2").await;
    assert_eq!((&page["revision"], &page["next"]), (&json!(2), &json!("web1.example.com")));
    let rest = server.get("/api/v2/hosts?revision=2&after=web1.example.com").await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    assert_eq!(rest["next"], Value::Null);
    let yaml = server.ask("GET", "/api/v2/hosts/web1.example.com").header("accept", "application/yaml");
    let yaml = yaml.send().await.unwrap();
    assert_eq!(yaml.headers()["content-type"], "application/yaml");
    assert!(yaml.text().await.unwrap().contains("host: web1.example.com\n"));
    server.stop().await;
}

#[tokio::test]
async fn what_is_gone_says_when_it_went() {
    let server = fleet().await;
    let gone = server.ask("GET", "/api/v2/hosts/web3.example.com");
    let problem = refused(gone, 404, "not-found", &["web3.example.com was deleted in revision 3"]).await;
    assert_eq!(problem["deleted_in"], 3);
    assert_eq!(server.get("/api/v2/hosts/web3.example.com?revision=2").await["id"], "h3");
    refused(server.ask("GET", "/api/v2/hosts/web9"), 404, "not-found", &["there is no host web9"]).await;
    refused(
        server.ask("GET", "/api/v2/hosts/web1?revision=99"),
        404,
        "no-such-revision",
        &["99", "newest is 3"],
    )
    .await;
    refused(server.ask("GET", "/api/v2/hosts/-x-"), 400, "bad-request", &["\"-x-\" is not a host name"])
        .await;
    refused(server.ask("GET", "/api/v2/hosts?limit=0"), 400, "bad-request", &["1 to 10000"]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_tag_comes_with_its_members_and_changes_its_etag_with_them() {
    let server = fleet().await;
    let path = "/api/v2/tags/dns/example.com";
    let now = server.ask("GET", path).send().await.unwrap();
    assert_eq!(now.headers()["etag"], "\"r2\"", "losing a member is a change");
    let now: Value = now.json().await.unwrap();
    assert_eq!(now["members"], json!(["@inner"]));
    assert_eq!(
        server.get(&format!("{path}?revision=1")).await["members"],
        json!(["@inner", "web1.example.com"])
    );
    let fresh = server.ask("GET", path).header("if-none-match", "\"r1\", \"r2\"").send().await.unwrap();
    assert_eq!(fresh.status(), 304);
    let list = server.get("/api/v2/tags?limit=1").await;
    assert_eq!(
        (&list["items"][0]["tag"], &list["next"]),
        (&json!("dns/example.com"), &json!("dns/example.com"))
    );
    assert_eq!(server.get("/api/v2/tags/dns?after=dns/example.com").await["items"][0]["tag"], "dns/inner");
    server.stop().await;
}

/// A tag of very many members is not one answer: it says how many there are, and they come in pages.
#[tokio::test]
async fn a_tag_with_more_members_than_a_page_has_comes_without_them() {
    let store = Arc::new(MemoryStore::new());
    let host =
        |n: usize| change(&format!("hosts/h{n}.example.com"), json!({"id": format!("h{n}"), "document": {}}));
    let member = |n: usize| change(&format!("lb/web/members/h{n}.example.com"), json!({}));
    let tag = change("lb/web", json!({"owner": "net", "document": {"port": 80}}));
    commit(&*store, (0..6).map(host).chain((0..6).map(member)).chain([tag]).collect()).await;
    let limits = Limits { max_page: 5, ..Limits::default() };
    let server = Running::on(store.clone(), limits, false).await;
    let path = "/api/v2/tags/lb/web";
    let answer = server.ask("GET", path).send().await.unwrap();
    assert_eq!(answer.headers()["etag"], "\"r1\"");
    let mut tag: Value = answer.json().await.unwrap();
    let expected =
        json!({"tag": "lb/web", "owner": "net", "document": {"port": 80}, "members_total": 6, "revision": 1});
    assert_eq!(tag, expected);
    // Edited and sent back, it keeps them.
    tag["document"]["port"] = json!(443);
    let done = server.write("PUT", path, &tag).send().await.unwrap();
    assert!(done.status().is_success(), "{}", done.text().await.unwrap());
    assert_eq!(server.get(&format!("{path}/members")).await["items"].as_array().unwrap().len(), 5);
    // One member less fits.
    commit(&*store, vec![Change::delete("lb/web/members/h0.example.com".parse().unwrap())]).await;
    let tag = server.get(path).await;
    assert_eq!((tag["members"].as_array().unwrap().len(), &tag["revision"]), (5, &json!(3)));
    assert_eq!(tag["members_total"], Value::Null);
    assert_eq!(server.get(&format!("{path}?revision=1")).await["members_total"], 6);
    server.stop().await;
}

#[tokio::test]
async fn the_tags_of_a_host_and_above_a_tag_come_in_pages() {
    let server = fleet().await;
    let tags = server.get("/api/v2/hosts/web2.example.com/tags?limit=1").await;
    assert_eq!((tags["items"].as_array().unwrap().len(), &tags["next"]), (1, &json!("dns/example.com")));
    let rest = server.get("/api/v2/hosts/web2.example.com/tags?after=dns/example.com").await;
    assert_eq!((&rest["items"][0]["tag"], &rest["next"]), (&json!("dns/inner"), &Value::Null));
    assert_eq!(server.get("/api/v2/tags/dns/inner/parents?after=dns/example.com").await["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn members_are_direct_or_expanded() {
    let server = fleet().await;
    let path = "/api/v2/tags/dns/example.com/members";
    assert_eq!(server.get(path).await["items"], json!([{"member": "@inner", "revision": 1}]));
    let hosts = server.get(&format!("{path}?expand")).await;
    let expected = json!([{"host": "web2.example.com", "through": ["dns/inner"], "rule": "site == 'b'"}]);
    assert_eq!(hosts["items"], expected);
    let before = server.get(&format!("{path}?expand&revision=1&limit=2")).await;
    assert_eq!(before["next"], "web2.example.com");
    let rest = server.get(&format!("{path}?expand&revision=1&limit=2&after=web2.example.com")).await;
    assert_eq!(rest["items"][0]["host"], "web3.example.com");
    let rule = "/api/v2/tags/dns/inner/members/select:%20site%20==%20'b'";
    assert_eq!(server.get(rule).await["member"], "select: site == 'b'");
    let gone = server.ask("GET", &format!("{path}/web1.example.com"));
    refused(gone, 404, "not-found", &["was deleted in revision 2"]).await;
    let tags = server.get("/api/v2/hosts/web2.example.com/tags").await;
    assert_eq!(tags["items"][0]["tag"], "dns/example.com");
    assert_eq!(server.get("/api/v2/tags/dns/inner/parents").await["items"], json!(["dns/example.com"]));
    refused(server.ask("GET", "/api/v2/tags/dns/no/members"), 404, "not-found", &["there is no tag dns/no"])
        .await;
    server.stop().await;
}

#[tokio::test]
async fn effective_documents_name_the_origin_of_every_value() {
    let server = fleet().await;
    let path = "/api/v2/effective/dns/example.com?host=web2.example.com";
    let effective = server.get(path).await;
    assert_eq!(effective["value"], json!({"ttl": 9, "mail": true}));
    assert_eq!(effective["origins"]["/ttl"]["key"], "hosts/web2.example.com");
    assert_eq!(effective["origins"]["/mail"]["key"], "dns/inner");
    let stranger = server.ask("GET", "/api/v2/effective/dns/example.com?host=web1.example.com");
    refused(stranger, 404, "not-found", &["web1.example.com is not a member of tag dns/example.com"]).await;
    let before = server.get("/api/v2/effective/dns/example.com?host=web1.example.com&revision=1").await;
    assert_eq!(before["value"], json!({"ttl": 300}));
    let after = server.ask("GET", "/api/v2/effective/dns/example.com?revision=99");
    refused(after, 404, "no-such-revision", &["99"]).await;
    server.stop().await;
}

#[tokio::test]
async fn what_a_host_was_in_is_known_for_every_revision() {
    let server = fleet().await;
    let tags = async |host: &str, at: u64| {
        let list = server.get(&format!("/api/v2/hosts/{host}/tags?revision={at}")).await;
        assert_eq!(list["revision"], at);
        list["items"].as_array().unwrap().iter().map(|item| item["tag"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(tags("web1.example.com", 1).await, ["dns/example.com"]);
    assert_eq!(tags("web1.example.com", 2).await, Vec::<Value>::new());
    // Deleted by now: only its own past says that a rule selected it.
    assert_eq!(tags("web3.example.com", 2).await, ["dns/example.com", "dns/inner"]);
    let gone = server.ask("GET", "/api/v2/hosts/web3.example.com/tags?revision=3");
    refused(gone, 404, "not-found", &["web3.example.com was deleted in revision 3"]).await;
    let parents = server.get("/api/v2/tags/dns/inner/parents?revision=1").await;
    assert_eq!((&parents["revision"], &parents["items"]), (&json!(1), &json!(["dns/example.com"])));
    let none = server.get("/api/v2/tags/dns/inner/parents?revision=0").await;
    assert_eq!(none["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn facts_are_rows_of_their_own() {
    let server = fleet().await;
    let fact = server.get("/api/v2/facts/vm/web1.example.com").await;
    let expected = json!({"key": "facts/vm/web1.example.com", "document": {"box": "b1"}, "revision": 1});
    assert_eq!(fact, expected);
    assert_eq!(server.get("/api/v2/facts?prefix=facts/vm/").await["items"], json!([expected]));
    assert_eq!(server.get("/api/v2/pauses").await["items"], json!([]));
    refused(server.ask("GET", "/api/v2/facts?prefix=dns/"), 400, "bad-request", &["facts/"]).await;
    server.stop().await;
}

#[tokio::test]
async fn hosts_are_searched_by_an_expression() {
    let store = Arc::new(MemoryStore::new());
    let server = Running::on(store.clone(), Limits::default(), false).await;
    let host = |n: u64| {
        change(&format!("hosts/h{n}"), json!({"id": n.to_string(), "document": {"memory": n << 30}}))
    };
    commit(
        &*store,
        (0..9)
            .map(host)
            .chain([change("hosts/odd", json!({"id": "x", "document": {"memory": "much"}}))])
            .collect(),
    )
    .await;
    let by = async |query: &str| server.get(&format!("/api/v2/search?where={query}")).await;
    let first = by("memory%20%3E=%20gib(4)&limit=3").await;
    let names = |page: &serde_json::Value| {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|host| host["host"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&first), &first["next"], &first["revision"]),
        (vec!["h4".into(), "h5".into(), "h6".into()], &json!("h6"), &json!(1))
    );
    let rest = by("memory%20%3E=%20gib(4)&limit=3&after=h6").await;
    assert_eq!(names(&rest), ["h7", "h8"]);
    assert_eq!(
        (&rest["unsure"][0]["host"], &rest["unsure_total"], rest.get("next")),
        (&json!("odd"), &json!(1), None)
    );
    commit(&*store, vec![change("hosts/h8", json!({"id": "8"}))]).await;
    assert_eq!(names(&by("name%20==%20'h8'%20%26%26%20memory%20%3E%200&revision=1").await), ["h8"]);
    assert_eq!(names(&by("name%20==%20'h8'%20%26%26%20memory%20%3E%200").await), Vec::<String>::new());
    refused(server.ask("GET", "/api/v2/search?where=memory%20%3E"), 422, "invalid", &["column 9"]).await;
    refused(server.ask("GET", "/api/v2/search"), 400, "bad-request", &["?where="]).await;
    refused(server.ask("GET", "/api/v2/search?where=true&revision=99"), 404, "no-such-revision", &["99"])
        .await;
    server.stop().await;
}

#[tokio::test]
async fn history_is_told_newest_first() {
    let server = fleet().await;
    let log = server.get("/api/v2/commits?limit=2").await;
    assert_eq!((&log["items"][0]["revision"], &log["next"]), (&json!(3), &json!(2)));
    assert_eq!(log["items"][0]["keys"], json!(["hosts/web3.example.com"]));
    let rest = server.get("/api/v2/commits?before=2").await;
    assert_eq!((&rest["items"][0]["changed"], &rest["items"][0]["author"]), (&json!(9), &json!("ann")));
    let tag = server.get("/api/v2/history/dns/example.com").await;
    assert_eq!(tag["items"][0]["changes"][0]["key"], "dns/example.com/members/web1.example.com");
    assert_eq!(tag["items"][1]["changes"].as_array().unwrap().len(), 3);
    let commit = server.get("/api/v2/commits/2").await;
    assert_eq!(commit["message"], "because");
    refused(server.ask("GET", "/api/v2/commits/77"), 404, "not-found", &["77"]).await;
    server.stop().await;
}

/// A tag's document and its members are two ranges: that the newest commits are of one hides nothing of the other.
#[tokio::test]
async fn all_of_a_tags_history_is_told() {
    let store = Arc::new(MemoryStore::new());
    let server = Running::on(store.clone(), Limits::default(), false).await;
    commit(&*store, vec![change("lb/a", json!({}))]).await;
    for n in 0..3 {
        commit(&*store, vec![change(&format!("lb/a/members/web{n}"), json!({}))]).await;
    }
    let revisions = async |query: &str| {
        let log = server.get(&format!("/api/v2/history/lb/a{query}")).await;
        let all = log["items"].as_array().unwrap().iter().map(|e| e["revision"].as_u64().unwrap());
        (all.collect::<Vec<_>>(), log["next"].as_u64())
    };
    assert_eq!(revisions("").await, (vec![4, 3, 2, 1], None));
    assert_eq!(revisions("?limit=2").await, (vec![4, 3], Some(3)));
    assert_eq!(revisions("?limit=2&before=3").await, (vec![2, 1], None));
    server.stop().await;
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_after_the_server_was_restarted() {
    let store = Arc::new(MemoryStore::new());
    let server = Running::on(store.clone(), Limits::default(), false).await;
    let mut events = Events::open(server.ask("GET", "/api/v2/watch?prefix=dns/&after=0")).await;
    assert_eq!(events.next().await.unwrap().name, "upto");
    commit(&*store, vec![change("dns/a", json!({}))]).await;
    let seen = events.next_named("commit").await;
    assert_eq!(seen.data["changes"][0]["key"], "dns/a");
    server.stop().await;
    assert_eq!(events.next().await, None);
    commit(&*store, vec![change("dns/b", json!({})), change("lb/x", json!({}))]).await;
    let server = Running::on(store.clone(), Limits::default(), false).await;
    let again = server.ask("GET", "/api/v2/watch?prefix=dns/").header("last-event-id", &seen.id);
    let mut events = Events::open(again).await;
    let next = events.next().await.unwrap();
    assert_eq!(next.data["changes"], json!([{"key": "dns/b", "value": {}}]));
    // Another life of the database has another epoch: the client is told to read anew.
    let lost = server.ask("GET", "/api/v2/watch").header("last-event-id", "999-1");
    let reset = Events::open(lost).await.next().await.unwrap();
    assert_eq!((reset.name.as_str(), &reset.data["revision"]), ("reset", &json!(2)));
    refused(server.ask("GET", "/api/v2/watch?after=x"), 400, "bad-request", &["<epoch>-<revision>"]).await;
    server.stop().await;
}

#[tokio::test]
async fn an_inventory_is_written_and_mistakes_are_refused() {
    let server = fleet().await;
    let all = server.get("/api/v2/inventory?namespace=dns").await;
    assert_eq!(all["inner"], json!({"hosts": ["web2.example.com"], "vars": {"ttl": 60, "mail": true}}));
    assert_eq!(all["ungrouped"]["hosts"], json!(["web1.example.com"]));
    assert_eq!(all["_meta"]["hostvars"]["web2.example.com"], json!({"site": "b", "ttl": 9}));
    let some = server.get("/api/v2/inventory?where=site%20%3D%3D%20%27a%27").await;
    assert_eq!(some["_meta"]["hostvars"].as_object().unwrap().len(), 1);
    let path = "/api/v2/inventory";
    refused(server.ask("GET", &format!("{path}?where=a%20%3E")), 422, "invalid", &["column"]).await;
    refused(server.ask("GET", &format!("{path}?namespace=-")), 400, "bad-request", &["namespace"]).await;
    refused(server.ask("GET", &format!("{path}?limit=1")), 400, "bad-request", &["namespace, where"]).await;
    server.stop().await;
}

#[tokio::test]
async fn the_rows_around_a_host_are_picked() {
    let server = fleet().await;
    let keys = |page: Value| -> Vec<String> {
        let rows = page["rows"].as_array().unwrap().iter();
        rows.map(|row| row["key"].as_str().unwrap().to_owned()).collect()
    };
    let path = "/api/v2/store/around";
    let web2 = keys(server.get(&format!("{path}?host=web2.example.com")).await);
    let expected = [
        "dns/example.com",
        "dns/example.com/members/@inner",
        "dns/inner",
        "dns/inner/members/select: site == 'b'",
        "hosts/web2.example.com",
    ];
    assert_eq!(web2, expected);
    let web1 = keys(server.get(&format!("{path}?host=web1.example.com&revision=1")).await);
    let expected = [
        "dns/example.com",
        "dns/example.com/members/web1.example.com",
        "facts/vm/web1.example.com",
        "hosts/web1.example.com",
    ];
    assert_eq!(web1, expected);
    assert_eq!(keys(server.get(&format!("{path}?host=web3.example.com")).await), [""; 0]);
    refused(server.ask("GET", path), 400, "bad-request", &["?host="]).await;
    let late = format!("{path}?host=web1.example.com&revision=99");
    refused(server.ask("GET", &late), 404, "no-such-revision", &["99"]).await;
    server.stop().await;
}
