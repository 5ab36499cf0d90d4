//! Those who ask over connections that they keep, and tell one that was closed while it was idle from an answer that was cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Connections that were opened.
    pub(crate) opened: u64,
    /// Answers of success, from their first octet to their last.
    pub(crate) whole: u64,
    /// Connections that had answered before, and were closed before the first octet of another answer: it is asked again on a new one.
    pub(crate) idle: u64,
    /// Answers that broke off.
    pub(crate) cut: u64,
    /// New connections that were not taken or did not answer, answers that were not of success, and those that did not come in time.
    pub(crate) failed: u64,
}

/// Those who ask, until they are told that it is over and there were enough answers.
pub(crate) struct Keepers {
    over: Arc<AtomicBool>,
    ask: Vec<JoinHandle<Tally>>,
}

impl Keepers {
    /// So many connections at once; `least`: so many answers of all of them.
    pub(crate) fn start(port: u16, connections: u64, least: u64) -> Self {
        let (over, all): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let keep = |_| tokio::spawn(keep_asking(port, least, over.clone(), all.clone()));
        let ask = (0..connections).map(keep).collect();
        Self { over, ask }
    }

    pub(crate) async fn end(self) -> Tally {
        self.over.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for ask in self.ask {
            let one = ask.await.unwrap();
            sum = Tally {
                opened: sum.opened + one.opened,
                whole: sum.whole + one.whole,
                idle: sum.idle + one.idle,
                cut: sum.cut + one.cut,
                failed: sum.failed + one.failed,
            };
        }
        sum
    }
}

async fn keep_asking(port: u16, least: u64, over: Arc<AtomicBool>, all: Arc<AtomicU64>) -> Tally {
    let mut sum = Tally::default();
    let mut kept: Option<TcpStream> = None;
    while !over.load(Ordering::Relaxed) || all.load(Ordering::Relaxed) < least {
        if sum.cut + sum.failed > 100 {
            break;
        }
        let used = kept.is_some();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => {
                sum.opened += 1;
                let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else {
                    sum.failed += 1;
                    continue;
                };
                stream
            }
        };
        match tokio::time::timeout(PATIENCE, ask(&mut stream)).await.unwrap_or(Answer::Bad) {
            Answer::Whole { keeps } => {
                sum.whole += 1;
                all.fetch_add(1, Ordering::Relaxed);
                kept = keeps.then_some(stream);
            }
            Answer::Cut => sum.cut += 1,
            Answer::Nothing if used => sum.idle += 1,
            Answer::Nothing | Answer::Bad => sum.failed += 1,
        }
    }
    sum
}

/// How a request was answered.
enum Answer {
    /// To the end; whether the connection may be used again.
    Whole { keeps: bool },
    /// The connection was closed before the first octet.
    Nothing,
    /// The connection was closed in the middle.
    Cut,
    /// With something else than what was asked for.
    Bad,
}

async fn ask(stream: &mut TcpStream) -> Answer {
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.is_err() {
        return Answer::Nothing;
    }
    let mut said = Vec::new();
    loop {
        match stream.read_buf(&mut said).await {
            Ok(1..) => {}
            Ok(0) | Err(_) if said.is_empty() => return Answer::Nothing,
            Ok(0) | Err(_) => return Answer::Cut,
        }
        if let Some(answer) = read(&said) {
            return answer;
        }
    }
}

/// What this is as an answer; nothing: more has to come.
fn read(said: &[u8]) -> Option<Answer> {
    let said = String::from_utf8_lossy(said);
    let (head, body) = said.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let Some(length) = length else { return Some(Answer::Bad) };
    if body.len() < length {
        return None;
    }
    let good = head.starts_with("http/1.1 200 ") && body.len() == length && body.ends_with(".example.com");
    let keeps = !head.contains("\r\nconnection: close");
    Some(if good { Answer::Whole { keeps } } else { Answer::Bad })
}
