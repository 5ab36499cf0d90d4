//! HostDB's own interface, as its clients use it: what its API_SPEC.md and its tests ask for.

use std::sync::Arc;

use reqwest::{RequestBuilder, Response};
use shoal_hostdb::Limits;
use shoal_store::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{PATIENCE, Running, SOONER};

pub(crate) struct V1(Running);

impl V1 {
    async fn new() -> Self {
        Self(Running::with_v1().await)
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> RequestBuilder {
        self.0.ask(method, path)
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let response = self.ask("GET", path).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {text}");
        text
    }

    /// A write as the clients send it: a form, with the reason and the session in it.
    async fn form(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
        let signed = [("log", "because"), ("session", "ann")];
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .extend_pairs(signed)
            .finish();
        let request = self.ask(method, path).header("content-type", "application/x-www-form-urlencoded");
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn put(&self, path: &str, value: &str) {
        let response = self.form("PUT", path, &[("value", value)]).await;
        let status = response.status();
        assert!(response.headers().contains_key("mtime"), "{path}");
        assert_eq!(status, 201, "{path}: {}", response.text().await.unwrap());
    }

    /// The head of the answer, as it comes over the wire: libraries hide the reason phrase.
    async fn head(&self, method: &str, path: &str) -> String {
        let address = self.0.url.strip_prefix("http://").unwrap();
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let ask = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(ask.as_bytes()).await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await.unwrap().unwrap();
        text.split_once("\r\n\r\n").unwrap().0.to_owned()
    }

    /// The fleet of HostDB's own test.
    pub(crate) async fn fleet() -> Self {
        let v1 = Self::new().await;
        for (i, host) in ["web1", "web2", "db1", "db2"].into_iter().enumerate() {
            let value =
                format!("---\nNetwork:\n  IP: 10.0.0.{i}\n  CNAME: {host}-a.domain.com\nroles: [x]\n");
            v1.put(&format!("/v1/hosts/{host}.domain.com"), &value).await;
        }
        for tag in ["web", "db"] {
            v1.put(&format!("/v1/tags/{tag}_servers"), &format!("--- \nkind: {tag}\n")).await;
            let members = format!("# by hand\n{tag}1.domain.com\n\n  {tag}2.domain.com \n");
            v1.put(&format!("/v1/tags/{tag}_servers/members"), &members).await;
        }
        v1.put("/v1/tags/all_servers", "").await;
        v1.put("/v1/tags/all_servers/members", "@web_servers\n@db_servers").await;
        v1
    }
}

#[tokio::test]
async fn a_fleet_is_written_and_read() {
    let v1 = V1::fleet().await;
    assert_eq!(v1.get("/v1").await, "hosts\ntags");
    assert_eq!(v1.get("/v1/").await, "hosts\ntags");
    assert_eq!(v1.get("/v1/tags").await, "all_servers\ndb_servers\nweb_servers");
    assert_eq!(v1.get("/v1/hosts?search=^web").await, "web1.domain.com\nweb2.domain.com");
    assert_eq!(
        v1.get("/v1/hosts/db1.domain.com").await,
        "---\nNetwork:\n  IP: 10.0.0.2\n  CNAME: db1-a.domain.com\nroles:\n  - x\n"
    );
    assert_eq!(v1.get("/v1/hosts/db1.domain.com/Network/IP").await, "--- 10.0.0.2\n");
    assert_eq!(v1.get("/v1/tags/all_servers").await, "--- {}\n");
    assert_eq!(v1.get("/v1/tags/all_servers/members?raw=true").await, "@db_servers\n@web_servers");
    assert_eq!(
        v1.get("/v1/tags/all_servers/members").await,
        "db1.domain.com\ndb2.domain.com\nweb1.domain.com\nweb2.domain.com"
    );
    assert_eq!(v1.get("/v1/tags/web_servers/members/web1.domain.com").await, "web1.domain.com");
    assert_eq!(v1.get("/v1/tags/all_servers/members/@db_servers").await, "@db_servers");
    assert_eq!(v1.get("/v1/hosts/db1.domain.com?meta=parents&from=tags").await, "all_servers\ndb_servers");
    assert_eq!(
        v1.get("/v1/hosts/web1.domain.com?meta=derived&from=tags").await,
        "---\nall_servers: {}\nweb_servers:\n  kind: web\n"
    );
    // What one interface writes the other reads.
    let other = v1.get("/api/v2/tags/tags/web_servers").await;
    assert!(other.contains("\"kind\":\"web\""), "{other}");
}

#[tokio::test]
async fn many_keys_at_once() {
    let v1 = V1::fleet().await;
    assert_eq!(
        v1.get("/v1/hosts/*/Network/IP?foreach=tags/db_servers/members").await,
        "---\ndb1.domain.com: 10.0.0.2\ndb2.domain.com: 10.0.0.3\n"
    );
    assert_eq!(
        v1.get("/v1/tags/*/members?foreach=tags").await,
        "---\nall_servers: db1.domain.com db2.domain.com web1.domain.com web2.domain.com\n\
         db_servers: db1.domain.com db2.domain.com\nweb_servers: web1.domain.com web2.domain.com\n"
    );
    assert!(v1.get("/v1/hosts/*/nothing?foreach=hosts").await.contains("db1.domain.com: ~"));
    let head = v1.head("GET", "/v1/hosts/web1.domain.com?foreach=tags").await;
    assert!(head.starts_with("HTTP/1.1 400 Put * in the place of the key"), "{head}");
}

#[tokio::test]
async fn renames_and_deletes_are_followed_into_every_tag() {
    let v1 = V1::fleet().await;
    let rename = |path: &'static str, to: &'static str| {
        let v1 = &v1;
        async move { v1.form("POST", path, &[("newname", to)]).await.status().as_u16() }
    };
    assert_eq!(rename("/v1/hosts/web1.domain.com", "web3.domain.com").await, 201);
    assert_eq!(v1.get("/v1/tags/web_servers/members").await, "web2.domain.com\nweb3.domain.com");
    assert_eq!(rename("/v1/hosts/web2.domain.com", "web3.domain.com").await, 400);
    assert_eq!(rename("/v1/tags/db_servers", "database_servers").await, 201);
    assert!(v1.get("/v1/tags/all_servers/members?raw=1").await.contains("@database_servers"));
    assert_eq!(rename("/v1/hosts/gone.domain.com", "x").await, 404);
    assert_eq!(rename("/v1/hosts/db1.domain.com/Network/CNAME", "cname").await, 201);
    assert_eq!(v1.get("/v1/hosts/db1.domain.com/Network/cname").await, "--- db1-a.domain.com\n");
    assert_eq!(rename("/v1/tags/web_servers/members/web3.domain.com", "db1.domain.com").await, 201);
    assert_eq!(rename("/v1/tags/web_servers/members/web2.domain.com", "db1.domain.com").await, 400);

    let delete = |path: &'static str| {
        let v1 = &v1;
        async move {
            let url = format!("{path}?log=not needed any more&session=ann");
            v1.ask("DELETE", &url).send().await.unwrap().status().as_u16()
        }
    };
    assert_eq!(delete("/v1/tags/database_servers").await, 200);
    assert_eq!(v1.get("/v1/tags/all_servers/members?raw=true").await, "@web_servers");
    assert_eq!(delete("/v1/hosts/db1.domain.com").await, 200);
    assert_eq!(v1.get("/v1/tags/web_servers/members").await, "web2.domain.com");
    assert_eq!(delete("/v1/tags/web_servers/members/web2.domain.com").await, 200);
    assert_eq!(delete("/v1/tags/web_servers/members/web2.domain.com").await, 404);
    assert_eq!(delete("/v1/tags/all_servers/members").await, 200);
    assert_eq!(v1.get("/v1/tags/all_servers/members?raw=true").await, "");
    assert_eq!(delete("/v1/hosts/db2.domain.com/Network/IP").await, 200);
    assert_eq!(delete("/v1/hosts/db2.domain.com/roles/x").await, 200);
    assert_eq!(
        v1.get("/v1/hosts/db2.domain.com").await,
        "---\nNetwork:\n  CNAME: db2-a.domain.com\nroles: []\n"
    );
    assert_eq!(delete("/v1/hosts/db1.domain.com").await, 404);
    assert_eq!(delete("/v1/hosts").await, 405);
}

#[tokio::test]
async fn places_inside_a_document_are_written_alone() {
    let v1 = V1::fleet().await;
    let other = r#"{"owner": "web team", "state": "draining", "document": {"a": {"b": 1}}}"#;
    let by_v2 =
        v1.ask("PUT", "/api/v2/hosts/owned?author=bob&message=m").header("content-type", "application/json");
    assert_eq!(by_v2.body(other).send().await.unwrap().status(), 201);
    v1.put("/v1/hosts/owned/a/c", "[1, two]").await;
    v1.put("/v1/hosts/owned/new", "x: y").await;
    assert_eq!(
        v1.get("/v1/hosts/owned").await,
        "---\na:\n  b: 1\n  c:\n    - 1\n    - two\nnew:\n  x: \"y\"\n"
    );
    v1.put("/v1/hosts/owned", "all: anew").await;
    // What HostDB does not know of stays.
    let host = v1.get("/api/v2/hosts/owned").await;
    assert!(host.contains("web team") && host.contains("draining") && host.contains("anew"), "{host}");
    // The state is said of a host that is not there yet: sent once more, it asks for nothing anew.
    for (name, state, status, now) in [
        ("owned", "requested", 201, Some("draining")),
        ("asked", "wanted", 400, None),
        ("asked", "requested", 201, Some("requested")),
        ("asked", "active", 201, Some("requested")),
    ] {
        let sent = [("value", "all: anew"), ("state", state)];
        let found = v1.form("PUT", &format!("/v1/hosts/{name}"), &sent).await;
        assert_eq!(found.status(), status, "{name} {state}");
        let host =
            v1.ask("GET", &format!("/api/v2/hosts/{name}")).send().await.unwrap().text().await.unwrap();
        assert!(now.is_none_or(|now| host.contains(&format!("{now:?}"))), "{host}");
    }
    for (path, value, status) in [
        ("/v1/hosts/owned/no/such", "1", 404),
        ("/v1/hosts/nobody/a", "1", 404),
        ("/v1/hosts/owned", "--- text", 400),
        ("/v1/hosts/owned", "a: [", 400),
        ("/v1/tags/web_servers/members", "stranger.domain.com", 404),
        ("/v1/tags/nothing/members", "web1.domain.com", 404),
        ("/v1/tags/web_servers/members/stranger.domain.com", "", 404),
        ("/v1/tags/web_servers/members/@all_servers", "", 400),
        ("/v1/hosts", "", 405),
        ("/v1/hosts/owned/a", "~", 201),
        ("/v1/hosts/owned/a", "--- null", 201),
    ] {
        let found = v1.form("PUT", path, &[("value", value)]).await;
        assert_eq!(found.status(), status, "{path}: {}", found.text().await.unwrap());
    }
}

#[tokio::test]
async fn writers_inside_one_document_do_not_lose_each_other() {
    let v1 = Arc::new(V1::fleet().await);
    let mut all = tokio::task::JoinSet::new();
    for i in 0..4 {
        let v1 = v1.clone();
        all.spawn(async move { v1.put(&format!("/v1/hosts/db1.domain.com/Network/n{i}"), "1").await });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    let text = v1.get("/v1/hosts/db1.domain.com/Network").await;
    assert!((0..4).all(|i| text.contains(&format!("n{i}: 1"))), "{text}");
}

#[tokio::test]
async fn the_past_is_told_as_git_would() {
    let v1 = V1::fleet().await;
    v1.put("/v1/hosts/web1.domain.com/Network/IP", "192.0.2.1").await;
    let all = v1.get("/v1/hosts/web1.domain.com?meta=revisions").await;
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 2, "{all}");
    let form = regex::Regex::new(r"^(\d+) - ann, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 : because$").unwrap();
    let first = form.captures(lines[1]).expect(lines[1])[1].to_owned();
    assert!(form.is_match(lines[0]));
    assert_eq!(v1.get("/v1/hosts/web1.domain.com?meta=revisions&limit=1").await, lines[0]);
    assert_eq!(
        v1.get(&format!("/v1/hosts/web1.domain.com/Network/IP?revision={first}")).await,
        "--- 10.0.0.0\n"
    );
    assert_eq!(v1.get(&format!("/v1/hosts?revision={first}")).await, "web1.domain.com");
    let blame = v1.get("/v1/hosts/web1.domain.com?meta=blame").await;
    assert!(
        blame.contains(") Network/IP: 192.0.2.1\n") && blame.contains(&format!("{first} (ann ")),
        "{blame}"
    );
    let members = v1.get("/v1/tags/web_servers/members?meta=blame").await;
    assert_eq!(members.lines().count(), 2, "{members}");
    for (path, status) in [
        ("/v1/hosts/web1.domain.com?revision=999999", 404),
        ("/v1/hosts/web1.domain.com?revision=a840d53", 404),
        ("/v1/hosts/web1.domain.com?meta=nonsense", 400),
        ("/v1/hosts/web1.domain.com?meta=parents", 400),
        ("/v1/tags/web_servers?meta=parents&from=tags", 405),
        ("/v1/hosts/none.domain.com?meta=derived&from=tags", 404),
        ("/v1/hosts?search=%5B", 400),
        ("/v1/hosts/none?meta=revisions", 404),
    ] {
        assert_eq!(v1.ask("GET", path).send().await.unwrap().status(), status, "{path}");
    }
}

#[tokio::test]
async fn an_error_says_why_in_its_first_line() {
    let v1 = V1::fleet().await;
    let head = v1.head("GET", "/v1/hosts/nobody").await;
    assert!(head.starts_with("HTTP/1.1 404 There is no hosts/nobody."), "{head}");
    // A client of HostDB's reads this of every error.
    assert!(head.contains("calltrace: There is no hosts/nobody."), "{head}");
    let head = v1.head("PUT", "/v1/hosts/a?value=").await;
    assert!(head.starts_with("HTTP/1.1 401 No session"), "{head}");
    let head = v1.head("DELETE", "/v1/hosts/a?session=ann").await;
    assert!(head.starts_with("HTTP/1.1 400 Missing parameter: log"), "{head}");
    let head = v1.head("POST", "/v1/hosts/a?session=ann&log=x").await;
    assert!(head.starts_with("HTTP/1.1 400 Missing parameter: newname"), "{head}");
    let head = v1.head("PATCH", "/v1/hosts/a").await;
    assert!(head.starts_with("HTTP/1.1 405 Only GET"), "{head}");
    let head = v1.head("GET", "/v1/hosts/%ff").await;
    assert!(head.starts_with("HTTP/1.1 400 The path is not UTF-8"), "{head}");
    // Nothing is walked up: a path names what it says, or nothing.
    for path in [
        "/v1/hosts/../x",
        "/v1/hosts/%2e%2e",
        "/v1/hosts/..%2f..%2fetc/passwd",
        "/v1/%00/x",
        "/v1/tags/a%0d%0ab: c",
    ] {
        let head = v1.head("GET", &path.replace(' ', "%20")).await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
        assert!(!head.to_lowercase().contains("\r\nb: c"), "{path}: {head}");
    }
    let head = v1.head("HEAD", "/v1/hosts/web1.domain.com").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("mtime: "), "{head}");
    let ro = V1(Running::start(Arc::new(MemoryStore::new()), Limits::default(), true, true).await);
    let head = ro.head("PUT", "/v1/hosts/a?value=&session=ann&log=x").await;
    assert!(head.starts_with("HTTP/1.1 403 HostDB is in read-only mode"), "{head}");
}

