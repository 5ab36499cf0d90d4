//! What the pools of an HAProxy become.

use serde_json::{Value, json};
use shoal_core::{Document, HostId, Key, Kind, Revision, Row};

use super::*;

const MAPPING: &str = "name: fleet
pools:
  name: fleet-pools
  domain: example.com
  rename: [{host: old, to: web3.example.com}]
  skip: [local]
  tls: {/etc/ca.pem: internal}
  bind: 0.0.0.0
";

fn row(key: Key, value: Value) -> (Key, Row) {
    (key.clone(), Row { key, value: Some(Document::from(value)), revision: Revision(1), moved: None })
}

fn hosts() -> Rows {
    let host = |(n, document): (usize, Value)| {
        let name = format!("web{}.example.com", n + 1).parse().unwrap();
        row(Key::host(&name), json!({"id": format!("id{n}"), "state": "active", "document": document}))
    };
    let documents =
        [json!({"address": "192.0.2.1"}), json!({"address": "192.0.2.2"}), json!({"lb": {"port": 81}})];
    documents.into_iter().enumerate().map(host).collect()
}

/// Imports into the rows: what is noted.
fn import(rows: &mut Rows, pools: &Value) -> Vec<String> {
    let reading = read(&pools.to_string(), MAPPING).unwrap();
    let import = reading.against(rows, false, || HostId("none".to_owned())).unwrap();
    for change in import.changes {
        match change.value {
            Some(value) => rows.extend([row(change.key, value.value())]),
            None => drop(rows.remove(&change.key)),
        }
    }
    let again = reading.against(rows, false, || HostId("none".to_owned())).unwrap();
    assert!(again.changes.is_empty(), "a second import changes nothing: {:?}", again.changes);
    import.report.notes.iter().map(|note| format!("{}: {}", note.about, note.what)).collect()
}

fn members(rows: &Rows, tag: &str) -> Vec<String> {
    let of = |key: &Key| match key.kind() {
        Kind::Member(of, member) if of.as_str() == tag => Some(member.to_string()),
        _ => None,
    };
    rows.keys().filter_map(of).collect()
}

fn document(rows: &Rows, tag: &str) -> Value {
    rows[&Key::tag(&tag.parse().unwrap())].value.as_ref().unwrap().value()["document"].clone()
}

fn backend(servers: Value) -> Value {
    json!({"backends": {"web": {"servers": servers}}})
}

fn server(name: &str, options: &str) -> Value {
    let options: Vec<&str> = options.split_whitespace().collect();
    json!({"name": name, "address": name, "port": 80, "options": options})
}

#[test]
fn a_pool_says_what_its_backend_says() {
    let mut rows = hosts();
    let mut pools = backend(json!([
        server("web1", "check inter 1500 rise 1 fall 4 slowstart 30s"),
        {"name": "any", "address": "192.0.2.2", "port": 80, "options": ["check", "inter", "2s", "rise", "1", "fall", "4", "slowstart", "30s"]},
        {"name": "old", "address": "old", "port": 81, "options": ["check", "inter", "2s", "rise", "1", "fall", "4", "slowstart", "30s"]},
        server("local", ""),
    ]));
    pools["backends"]["web"]["balance"] = json!("uri whole");
    pools["backends"]["web"]["httpchk"] = json!({"method": "GET", "path": "/up?now"});
    pools["frontends"] = json!({
        "www": {"bind_port": 80, "default_backend": "web"}, "more": {"bind_port": 8080, "default_backend": "web"}});
    let notes = import(&mut rows, &pools);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(members(&rows, "lb/web"), ["web1.example.com", "web2.example.com", "web3.example.com"]);
    let expected = json!({
        "protocol": "http", "balance": "uri", "port": 80, "slow_start": 30,
        "check": {"interval": 2, "rise": 1, "fall": 4, "path": "/up?now"},
        "frontends": ["0.0.0.0:8080", "0.0.0.0:80"]});
    assert_eq!(document(&rows, "lb/web"), expected);
}

