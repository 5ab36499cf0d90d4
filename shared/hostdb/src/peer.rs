//! Who is at the other end of a connection, as far as the connection itself says, and through which door it came.
//!
//! Both are put into the extensions of every request. None of it is a right: who may do what is decided from it, and
//! from what the request brings, elsewhere.

use std::fmt;
use std::net::SocketAddr;

use tokio::net::UnixStream;

/// Through which door a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Plain HTTP that does not leave the machine.
    Loopback,
    /// A Unix socket.
    Unix,
    /// Plain HTTP from anywhere, because somebody said so.
    Plain,
    /// TLS from anywhere.
    Tls,
}

/// The other end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Of TCP. A proxy's own, where there is one.
    pub(crate) address: Option<SocketAddr>,
    /// Of a Unix socket: the user that connected, as the kernel says (`SO_PEERCRED`).
    pub(crate) uid: Option<u32>,
    /// The name in a client certificate that was verified.
    pub(crate) certificate: Option<String>,
}

impl Peer {
    /// One that came by TCP.
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self { address: Some(address), ..Self::default() }
    }

    /// One that came by a Unix socket. A kernel that does not say who it is leaves it unknown.
    pub(crate) fn unix(stream: &UnixStream) -> Self {
        Self { uid: stream.peer_cred().ok().map(|cred| cred.uid()), ..Self::default() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.uid) {
            (Some(address), _) => write!(f, "{address}")?,
            (None, Some(uid)) => write!(f, "uid {uid}")?,
            (None, None) => f.write_str("unknown")?,
        }
        match &self.certificate {
            // It comes from outside: quoted, it cannot break a line of the log.
            Some(name) => write!(f, " with the certificate of {name:?}"),
            None => Ok(()),
        }
    }
}
