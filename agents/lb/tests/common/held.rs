//! Requests that a server holds while it leaves: whatever is done to the agent or the load balancer meanwhile, is done while something is under way.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::{Backend, until};

/// Requests that are held, each with a connection of its own.
#[derive(Default)]
pub(crate) struct Held(Vec<TcpStream>);

impl Held {
    /// Asks until this one of the servers holds a request. What others are given on the way, they hold, too.
    pub(crate) fn at(&mut self, port: u16, servers: &[Backend], wanted: usize) {
        let all = || servers.iter().map(Backend::held).sum::<usize>();
        while servers[wanted].held() == 0 {
            let before = all();
            let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
            stream.write_all(b"GET /hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            self.0.push(stream);
            until("the request is held", || all() > before);
        }
    }

    /// Has the servers answer: each request gets its answer whole. Answers how many there were.
    pub(crate) fn end(self, servers: &[Backend]) -> usize {
        servers.iter().for_each(Backend::release);
        let count = self.0.len();
        for mut stream in self.0 {
            stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with(".example.com"), "{said:?}");
        }
        count
    }
}
