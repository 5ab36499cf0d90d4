//! Connections to one server: over a Unix socket, plain, or by TLS, within a bound of time that counts for all of it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::address::{Address, Way};

/// How many connections without work are kept to each server.
const IDLE: usize = 64;
/// How long one is kept: less than servers keep theirs (30 s), or a request would meet a closed one.
const IDLE_FOR: Duration = Duration::from_secs(20);
/// How soon a machine that is gone without a word is noticed.
const PROBE: Duration = Duration::from_secs(15);

/// Requests to one server, over connections that are kept. A clone is another handle of the same connections.
pub(crate) type Client = hyper_util::client::legacy::Client<Connector, Full<Bytes>>;

/// A client of the server at this address. `tls` is for `https:`; without it nothing is connected to there.
pub(crate) fn client(address: &Address, tls: Option<&Arc<ClientConfig>>, within: Duration) -> Client {
    let mut tcp = HttpConnector::new();
    // It is told the scheme by the URL, and TLS is made over what it connects.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(PROBE));
    tcp.set_tcp_user_timeout(Some(PROBE * 2));
    let way = match (&address.way, tls) {
        (Way::Socket(path), _) => To::Socket(path.as_path().into()),
        (Way::Loopback | Way::Plain, _) => To::Plain(tcp),
        (Way::Tls(name), tls) => To::Tls(tcp, tls.cloned(), name.clone()),
    };
    hyper_util::client::legacy::Builder::new(TokioExecutor::new())
        .pool_max_idle_per_host(IDLE)
        .pool_idle_timeout(IDLE_FOR)
        .pool_timer(TokioTimer::new())
        .build(Connector { way, within })
}

/// Connects to one server.
#[derive(Clone)]
pub(crate) struct Connector {
    way: To,
    within: Duration,
}

#[derive(Clone)]
enum To {
    Socket(Arc<std::path::Path>),
    Plain(HttpConnector),
    Tls(HttpConnector, Option<Arc<ClientConfig>>, ServerName<'static>),
}

impl To {
    async fn connect(self, uri: Uri) -> io::Result<Wire> {
        Ok(match self {
            Self::Socket(path) => Wire::new(UnixStream::connect(path).await?),
            Self::Plain(tcp) => Wire::new(tcp_to(tcp, uri).await?),
            Self::Tls(_, None, _) => return Err(io::Error::other("TLS was not set up")),
            Self::Tls(tcp, Some(config), name) => {
                let stream = tcp_to(tcp, uri).await?;
                Wire::new(TlsConnector::from(config).connect(name, stream).await?)
            }
        })
    }
}

async fn tcp_to(mut tcp: HttpConnector, uri: Uri) -> io::Result<tokio::net::TcpStream> {
    tcp.call(uri).await.map(TokioIo::into_inner).map_err(io::Error::other)
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { way, within } = self.clone();
        Box::pin(async move {
            let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {within:?}"));
            tokio::time::timeout(within, way.connect(uri)).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// One connection, of whatever kind.
pub(crate) struct Wire(TokioIo<Pin<Box<dyn Duplex>>>);

impl Wire {
    fn new(stream: impl Duplex + 'static) -> Self {
        Self(TokioIo::new(Box::pin(stream)))
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
