//! Who is at the other end of a connection, as far as the connection itself says, and through which door it came.
//!
//! Both are put into the extensions of every request. None of it is a right: who may do what is decided from it, and
//! from what the request brings, elsewhere.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::access::Remembered;
use crate::certificate::Certificate;

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
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Of TCP. A proxy's own, where there is one.
    pub(crate) address: Option<SocketAddr>,
    /// Of a Unix socket: the user that connected, as the kernel says (`SO_PEERCRED`).
    pub(crate) uid: Option<u32>,
    /// A client certificate that was verified when the connection began.
    pub(crate) certificate: Option<Arc<Certificate>>,
    /// Who asked last over this connection.
    pub(crate) remembered: Remembered,
    /// Ends this connection at once, whatever is under way on it.
    pub(crate) cut: CancellationToken,
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
            Some(certificate) => write!(f, " with {certificate}"),
            None => Ok(()),
        }
    }
}
