//! A proxy that loses what it is told to lose, between a client and a server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It never gets to the server.
    LostOnTheWay,
    /// The server does it, and its answer never gets back.
    AnswerLost,
    /// So many octets of the answer get back.
    CutAfter(usize),
}

/// One request at a time per connection; those whose path holds `word` meet the fates in turn, and then no more.
pub(crate) struct Proxy {
    /// Its address as a store.
    pub(crate) at: String,
    fates: Arc<Mutex<VecDeque<Fate>>>,
    /// How many such requests came.
    seen: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn new(server: &str, word: &'static str, fates: impl IntoIterator<Item = Fate>) -> Self {
        let server = server.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let fates: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(fates.into_iter().collect()));
        let seen = Arc::new(Mutex::new(0));
        let (left, count) = (fates.clone(), seen.clone());
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, left, count) = (server.clone(), left.clone(), count.clone());
                tokio::spawn(async move {
                    // A side that went away ends it.
                    let _ = one(client, &server, word, &left, &count).await;
                });
            }
        });
        Self { at, fates, seen, task }
    }

    /// How many requests came that met a fate, or would have.
    pub(crate) fn seen(&self) -> usize {
        *self.seen.lock().unwrap()
    }

    /// How many fates nobody met.
    pub(crate) fn left(&self) -> usize {
        self.fates.lock().unwrap().len()
    }
}

async fn one(
    mut client: TcpStream,
    server: &str,
    word: &str,
    fates: &Mutex<VecDeque<Fate>>,
    seen: &Mutex<usize>,
) -> std::io::Result<()> {
    let request = request(&mut client).await?;
    let concerned =
        request.split(|b| *b == b'\r').next().is_some_and(|l| String::from_utf8_lossy(l).contains(word));
    let fate = if concerned {
        *seen.lock().unwrap() += 1;
        fates.lock().unwrap().pop_front()
    } else {
        None
    };
    if fate == Some(Fate::LostOnTheWay) {
        return Ok(());
    }
    let mut behind = TcpStream::connect(server).await?;
    behind.write_all(&request).await?;
    match fate {
        Some(Fate::AnswerLost) => {
            behind.read_to_end(&mut Vec::new()).await?;
        }
        Some(Fate::CutAfter(octets)) => {
            tokio::io::copy(&mut behind.take(octets as u64), &mut client).await?;
        }
        _ => {
            tokio::io::copy(&mut behind, &mut client).await?;
        }
    }
    Ok(())
}

/// One whole request, changed so that the server closes the connection after its answer.
async fn request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut got = Vec::new();
    let head = loop {
        if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut got).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&got[..head]).to_lowercase();
    let length =
        text.lines().find_map(|l| l.strip_prefix("content-length:")).map_or(0, |v| v.trim().parse().unwrap());
    while got.len() < head + length {
        if client.read_buf(&mut got).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let line = got.iter().position(|b| *b == b'\n').unwrap() + 1;
    got.splice(line..line, *b"connection: close\r\n");
    Ok(got)
}
