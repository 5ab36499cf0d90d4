//! Free loopback ports.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::Context;

/// A port that is free for TCP and UDP on 127.0.0.1 now. Somebody else may take it before it is used: whoever starts a
/// server on it checks afterwards that its own process still lives.
///
/// # Errors
/// The system has none.
pub fn free() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free TCP port")?;
        let port = tcp.local_addr().context("no free TCP port")?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port of 100 was free for both TCP and UDP")
}
