//! A link to a port of this machine that counts what it carries, and can be cut: then connections end, and new ones do too.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One link. It lasts as long as the runtime; nobody comes through when it is dropped.
#[derive(Debug)]
pub struct Link {
    /// Where it listens.
    pub port: u16,
    open: watch::Sender<bool>,
    back: Arc<AtomicU64>,
}

impl Link {
    /// A link to this port. Needs a tokio runtime that goes on while this is used.
    ///
    /// # Errors
    /// There is no port to listen on.
    pub async fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for a link")?;
        let port = listener.local_addr().context("a port for a link")?.port();
        let (open, told) = watch::channel(true);
        let back = Arc::<AtomicU64>::default();
        let count = Arc::clone(&back);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, told.clone(), Arc::clone(&count)));
            }
        });
        Ok(Self { port, open, back })
    }

    /// Ends what goes over it, and lets nothing through until it is healed.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        self.open.send_replace(true);
    }

    /// How many octets came back over it so far: from the server to who asks it.
    #[must_use]
    pub fn back(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }
}

/// One connection, until either end closes it or the link is cut.
async fn carry(client: TcpStream, to: u16, mut open: watch::Receiver<bool>, back: Arc<AtomicU64>) {
    let cut = !*open.borrow();
    if cut {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = AtomicU64::new(0);
    tokio::select! {
        () = pump(from_client, to_server, &there) => {}
        () = pump(from_server, to_client, &back) => {}
        () = is_cut(&mut open) => {}
    }
}

async fn is_cut(open: &mut watch::Receiver<bool>) {
    let _ = open.wait_for(|open| !*open).await;
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Answers two octets to each that comes.
    async fn doubling() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(octet) = stream.read_u8().await {
                        stream.write_all(&[octet, octet]).await.unwrap();
                    }
                });
            }
        });
        port
    }

    /// What comes back for one octet; `None`: the connection ended.
    async fn asked(stream: &mut TcpStream) -> Option<u16> {
        stream.write_u8(7).await.ok()?;
        tokio::time::timeout(Duration::from_secs(20), stream.read_u16()).await.unwrap().ok()
    }

    #[tokio::test]
    async fn it_counts_what_comes_back_and_lets_nothing_through_while_it_is_cut() {
        let link = Link::start(doubling().await).await.unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, link.port));
        let mut stream = connect().await.unwrap();
        for _ in 0..3 {
            assert_eq!(asked(&mut stream).await, Some(0x0707));
        }
        assert_eq!(link.back(), 6);
        link.cut();
        assert_eq!(asked(&mut stream).await, None, "what was there goes on");
        if let Ok(mut new) = connect().await {
            assert_eq!(asked(&mut new).await, None, "somebody new comes through");
        }
        assert_eq!(link.back(), 6);
        link.heal();
        assert_eq!(asked(&mut connect().await.unwrap()).await, Some(0x0707));
        assert_eq!(link.back(), 8);
    }
}
