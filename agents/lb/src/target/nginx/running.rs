//! What nginx runs with: its processes, what it answers, and its connections.
//!
//! A reload tells nobody how it ended. So a small server of Shoal's own in nginx's configuration answers with a name of what all
//! pools were made from, and the processes say which of them take no more requests. Open connections to a server are those that
//! the kernel has in nginx's network namespace, whichever process of the machine has opened them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_agent::Fault;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::render::Block;

/// The most of an answer that is read, in octets.
const MOST: u64 = 4096;
/// After how long without an answer another connection asks, too.
const AGAIN: Duration = Duration::from_millis(250);
/// How many connections ask at once at most.
const ASKERS: usize = 8;

/// The process id of the master.
///
/// # Errors
/// nginx does not run, as far as its file says.
pub(super) fn master(file: &Path) -> Result<u32, Fault> {
    let fault = |why: String| {
        Fault::new("find nginx", why)
            .next("see that it runs, and that `pid` in [agent.nginx] is where it says so")
    };
    let text = fs::read_to_string(file).map_err(|e| fault(format!("{}: {e}", file.display())))?;
    let pid: u32 =
        text.trim().parse().map_err(|_| fault(format!("{} holds no process id", file.display())))?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if line.starts_with(b"nginx: master") {
        return Ok(pid);
    }
    Err(fault(format!("{} names process {pid}, which is no master of nginx", file.display())))
}

/// The processes that work.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Workers {
    /// They take requests.
    pub(super) active: BTreeSet<u32>,
    /// They end what they have.
    pub(super) leaving: BTreeSet<u32>,
}

/// Looks at the processes of a master.
///
/// # Errors
/// They cannot be seen.
pub(super) fn workers(master: u32) -> Result<Workers, Fault> {
    let path = format!("/proc/{master}/task/{master}/children");
    let children = fs::read_to_string(&path)
        .map_err(|e| Fault::new("look at the processes of nginx", format!("{path}: {e}")))?;
    let mut workers = Workers::default();
    for pid in children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
        // One that ended meanwhile is none.
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let title = String::from_utf8_lossy(&title);
        if !title.starts_with("nginx: worker process") {
            continue;
        }
        if title.contains("is shutting down") {
            workers.leaving.insert(pid);
        } else {
            workers.active.insert(pid);
        }
    }
    Ok(workers)
}

/// What nginx answers at this address; nothing, where nobody is.
///
/// A connection that comes while a process of before closes its ears may have woken only that one: then it waits for the next
/// connection to wake another (processes wait for connections with `EPOLLEXCLUSIVE`, epoll_ctl(2)). So who gets no answer soon asks
/// once more, beside it.
///
/// # Errors
/// Somebody is, and says nothing in time.
pub(super) async fn answer(at: SocketAddr, block: Block, within: Duration) -> Result<Option<String>, Fault> {
    let what = || format!("ask nginx at {at} what it runs with");
    let said = match tokio::time::timeout(within, first(at, block)).await {
        Ok(Ok(said)) => said,
        // Where it listens no more, the last connection may be cut.
        Ok(Err(e)) if is_nobody(&e) => return Ok(None),
        Ok(Err(e)) => return Err(Fault::new(what(), e)),
        Err(_) => return Err(Fault::new(what(), format!("no answer within {} s", within.as_secs()))),
    };
    let said = String::from_utf8_lossy(&said).into_owned();
    let body = match block {
        Block::Http => said.split_once("\r\n\r\n").map_or("", |(_, body)| body),
        Block::Stream => &said,
    };
    Ok(Some(body.trim().to_owned()))
}

/// The first answer to one or more connections.
async fn first(at: SocketAddr, block: Block) -> std::io::Result<Vec<u8>> {
    let mut asked = JoinSet::new();
    loop {
        if asked.len() < ASKERS {
            asked.spawn(ask(at, block));
        }
        if let Ok(Some(said)) = tokio::time::timeout(AGAIN, asked.join_next()).await {
            return said.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        }
    }
}

async fn ask(at: SocketAddr, block: Block) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(at).await?;
    if block == Block::Http {
        stream.write_all(b"GET / HTTP/1.0\r\nHost: shoal\r\n\r\n").await?;
    }
    let mut said = Vec::new();
    stream.take(MOST).read_to_end(&mut said).await?;
    Ok(said)
}

