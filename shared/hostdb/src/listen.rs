//! Where the server listens: loopback or a Unix socket, and nothing else.
//!
//! The server cannot yet tell who is asking, so it must not be reachable from other machines. A Unix socket is
//! open to its owner and group only. On loopback any user of the machine can write; the `Host` check in
//! [`crate::guard`] keeps web pages of other names from doing so through a browser.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener, UnixStream};

/// An address that the server may listen on. Parsed from `127.0.0.1:8053`, `[::1]:8053`, `localhost:8053` or
/// `unix:/run/shoal/hostdb.sock`. Port 0 takes any free port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// An address that the server may not, or cannot, listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address.
    #[error("{0:?} is not an address to listen on: write 127.0.0.1:PORT, [::1]:PORT or unix:/PATH")]
    Unreadable(String),
    /// Reachable from other machines.
    #[error(
        "the server does not listen on {0}: it cannot yet tell who is asking, so only loopback (127.0.0.1:PORT, \
         [::1]:PORT) and Unix sockets (unix:/PATH) are allowed; to reach it from elsewhere use an SSH tunnel"
    )]
    Open(SocketAddr),
    /// Another server is there.
    #[error("{0} already has a server that answers: stop it, or choose another path")]
    InUse(PathBuf),
    /// Something that is not a socket is there.
    #[error("{0} exists and is not a socket: choose another path, or remove it")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {0}")]
    Bind(String, #[source] io::Error),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(ListenError::Unreadable(text.to_owned()));
            }
            return Ok(Self::Unix(path.into()));
        }
        let addr = match text.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            _ => text.parse().map_err(|_| ListenError::Unreadable(text.to_owned()))?,
        };
        if !addr.ip().is_loopback() {
            return Err(ListenError::Open(addr));
        }
        Ok(Self::Tcp(addr))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "http://{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: Socket,
    at: Listen,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds the address. A socket file that nobody answers on is replaced.
    ///
    /// # Errors
    /// The address is taken, or the system refuses.
    pub async fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let failed = |e| ListenError::Bind(listen.to_string(), e);
        match listen {
            Listen::Tcp(addr) => {
                let socket = TcpListener::bind(addr).await.map_err(failed)?;
                let at = Listen::Tcp(socket.local_addr().map_err(failed)?);
                Ok(Self { socket: Socket::Tcp(socket), at })
            }
            Listen::Unix(path) => {
                clear(path).await?;
                let socket = UnixListener::bind(path).map_err(failed)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
                Ok(Self { socket: Socket::Unix(socket), at: listen.clone() })
            }
        }
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn at(&self) -> &Listen {
        &self.at
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listen::Unix(path) = &self.at {
            // Nobody can connect to it any more; a file that stays is replaced by the next server.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn clear(path: &Path) -> Result<(), ListenError> {
    match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(meta) if !meta.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(ListenError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(|e| ListenError::Bind(path.display().to_string(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_unix_sockets() {
        for good in ["127.0.0.1:0", "127.8.8.8:80", "[::1]:9000", "localhost:8053", "unix:/run/x.sock"] {
            good.parse::<Listen>().unwrap();
        }
        for bad in ["0.0.0.0:80", "192.0.2.1:80", "[::]:80", "[::ffff:127.0.0.1]:80"] {
            assert!(matches!(bad.parse::<Listen>(), Err(ListenError::Open(_))), "{bad}");
        }
        for bad in ["", "80", "unix:relative", "example.com:80", "localhost:x"] {
            assert!(matches!(bad.parse::<Listen>(), Err(ListenError::Unreadable(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let at = Listen::Unix(path.clone());
        let first = Listener::bind(&at).await.unwrap();
        assert!(matches!(Listener::bind(&at).await, Err(ListenError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::bind(&at).await.unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(&at).await, Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
