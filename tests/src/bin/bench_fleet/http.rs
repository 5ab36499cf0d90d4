//! Reads of one host over HTTP, beside a static file of the same size from nginx: processor time a request.
//!
//! Connections are kept, and requests stand on all of them at once, as from many clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use shoal_tests::figure::{Figure, Usage};
use shoal_tests::process::Process;
use shoal_tests::{ports, shape, wait};

const CONNECTIONS: usize = 64;
/// Requests of one round on each connection.
const EACH: usize = 300;
const ROUNDS: usize = 5;

/// Measures the server that runs as `server` on `port`.
pub(crate) fn measure(dir: &Path, server: &Process, port: u16, hosts: u32) -> anyhow::Result<()> {
    let names =
        (0..1000).map(|n: u32| shape::host(n.wrapping_mul(7919) % hosts)).collect::<Result<Vec<_>, _>>()?;
    let paths: Vec<String> = names.iter().map(|name| format!("/api/v2/hosts/{name}")).collect();
    let mut ours = Load::connect(port)?;
    let size = ours.connections[0].get(&paths[0])?;
    let (mut times, mut rates) = (Vec::new(), Vec::new());
    let mut nginx = Nginx::start(dir, size)?;
    let mut beside = Vec::new();
    for _ in 0..ROUNDS {
        let (cpu, rate) = ours.round(server.id(), &paths)?;
        times.push(cpu);
        rates.push(rate);
        if let Some(nginx) = &mut nginx {
            beside.push(nginx.load.round(nginx.process.id(), &["/file".to_owned()])?.0);
        }
    }
    let mut cpu = Figure::median("http_read_one_host_server_cpu", "us", times).hosts(hosts).goal(15.0);
    if nginx.is_some() {
        cpu = cpu.beside("nginx, a static file", Figure::median("nginx", "us", beside).value);
    }
    cpu.print();
    Figure::median("http_reads_of_one_host", "1/s", rates).hosts(hosts).print();
    Ok(())
}

struct Load {
    connections: Vec<Connection>,
}

impl Load {
    fn connect(port: u16) -> anyhow::Result<Self> {
        let connections = (0..CONNECTIONS).map(|_| Connection::open(port)).collect::<anyhow::Result<_>>()?;
        Ok(Self { connections })
    }

    /// Processor time of the server per request in microseconds, and requests a second.
    fn round(&mut self, server: u32, paths: &[String]) -> anyhow::Result<(f64, f64)> {
        let before = Usage::of(server).context("the server")?.cpu;
        let began = Instant::now();
        for n in 0..EACH {
            for (at, connection) in self.connections.iter_mut().enumerate() {
                connection.ask(&paths[(n * CONNECTIONS + at) % paths.len()])?;
            }
            for connection in &mut self.connections {
                connection.answer()?;
            }
        }
        let took = began.elapsed().as_secs_f64();
        let used = Usage::of(server).context("the server")?.cpu.saturating_sub(before);
        let requests = (EACH * CONNECTIONS) as f64;
        Ok((used.as_secs_f64() * 1e6 / requests, requests / took))
    }
}

/// One that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("a connection")?;
        stream.set_nodelay(true).context("a connection")?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).context("a connection")?;
        Ok(Self { stream, buffer: vec![0; 64 << 10] })
    }

    fn get(&mut self, path: &str) -> anyhow::Result<usize> {
        self.ask(path)?;
        self.answer()
    }

    fn ask(&mut self, path: &str) -> anyhow::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).context("a request")
    }

    /// How long an answer may take.
    pub(crate) fn patience(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.stream.set_read_timeout(Some(patience)).context("a connection")
    }

    /// Writes one document.
    pub(crate) fn put(&mut self, path: &str, body: &str) -> anyhow::Result<()> {
        let length = body.len();
        let request = format!(
            "PUT {path}?author=bench&message=measure HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).context("a request")?;
        self.answer().map(drop)
    }

    /// The size of the body.
    fn answer(&mut self) -> anyhow::Result<usize> {
        let mut have = 0;
        loop {
            let more = self.stream.read(&mut self.buffer[have..]).context("an answer")?;
            ensure!(more > 0, "the connection was closed");
            have += more;
            let Some(end) = self.buffer[..have].windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            ensure!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let Some(length) = length.and_then(|text| text.trim().parse::<usize>().ok()) else {
                bail!("an answer without a length: {head}")
            };
            if have >= end + 4 + length {
                return Ok(length);
            }
        }
    }
}

/// nginx with one worker and one file, where it is installed.
struct Nginx {
    process: Process,
    load: Load,
}

impl Nginx {
    fn start(dir: &Path, size: usize) -> anyhow::Result<Option<Self>> {
        let dir = dir.join("nginx");
        std::fs::create_dir(&dir).context("a folder for nginx")?;
        std::fs::write(dir.join("file"), vec![b'x'; size]).context("a file to serve")?;
        let (port, at) = (ports::free()?, dir.display());
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
             events {{}}\nhttp {{ access_log off; keepalive_requests 1000000; client_body_temp_path {at};\n\
             proxy_temp_path {at}; fastcgi_temp_path {at}; uwsgi_temp_path {at}; scgi_temp_path {at};\n\
             server {{ listen 127.0.0.1:{port}; root {at}; }} }}\n"
        );
        std::fs::write(dir.join("nginx.conf"), config).context("nginx.conf")?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log"));
        let Ok(process) = Process::start("nginx", &dir, &mut command) else { return Ok(None) };
        let load = wait::until("nginx", Duration::from_secs(10), || Load::connect(port))?;
        Ok(Some(Self { process, load }))
    }
}
