//! Where the server listens: a Unix socket, TLS anywhere, or plain HTTP, on loopback unless somebody says otherwise.
//!
//! A Unix socket is open to its owner and group only. Plain HTTP that leaves the machine shows tokens and documents to
//! everybody on the way, so it takes a word of its own (`--allow-plain-http`). Which names requests may carry depends on
//! the [`Door`] through which they come: see [`crate::guard`].

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::peer::Door;
use crate::tls::Tls;

/// An address that the server may listen on. Parsed from `https://0.0.0.0:8443`, `127.0.0.1:8053` (also with `http://`
/// before it), `[::1]:8053`, `localhost:8053` or `unix:/run/shoal/hostdb.sock`. Port 0 takes any free port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Plain HTTP.
    Tcp(SocketAddr),
    /// HTTP over TLS.
    Tls(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// An address that the server may not, or cannot, listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address.
    #[error(
        "{0:?} is not an address to listen on: write https://ADDRESS:PORT, 127.0.0.1:PORT, [::1]:PORT or unix:/PATH"
    )]
    Unreadable(String),
    /// Everybody on the way could read it.
    #[error(
        "plain HTTP on {0} could be read by everybody on the way, tokens too: listen on https://{0} (with --tls-cert and \
         --tls-key), on loopback (127.0.0.1:PORT, [::1]:PORT) or on a Unix socket (unix:/PATH); or say --allow-plain-http"
    )]
    Open(SocketAddr),
    /// TLS without a certificate.
    #[error("https://{0} needs a certificate and its key: --tls-cert FILE --tls-key FILE")]
    NoCertificate(SocketAddr),
    /// A certificate without TLS.
    #[error("--tls-cert is for nothing: no --listen https://ADDRESS:PORT is given")]
    NoTls,
    /// Certificates are demanded that nobody could have signed.
    #[error("--client-cert required needs --client-ca FILE: whose certificates are to be believed?")]
    NoAuthority,
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
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => (false, text),
        };
        let addr = match rest.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            _ => rest.parse().map_err(|_| ListenError::Unreadable(text.to_owned()))?,
        };
        Ok(if tls { Self::Tls(addr) } else { Self::Tcp(addr) })
    }
}

impl Listen {
    /// The address, if others on the way could read what is said there.
    #[must_use]
    pub fn readable(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) if !addr.ip().is_loopback() => Some(*addr),
            _ => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "http://{addr}"),
            Self::Tls(addr) => write!(f, "https://{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound address.
pub struct Listener {
    pub(crate) socket: Socket,
    /// What is spoken there, if TLS is.
    pub(crate) tls: Option<Tls>,
    at: Listen,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds the address, if it is none of TLS. A socket file that nobody answers on is replaced.
    ///
    /// # Errors
    /// The address is taken, the system refuses, or it is one of TLS.
    pub async fn bind(listen: &Listen) -> Result<Self, ListenError> {
        Self::with(listen, None).await
    }

    /// The same; `tls` is for an address of TLS.
    ///
    /// # Errors
    /// The address is taken, the system refuses, or TLS has no certificate.
    pub async fn with(listen: &Listen, tls: Option<&Tls>) -> Result<Self, ListenError> {
        let failed = |e| ListenError::Bind(listen.to_string(), e);
        match (listen, tls) {
            (Listen::Tcp(addr), _) => {
                let socket = TcpListener::bind(addr).await.map_err(failed)?;
                let at = Listen::Tcp(socket.local_addr().map_err(failed)?);
                Ok(Self { socket: Socket::Tcp(socket), tls: None, at })
            }
            (Listen::Tls(addr), None) => Err(ListenError::NoCertificate(*addr)),
            (Listen::Tls(addr), Some(tls)) => {
                let socket = TcpListener::bind(addr).await.map_err(failed)?;
                let at = Listen::Tls(socket.local_addr().map_err(failed)?);
                Ok(Self { socket: Socket::Tcp(socket), tls: Some(tls.clone()), at })
            }
            (Listen::Unix(path), _) => {
                clear(path).await?;
                let socket = UnixListener::bind(path).map_err(failed)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
                Ok(Self { socket: Socket::Unix(socket), tls: None, at: listen.clone() })
            }
        }
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn at(&self) -> &Listen {
        &self.at
    }

    /// Which door it is.
    pub(crate) fn door(&self) -> Door {
        match &self.at {
            Listen::Unix(_) => Door::Unix,
            Listen::Tls(_) => Door::Tls,
            Listen::Tcp(addr) if addr.ip().is_loopback() => Door::Loopback,
            Listen::Tcp(_) => Door::Plain,
        }
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
    fn addresses_say_who_can_read_on_the_way() {
        let listen = |text: &str| text.parse::<Listen>().unwrap();
        for good in ["127.0.0.1:0", "127.8.8.8:80", "[::1]:9000", "localhost:8053", "http://127.0.0.1:80"] {
            assert!(matches!(listen(good), Listen::Tcp(_)) && listen(good).readable().is_none(), "{good}");
        }
        for open in ["0.0.0.0:80", "192.0.2.1:80", "[::]:80", "[::ffff:127.0.0.1]:80", "http://0.0.0.0:80"] {
            assert!(listen(open).readable().is_some(), "{open}");
        }
        for tls in ["https://0.0.0.0:443", "https://[::]:443", "https://localhost:443"] {
            assert!(matches!(listen(tls), Listen::Tls(_)) && listen(tls).readable().is_none(), "{tls}");
            assert_eq!(listen(&listen(tls).to_string()), listen(tls));
        }
        assert!(listen("unix:/run/x.sock").readable().is_none());
        for bad in
            ["", "80", "unix:relative", "example.com:80", "localhost:x", "https://", "https://example.com:80"]
        {
            assert!(matches!(bad.parse::<Listen>(), Err(ListenError::Unreadable(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn there_is_no_tls_without_a_certificate() {
        let bound = Listener::bind(&"https://127.0.0.1:0".parse().unwrap()).await;
        assert!(matches!(bound, Err(ListenError::NoCertificate(_))));
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
