//! A server in a process of its own, so that its memory can be measured, with bounds for which the program has no options: the
//! executable of these tests, started again.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use shoal_hostdb::{Limits, Listener, Server, Tls, TlsFiles};
use shoal_store::MemoryStore;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::harness::PATIENCE;

/// How many connections it takes; that it is set makes a server of the test below.
const CONNECTIONS: &str = "SHOAL_TEST_CONNECTIONS";
/// The folder of its certificate and key, `server.pem` and `server.key`; without it, it speaks plain HTTP.
const CERTIFICATE: &str = "SHOAL_TEST_CERTIFICATE";
const SAYS: &str = "it serves at ";
/// Longer than any test: who does not end the head of a request is kept, however long the others take to come.
const KEPT: Duration = Duration::from_secs(3600);

/// A server process.
pub(crate) struct Apart {
    /// Where it listens.
    pub(crate) url: String,
    child: Child,
}

impl Apart {
    /// One that takes so many connections at once, with the certificate of that folder.
    pub(crate) async fn start(connections: usize, certificate: Option<&Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "apart::a_server_for_other_tests", "--nocapture"]);
        command.env(CONNECTIONS, connections.to_string());
        if let Some(folder) = certificate {
            command.env(CERTIFICATE, folder);
        }
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = loop {
            let line = tokio::time::timeout(PATIENCE, said.next_line()).await.unwrap().unwrap();
            // What runs the tests may have written something before it on the line.
            if let Some((_, url)) = line.expect("it lives").split_once(SAYS) {
                break url.to_owned();
            }
        };
        Self { url, child }
    }

    /// The address and port of it.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// Octets of memory that it has.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// As a test it sees that such a server answers; started by [`Apart::start`] it serves until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_for_other_tests() {
    let connections = std::env::var(CONNECTIONS).ok().map(|n| n.parse().unwrap());
    let limits = Limits {
        connections: connections.unwrap_or(2),
        header_timeout: KEPT,
        // Who connects first may be asked to show what it is long after the others have come.
        handshake_timeout: KEPT,
        ..Limits::default()
    };
    let tls = std::env::var_os(CERTIFICATE).map(|folder| {
        let file = |name: &str| Path::new(&folder).join(name);
        let files =
            TlsFiles { cert: file("server.pem"), key: file("server.key"), client_ca: None, demand: false };
        Tls::load(files).unwrap()
    });
    let listen = if tls.is_some() { "https://127.0.0.1:0" } else { "127.0.0.1:0" };
    let listener = Listener::with(&listen.parse().unwrap(), tls.as_ref()).await.unwrap();
    let (at, stop) = (listener.at().to_string(), CancellationToken::new());
    let server = Server::start(Arc::new(MemoryStore::new()), limits, false, stop.clone()).await.unwrap();
    let serving = tokio::spawn(server.serve(vec![listener]));
    if connections.is_none() {
        assert_eq!(reqwest::get(format!("{at}/healthz")).await.unwrap().status(), 200);
        stop.cancel();
    } else {
        println!("{SAYS}{at}");
    }
    serving.await.unwrap();
}
