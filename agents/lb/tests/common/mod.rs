//! What the tests against real load balancers share: the servers, and the program with a database and a configuration.

#![allow(dead_code, unused_imports, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod backend;
mod direct;
mod haproxy;
mod leave;
mod net;
mod nginx;
#[path = "../../../../tests/agents/ports.rs"]
mod ports;
#[path = "../../../../tests/agents/scratch.rs"]
mod scratch;
mod wrk;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) use backend::Backend;
pub(crate) use direct::{Direct, edit};
pub(crate) use haproxy::HaProxy;
pub(crate) use leave::{hold, leaves_by, others, retire, waits};
pub(crate) use net::Net;
pub(crate) use nginx::Nginx;
pub(crate) use scratch::{Daemon, Scratch};
pub(crate) use wrk::{Asked, Wrk};

const AGENT: &str = "lb";
const PROGRAM: &str = env!("CARGO_BIN_EXE_shoal-lb");
const FOLDERS: &[&str] = &[];

/// Whether a program is here; says so if not.
pub(crate) fn has(test: &str, program: &str) -> bool {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/bin"]
        .iter()
        .any(|dir| std::path::Path::new(dir).join(program).exists());
    if !found {
        println!("SKIPPED: {test}: {program} is not installed");
    }
    found
}

/// Waits until something is so; at most a minute and a half.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(90);
    while !so() {
        assert!(Instant::now() < end, "it did not come true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that is free, and that no client and no other test is given.
pub(crate) fn free() -> u16 {
    ports::free().unwrap()
}

/// How long an answer may take: longer than a test holds it, however slow the machine, and shorter than a load balancer of the tests waits
/// for a server.
const PATIENCE: Duration = Duration::from_secs(300);

/// Asks over HTTP with a connection of its own: what is answered, without the head. Who loses patience panics, and does not say that it
/// failed: that is not what a connection that was closed looks like.
pub(crate) fn get(port: u16, path: &str) -> Result<String, String> {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).map_err(|e| e.to_string())?;
    get_over(stream, path)
}

/// The same over this connection, which ends with it.
pub(crate) fn get_over(mut stream: TcpStream, path: &str) -> Result<String, String> {
    let mut ask = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        // In one piece: a second one would wait for the first to be acknowledged.
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok::<_, std::io::Error>(said)
    };
    let said = ask().map_err(|e| {
        let late = matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!late, "no answer to {path} within {PATIENCE:?}");
        e.to_string()
    })?;
    let (head, body) = said.split_once("\r\n\r\n").ok_or(format!("no answer: {said:?}"))?;
    if head.starts_with("HTTP/1.1 200") { Ok(body.to_owned()) } else { Err(head.to_owned()) }
}

/// How many seconds are left until a deadline, by what a run said last of it.
pub(crate) fn left(said: &str) -> u64 {
    let all = said.match_indices(" s left").filter_map(|(at, _)| said[..at].rsplit(' ').next()?.parse().ok());
    all.min().unwrap_or_else(|| panic!("no deadline in {said}"))
}

/// Who answers sixty requests: where each is as likely to answer as each of two others, nobody is missed by chance.
pub(crate) fn answering(port: u16) -> Vec<String> {
    let mut all: Vec<String> =
        (0..60).map(|_| get(port, "/").unwrap_or_else(|e| format!("FAILED {e}"))).collect();
    all.sort();
    all.dedup();
    all
}

/// How many of so many requests each answers.
pub(crate) fn shares(port: u16, requests: usize) -> BTreeMap<String, usize> {
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..requests {
        *all.entry(get(port, "/").unwrap()).or_default() += 1;
    }
    all
}

/// The hosts of these backends, and a pool of all of them.
pub(crate) fn fleet(port: u16, backends: &[(&str, &Backend)], more: &str) -> String {
    let hosts: String = backends
        .iter()
        .map(|(name, backend)| {
            format!("host: {name}\ndocument: {{address: 127.0.0.1, lb: {{port: {}}}}}\n---\n", backend.port)
        })
        .collect();
    let names: Vec<&str> = backends.iter().map(|(name, _)| *name).collect();
    format!(
        "{hosts}tag: lb/web\ndocument: {{port: 80, frontends: ['127.0.0.1:{port}']{more}}}\nmembers: [{}]\n",
        names.join(", ")
    )
}

/// Who serves.
pub(crate) const WEB: [&str; 3] = ["web1.example.com", "web2.example.com", "web3.example.com"];

/// A backend for each.
pub(crate) fn web() -> [Backend; 3] {
    WEB.map(Backend::start)
}

/// Backends with their names.
pub(crate) fn named(backends: &[Backend]) -> Vec<(&'static str, &Backend)> {
    WEB.into_iter().zip(backends).collect()
}
