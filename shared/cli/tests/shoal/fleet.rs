//! A small fleet in memory, on a clock that stands still, and command lines run on it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use shoal_core::Epoch;
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, LedgerWrite, ManualClock, MemoryStore, Store};

/// The time that everybody in these tests has.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// A database and who types.
pub(crate) struct Fleet {
    pub(crate) store: Arc<MemoryStore>,
    dir: tempfile::TempDir,
}

/// What a command printed and answered.
pub(crate) struct Printed {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) error: String,
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Fleet {
    /// No host, no tag.
    pub(crate) fn empty() -> Self {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1_800_000_000));
        let store = MemoryStore::with(Epoch(7), Arc::new(clock));
        Self { store: Arc::new(store), dir: tempfile::tempdir().unwrap() }
    }

    /// Three hosts, two of them in a zone through nesting and a rule.
    pub(crate) async fn new() -> Self {
        let fleet = Self::empty();
        let file = fleet.file(
            "fleet.yaml",
            "\
host: web1.example.com
id: h1
owner: web team
document: {address: 192.0.2.1, site: rdu3}
---
host: web2.example.com
id: h2
document: {address: 192.0.2.2, site: ams1, dns: {ttl: 60}}
---
host: db1.example.com
id: h3
state: draining
document: {address: 192.0.2.9}
---
tag: dns/example.com
owner: net team
document: {ttl: 300, mail: {mx: [mail.example.com]}}
members: [db1.example.com, '@web']
---
tag: dns/web
document: {ttl: 120}
members: [web1.example.com, \"select: site == 'ams1'\"]
",
        );
        fleet.ok(&["apply", "-f", &file, "-m", "the first fleet"]).await;
        fleet
    }

    /// A file with this text; its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a command line as ann.
    pub(crate) async fn run(&self, line: &[&str]) -> Printed {
        self.run_as(Some("ann"), line).await
    }

    /// Runs a command line as somebody.
    pub(crate) async fn run_as(&self, author: Option<&str>, line: &[&str]) -> Printed {
        let sink = Sink::default();
        let (code, error) =
            shoal_cli::run(self.store.clone(), line, author, now, Box::new(sink.clone())).await;
        let out = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let dir = self.dir.path().to_str().unwrap();
        Printed { code, out: out.replace(dir, "DIR"), error: error.unwrap_or_default().replace(dir, "DIR") }
    }

    /// Runs a command that must succeed; what it printed.
    pub(crate) async fn ok(&self, line: &[&str]) -> String {
        let printed = self.run(line).await;
        assert_eq!(printed.code, 0, "{line:?}: {}\n{}", printed.error, printed.out);
        printed.out
    }

    /// Runs a command that must fail with this code; the error.
    pub(crate) async fn fails(&self, code: u8, line: &[&str]) -> String {
        let printed = self.run(line).await;
        assert_eq!(printed.code, code, "{line:?}: {}\n{}", printed.error, printed.out);
        printed.error
    }

    /// What an agent says of itself, five seconds ago; `dns two` is the agent's instance `two`.
    pub(crate) async fn report(
        &self,
        agent: &str,
        seen: u64,
        expires_in: Option<i64>,
        units: Value,
        odd: Value,
    ) {
        let expires = expires_in.map(|s| Timestamp::from_second(now().as_second() + s).unwrap());
        let at = Timestamp::from_second(now().as_second() - 5).unwrap();
        let only = format!("{agent}-1");
        let (agent, instance) = agent.split_once(' ').unwrap_or((agent, &only));
        let status = json!({
            "agent": agent, "instance": instance, "epoch": 7, "seen": seen, "at": at,
            "expires": expires, "units": units, "quarantined": odd
        });
        self.store.report(serde_json::from_value(status).unwrap()).await.unwrap();
    }

    /// A page of the ledger.
    pub(crate) async fn ledger(&self, key: &str, page: Value) {
        let want = ClaimRequest { name: "unit/x".into(), of: 1, holder: "test".into(), ttl: None };
        let claim: Claim = match self.store.claim(&want).await.unwrap() {
            ClaimAnswer::Granted(claim) => claim,
            ClaimAnswer::Taken { .. } => panic!("taken"),
        };
        let row = LedgerWrite { key: key.into(), value: Some(page.to_string().into_bytes()) };
        self.store.write_ledger(vec![row], &claim).await.unwrap();
    }
}
