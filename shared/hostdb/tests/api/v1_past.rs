//! HostDB's own interface at an old revision: every GET with `revision=ID` answers as it did then.

use crate::hostdb_v1::V1;

/// A fleet at an old revision (the first part of the answer), which was made another one since.
async fn fleet_that_changed() -> (u64, V1) {
    let v1 = V1::fleet().await;
    v1.put("/v1/lb/front", "port: 80").await;
    v1.put("/v1/lb/front/members", "web1.domain.com").await;
    v1.put("/v1/tags/web_servers/perms", "ann: {data: RW, members: RO}").await;
    v1.put("/v1/hosts/.default/perms", "bob: {data: RO, members: RO}").await;
    let then = v1.newest("/v1/hosts/.default/perms").await;
    v1.put("/v1/hosts/web1.domain.com/Network/IP", "192.0.2.1").await;
    v1.put("/v1/hosts/web3.domain.com", "Network: {IP: 10.0.0.9}").await;
    v1.put("/v1/tags/web_servers/members", "web2.domain.com\nweb3.domain.com").await;
    v1.put("/v1/tags/web_servers", "kind: other").await;
    v1.put("/v1/tags/all_servers/members", "@web_servers").await;
    v1.put("/v1/tags/new", "").await;
    v1.put("/v1/tags/web_servers/perms", "ann: {data: RO, members: RO}").await;
    v1.delete("/v1/hosts/.default/perms").await;
    v1.delete("/v1/lb/front").await;
    v1.delete("/v1/hosts/db2.domain.com").await;
    (then, v1)
}

impl V1 {
    /// The number of the newest revision of this resource.
    async fn newest(&self, path: &str) -> u64 {
        let line = self.get(&format!("{path}?meta=revisions&limit=1")).await;
        line.split_once(" - ").expect(&line).0.parse().unwrap()
    }

    async fn delete(&self, path: &str) {
        let gone = self.ask("DELETE", &format!("{path}?session=ann&log=x")).send().await.unwrap();
        assert_eq!(gone.status(), 200, "{path}");
    }

    /// What this path answers as of `then`, and without a revision: `None` where it is 404.
    async fn both(&self, then: u64, path: &str) -> (Option<String>, Option<String>) {
        let with = format!("{path}{}revision={then}", if path.contains('?') { '&' } else { '?' });
        (self.maybe(&with).await, self.maybe(path).await)
    }

    async fn maybe(&self, path: &str) -> Option<String> {
        let answer = self.ask("GET", path).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status == 200 || status == 404, "{path}: {status} {text}");
        (status == 200).then_some(text)
    }

    /// That these paths answer so as of `then`, and so without a revision; `None`: 404.
    async fn tells(&self, then: u64, paths: &[(&str, Option<&str>, Option<&str>)]) {
        for (path, old, now) in paths {
            let owned = |text: &Option<&str>| text.map(str::to_owned);
            assert_eq!(self.both(then, path).await, (owned(old), owned(now)), "{path}");
        }
    }
}

#[tokio::test]
async fn lists_and_documents_are_those_of_the_revision() {
    let (then, v1) = fleet_that_changed().await;
    let (web, db) = ("web1.domain.com\nweb2.domain.com", "db1.domain.com\ndb2.domain.com");
    let network = "---\nIP: 10.0.0.0\nCNAME: web1-a.domain.com\n";
    v1.tells(
        then,
        &[
            ("/v1", Some("hosts\nlb\ntags"), Some("hosts\ntags")),
            ("/v1/", Some("hosts\nlb\ntags"), Some("hosts\ntags")),
            ("/v1/lb", Some("front"), None),
            (
                "/v1/tags",
                Some("all_servers\ndb_servers\nweb_servers"),
                Some("all_servers\ndb_servers\nnew\nweb_servers"),
            ),
            // In the order of names, and not in that in which they came.
            (
                "/v1/hosts",
                Some(&format!("{db}\n{web}")),
                Some("db1.domain.com\nweb1.domain.com\nweb2.domain.com\nweb3.domain.com"),
            ),
            ("/v1/lb/front", Some("---\nport: 80\n"), None),
            ("/v1/tags/web_servers", Some("---\nkind: web\n"), Some("---\nkind: other\n")),
            ("/v1/hosts/web1.domain.com/Network/IP", Some("--- 10.0.0.0\n"), Some("--- 192.0.2.1\n")),
            (
                "/v1/hosts/web1.domain.com/Network",
                Some(network),
                Some("---\nIP: 192.0.2.1\nCNAME: web1-a.domain.com\n"),
            ),
            ("/v1/hosts/web3.domain.com", None, Some("---\nNetwork:\n  IP: 10.0.0.9\n")),
        ],
    )
    .await;
}

