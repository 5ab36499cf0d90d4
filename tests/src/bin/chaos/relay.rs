//! A link between a client or an agent and a server, a server and a member of etcd, or a member and the others, that can be cut, slowed and broken.
//!
//! It carries octets over TCP. What is sent while the link is cut is kept and gets there when it is not cut any more, as
//! on a real network: late, and possibly long after whoever sent it gave up.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::schedule::Way;

/// How long each piece takes on a slow link.
const SLOW: Duration = Duration::from_millis(150);

/// One link.
pub(crate) struct Relay {
    port: u16,
    way: watch::Sender<Way>,
}

#[derive(Clone, Copy)]
enum Direction {
    There,
    Back,
}

impl Relay {
    /// A link to this port of this machine.
    pub(crate) async fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for a relay")?;
        let port = listener.local_addr().context("a port for a relay")?.port();
        let (way, told) = watch::channel(Way::Open);
        tokio::spawn(async move {
            let pieces = Arc::new(AtomicU32::new(0));
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, told.clone(), Arc::clone(&pieces)));
            }
        });
        Ok(Self { port, way })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The same, without a scheme.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

/// One connection, until either end closes it.
async fn carry(client: TcpStream, to: u16, mut way: watch::Receiver<Way>, pieces: Arc<AtomicU32>) {
    if passes(&mut way, Direction::There).await.is_none() {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pump(from_client, to_server, Direction::There, way.clone(), &pieces) => {}
        () = pump(from_server, to_client, Direction::Back, way, &pieces) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut way: watch::Receiver<Way>,
    pieces: &AtomicU32,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let Some(way) = passes(&mut way, direction).await else { return };
        if way == Way::Slow {
            tokio::time::sleep(SLOW).await;
        }
        let broken = way == Way::Breaks && pieces.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        if broken || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Waits until something passes in this direction, and says how; `None`: the link is gone.
async fn passes(way: &mut watch::Receiver<Way>, direction: Direction) -> Option<Way> {
    let open = |way: &Way| match direction {
        Direction::There => !matches!(way, Way::Cut | Way::CutThere),
        Direction::Back => !matches!(way, Way::Cut | Way::CutBack),
    };
    way.wait_for(open).await.ok().map(|way| *way)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends back whatever comes.
    async fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        port
    }

    async fn hears(stream: &mut TcpStream) -> Option<u8> {
        tokio::time::timeout(Duration::from_secs(20), stream.read_u8()).await.unwrap().ok()
    }

    #[tokio::test]
    async fn what_is_cut_off_comes_late_and_what_breaks_ends() {
        let relay = Relay::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port)).await.unwrap();
        stream.write_u8(1).await.unwrap();
        assert_eq!(hears(&mut stream).await, Some(1));
        for way in [Way::Cut, Way::CutThere, Way::CutBack] {
            relay.set(way);
            stream.write_u8(2).await.unwrap();
            let early = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
            assert!(early.is_err(), "{way:?} let something through");
            relay.set(Way::Open);
            assert_eq!(hears(&mut stream).await, Some(2));
        }
        relay.set(Way::Slow);
        let begun = std::time::Instant::now();
        stream.write_u8(3).await.unwrap();
        assert_eq!(hears(&mut stream).await, Some(3));
        assert!(begun.elapsed() >= 2 * SLOW);
        relay.set(Way::Breaks);
        let mut passed = 0;
        while stream.write_u8(4).await.is_ok() && hears(&mut stream).await.is_some() {
            passed += 1;
            assert!(passed < 10, "it never breaks");
        }
    }
}
