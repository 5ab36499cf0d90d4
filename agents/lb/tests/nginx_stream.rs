//! nginx's `stream`: connections of TCP and datagrams, with real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use common::{Nginx, Scratch, WEB, free, until};
use serde_json::json;

/// Answers each octet of a connection with its name.
fn tcp(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut octet = [0];
                while stream.read_exact(&mut octet).is_ok() && stream.write_all(name.as_bytes()).is_ok() {}
            });
        }
    });
    port
}

/// Answers each datagram with its name.
fn udp(name: &'static str) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut octets = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut octets) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
    port
}

fn say(mut stream: &TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"?")?;
    let mut name = [0; WEB[0].len()];
    stream.read_exact(&mut name)?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

fn send(socket: &UdpSocket) -> std::io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.send(b"?")?;
    let mut name = [0; 64];
    let octets = socket.recv(&mut name)?;
    Ok(String::from_utf8_lossy(&name[..octets]).into_owned())
}

fn connected(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket
}

fn all(mut ask: impl FnMut() -> String) -> Vec<String> {
    let mut all: Vec<String> = (0..20).map(|_| ask()).collect();
    all.sort();
    all.dedup();
    all
}

/// Two hosts, and a pool of both.
fn pool(protocol: &str, ports: [u16; 2], front: u16) -> String {
    let host = |(name, port): (&&str, &u16)| {
        format!("host: {name}\ndocument: {{address: 127.0.0.1, lb: {{port: {port}}}}}\n---\n")
    };
    let hosts: String = WEB.iter().zip(&ports).map(host).collect();
    format!(
        "{hosts}tag: lb/web\ndocument: {{port: 80, protocol: {protocol}, drain: 30, frontends: ['127.0.0.1:{front}']}}\nmembers: [{}, {}]\n",
        WEB[0], WEB[1]
    )
}

async fn drain(scratch: &Scratch, host: &str) {
    scratch.edit(json!([{"edit": "set_state", "host": host, "state": "draining"}])).await;
    let waits = format!("waiting: 1 connection on {host}");
    let (code, said) = scratch.once(4, 5, &waits);
    assert!(code == 5 && said.contains(&waits), "{code} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_passed_and_waited_for() {
    if !Nginx::is_here("connections_are_passed_and_waited_for") {
        return;
    }
    let (nginx, front) = (Nginx::start(""), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&pool("tcp", [tcp(WEB[0]), tcp(WEB[1])], front)).await;
    scratch.converge();
    let fresh = || say(&TcpStream::connect(("127.0.0.1", front)).unwrap()).unwrap();
    assert_eq!(all(fresh), WEB[..2]);
    let open = TcpStream::connect(("127.0.0.1", front)).unwrap();
    let name = say(&open).unwrap();
    drain(&scratch, &name).await;
    let other = WEB[usize::from(name == WEB[0])];
    assert_eq!((all(fresh), say(&open).unwrap()), (vec![other.to_owned()], name.clone()));
    nginx.reload();
    assert_eq!(say(&open).unwrap(), name, "a reload cut it");
    drop(open);
    scratch.converge();
    assert_eq!(scratch.fact(&name).await["drained"], true);
    assert_eq!(all(fresh), [other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_are_passed_and_their_sessions_waited_for() {
    if !Nginx::is_here("datagrams_are_passed_and_their_sessions_waited_for") {
        return;
    }
    let (nginx, front) = (Nginx::start(""), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&pool("udp", [udp(WEB[0]), udp(WEB[1])], front)).await;
    scratch.converge();
    // A session with each that answers goes on until its time is over: one client asks alone at first.
    let client = connected(front);
    let name = send(&client).unwrap();
    drain(&scratch, &name).await;
    let other = WEB[usize::from(name == WEB[0])];
    assert_eq!(all(|| send(&connected(front)).unwrap()), [other]);
    // Its session lasts for ten minutes by nginx's own default: the deadline comes first.
    scratch.converge();
    assert_eq!(scratch.fact(&name).await["drained"], true);
    assert_eq!(all(|| send(&connected(front)).unwrap()), [other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_changes_its_protocol_in_one_go() {
    if !Nginx::is_here("a_pool_changes_its_protocol_in_one_go") {
        return;
    }
    let (nginx, front) = (Nginx::start(""), free());
    let scratch = Scratch::new(&nginx.table(""));
    let backends = common::web();
    let ports = [backends[0].port, backends[1].port];
    scratch.apply(&pool("tcp", ports, front)).await;
    scratch.converge();
    // The backend itself closes nothing.
    let answers = || {
        let mut stream = TcpStream::connect(("127.0.0.1", front)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut begins = [0; 12];
        let asked = stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .and_then(|()| stream.read_exact(&mut begins));
        asked.is_ok() && begins == *b"HTTP/1.1 200"
    };
    assert!(answers() && nginx.pools().join("web.stream").exists());
    scratch.apply(&pool("http", ports, front)).await;
    scratch.converge();
    until("it answers", answers);
    assert!(nginx.pools().join("web.http").exists() && !nginx.pools().join("web.stream").exists());
    // Without `stream` in the configuration, nobody would read it.
    scratch.configure(&nginx.table("").replace("stream = true", ""));
    scratch.apply(&pool("tcp", ports, front)).await;
    let (code, said) = scratch.once(2, 1, "stream = true");
    assert!(code == 1 && said.contains("stream = true"), "{code} {said}");
    assert!(nginx.pools().join("web.http").exists() && answers());
}
