//! A real etcd on free ports of this machine, in a scratch folder; it ends with the process that started it, however
//! that ends.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what helps tests fails as tests do, and what cannot be tested is said"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shoal_core::{Change, Commit, Document, Key, LogEntry, Range, Row};
use shoal_store::{Query, Store};
use shoal_store_etcd::EtcdStore;
use tempfile::TempDir;
use tokio::sync::watch;

/// Starts etcd, and ends it when its own input ends: so nothing is left of it, also when the test is killed. Its data stay
/// where somebody says so.
const KEEPER: &str = r#"etcd "$@" </dev/null >"$DIR/log" 2>&1 & echo $!
read -r word; kill -9 $!; wait; [ "$word" = keep ] || rm -rf "$DIR""#;

/// One etcd.
pub(crate) struct Etcd {
    folder: TempDir,
    port: u16,
    peer: u16,
    /// Where it says how it is, to whoever asks.
    health: u16,
    /// The members of its cluster, by number.
    number: usize,
    peers: Vec<u16>,
    /// More for its command line, and whether that is TLS for clients.
    more: Vec<String>,
    tls: bool,
    keeper: Option<Child>,
    pid: Option<Pid>,
}

/// Whether there is an etcd to test with; says that `test` is skipped where there is none.
pub(crate) fn installed(test: &str) -> bool {
    let there = Command::new("etcd").arg("--version").output().is_ok();
    if !there {
        println!("SKIPPED: {test}: etcd is not installed (apt install etcd-server)");
    }
    there
}

