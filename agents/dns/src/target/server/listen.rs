//! The sockets: one UDP and one TCP socket an address, everything bounded.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::answer::{Zones, answer};

/// How many TCP connections are open at once; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long a TCP connection may say nothing, or leave an answer unread.
const IDLE: Duration = Duration::from_secs(10);
/// How many tasks read one UDP socket.
const READERS: usize = 2;

/// A pair of sockets on one address.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Pair {
    /// Binds both; with port 0, both to the same free port.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        // The port that TCP gets may be taken for UDP: then another one is tried.
        for left in (0..16).rev() {
            let tcp = TcpListener::bind(address)?;
            let bound = tcp.local_addr()?;
            match UdpSocket::bind(bound) {
                Ok(udp) => {
                    tcp.set_nonblocking(true)?;
                    udp.set_nonblocking(true)?;
                    return Ok(Self { address: bound, udp, tcp });
                }
                Err(error) if address.port() != 0 || left == 0 => return Err(error),
                Err(_) => {}
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Answers from now on, until the tasks are ended. Needs a running tokio.
    pub(super) fn serve(self, zones: &Arc<Zones>) -> io::Result<Vec<JoinHandle<()>>> {
        let udp = Arc::new(tokio::net::UdpSocket::from_std(self.udp)?);
        let tcp = tokio::net::TcpListener::from_std(self.tcp)?;
        let mut tasks: Vec<_> =
            (0..READERS).map(|_| tokio::spawn(datagrams(udp.clone(), zones.clone()))).collect();
        tasks.push(tokio::spawn(connections(tcp, zones.clone())));
        Ok(tasks)
    }
}

async fn datagrams(socket: Arc<tokio::net::UdpSocket>, zones: Arc<Zones>) {
    let mut buffer = vec![0; 4096];
    loop {
        // An error here is about an answer that could not be delivered, not about this socket.
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
        // Port 0 cannot be answered; small ports of other services would make loops.
        if from.port() == 0 {
            continue;
        }
        if let Some(reply) = answer(&zones, &buffer[..len], true) {
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

async fn connections(listener: tokio::net::TcpListener, zones: Arc<Zones>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Mostly: no more files may be open. Waiting is all that helps.
                tracing::warn!("a TCP connection could not be taken: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let zones = zones.clone();
        tokio::spawn(async move {
            // A connection that breaks harms only itself.
            let _ = connection(stream, &zones).await;
            drop(permit);
        });
    }
}

async fn connection(mut stream: TcpStream, zones: &Zones) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut query = Vec::new();
    loop {
        let len = timeout(IDLE, stream.read_u16()).await??;
        query.resize(len.into(), 0);
        timeout(IDLE, stream.read_exact(&mut query)).await??;
        let Some(reply) = answer(zones, &query, false) else { return Ok(()) };
        let len = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let mut out = len.to_be_bytes().to_vec();
        out.extend(reply);
        timeout(IDLE, stream.write_all(&out)).await??;
    }
}
