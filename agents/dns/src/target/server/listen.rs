//! The sockets: one UDP and one TCP socket an address, everything bounded.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::answer::{Zones, answer};
use super::transfer;
use crate::target::tsig::Signature;

/// What bounds TCP.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// How many connections are open at once; more wait in the system's queue.
    connections: usize,
    /// How long a connection may say nothing, or leave an answer unread.
    idle: Duration,
    /// How long it may last, so that a busy one makes room, too.
    life: Duration,
}

const BOUNDS: Bounds =
    Bounds { connections: 256, idle: Duration::from_secs(10), life: Duration::from_secs(120) };
/// The first pause after a failure of a socket; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
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
        self.serve_within(BOUNDS, zones)
    }

    fn serve_within(self, bounds: Bounds, zones: &Arc<Zones>) -> io::Result<Vec<JoinHandle<()>>> {
        let udp = Arc::new(tokio::net::UdpSocket::from_std(self.udp)?);
        let tcp = tokio::net::TcpListener::from_std(self.tcp)?;
        let mut tasks: Vec<_> =
            (0..READERS).map(|_| tokio::spawn(datagrams(udp.clone(), zones.clone()))).collect();
        tasks.push(tokio::spawn(connections(tcp, bounds, zones.clone())));
        Ok(tasks)
    }
}

/// A run of failures of one socket: each is waited out longer, and only the first is told.
struct Failures {
    what: &'static str,
    pause: Option<Duration>,
}

impl Failures {
    fn of(what: &'static str) -> Self {
        Self { what, pause: None }
    }

    fn over(&mut self) {
        if self.pause.take().is_some_and(|pause| pause == LONGEST_PAUSE) {
            tracing::info!("{}: it works again", self.what);
        }
    }

    async fn another(&mut self, error: &io::Error) {
        let pause = match self.pause {
            None => FIRST_PAUSE,
            Some(last) => (last * 2).min(LONGEST_PAUSE),
        };
        // One that passes at once is nobody's business; that it lasts is told once.
        if pause == LONGEST_PAUSE && self.pause != Some(LONGEST_PAUSE) {
            tracing::warn!("{}: {error}; trying again every second", self.what);
        }
        self.pause = Some(pause);
        tokio::time::sleep(pause).await;
    }
}

/// Where questions come from by UDP: a socket, or what a test puts in its place.
trait Datagrams: Send + Sync + 'static {
    fn receive(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;
    fn send(&self, reply: &[u8], to: SocketAddr) -> impl Future<Output = io::Result<usize>> + Send;
}

impl Datagrams for tokio::net::UdpSocket {
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer).await
    }

    async fn send(&self, reply: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send_to(reply, to).await
    }
}

async fn datagrams(socket: Arc<impl Datagrams>, zones: Arc<Zones>) {
    let mut failures = Failures::of("receive questions by UDP");
    let mut buffer = vec![0; 4096];
    loop {
        let (len, from) = match socket.receive(&mut buffer).await {
            Ok(received) => received,
            // Mostly about an answer that could not be delivered; but what lasts must not spin.
            Err(error) => {
                failures.another(&error).await;
                continue;
            }
        };
        failures.over();
        // Port 0 cannot be answered.
        if from.port() == 0 {
            continue;
        }
        if let Some(reply) = answer(&zones, &buffer[..len], true) {
            let _ = socket.send(&reply, from).await;
        }
    }
}

async fn connections(listener: tokio::net::TcpListener, bounds: Bounds, zones: Arc<Zones>) {
    let mut failures = Failures::of("take a TCP connection");
    let free = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                // Mostly: no more files may be open. Waiting is all that helps.
                failures.another(&error).await;
                continue;
            }
        };
        failures.over();
        let zones = zones.clone();
        tokio::spawn(async move {
            // A connection that breaks harms only itself.
            let _ = timeout(bounds.life, connection(stream, peer.ip(), bounds.idle, &zones)).await;
            drop(permit);
        });
    }
}