#[test]
fn what_cannot_be_said_is_noted_and_left_out() {
    let mut rows = hosts();
    let mut pools = backend(json!([
        server("web1", "weight 5 ssl verify none backup check"), server("web2", "weight 5 inter soon"),
        server("gone", ""), {"name": "same", "address": "web1", "port": 80}, {"name": "x", "address": "192.0.2.9", "port": 80},
        {"name": "web3", "address": "web3", "port": 80, "options": ["weight", "7"]},
    ]));
    pools["backends"]["web"]["balance"] = json!("hdr(x)");
    pools["backends"]["Bad Name"] = json!({});
    pools["backends"]["odd"] = json!({"mode": "health"});
    pools["backends"]["empty"] = json!({});
    pools["frontends"] = json!({"stats": {"bind_port": 1, "default_backend": "stats"}, "none": {}});
    let notes = import(&mut rows, &pools);
    let parts = [
        "backend Bad Name: ",
        "backend empty: no server of it says a port",
        "backend odd: mode health",
        "backend web: balance hdr(x) is no word",
        "backend web: server web1: `ssl verify none` is left out",
        "backend web: server web2: inter \"soon\" cannot be read",
        "backend web: server gone: there is no host gone.example.com; left out",
        "backend web: server same: web1 is web1.example.com already",
        "backend web: server x: no host has the address 192.0.2.9; left out",
        "backend web: server web3: it is on port 80, the pool on 81 (`lb: {port: 80}`",
        "backend web: server web1: it is a backup: `lb: {backup: true}` at web1.example.com",
        "backend web: server web2: it is checked otherwise",
        "frontend none: it has no default_backend",
        "frontend stats: its backend stats is not there",
    ];
    assert_eq!(notes.len(), parts.len(), "{notes:#?}");
    for (note, part) in notes.iter().zip(parts) {
        assert!(note.starts_with(part), "{note:?} and {part:?}");
    }
    assert_eq!(members(&rows, "lb/web"), ["web1.example.com", "web2.example.com"]);
}

#[test]
fn weights_that_differ_are_said() {
    let mut rows = hosts();
    let notes = import(&mut rows, &backend(json!([server("web1", "weight 9"), server("web2", "weight 7")])));
    assert!(notes.len() == 1 && notes[0].contains("web1: its weight is 9, the pool's 7"), "{notes:?}");
    assert_eq!(document(&rows, "lb/web")["weight"], 7);
    let same = backend(json!([server("web1", "weight 9"), server("web2", "weight 9")]));
    assert!(import(&mut rows, &same).is_empty());
    assert_eq!(document(&rows, "lb/web").get("weight"), None);
}

#[test]
fn servers_reached_over_tls_are_said_where_the_mapping_knows_who_signs() {
    let over = |options: &str| {
        let mut rows = hosts();
        let notes = import(
            &mut rows,
            &backend(json!([
                server("web1", options),
                server("web2", "ssl verify required ca-file /etc/ca.pem")
            ])),
        );
        (document(&rows, "lb/web").get("tls").cloned(), notes)
    };
    assert_eq!(over("ca-file /etc/ca.pem verify required ssl"), (Some(json!("internal")), Vec::new()));
    for (options, noted) in [
        ("ssl verify none ca-file /etc/ca.pem", "`ssl verify none ca-file /etc/ca.pem` is left out"),
        (
            "ssl verify required ca-file /etc/other.pem",
            "`ssl verify required ca-file /etc/other.pem` is left out",
        ),
        ("verify required ca-file /etc/ca.pem", "`verify required ca-file /etc/ca.pem` is left out"),
    ] {
        let (tls, notes) = over(options);
        assert!(tls.is_none() && notes.len() == 2, "{notes:?}");
        assert!(
            notes[0].contains(noted)
                && notes[1].contains("web1: it is reached otherwise than by tls: internal"),
            "{notes:?}"
        );
    }
}