#[tokio::test]
async fn members_parents_and_derived_are_those_of_the_revision() {
    let (then, v1) = fleet_that_changed().await;
    v1.tells(
        then,
        &[
            (
                "/v1/tags/web_servers/members",
                Some("web1.domain.com\nweb2.domain.com"),
                Some("web2.domain.com\nweb3.domain.com"),
            ),
            (
                "/v1/tags/all_servers/members",
                Some("db1.domain.com\ndb2.domain.com\nweb1.domain.com\nweb2.domain.com"),
                Some("web2.domain.com\nweb3.domain.com"),
            ),
            (
                "/v1/tags/all_servers/members?raw=true",
                Some("@db_servers\n@web_servers"),
                Some("@web_servers"),
            ),
            ("/v1/tags/all_servers/members/@db_servers", Some("@db_servers"), None),
            ("/v1/tags/web_servers/members/web1.domain.com", Some("web1.domain.com"), None),
            ("/v1/tags/web_servers/members/web3.domain.com", None, Some("web3.domain.com")),
            ("/v1/tags/new/members", None, Some("")),
            ("/v1/hosts/web1.domain.com?meta=parents&from=tags", Some("all_servers\nweb_servers"), Some("")),
            ("/v1/hosts/web1.domain.com?meta=parents&from=lb", Some("front"), Some("")),
            ("/v1/hosts/web3.domain.com?meta=parents&from=tags", None, Some("all_servers\nweb_servers")),
            ("/v1/hosts/db2.domain.com?meta=parents&from=tags", Some("all_servers\ndb_servers"), None),
            (
                "/v1/hosts/web2.domain.com?meta=derived&from=tags",
                Some("---\nall_servers: {}\nweb_servers:\n  kind: web\n"),
                Some("---\nall_servers: {}\nweb_servers:\n  kind: other\n"),
            ),
            (
                "/v1/hosts/db2.domain.com?meta=derived&from=tags",
                Some("---\nall_servers: {}\ndb_servers:\n  kind: db\n"),
                None,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn searches_and_many_keys_are_of_the_revision() {
    let (then, v1) = fleet_that_changed().await;
    v1.tells(
        then,
        &[
            (
                "/v1/hosts?search=^web",
                Some("web1.domain.com\nweb2.domain.com"),
                Some("web1.domain.com\nweb2.domain.com\nweb3.domain.com"),
            ),
            ("/v1/hosts/web1.domain.com?search=IP", Some("  IP: 10.0.0.0"), Some("  IP: 192.0.2.1")),
            ("/v1/hosts/web1.domain.com?search=192", Some(""), Some("  IP: 192.0.2.1")),
            ("/v1/tags/all_servers/members?search=db", Some("db1.domain.com\ndb2.domain.com"), Some("")),
            ("/v1/hosts/web1.domain.com?meta=parents&from=tags&search=^all", Some("all_servers"), Some("")),
            (
                "/v1/hosts/*/Network/IP?foreach=tags/web_servers/members",
                Some("---\nweb1.domain.com: 10.0.0.0\nweb2.domain.com: 10.0.0.1\n"),
                Some("---\nweb2.domain.com: 10.0.0.1\nweb3.domain.com: 10.0.0.9\n"),
            ),
            (
                "/v1/tags/*/members?foreach=tags&search=web_servers",
                Some("web_servers: web1.domain.com web2.domain.com"),
                Some("web_servers: web2.domain.com web3.domain.com"),
            ),
            ("/v1/lb/*?foreach=lb", Some("---\nfront:\n  port: 80\n"), None),
            ("/v1/hosts/*/Network/IP?foreach=tags/new/members", None, Some("--- {}\n")),
        ],
    )
    .await;
}

#[tokio::test]
async fn rules_are_those_of_the_revision() {
    let (then, v1) = fleet_that_changed().await;
    v1.tells(
        then,
        &[
            (
                "/v1/tags/web_servers/perms",
                Some("---\nann:\n  data: RW\n  members: RO\n"),
                Some("---\nann:\n  data: RO\n  members: RO\n"),
            ),
            ("/v1/hosts/.default/perms", Some("---\nbob:\n  data: RO\n  members: RO\n"), Some("")),
            ("/v1/lb/front/perms", Some(""), None),
            ("/v1/tags/new/perms", None, Some("")),
        ],
    )
    .await;
}

/// The numbers at the beginning of lines.
fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(|line| line.split_once(' ').expect(line).0.parse().unwrap()).collect()
}

#[tokio::test]
async fn revisions_end_at_the_revision() {
    let (then, v1) = fleet_that_changed().await;
    for path in [
        "/v1",
        "/v1/hosts",
        "/v1/lb",
        "/v1/lb/front",
        "/v1/hosts/web1.domain.com",
        "/v1/hosts/web1.domain.com/Network/IP",
        "/v1/hosts/db2.domain.com",
        "/v1/tags/web_servers",
        "/v1/tags/web_servers/members",
        "/v1/tags/web_servers/members/web1.domain.com",
        "/v1/tags/web_servers/perms",
        "/v1/hosts/.default/perms",
    ] {
        let (old, now) = v1.both(then, &format!("{path}?meta=revisions")).await;
        let (old, now) = (numbers(&old.expect(path)), numbers(&now.expect(path)));
        let expected: Vec<u64> = now.iter().copied().filter(|number| *number <= then).collect();
        assert!(!old.is_empty() && old == expected && old.len() < now.len(), "{path}: {old:?} of {now:?}");
        // The newest of then, and not those of now that are old enough.
        let newest = v1.get(&format!("{path}?meta=revisions&limit=1&revision={then}")).await;
        assert_eq!(numbers(&newest), old[..1], "{path}");
        let line = v1.get(&format!("{path}?meta=revisions&revision={then}&search=^{} ", old[0])).await;
        assert_eq!(numbers(&line), old[..1], "{path}");
    }
    // It is that revision itself that is the last, not the one before it.
    assert_eq!(numbers(&v1.get(&format!("/v1?meta=revisions&limit=1&revision={then}")).await), [then]);
    for path in ["/v1/hosts/web3.domain.com", "/v1/tags/new"] {
        let (old, now) = v1.both(then, &format!("{path}?meta=revisions")).await;
        assert!(old.is_none() && now.is_some(), "{path}: {old:?}");
    }
}

#[tokio::test]
async fn blame_is_of_the_revision() {
    let (then, v1) = fleet_that_changed().await;
    // Without who and when, which are the same throughout.
    let lines = |text: Option<String>| {
        text.map(|text| {
            let line = |line: &str| line.split_once(") ").expect(line).1.to_owned();
            text.lines().map(line).collect::<Vec<_>>()
        })
    };
    for (path, old, now) in [
        (
            "/v1/hosts/web1.domain.com",
            ["Network/IP: 10.0.0.0", "Network/CNAME: web1-a.domain.com"],
            ["Network/IP: 192.0.2.1", "Network/CNAME: web1-a.domain.com"],
        ),
        (
            "/v1/tags/web_servers/members",
            ["web1.domain.com", "web2.domain.com"],
            ["web2.domain.com", "web3.domain.com"],
        ),
    ] {
        let (then, today) = v1.both(then, &format!("{path}?meta=blame")).await;
        let (then, today) = (lines(then).unwrap(), lines(today).unwrap());
        let all = |found: &Vec<String>, expected: [&str; 2]| {
            expected.iter().all(|line| found.iter().any(|have| have == line))
        };
        assert!(all(&then, old) && !all(&then, now), "{path}: {then:?}");
        assert!(all(&today, now) && !all(&today, old), "{path}: {today:?}");
    }
    let inside = v1.both(then, "/v1/hosts/web1.domain.com/Network/IP?meta=blame").await;
    assert_eq!(lines(inside.0).unwrap(), ["Network/IP: 10.0.0.0"]);
    assert_eq!(lines(inside.1).unwrap(), ["Network/IP: 192.0.2.1"]);
    // Each line is of a revision that was there then.
    for path in ["/v1/hosts/web1.domain.com", "/v1/tags/web_servers/members", "/v1/tags/web_servers"] {
        let text = v1.get(&format!("{path}?meta=blame&revision={then}")).await;
        assert!(numbers(&text).iter().all(|number| *number <= then), "{path}: {text}");
    }
    for (path, there) in [
        ("/v1/hosts/db2.domain.com", (true, false)),
        ("/v1/lb/front", (true, false)),
        ("/v1/lb/front/members", (true, false)),
        ("/v1/hosts/web3.domain.com", (false, true)),
        ("/v1/tags/new/members", (false, true)),
    ] {
        let (then, now) = v1.both(then, &format!("{path}?meta=blame")).await;
        assert_eq!((then.is_some(), now.is_some()), there, "{path}");
    }
}

#[tokio::test]
async fn the_time_of_change_is_of_the_revision_and_none_is_invented() {
    let (then, v1) = fleet_that_changed().await;
    let mtime = async |path: &str| {
        let answer = v1.ask("GET", path).send().await.unwrap();
        answer.headers().get("mtime").map(|value| value.to_str().unwrap().parse::<i64>().unwrap())
    };
    let path = "/v1/hosts/web1.domain.com";
    let before = mtime(&format!("{path}?revision={then}")).await.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    v1.put(&format!("{path}/Network/IP"), "192.0.2.2").await;
    assert_eq!(mtime(&format!("{path}?revision={then}")).await, Some(before));
    assert!(mtime(path).await.unwrap() > before);
    // A number that is none yet is refused by all of them, and is not taken for now.
    for path in [
        "/v1",
        "/v1/tags",
        "/v1/hosts/web1.domain.com",
        "/v1/hosts/web1.domain.com/Network",
        "/v1/tags/web_servers/members",
        "/v1/tags/web_servers/members?raw=1",
        "/v1/tags/web_servers/members/web2.domain.com",
        "/v1/tags/web_servers/perms",
        "/v1/tags/.default/perms",
        "/v1/hosts/web1.domain.com?meta=parents&from=tags",
        "/v1/hosts/web1.domain.com?meta=derived&from=tags",
        "/v1/hosts/web1.domain.com?meta=revisions",
        "/v1/hosts/web1.domain.com?meta=blame",
        "/v1/tags/web_servers/members?meta=blame",
        "/v1/hosts/*/Network?foreach=hosts",
        "/v1/hosts?search=web",
    ] {
        for number in ["999999", "18446744073709551615", "1x"] {
            let with = format!("{path}{}revision={number}", if path.contains('?') { '&' } else { '?' });
            assert_eq!(v1.ask("GET", &with).send().await.unwrap().status(), 404, "{with}");
        }
    }
}
