//! Requests to a server: any path, any body.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use shoal_hostdb::{Limits, Listener, Server};
use shoal_store::MemoryStore;
use tokio_util::sync::CancellationToken;

use super::MOST;

const METHODS: [&str; 8] = ["GET", "PUT", "PATCH", "DELETE", "POST", "HEAD", "OPTIONS", "TRACE"];
const KINDS: [&str; 4] =
    ["application/json", "application/yaml", "application/merge-patch+json", "text/plain; charset=x"];

/// The first octet says which method and media type, the first line the path, what follows is the body. Whatever is asked:
/// the server answers, never with a fault of its own, and every refusal is a problem.
pub fn api(data: &[u8]) {
    let Some((first, rest)) = data[..data.len().min(MOST)].split_first() else { return };
    let end = rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len());
    let (path, body) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let mut target = "/".to_owned();
    for octet in path.iter().take(8 << 10) {
        match octet {
            b'!'..=b'~' if *octet != b'#' => target.push(char::from(*octet)),
            _ => target.push_str(&format!("%{octet:02X}")),
        }
    }
    let method = METHODS[usize::from(*first) % METHODS.len()];
    let kind = KINDS[usize::from(*first) / METHODS.len() % KINDS.len()];
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nshoal-author: ann\r\n\
         shoal-message: fuzz\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(server()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    // It may have heard enough before all of it came.
    let _ = stream.write_all(body);
    let answer = answer(&mut stream);
    judge(method, &target, &answer);
}

/// The answer, without the end of one that has none.
fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&some[..n]),
            Err(error) if all.is_empty() => panic!("no answer: {error}"),
            Err(_) => return all,
        }
        if all.windows(17).any(|part| part == b"text/event-stream") {
            return all;
        }
    }
}

fn judge(method: &str, target: &str, answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status: u16 = head.get(9..12).and_then(|s| s.parse().ok()).expect("a status");
    // 400 without a word is hyper's, of what is no request; 431 is HTTP's own.
    if status < 400 || status == 431 || method == "HEAD" || (status == 400 && body.is_empty()) {
        return;
    }
    let problem: Value =
        serde_json::from_str(body).unwrap_or_else(|bad| panic!("{method} {target}: {bad}: {text}"));
    assert_eq!(problem["status"], status, "{text}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{text}");
    assert!(status < 500, "{method} {target}: {text}");
}

/// One server for all that is tried: what was written before is part of what is tried.
fn server() -> &'static str {
    static AT: OnceLock<String> = OnceLock::new();
    AT.get_or_init(|| {
        let (say, hear) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
                say.send(listener.at().to_string()).unwrap();
                let (store, stop) = (Arc::new(MemoryStore::new()), CancellationToken::new());
                Server::start(store, Limits::default(), false, stop)
                    .await
                    .unwrap()
                    .serve(vec![listener])
                    .await;
            });
        });
        let url = hear.recv().unwrap();
        url.trim_start_matches("http://").to_owned()
    })
}
