//! What goes wrong around a server, done to the real process: killed, no room, bodies that lie, keys that are tricks.
//! docs/reliability.md lists them, and those that other tests have.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::PATIENCE;
use crate::process::{Program, command};

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(PATIENCE).build().unwrap()
}

pub(crate) async fn get(url: &str, path: &str) -> (u16, Value) {
    let answer = client().get(format!("{url}{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

/// Writes a host; the revision, or the status of the refusal and what it says.
pub(crate) async fn put(
    client: &reqwest::Client,
    url: &str,
    host: &str,
    document: &Value,
) -> reqwest::Result<(u16, Value)> {
    let put = client.put(format!("{url}/api/v2/hosts/{host}?author=ann&message=because"));
    let answer = put.json(&json!({"document": document})).send().await?;
    Ok((answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null)))
}

pub(crate) fn store(dir: &Path) -> String {
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
