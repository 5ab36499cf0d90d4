//! A real HAProxy whose pool the load-balancer agent keeps, with backends that always serve, people who change the pool, and clients
//! that ask all the time. Nothing is done to any of these: a request that fails, fails because of what Shoal does.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use shoal_client::HttpStore;
use shoal_core::{Change, Document, Key};
use shoal_store::Store as _;
use shoal_tests::binaries::system;
use shoal_tests::process::Process;
use shoal_tests::shape;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::clients::commit;
use crate::seen::Board;

/// How many serve.
const BACKENDS: usize = 4;
/// How many ask side by side.
pub(crate) const ASKERS: usize = 3;
/// How long a request may take. Nothing that is done to others takes so long.
const ANSWER: Duration = Duration::from_secs(20);
/// How many failures are kept of each who asks.
const KEPT: usize = 10;

/// The balancer with its backends.
pub(crate) struct Balancer {
    _haproxy: Process,
    program: PathBuf,
    dir: PathBuf,
    /// Where it takes requests.
    port: u16,
    /// Where its backends are.
    backends: Vec<u16>,
}

impl Balancer {
    /// Starts all of it in a folder of its own, without a pool; `None`: there is no HAProxy here.
    pub(crate) async fn start(dir: &Path, port: u16) -> Result<Option<Self>> {
        let Some(program) = system("haproxy") else {
            println!("SKIPPED: chaos, load balancer: haproxy is not installed");
            return Ok(None);
        };
        let dir = dir.join("haproxy");
        fs::create_dir_all(dir.join("pools")).context("a folder for pools")?;
        let text = format!(
            "global\n  nbthread 1\n  stats socket {} mode 600 level admin expose-fd listeners\n\
             defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n  retries 3\n  option redispatch\n",
            dir.join("admin.sock").display()
        );
        fs::write(dir.join("haproxy.cfg"), text).context("HAProxy's configuration")?;
        let mut command = Command::new(&program);
        command.arg("-W").arg("-S").arg(dir.join("master.sock"));
        command.arg("-f").arg(dir.join("haproxy.cfg")).arg("-f").arg(dir.join("pools"));
        let haproxy = Process::start("haproxy", &dir, &mut command)?;
        let mut backends = Vec::new();
        for _ in 0..BACKENDS {
            backends.push(backend().await?);
        }
        Ok(Some(Self { _haproxy: haproxy, program, dir, port, backends }))
    }

    /// The agent's own part of its configuration.
    pub(crate) fn table(&self) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        format!(
            "[agent.haproxy]\ndirectory = {:?}\nstats = {:?}\nmaster = {:?}\ncheck = [{:?}, '-c', '-q', '-f', {:?}, '{{pools}}']\n",
            path("pools"),
            path("admin.sock"),
            path("master.sock"),
            self.program.display().to_string(),
            path("haproxy.cfg")
        )
    }

    /// The pool, with all backends in it.
    pub(crate) fn rows(&self) -> Result<Vec<Change>> {
        // Nobody waits long for connections that end by themselves, and two are always left at work.
        let pool = json!({
            "port": 80, "frontends": [format!("127.0.0.1:{}", self.port)], "least": 2, "drain": 5,
        });
        let mut rows = Vec::new();
        for number in 0..self.backends.len() {
            rows.push(self.host(number, 100)?);
        }
        rows.push(Change::put("lb/web".parse()?, shape::tag_record(&pool)));
        for number in 0..self.backends.len() {
            rows.push(Change::put(member(number)?, Document::empty()));
        }
        Ok(rows)
    }

    fn host(&self, number: usize, weight: u32) -> Result<Change> {
        let record = json!({
            "id": format!("backend-{number}"),
            "state": "active",
            "document": {"address": "127.0.0.1", "lb": {"port": self.backends[number], "weight": weight}},
        });
        Ok(Change::put(format!("hosts/{}", name(number)).parse()?, Document::from(record)))
    }

    /// Where it takes requests.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What people do to the pool, until it is over: they change weights, and take members out and put them in again.
    pub(crate) async fn people(
        self: Arc<Self>,
        seed: u64,
        store: HttpStore,
        board: Arc<Board>,
    ) -> Result<()> {
        let mut random = StdRng::seed_from_u64(seed ^ 0x1b);
        let mut out: Option<usize> = None;
        for n in 0_u64.. {
            if board.is_over() {
                break;
            }
            let change = match out.take() {
                Some(number) => Change::put(member(number)?, Document::empty()),
                None if random.random_bool(0.5) => {
                    let number = random.random_range(0..BACKENDS);
                    out = Some(number);
                    Change::delete(member(number)?)
                }
                None => self.host(random.random_range(0..BACKENDS), random.random_range(1..=256))?,
            };
            let done = store.commit(commit(&format!("pool-{n}"), Vec::new(), vec![change])).await;
            if let Err(error) = done
                && !error.is_transient()
            {
                board.wrong(format!("a change of the pool was refused: {error}"));
            }
            let pause = Duration::from_millis(random.random_range(200..1_500));
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}

fn name(number: usize) -> String {
    format!("backend{number}.example")
}

fn member(number: usize) -> Result<Key> {
    Ok(format!("lb/web/members/{}", name(number)).parse()?)
}

/// Asks again and again, each time with a connection of its own, until it is over: how often it was answered, and what failed.
pub(crate) async fn asks(port: u16, board: Arc<Board>) -> (u64, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    while !board.is_over() {
        match ask(port).await {
            Ok(()) => good += 1,
            Err(why) if bad.len() < KEPT => {
                bad.push(format!("after {good} requests of the balancer, one failed: {why:#}"));
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (good, bad)
}

/// One request.
pub(crate) async fn ask(port: u16) -> Result<()> {
    let ask = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.context("connecting")?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .context("asking")?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.context("reading the answer")?;
        ensure!(said.starts_with("HTTP/1.1 200") && said.ends_with("served"), "it answers {said:?}");
        Ok::<(), anyhow::Error>(())
    };
    match tokio::time::timeout(ANSWER, ask).await {
        Ok(done) => done,
        Err(_) => bail!("no answer within {ANSWER:?}"),
    }
}

/// One that answers whatever it is asked, for as long as this program runs.
async fn backend() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for a backend")?;
    let port = listener.local_addr().context("a port for a backend")?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(port)
}

async fn serve(stream: TcpStream) {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The head of a request ends with an empty line; none has a body.
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved";
        if line.is_empty() && to.write_all(answer).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_notices_what_fails() {
        let port = backend().await.unwrap();
        for _ in 0..3 {
            // It keeps the connection until it is told to close it, which is the balancer's work.
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut said = [0; 44];
            stream.read_exact(&mut said).await.unwrap();
            assert!(said.ends_with(b"served"), "{}", String::from_utf8_lossy(&said));
        }
        // Nobody listens here, and nothing is said there.
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let closes = tokio::spawn(async move { drop(silent.accept().await) });
        assert!(ask(port).await.is_err());
        closes.await.unwrap();
        assert!(ask(port).await.is_err());
    }
}
