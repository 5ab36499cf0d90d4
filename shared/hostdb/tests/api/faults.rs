//! What goes wrong around a server, done to the real process: killed, no room, a clock that is set back, thousands of
//! connections, bodies that lie, keys that are tricks. docs/reliability.md lists them, and those that other tests have.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::PATIENCE;
use crate::process::{Program, command};

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(PATIENCE).build().unwrap()
}

async fn get(url: &str, path: &str) -> (u16, Value) {
    let answer = client().get(format!("{url}{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

/// Writes a host; the revision, or the status of the refusal and what it says.
async fn put(
    client: &reqwest::Client,
    url: &str,
    host: &str,
    document: &Value,
) -> reqwest::Result<(u16, Value)> {
    let put = client.put(format!("{url}/api/v2/hosts/{host}?author=ann&message=because"));
    let answer = put.json(&json!({"document": document})).send().await?;
    Ok((answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null)))
}

fn store(dir: &Path) -> String {
    format!("sqlite:{}", dir.join("shoal.db").display())
}

#[tokio::test]
async fn what_was_answered_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..5 {
        let mut server = Program::start(&store(dir.path())).await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (url, tell) = (server.url.clone(), tell.clone());
                tokio::spawn(async move {
                    let client = client();
                    for n in 0.. {
                        let host = format!("r{round}w{writer}n{n}.example.com");
                        // Killed in the midst of it: whether it was done is not known.
                        let Ok((status, _)) = put(&client, &url, &host, &json!({"n": n})).await else {
                            return;
                        };
                        assert!(status < 300, "{status}");
                        tell.send((host, n)).unwrap();
                    }
                })
            })
            .collect();
        drop(tell);
        while acknowledged.len() < (round + 1) * 40 {
            let (host, n) = told.recv().await.unwrap();
            acknowledged.insert(host, n);
        }
        server.child.kill().await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        while let Some((host, n)) = told.recv().await {
            acknowledged.insert(host, n);
        }
    }
    let server = Program::start(&store(dir.path())).await;
    for (host, n) in &acknowledged {
        let (status, found) = get(&server.url, &format!("/api/v2/hosts/{host}")).await;
        assert_eq!((status, &found["document"]["n"]), (200, &json!(n)), "{host}: {found}");
    }
    assert!(acknowledged.len() >= 200);
}

/// The program in a mount namespace of its own, where a file system of a few megabytes holds its database.
fn in_little_room(dir: &Path) -> Command {
    let own = command(&store(dir), &["--listen", "127.0.0.1:0"]);
    let own = own.as_std();
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    inside.arg("mount -t tmpfs -o size=3m tmpfs \"$0\" && exec \"$@\"").arg(dir).arg(own.get_program());
    inside.args(own.get_args()).env("SHOAL_LOG", "info");
    inside.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    inside
}

#[tokio::test]
async fn a_full_disk_is_said_and_what_was_answered_stays() {
    let allowed =
        Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output().await;
    if !allowed.is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: a_full_disk_is_said_and_what_was_answered_stays: no mount namespaces here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Program::of(in_little_room(dir.path())).await;
    let (client, text) = (client(), "x".repeat(100_000));
    let mut done = 0;
    let refused = loop {
        let host = format!("h{done}.example.com");
        let (status, said) =
            put(&client, &server.url, &host, &json!({"n": done, "text": text})).await.unwrap();
        if status >= 300 {
            break (status, said);
        }
        done += 1;
        assert!(done < 100, "three megabytes hold no ten");
    };
    let said = refused.1["detail"].as_str().unwrap_or_default();
    assert!(
        refused.0 == 507 && said.contains("no room left") && said.contains("nothing was written"),
        "{refused:?}"
    );
    assert!(done > 3, "{done}");
    // It goes on answering, all that it acknowledged is there, and no more than that.
    assert_eq!(get(&server.url, "/healthz").await.0, 200);
    for n in 0..done {
        let (status, found) = get(&server.url, &format!("/api/v2/hosts/h{n}.example.com")).await;
        assert_eq!((status, &found["document"]["n"]), (200, &json!(n)));
    }
    assert_eq!(get(&server.url, &format!("/api/v2/hosts/h{done}.example.com")).await.0, 404);
}

/// libfaketime, which comes with the program `faketime`.
fn faketime() -> Option<String> {
    let out = std::process::Command::new("faketime").args(["-f", "+0", "env"]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).map(str::to_owned)
}