fn is_nobody(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
    matches!(e.kind(), ConnectionRefused | ConnectionReset)
}

/// How many open connections there are to each of these, by the kernel's list in the master's network namespace: for datagrams, the
/// sessions that nginx keeps. Costs all connections of the machine.
///
/// # Errors
/// The list cannot be read, or not be understood.
pub(super) fn connections(
    master: u32,
    udp: bool,
    to: &BTreeSet<SocketAddr>,
) -> Result<BTreeMap<SocketAddr, u64>, Fault> {
    let mut all = BTreeMap::new();
    for file in if udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] } {
        let path = format!("/proc/{master}/net/{file}");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(e) if file.ends_with('6') && e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Fault::new("count connections", format!("{path}: {e}"))),
        };
        for line in text.lines().skip(1) {
            let peer = open(line)
                .ok_or_else(|| Fault::new("count connections", format!("{path} has the line {line:?}")))?;
            if let Some(peer) = peer.filter(|peer| to.contains(peer)) {
                *all.entry(peer).or_default() += 1;
            }
        }
    }
    Ok(all)
}

/// The far end of a line, if it is open: established, being opened (2), or closed by the far end alone (8). `None`: no line of the list.
fn open(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split_whitespace().skip(2);
    let (far, state) = (words.next()?, words.next()?);
    if !matches!(state, "01" | "02" | "08") {
        return Some(None);
    }
    let (address, port) = far.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four octets, each as the machine reads it.
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut octets = [0; 16];
            octets.iter_mut().zip(words.as_flattened()).for_each(|(to, from)| *to = *from);
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(Some(SocketAddr::new(ip, port)))
}

/// What is added to nginx's log of errors from now on.
#[derive(Debug)]
pub(super) struct Complaints {
    path: PathBuf,
    from: u64,
}

impl Complaints {
    pub(super) fn from_now(path: &Path) -> Self {
        Self { path: path.to_owned(), from: fs::metadata(path).map_or(0, |file| file.len()) }
    }

    /// The last one that keeps nginx from reading its configuration, if there is one and the log can be read.
    pub(super) fn last(&self) -> Option<String> {
        let mut file = fs::File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.from)).ok()?;
        let mut added = Vec::new();
        file.take(1 << 20).read_to_end(&mut added).ok()?;
        let added = String::from_utf8_lossy(&added).into_owned();
        added.lines().rev().find(|line| line.contains("[emerg]")).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_not_heard_asks_once_more() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let serve = async {
            let (_unheard, _) = listener.accept().await.unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            second.write_all(b" told \n").await.unwrap();
            drop(second);
            std::future::pending::<()>().await;
        };
        let asks = answer(at, Block::Stream, Duration::from_secs(20));
        let said = tokio::select! { said = asks => said, () = serve => unreachable!() };
        assert_eq!(said.unwrap().as_deref(), Some("told"));

        let silent = async {
            let mut all = Vec::new();
            loop {
                all.push(listener.accept().await.unwrap());
                assert!(all.len() <= ASKERS);
            }
        };
        let asks = answer(at, Block::Stream, AGAIN * (ASKERS as u32 + 3));
        let said = tokio::select! { said = asks => said, () = silent => unreachable!() };
        assert!(said.unwrap_err().to_string().contains("what it runs with"));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_kernel_are_read() {
        let line =
            |far: &str, state: &str| format!("   3: 0100007F:A0B4 {far} {state} 00000000:00000000 00:0");
        assert_eq!(open(&line("0100007F:1F90", "01")), Some(Some("127.0.0.1:8080".parse().unwrap())));
        assert_eq!(open(&line("0100007F:1F90", "06")), Some(None));
        let six = "B80D0120000000000000000001000000:0050";
        assert_eq!(open(&line(six, "01")), Some(Some("[2001:db8::1]:80".parse().unwrap())));
        let mapped = "0000000000000000FFFF0000020200C0:0050";
        assert_eq!(open(&line(mapped, "08")), Some(Some("192.0.2.2:80".parse().unwrap())));
        for broken in ["", "3: a b", "3: a 0100007F:1F90", "3: a 01:1F90 01", "3: a 0100007F 01"] {
            assert_eq!(open(broken), None, "{broken}");
        }
    }
}
