//! `kill -9`: writers are killed at random moments, others go on; whatever was acknowledged is there, whole, and
//! nothing is there by half.
//!
//! The writers are this test again, told by the environment what to be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shoal_core::Revision;
use shoal_store::Store;
use shoal_store_sqlite::{Options, SqliteStore};
use support::{Acknowledged, check, commit, integrity};

const KILLS: usize = 210;
/// Writers at once, and tasks in each: so that groups of commits are killed, too.
const PROCESSES: usize = 3;
const TASKS: usize = 4;

/// What the killed processes do.
fn writer(path: &str, name: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async move {
        // Every third one cuts its commits into slices.
        let options = Options::default().slices_of(if name.ends_with("p0") { 2 } else { 1000 });
        let store = Arc::new(SqliteStore::open_with(path, options).await.unwrap());
        let tasks = (0..TASKS).map(|task| {
            let (store, writer) = (Arc::clone(&store), format!("{name}t{task}"));
            async move {
                for n in 0.. {
                    store.commit(commit(&writer, n)).await.unwrap();
                    let line = format!("\nack {writer} {n}\n");
                    // One write, so that lines of tasks do not mix. Fails when the parent is gone.
                    if std::io::stdout().write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        futures::future::join_all(tasks).await;
    });
}

struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(path: &std::path::Path, name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "acknowledged_commits_survive_kills", "--nocapture", "--test-threads=1"])
            .env("SHOAL_TEST_WRITES", path)
            .env("SHOAL_TEST_NAME", name)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Takes acknowledgements down until there are `enough`, or no more.
    fn listen(&mut self, enough: usize, acknowledged: &mut Acknowledged) {
        let mut heard = 0;
        while heard < enough {
            let Some(line) = self.lines.next() else { return };
            let line = line.unwrap();
            let Some((writer, n)) = line.strip_prefix("ack ").and_then(|l| l.split_once(' ')) else {
                continue;
            };
            // A last line may be cut off: it was acknowledged to nobody then.
            let Ok(n) = n.parse() else { continue };
            let last = acknowledged.entry(writer.to_owned()).or_insert(n);
            assert!(*last <= n);
            *last = n;
            heard += 1;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn acknowledged_commits_survive_kills() {
    if let (Ok(path), Ok(name)) = (std::env::var("SHOAL_TEST_WRITES"), std::env::var("SHOAL_TEST_NAME")) {
        return writer(&path, &name);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let mut random = StdRng::seed_from_u64(9);
    let (mut acknowledged, mut written) = (Acknowledged::new(), BTreeMap::new());
    let (mut seen, mut kills) = (Revision(0), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    while kills < KILLS {
        // Everybody is started, and then killed one after the other while the rest go on.
        let running = (0..PROCESSES).map(|p| Running::start(&path, &format!("k{kills}p{p}")));
        for mut process in running.collect::<Vec<_>>() {
            process.listen(random.random_range(0..30), &mut acknowledged);
            assert_eq!(process.child.try_wait().unwrap(), None, "a writer stopped by itself");
            process.child.kill().unwrap();
            process.listen(usize::MAX, &mut acknowledged);
            kills += 1;
        }
        // Nobody has it open now: this recovers it.
        runtime.block_on(async {
            let store = SqliteStore::open(&path).await.unwrap();
            let known = written.clone();
            check(&store, &mut seen, &mut written, &acknowledged).await.unwrap();
            // What is checked is not looked at again and again.
            acknowledged.retain(|writer, _| !known.contains_key(writer));
            assert_eq!(store.head().await.unwrap().revision, seen);
        });
        written.retain(|writer, _| acknowledged.contains_key(writer));
    }
    assert!(seen.0 > KILLS as u64, "hardly anything was written: {seen}");
    integrity(&path);
    println!("{kills} kills, {seen} commits");
}
