//! The sockets: one UDP and one TCP socket an address, everything bounded.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

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
    /// How long it is asked for more, so that a busy one makes room, too. Transfers do not count: how long one takes is up to the
    /// zone and the line.
    life: Duration,
    /// How long a message of a transfer may take. What the system has taken over already, some MiB perhaps, has to leave before it takes
    /// more, so on a slow line much time passes between two messages.
    stalled: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 256,
    idle: Duration::from_secs(10),
    life: Duration::from_secs(120),
    stalled: Duration::from_secs(300),
};
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
            let _ = stream.set_nodelay(true);
            if let Err(End::Cut(why)) = connection(stream, peer.ip(), bounds, &zones).await {
                tracing::warn!("{why}");
            }
            drop(permit);
        });
    }
}

/// Why a connection ended that the other side did not simply leave.
#[derive(Debug)]
enum End {
    /// It broke, or was silent: nobody's business.
    Gone,
    /// In the middle of a transfer.
    Cut(String),
}

impl<E> From<E> for End
where
    io::Error: From<E>,
{
    fn from(_: E) -> Self {
        Self::Gone
    }
}

async fn connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    bounds: Bounds,
    zones: &Zones,
) -> Result<(), End> {
    let idle = bounds.idle;
    let mut end = Instant::now() + bounds.life;
    let mut query = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let len = timeout(idle.min(left), stream.read_u16()).await??;
        query.resize(len.into(), 0);
        timeout(idle, stream.read_exact(&mut query)).await??;
        let asked = Message::from_vec(&query).ok().filter(transfer::is_asked);
        let reply = match asked.map(|asked| (Signature::of(zones.access.key.as_ref(), &query, &asked), asked))
        {
            // `answer` has the word for a signature that is not good.
            None | Some((Signature::Bad(_), _)) => answer(zones, &query, false),
            Some((signature, asked)) => match transfer::begin(zones, peer, &asked, signature) {
                Ok(transfer) => {
                    let begun = Instant::now();
                    let sent = send_all(&mut stream, transfer, bounds.stalled).await;
                    sent.map_err(|why| End::Cut(cut(&asked, peer, &why)))?;
                    end += begun.elapsed();
                    continue;
                }
                Err(refusal) => refusal,
            },
        };
        let Some(reply) = reply else { return Ok(()) };
        timeout(idle, send(&mut stream, &reply)).await??;
    }
}

/// A transfer that broke off, for people.
fn cut(asked: &Message, peer: IpAddr, why: &str) -> String {
    let zone = asked.queries.first().map(|question| question.name.to_string()).unwrap_or_default();
    format!("the transfer of {zone} to {peer} was cut: {why}; the secondary has to begin anew")
}