#[tokio::test]
async fn sessions() {
    let v1 = V1::fleet().await;
    let login = v1.form("POST", "/v1/auth/session", &[("username", "ann"), ("password", "secret")]).await;
    assert_eq!(login.status(), 200);
    let cookie = login.headers()["set-cookie"].to_str().unwrap().to_owned();
    let session = login.text().await.unwrap();
    assert!(cookie.starts_with(&format!("HostDB={session};")) && cookie.contains("HttpOnly"), "{cookie}");
    assert_eq!(v1.get(&format!("/v1/auth/session/{session}")).await, "ann");
    let with_cookie = v1
        .ask("PUT", "/v1/hosts/web1.domain.com/new?log=x&value=1")
        .header("cookie", format!("HostDB={session}"));
    assert_eq!(with_cookie.send().await.unwrap().status(), 201);
    assert!(v1.get("/v1/hosts/web1.domain.com?meta=revisions&limit=1").await.contains(" - ann, "));
    assert_eq!(v1.get("/v1/auth/can_modify?user=ann&id=hosts/web1.domain.com").await, "1");
    for path in ["/v1/auth/can_modify?user=ann", "/v1/auth/can_modify?id=hosts"] {
        assert_eq!(v1.ask("GET", path).send().await.unwrap().status(), 400, "{path}");
    }
    assert_eq!(v1.ask("POST", "/v1/auth/session").send().await.unwrap().status(), 400);
    assert_eq!(v1.ask("GET", "/v1/auth/session").send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn it_is_off_unless_it_is_switched_on() {
    let off = Running::new().await;
    assert_eq!(off.ask("GET", "/v1").send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn rules_of_access_are_perms() {
    let v1 = V1::fleet().await;
    assert_eq!(v1.get("/v1/tags/web_servers/perms").await, "");
    assert_eq!(v1.ask("GET", "/v1/tags/nothing/perms").send().await.unwrap().status(), 404);
    v1.put("/v1/tags/web_servers/perms", "ann: {data: RW, members: RO}\nops: {members: RW}\n").await;
    v1.put("/v1/hosts/.default/perms", "---\nbob:\n  data: RO\n  members: RO\n").await;
    assert_eq!(
        v1.get("/v1/tags/web_servers/perms").await,
        "---\nann:\n  data: RW\n  members: RO\nops:\n  data: none\n  members: RW\n"
    );
    assert_eq!(v1.get("/v1/hosts/.default/perms").await, "---\nbob:\n  data: RO\n  members: RO\n");
    let row = v1.get("/api/v2/history/access/rules/tags/web_servers").await;
    assert!(row.contains("\"ann\":{\"data\":\"rw\",\"members\":\"ro\"}"), "{row}");
    assert_eq!(v1.get("/v1/tags/web_servers/perms?meta=revisions").await.lines().count(), 1);
    let bad = v1.form("PUT", "/v1/tags/web_servers/perms", &[("value", "ann: {data: SOMETIMES}")]).await;
    assert_eq!(bad.status(), 400, "{}", bad.text().await.unwrap());
    let gone = v1.ask("DELETE", "/v1/tags/web_servers/perms?session=ann&log=x").send().await.unwrap();
    assert_eq!(gone.status(), 200);
    assert_eq!(v1.get("/v1/tags/web_servers/perms").await, "");
}

/// Hosts that are so large together that the kernel does not take them all.
async fn large(v1: &V1) {
    for n in 0..40 {
        v1.put(&format!("/v1/hosts/large{n}"), &format!("text: {}", "x".repeat(200_000))).await;
    }
}

/// Asks for all of them from this address, and reads no more than that it is answered.
async fn begun(v1: &V1, from: &str) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let address = v1.0.url.strip_prefix("http://").unwrap();
    let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
    let ask = "GET /v1/hosts/*?foreach=hosts HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    socket.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    socket
}

/// Waits until an answer that takes a place is given.
async fn answered(v1: &V1) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !v1.head("GET", "/v1/hosts/*?foreach=tags/web_servers/members").await.starts_with("HTTP/1.1 200") {
        assert!(tokio::time::Instant::now() < end, "a place is given back");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_reads_many_keys_slowly_takes_no_more_than_half_of_the_places() {
    let v1 = V1::fleet().await;
    large(&v1).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        slow.push(begun(&v1, "127.0.0.1").await);
    }
    let head = v1.head("GET", "/v1/hosts/*?foreach=hosts").await;
    assert!(head.starts_with("HTTP/1.1 503 Too many large answers"), "{head}");
    // There are places left for others.
    for from in ["127.0.0.2", "127.0.0.3"] {
        slow.push(begun(&v1, from).await);
    }
    slow.remove(0);
    answered(&v1).await;
    slow.push(begun(&v1, "127.0.0.1").await);
    let head = v1.head("GET", "/v1/hosts/*?foreach=hosts").await;
    assert!(head.starts_with("HTTP/1.1 503 Too many large answers"), "{head}");
    assert!(v1.get("/v1/hosts").await.contains("large1"), "others are answered");
    drop(slow);
    answered(&v1).await;
}

/// A little now and then keeps a connection, and not a place.
#[tokio::test]
async fn who_reads_a_little_now_and_then_is_cut() {
    let slow_reading = std::time::Duration::from_secs(2);
    let limits = Limits { large_bodies: 1, pace: 64 << 20, slow_reading, ..Limits::default() };
    let v1 = V1(Running::start(Arc::new(MemoryStore::new()), limits, false, true).await);
    v1.put("/v1/hosts/web1.domain.com", "{}").await;
    v1.put("/v1/tags/web_servers", "{}").await;
    v1.put("/v1/tags/web_servers/members", "web1.domain.com").await;
    large(&v1).await;
    let asked = tokio::time::Instant::now();
    let mut slow = begun(&v1, "127.0.0.1").await;
    let head = v1.head("GET", "/v1/hosts/*?foreach=tags/web_servers/members").await;
    let busy = head.starts_with("HTTP/1.1 503 Too many large answers");
    assert!(busy || asked.elapsed() > slow_reading, "it has the place until then: {head}");
    let (end, mut read) = (asked + SOONER, 0);
    // It goes on reading, for less than half of what there is, while its place is given to others.
    let mut some = [0_u8; 16 << 10];
    while !v1.head("GET", "/v1/hosts/*?foreach=tags/web_servers/members").await.starts_with("HTTP/1.1 200") {
        read += slow.read(&mut some).await.unwrap_or(0);
        assert!(tokio::time::Instant::now() < end, "a place is given back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(read < 4 << 20, "{read}");
    // What is left of it ends before it is whole.
    let (mut rest, mut left) = (0, vec![0_u8; 64 << 10]);
    while let Ok(octets @ 1..) = slow.read(&mut left).await {
        rest += octets;
    }
    assert!(read + rest < 40 * 200_000, "{read} {rest}");
}