#[tokio::test]
async fn a_clock_that_is_set_back_an_hour_changes_no_order_and_no_claim() {
    let Some(library) = faketime() else {
        println!("SKIPPED: a_clock_that_is_set_back_an_hour…: faketime is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let mut told = command(&store(dir.path()), &["--listen", "127.0.0.1:0"]);
    // What a person sets is the wall clock; the time since the boot goes on.
    told.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &clock);
    told.env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    let server = Program::of(told).await;
    let (client, url) = (client(), &server.url);
    let claim = async |holder: &str| {
        let want = json!({"name": "unit/dns/x", "of": 1, "holder": holder, "ttl": {"secs": 2, "nanos": 0}});
        client
            .post(format!("{url}/api/v2/store/claim"))
            .json(&want)
            .send()
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap()
    };
    assert!(put(&client, url, "a.example.com", &json!({})).await.unwrap().0 < 300);
    let held = claim("one").await;
    assert!(held.to_string().contains("Granted"), "{held}");
    std::fs::write(&clock, "-3600").unwrap();
    assert!(put(&client, url, "b.example.com", &json!({})).await.unwrap().0 < 300);
    let (_, log) = get(url, "/api/v2/commits").await;
    let entries: Vec<(u64, jiff::Timestamp)> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["revision"].as_u64().unwrap(), e["time"].as_str().unwrap().parse().unwrap()))
        .collect();
    let [(second, late), (first, early)] = entries[..] else { panic!("{log}") };
    // The clock was really set back, and the order is that of revisions.
    assert!(second > first && early.duration_since(late).as_mins() >= 59, "{log}");
    let taken = claim("two").await;
    assert!(taken.to_string().contains("Taken"), "the other's claim is not over: {taken}");
    let begun = std::time::Instant::now();
    while !claim("two").await.to_string().contains("Granted") {
        assert!(begun.elapsed() < PATIENCE, "it is over after its time, and not an hour later");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Octets of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn ten_thousand_connections_cost_little_and_one_more_is_told() {
    const MANY: usize = 10_000;
    /// Each has sent the head of a request, for which hyper has a buffer of 8 KiB; a build without optimisation needs the most.
    const EACH: u64 = 24 << 10;
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < MANY as u64 + 500) {
        println!("SKIPPED: ten_thousand_connections…: this process may not open as many files");
        return;
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let many = (MANY + 1).to_string();
    let server =
        Program::of(command("memory:", &["--listen", "127.0.0.1:0", "--max-connections", &many])).await;
    let (pid, address) = (server.child.id().unwrap(), server.url.strip_prefix("http://").unwrap().to_owned());
    assert_eq!(get(&server.url, "/healthz").await.0, 200);
    let before = resident(pid);
    let (opening, mut open) = (std::time::Instant::now(), Vec::with_capacity(MANY));
    for _ in 0..MANY {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        // Half a head: it is read, and waited for.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
        open.push(stream);
    }
    let each = resident(pid).saturating_sub(before) / MANY as u64;
    println!("{each} octets a connection");
    assert!(each < EACH, "{each} octets a connection");
    // Who does not end the head of a request is cut after 30 s: the first of them before the last has come, where that takes long.
    if opening.elapsed() > Duration::from_secs(15) {
        println!(
            "SKIPPED: ten_thousand_connections…: this machine is too busy, opening them took {:?}",
            opening.elapsed()
        );
        return;
    }
    // One place is left: a whole client still gets its answer.
    let count = async || {
        let text =
            client().get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
        text.lines().find_map(|l| l.strip_prefix("shoal_http_connections ")?.parse::<usize>().ok())
    };
    assert_eq!(count().await, Some(MANY + 1));
    // With that place taken, the next one is told. It may take a moment to be given back by the one before.
    let (begun, mut last) = (std::time::Instant::now(), Vec::new());
    loop {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
        last.push(stream);
        let asked = client().get(format!("{}/healthz", server.url)).send().await.unwrap();
        if asked.status() == 503 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE && last.len() < 100, "it takes more than it should");
    }
    drop((open, last));
    let begun = std::time::Instant::now();
    while count().await != Some(1) {
        assert!(begun.elapsed() < PATIENCE, "their places are given to others");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends these octets, and `ends` or stays; what comes back until the server closes.
async fn raw(url: &str, octets: &[u8], ends: bool) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(octets).await.unwrap();
    if ends {
        stream.shutdown().await.unwrap();
    }
    let mut said = Vec::new();
    // Cut off is fine, too; open for ever is not.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("it is closed");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_body_that_lies_about_its_length_writes_nothing() {
    let server = Program::start("memory:").await;
    let body = r#"{"document": {"a": 1}}"#;
    let request = |host: &str, headers: &str, body: &str| {
        format!(
            "PUT /api/v2/hosts/{host}.example.com?author=ann&message=m HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\n{headers}\r\n{body}"
        )
        .into_bytes()
    };
    let length = body.len();
    for (host, headers, body) in [
        ("longer", format!("content-length: {}\r\n", length + 10), body.to_owned()),
        // A document that would be whole, were it cut there.
        ("shorter", format!("content-length: {}\r\n", length - 1), body.to_owned()),
        ("twice", format!("content-length: {length}\r\ncontent-length: {}\r\n", length - 1), body.to_owned()),
        ("less", "content-length: -1\r\n".to_owned(), body.to_owned()),
        ("word", "content-length: many\r\n".to_owned(), body.to_owned()),
        ("huge", "content-length: 99999999999999999999\r\n".to_owned(), body.to_owned()),
        ("rubbish", "transfer-encoding: chunked\r\n".to_owned(), body.to_owned()),
        ("open", "transfer-encoding: chunked\r\n".to_owned(), format!("{length:x}\r\n{body}\r\n")),
        ("cut", "transfer-encoding: chunked\r\n".to_owned(), format!("{:x}\r\n{body}", length + 100)),
        (
            "wide",
            "transfer-encoding: chunked\r\n".to_owned(),
            format!("fffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
        ),
        ("coded", "transfer-encoding: gzip\r\n".to_owned(), body.to_owned()),
    ] {
        let said = raw(&server.url, &request(host, &headers, &body), true).await;
        assert!(!said.starts_with("HTTP/1.1 2"), "{host}: {said}");
        assert_eq!(get(&server.url, &format!("/api/v2/hosts/{host}.example.com")).await.0, 404, "{host}");
    }
    // Two lengths that differ: whoever stands before the server may have believed the other one. Nothing is answered that was hidden
    // behind the first.
    let hidden = b"GET /api/v2/status HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut both = request("both", "content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n");
    both.extend_from_slice(hidden);
    let said = raw(&server.url, &both, true).await;
    assert!(!said.starts_with("HTTP/1.1 2") && said.matches("HTTP/1.1 ").count() <= 1, "{said}");
    assert_eq!(get(&server.url, "/api/v2/hosts").await.1["items"], json!([]));
}

#[tokio::test]
async fn tricks_in_paths_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "hunter2").unwrap();
    let server = Program::start(&store(dir.path())).await;
    let up = "%2e%2e/".repeat(12);
    let (long, deep) = ("a".repeat(60_000), "a/".repeat(20_000));
    let tricks = [
        "..",
        "%2e%2e",
        "%2e%2e%2fsecret",
        "%252e%252e%252fsecret",
        "%c0%ae%c0%ae%c0%afsecret",
        "..%5c..%5csecret",
        "a%00b",
        "%00",
        "a%0d%0ax: y",
        "%ff%fe",
        "%",
        "%zz",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "a%2f..%2fb",
        "a/../../b",
        &format!("{up}etc/passwd"),
        &long,
        &deep,
    ];
    let mut let_in: Vec<String> = Vec::new();
    for base in ["/api/v2/hosts/", "/api/v2/tags/dns/", "/api/v2/tags/", "/api/v2/"] {
        for trick in tricks {
            for method in ["GET", "PUT", "DELETE"] {
                let (body, shown) = (r#"{"document":{}}"#, &trick[..trick.len().min(40)]);
                let length = body.len();
                let request = format!(
                    "{method} {base}{trick}?author=ann&message=m HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                     content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                let said = raw(&server.url, request.as_bytes(), false).await;
                if said.starts_with("HTTP/1.1 2") {
                    let_in.push(format!("{method} {base}{shown}"));
                } else {
                    let begins = &said[..said.len().min(300)];
                    assert!(said.starts_with("HTTP/1.1 4"), "{method} {base}{shown}: {begins}");
                }
                assert!(!said.contains("hunter2") && !said.contains("root:"), "{method} {base}{shown}");
                let (head, _) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
                assert!(!head.contains("\r\nx: y"), "no header is made of a path: {head}");
            }
        }
    }
    // A percent sign may be part of a tag's name: what was coded twice is decoded once, and what is no code stands for itself. Neither
    // is a way to anywhere.
    let names = ["%252e%252e%252fsecret", "%", "%zz"].map(|name| format!("/api/v2/tags/dns/{name}"));
    let expected: Vec<String> =
        names.iter().flat_map(|name| ["PUT", "DELETE"].map(|method| format!("{method} {name}"))).collect();
    assert_eq!(let_in, expected);
    assert_eq!(get(&server.url, "/api/v2/hosts").await.1["items"], json!([]));
    assert_eq!(get(&server.url, "/api/v2/tags").await.1["items"], json!([]));
    assert_eq!(get(&server.url, "/healthz").await.0, 200);
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    names.retain(|name| !name.to_string_lossy().starts_with("shoal.db"));
    assert_eq!(names, ["secret"], "no file is made of a path");
}