async fn connection(mut stream: TcpStream, peer: IpAddr, idle: Duration, zones: &Zones) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut query = Vec::new();
    loop {
        let len = timeout(idle, stream.read_u16()).await??;
        query.resize(len.into(), 0);
        timeout(idle, stream.read_exact(&mut query)).await??;
        let asked = Message::from_vec(&query).ok().filter(transfer::is_asked);
        let reply = match asked.map(|asked| (Signature::of(zones.access.key.as_ref(), &query, &asked), asked))
        {
            // `answer` has the word for a signature that is not good.
            None | Some((Signature::Bad(_), _)) => answer(zones, &query, false),
            Some((signature, asked)) => match transfer::begin(zones, peer, &asked, signature) {
                Ok(transfer) => {
                    for message in transfer {
                        timeout(idle, send(&mut stream, &message)).await??;
                    }
                    continue;
                }
                Err(refusal) => refusal,
            },
        };
        let Some(reply) = reply else { return Ok(()) };
        timeout(idle, send(&mut stream, &reply)).await??;
    }
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut out = len.to_be_bytes().to_vec();
    out.extend(message);
    stream.write_all(&out).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    /// A question for a zone that nobody has: the answer is as good as any.
    const QUESTION: &[u8] = b"\0\x13\0\x07\0\0\0\x01\0\0\0\0\0\0\x01x\0\0\x01\0\x01";

    #[derive(Default)]
    struct Broken(AtomicUsize);

    impl Datagrams for Broken {
        async fn receive(&self, _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(io::ErrorKind::NetworkDown.into())
        }

        async fn send(&self, _: &[u8], _: SocketAddr) -> io::Result<usize> {
            Ok(0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_fails_is_asked_less_and_less() {
        let broken = Arc::new(Broken::default());
        let reader = tokio::spawn(datagrams(broken.clone(), Arc::default()));
        tokio::time::sleep(Duration::from_millis(500)).await;
        reader.abort();
        // 1 + 2 + 4 + … + 256 ms.
        assert!((2..=10).contains(&broken.0.load(Ordering::Relaxed)), "{:?}", broken.0);
    }

    async fn serve(connections: usize, idle: u64, life: u64) -> (SocketAddr, Vec<JoinHandle<()>>) {
        let [idle, life] = [idle, life].map(Duration::from_millis);
        let pair = Pair::bind(([127, 0, 0, 1], 0).into()).unwrap();
        (pair.address, pair.serve_within(Bounds { connections, idle, life }, &Arc::default()).unwrap())
    }

    async fn ask(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(QUESTION).await?;
        let len = stream.read_u16().await?;
        stream.read_exact(&mut vec![0; len.into()]).await.map(drop)
    }

    #[tokio::test]
    async fn connections_are_bounded_in_number_and_time() {
        let (at, tasks) = serve(2, 400, 60_000).await;
        // Two that say nothing: a third waits until one of them has been idle for too long.
        let start = Instant::now();
        let mut silent = [TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap()];
        ask(&mut TcpStream::connect(at).await.unwrap()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
        assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0);
        // A length, and then one octet now and then: that is silence, too.
        let mut slow = TcpStream::connect(at).await.unwrap();
        let drip = async {
            for octet in QUESTION {
                tokio::time::sleep(Duration::from_millis(100)).await;
                slow.write_all(&[*octet]).await?;
            }
            slow.read_u16().await
        };
        assert!(drip.await.is_err());
        tasks.iter().for_each(JoinHandle::abort);

        // One that never rests ends all the same.
        let (at, tasks) = serve(2, 10_000, 600).await;
        let start = Instant::now();
        let mut busy = TcpStream::connect(at).await.unwrap();
        while ask(&mut busy).await.is_ok() {
            assert!(start.elapsed() < Duration::from_secs(20), "it is never ended");
        }
        assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
        tasks.iter().for_each(JoinHandle::abort);
    }
}
