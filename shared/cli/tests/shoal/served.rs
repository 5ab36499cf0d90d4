//! The command through a server process, as most people run it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::program::{shoal, text};

/// A server on a database of its own.
pub(crate) struct Served {
    pub(crate) url: String,
    pub(crate) dir: tempfile::TempDir,
    child: Child,
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with("off")
    }

    /// One that asks who may do what.
    pub(crate) fn asking() -> Self {
        Self::with("on")
    }

    fn with(access: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_shoal"))
            .args(["--store", &store, "serve", "--listen", "127.0.0.1:0", "--access", access])
            .env("SHOAL_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = |line: String| Some(line.split_once("at=")?.1.split_whitespace().next()?.to_owned());
        let url = log.by_ref().find_map(|line| address(line.unwrap())).unwrap();
        // Who writes into a pipe that nobody reads stops.
        std::thread::spawn(move || log.for_each(drop));
        Self { url, dir, child }
    }

    pub(crate) fn ok(&self, line: &[&str]) -> String {
        let run = shoal(&self.url, line);
        assert!(run.status.success(), "{line:?}: {}", text(&run.stderr));
        text(&run.stdout).to_owned()
    }

    /// Ends the server at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_server_searches_in_pages() {
    let served = Served::new();
    let docs: String = (0..2_300).map(|n| format!("host: h{n:04}\ndocument: {{n: {n}}}\n---\n")).collect();
    served.ok(&["apply", "-f", &served.file("fleet.yaml", &docs), "-m", "fleet"]);
    let names = served.ok(&["search", "n >= 100", "--names"]);
    assert_eq!((names.lines().count(), names.lines().next()), (2_200, Some("h0100")));
    // Nobody else writes: what the server knows is the newest.
    assert_eq!(served.ok(&["search", "n >= 100", "--names", "--stale"]), names);
    let bad = shoal(&served.url, &["search", "n >="]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("column 5"), "{}", text(&bad.stderr));
    // What is exported through it is the same as from the file.
    let file = format!("sqlite:{}", served.dir.path().join("shoal.db").display());
    assert_eq!(served.ok(&["export"]), text(&shoal(&file, &["export"]).stdout));
}

/// Much at once is done although somebody writes hosts all the time, and that somebody is not turned away.
#[test]
fn a_large_apply_ends_while_others_write() {
    let served = Served::new();
    let docs = |value: u32| -> String {
        (0..1_500).map(|n| format!("host: h{n:04}\ndocument: {{n: {value}}}\n---\n")).collect()
    };
    let (first, second) = (served.file("first.yaml", &docs(1)), served.file("second.yaml", &docs(2)));
    let done = AtomicBool::new(false);
    let wrote = std::thread::scope(|scope| {
        let small = scope.spawn(|| {
            let mut wrote = 0_u32;
            while !done.load(Ordering::Relaxed) {
                served.ok(&["put", "small.example.com", &format!("n={wrote}"), "-m", "small"]);
                wrote += 1;
            }
            wrote
        });
        // All of them are new, then all of them are changed.
        for file in [&first, &second] {
            assert!(served.ok(&["apply", "-f", file, "-m", "much"]).contains("1500 rows"));
        }
        done.store(true, Ordering::Relaxed);
        small.join().unwrap()
    });
    assert!(wrote > 0);
    assert_eq!(served.ok(&["search", "n == 2", "--names"]).lines().count(), 1_500);
    // What a server refuses is refused in the same words and with the same code.
    let bad = served.file("bad.yaml", &(docs(3) + "tag: dns/x\nmembers: [nobody.example.com]\n"));
    let refused = shoal(&served.url, &["apply", "-f", &bad, "-m", "bad"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("dns/x cannot have the member nobody.example.com"),
        "{}",
        text(&refused.stderr)
    );
}