async fn send_all(
    stream: &mut (impl AsyncWrite + Unpin),
    transfer: transfer::Transfer,
    stalled: Duration,
) -> Result<(), String> {
    for message in transfer {
        match timeout(stalled, send(stream, &message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("nothing more was taken for {} s", stalled.as_secs())),
        }
    }
    Ok(())
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut out = len.to_be_bytes().to_vec();
    out.extend(message);
    stream.write_all(&out).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hickory_proto::op::Query;
    use hickory_proto::rr::{Name, RecordType};
    use tokio::net::TcpStream;

    use super::*;
    use crate::target::server::transfer::{Access, TransferSettings};

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
        (
            pair.address,
            pair.serve_within(Bounds { connections, idle, life, ..BOUNDS }, &Arc::default()).unwrap(),
        )
    }

    async fn ask(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(QUESTION).await?;
        let len = stream.read_u16().await?;
        stream.read_exact(&mut vec![0; len.into()]).await.map(drop)
    }

    #[tokio::test]
    async fn connections_are_bounded_in_number_and_time() {
        let (at, tasks) = serve(2, 2_000, 60_000).await;
        // Two that say nothing: a third waits until one of them has been idle for too long.
        let start = Instant::now();
        let mut silent = [TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap()];
        ask(&mut TcpStream::connect(at).await.unwrap()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(2_000), "{:?}", start.elapsed());
        assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0);
        // A length, and then one octet now and then: that is silence, too.
        let mut slow = TcpStream::connect(at).await.unwrap();
        let drip = async {
            for octet in QUESTION {
                tokio::time::sleep(Duration::from_millis(200)).await;
                slow.write_all(&[*octet]).await?;
            }
            slow.read_u16().await
        };
        assert!(drip.await.is_err());
        tasks.iter().for_each(JoinHandle::abort);

        // One that never rests ends all the same.
        let (at, tasks) = serve(2, 60_000, 600).await;
        let start = Instant::now();
        let mut busy = TcpStream::connect(at).await.unwrap();
        while ask(&mut busy).await.is_ok() {
            assert!(start.elapsed() < Duration::from_secs(50), "it is never ended");
        }
        assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
        tasks.iter().for_each(JoinHandle::abort);
    }

    const SECONDARY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// A zone of some MiB that the secondary may have, and how it asks for it.
    fn large() -> (Zones, Vec<u8>) {
        let allow = vec![SECONDARY.to_string()];
        let access = Access::new(&TransferSettings { allow, ..TransferSettings::default() }).unwrap();
        let owners = (0..20_000).map(|n| format!("host{n}")).collect();
        let zones = Zones::new(access);
        zones.add(crate::target::server::tests::data(&owners));
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::AXFR));
        let octets = query.to_vec().unwrap();
        (zones, [&u16::try_from(octets.len()).unwrap().to_be_bytes()[..], &octets].concat())
    }

    /// Reads a message now and then; the records of the first so many of them.
    async fn read(stream: &mut tokio::io::DuplexStream, pause: Duration, messages: usize) -> usize {
        let mut records = 0;
        for _ in 0..messages {
            tokio::time::sleep(pause).await;
            let Ok(len) = stream.read_u16().await else { break };
            let mut octets = vec![0; len.into()];
            stream.read_exact(&mut octets).await.unwrap();
            records += Message::from_vec(&octets).unwrap().answers.len();
        }
        records
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_over_a_slow_line_comes_to_its_end() {
        let (zones, question) = large();
        let (mut far, near) = tokio::io::duplex(1024);
        let secondary = async {
            far.write_all(&question).await.unwrap();
            let begun = Instant::now();
            // All of them, at a pace that makes it last for longer than a connection is asked for more.
            let mut records = 0;
            while records < 20_002 {
                let more = read(&mut far, Duration::from_secs(60), 1).await;
                assert!(more > 0, "cut after {records} records");
                records += more;
            }
            assert_eq!(records, 20_002);
            assert!(begun.elapsed() > 4 * BOUNDS.life, "{:?}", begun.elapsed());
            // The time that it took was not the secondary's: it may ask on.
            far.write_all(&question).await.unwrap();
            assert!(read(&mut far, Duration::ZERO, 1).await > 0);
            drop(far);
        };
        let (end, ()) = tokio::join!(connection(near, SECONDARY, BOUNDS, &zones), secondary);
        assert!(matches!(end, Err(End::Cut(_))), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_nobody_takes_is_cut_and_said() {
        let (zones, question) = large();
        let (mut far, near) = tokio::io::duplex(1024);
        let secondary = async {
            far.write_all(&question).await.unwrap();
            assert!(read(&mut far, Duration::ZERO, 2).await > 0);
            tokio::time::sleep(BOUNDS.stalled * 2).await;
        };
        let begun = Instant::now();
        let end = async { (connection(near, SECONDARY, BOUNDS, &zones).await, begun.elapsed()) };
        let ((end, after), ()) = tokio::join!(end, secondary);
        let Err(End::Cut(why)) = end else { panic!("{end:?}") };
        assert_eq!(
            why,
            "the transfer of example.com. to 127.0.0.1 was cut: nothing more was taken for 300 s; the secondary has to begin anew"
        );
        assert_eq!(after.as_secs(), 300);
    }
}
