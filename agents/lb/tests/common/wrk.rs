//! `wrk`, which asks over HTTP again and again, each time with a connection of its own.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// What came of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) answers: u64,
    /// Connections that were not taken, or not in time; answers that were none, or none of success.
    pub(crate) failed: u64,
    /// Connections that were closed while something was read.
    pub(crate) closed: u64,
}

/// Those who ask until they are told that it is over, and there were enough answers.
pub(crate) struct Wrk {
    over: Arc<AtomicBool>,
    asks: JoinHandle<Asked>,
}

impl Wrk {
    pub(crate) fn start(port: u16, least: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let asks = thread::spawn(move || {
            let mut sum = Asked::default();
            while !told.load(Ordering::Relaxed) || sum.answers < least {
                let asked = ask(port);
                sum = Asked {
                    answers: sum.answers + asked.answers,
                    failed: sum.failed + asked.failed,
                    closed: sum.closed + asked.closed,
                };
                assert!(asked.answers > 0, "nothing answers: {sum:?}");
            }
            sum
        });
        Self { over, asks }
    }

    pub(crate) fn end(self) -> Asked {
        self.over.store(true, Ordering::Relaxed);
        self.asks.join().unwrap()
    }
}

/// Asks for two seconds.
fn ask(port: u16) -> Asked {
    let mut command = Command::new("wrk");
    command.args(["-t2", "-c12", "-d2s", "--timeout", "10s", "-H", "Connection: close"]);
    let output = command.arg(format!("http://127.0.0.1:{port}/")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let mut asked = Asked::default();
    for line in said.lines().map(str::trim) {
        if let Some((answers, _)) = line.split_once(" requests in ") {
            asked.answers = number(answers);
        } else if let Some(bad) = line.strip_prefix("Non-2xx or 3xx responses:") {
            asked.failed += number(bad);
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            for error in errors.split(',') {
                let (kind, count) = error.trim().split_once(' ').unwrap();
                match kind {
                    "read" => asked.closed += number(count),
                    _ => asked.failed += number(count),
                }
            }
        }
    }
    asked
}
