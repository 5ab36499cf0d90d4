//! Free loopback ports.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::Context;
use rand::Rng as _;

/// A port that is free for TCP and UDP on 127.0.0.1 now. Somebody else may take it before it is used: whoever starts a
/// server on it checks afterwards that its own process still lives.
///
/// Below the ports that the system gives to clients (32768 and up): a server that is killed and started again would
/// else now and then find its port taken by the other end of somebody's connection.
///
/// # Errors
/// None of a hundred was free.
pub fn free() -> anyhow::Result<u16> {
    let mut random = rand::rng();
    for _ in 0..100 {
        let port = random.random_range(12_000..20_000);
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if tcp.is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    None.context("no port of 100 was free for both TCP and UDP")
}