#[test]
fn backups_are_said_by_hosts() {
    let mut rows = hosts();
    let pools = backend(json!([server("web1", ""), server("web2", "backup")]));
    let notes = import(&mut rows, &pools);
    assert!(notes.len() == 1 && notes[0].contains("server web2: it is a backup"), "{notes:?}");
    let key = Key::host(&"web2.example.com".parse().unwrap());
    rows.extend([row(key, json!({"id": "id1", "state": "active", "document": {"lb": {"backup": true}}}))]);
    assert_eq!(import(&mut rows, &pools), Vec::<String>::new());
}

#[test]
fn a_name_that_nobody_can_read_takes_no_server_out() {
    let mut rows = hosts();
    import(&mut rows, &backend(json!([server("web1", ""), server("web2", "")])));
    let notes = import(&mut rows, &backend(json!([server("web1", ""), server("web2-new", "")])));
    assert!(notes.iter().any(|note| note.contains("lb/web: web2.example.com stays in")), "{notes:?}");
    assert_eq!(members(&rows, "lb/web"), ["web1.example.com", "web2.example.com"]);
    // A pool of which nothing can be told stays, too.
    let unknown = json!({"backends": {"web": {"mode": "new"}}});
    assert_eq!(import(&mut rows, &unknown).len(), 1);
    let pruned = read(&unknown.to_string(), MAPPING).unwrap();
    let pruned = pruned.against(&rows, true, || HostId("none".to_owned())).unwrap();
    assert!(pruned.changes.is_empty(), "{:?}", pruned.changes);
    // One that is not named any more goes, where all names are known.
    assert!(import(&mut rows, &backend(json!([server("web1", "")]))).is_empty());
    assert_eq!(members(&rows, "lb/web"), ["web1.example.com"]);
}

#[test]
fn a_pool_that_went_stays_until_it_is_pruned_and_what_people_wrote_stays_theirs() {
    let mut rows = hosts();
    import(&mut rows, &backend(json!([server("web1", "")])));
    let theirs = Key::member(&"lb/web".parse().unwrap(), &Member::host(&"web3.example.com".parse().unwrap()));
    rows.extend([row(theirs, json!({}))]);
    // Another server, and a field of the pool that somebody wrote.
    let tag = Key::tag(&"lb/web".parse().unwrap());
    let mut record = rows[&tag].value.as_ref().unwrap().value();
    record["document"]["least"] = json!(2);
    rows.extend([row(tag, record)]);
    assert!(import(&mut rows, &backend(json!([server("web2", "")]))).is_empty());
    assert_eq!(members(&rows, "lb/web"), ["web2.example.com", "web3.example.com"]);
    assert_eq!(document(&rows, "lb/web")["least"], 2);
    let none = read(r#"{"backends": {}}"#, MAPPING).unwrap();
    let against = |prune| none.against(&rows, prune, || HostId("none".to_owned())).unwrap();
    let kept = against(false);
    assert!(kept.changes.is_empty() && kept.report.vanished == ["lb/web"], "{:?}", kept.report);
    let pruned = against(true).report;
    assert!(pruned.notes.iter().any(|note| note.what.starts_with("not pruned: ")), "{pruned:?}");
}

#[test]
fn what_is_no_description_is_refused() {
    for bad in ["", "[]", "{}", r#"{"backends": {"web": {"servers": [{"name": "x"}]}}}"#] {
        assert!(matches!(read(bad, MAPPING), Err(ImportError::NotPools(_))), "{bad}");
    }
    let why = read(r#"{"backends": {}}"#, "name: fleet\n").unwrap_err().to_string();
    assert!(why.contains("pools: {name: …}"), "{why}");
    let same = MAPPING.replace("fleet-pools", "fleet");
    assert!(read(r#"{"backends": {}}"#, &same).unwrap_err().to_string().contains("each needs its own"));
}

#[test]
fn of_what_most_say_the_smaller_counts() {
    let most = |all: &[u16]| super::most(all.iter().copied());
    assert_eq!((most(&[]), most(&[2, 1, 2]), most(&[2, 1])), (None, Some(2), Some(1)));
}