/// As many free ports, no two of them the same.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Etcd {
    /// A new one, which answers.
    pub(crate) fn start() -> Self {
        Self::cluster(1).remove(0)
    }

    /// Several new ones that are one cluster, which answers. Somebody else may take one of its ports before etcd does: then it
    /// is made once more, with others.
    pub(crate) fn cluster(members: usize) -> Vec<Self> {
        Self::many(members, &[], false)
    }

    /// A new one with more on its command line.
    pub(crate) fn with<S: ToString>(more: &[S]) -> Self {
        let more: Vec<_> = more.iter().map(|one| one.to_string()).collect();
        Self::many(1, &more, false).remove(0)
    }

    /// A new one that speaks TLS with its clients, by what stands on its command line.
    pub(crate) fn by_tls(more: &[String]) -> Self {
        Self::many(1, more, true).remove(0)
    }

    fn many(members: usize, more: &[String], tls: bool) -> Vec<Self> {
        for _ in 0..5 {
            let mut all = Self::members(members, more, tls);
            all.iter_mut().for_each(Self::launch);
            if all.iter().all(|one| one.wait().is_ok()) {
                return all;
            }
        }
        panic!("five clusters one after the other found a port taken");
    }

    fn members(members: usize, more: &[String], tls: bool) -> Vec<Self> {
        let mut ports = free_ports(3 * members);
        let mut peers = ports.split_off(members);
        let health = peers.split_off(members);
        let member = |(number, peer): (usize, &u16)| Self {
            folder: tempfile::Builder::new().prefix("shoal-etcd.").tempdir().unwrap(),
            port: ports[number],
            peer: *peer,
            health: health[number],
            number,
            peers: peers.clone(),
            more: more.to_vec(),
            tls,
            keeper: None,
            pid: None,
        };
        peers.iter().enumerate().map(member).collect()
    }

    /// Starts it, again on the same data, once who may have taken its ports meanwhile has given them back.
    pub(crate) fn run(&mut self) {
        for _ in 0..60 {
            self.launch();
            match self.wait() {
                Ok(()) => return,
                Err(_) => self.kill(),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        panic!("a port of etcd stays taken");
    }

    fn launch(&mut self) {
        let cluster = self.peers.iter().enumerate();
        let cluster = cluster.map(|(n, peer)| format!("n{n}=http://127.0.0.1:{peer}")).collect::<Vec<_>>();
        let scheme = if self.tls { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", self.port);
        let (peer, health) =
            (format!("http://127.0.0.1:{}", self.peer), format!("http://127.0.0.1:{}", self.health));
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh", "--name", &format!("n{}", self.number), "--data-dir"])
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-metrics-urls", &health])
            .args(["--initial-cluster", &cluster.join(","), "--log-level", "warn", "--logger", "zap"])
            .args(&self.more)
            .env("DIR", self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.pid = Pid::from_raw(line.trim().parse().unwrap());
        self.keeper = Some(keeper);
    }

    /// Waits until it answers. An error: it ended, because a port of its was taken.
    fn wait(&self) -> Result<(), String> {
        let begun = Instant::now();
        while !self.answers() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            if log.contains("bind: address already in use") {
                return Err(log);
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "etcd does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether its cluster has a leader, and so can be written to.
    fn answers(&self) -> bool {
        let mut said = String::new();
        let asked = TcpStream::connect(("127.0.0.1", self.health)).and_then(|mut tcp| {
            tcp.set_read_timeout(Some(Duration::from_secs(2)))?;
            tcp.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            tcp.read_to_string(&mut said)
        });
        asked.is_ok() && said.contains(r#""health":"true""#)
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(pid) = self.pid.take() {
            kill_process(pid, Signal::KILL).unwrap();
        }
        if let Some(mut keeper) = self.keeper.take() {
            if let Some(mut input) = keeper.stdin.take() {
                input.write_all(b"keep\n").unwrap();
            }
            keeper.wait().unwrap();
        }
    }

    /// Makes it anew from a snapshot, as `etcdctl snapshot restore` does, on the same ports.
    pub(crate) fn restore(&mut self, snapshot: &std::path::Path) {
        self.kill();
        let data = self.folder.path().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let name = format!("n{}", self.number);
        let done = Command::new("etcdctl")
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .arg("--data-dir")
            .arg(&data)
            .args(["--name", &name, "--initial-cluster", &format!("{name}={peer}")])
            .args(["--initial-advertise-peer-urls", &peer])
            .env("ETCDCTL_API", "3")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.run();
    }

    /// Stops it where it is, as a machine that hangs: its connections stay, and nobody answers.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid.unwrap(), Signal::STOP).unwrap();
    }

    /// Lets it go on, and waits until it answers.
    pub(crate) fn thaw(&self) {
        kill_process(self.pid.unwrap(), Signal::CONT).unwrap();
        self.wait().unwrap();
    }

    /// The address of a database.
    pub(crate) fn address(&self, name: &str) -> String {
        let scheme = if self.tls { "etcds" } else { "etcd" };
        format!("{scheme}://127.0.0.1:{}/{name}", self.port)
    }

    /// The same, and as whom.
    pub(crate) fn address_of(&self, user: &str, name: &str) -> String {
        self.address(name).replace("://", &format!("://{user}@"))
    }

    /// A client of its own, for what a store does not do.
    pub(crate) async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.endpoint()], None).await.unwrap()
    }

    /// Makes etcd forget its own history.
    pub(crate) async fn compact(&self) {
        let mut client = self.client().await;
        let now = client.get("x", None).await.unwrap().header().unwrap().revision();
        client.compact(now, None).await.unwrap();
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The etcd that the tests of one process share.
pub(crate) fn shared() -> &'static Etcd {
    static SHARED: OnceLock<Etcd> = OnceLock::new();
    SHARED.get_or_init(Etcd::start)
}

/// The name of a database that nobody else has.
pub(crate) fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A new, empty database in the shared etcd.
pub(crate) async fn new_store() -> EtcdStore {
    EtcdStore::open(&shared().address(&name())).await.unwrap()
}

/// The key of this text.
pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// A change that puts a number at a key.
pub(crate) fn put(at: &str, n: u64) -> Change {
    Change::put(key(at), Document::trusted(&n.to_string()))
}

/// A commit of these changes by Ann.
pub(crate) fn commit(changes: impl IntoIterator<Item = Change>) -> Commit {
    Commit::new("ann", "because", changes.into_iter().collect())
}

/// Every commit, oldest first.
pub(crate) async fn whole_log(store: &dyn Store) -> Vec<LogEntry> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = store.log(&Range::All, before, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.info.revision);
        all.extend(page);
    }
    all.reverse();
    all
}

/// Every row that stands, as of one revision.
pub(crate) async fn all_rows(store: &dyn Store, range: Range) -> Vec<Row> {
    let (mut all, mut query) = (Vec::new(), Query::new(range));
    loop {
        let page = store.read(&query).await.unwrap();
        query.at = Some(page.at);
        all.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}

/// What a fold of the whole log leaves standing: it has to be what is read.
pub(crate) async fn check_rows(store: &dyn Store) {
    let mut rows = BTreeMap::new();
    for entry in whole_log(store).await {
        for change in entry.changes {
            rows.insert(change.key, (change.value, entry.info.revision));
        }
    }
    let expected: Vec<_> = rows.into_iter().filter(|(_, (value, _))| value.is_some()).collect();
    let found = all_rows(store, Range::All).await;
    let found: Vec<_> = found.into_iter().map(|row| (row.key, (row.value, row.revision))).collect();
    assert!(found == expected, "{} rows stand, {} should", found.len(), expected.len());
}

/// How many keys etcd holds under a prefix, without the store's help.
pub(crate) async fn count(etcd: &Etcd, prefix: &str) -> i64 {
    let mut client = etcd.client().await;
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    client.get(prefix, Some(options)).await.unwrap().count()
}

/// A way to etcd that can be cut.
pub(crate) struct Way {
    port: u16,
    open: watch::Sender<bool>,
}

impl Way {
    pub(crate) async fn to(etcd: &Etcd) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, gate) = watch::channel(true);
        let target = etcd.endpoint();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, mut gate) = (target.clone(), gate.clone());
                tokio::spawn(async move {
                    if !*gate.borrow() {
                        return;
                    }
                    let Ok(mut far) = tokio::net::TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = gate.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { port, open }
    }

    /// Cuts it, or mends it.
    pub(crate) fn set(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// The address of a database through it.
    pub(crate) fn address(&self, name: &str) -> String {
        format!("etcd://127.0.0.1:{}/{name}", self.port)
    }
}
