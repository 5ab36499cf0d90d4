//! Connections to one server: over a Unix socket, plain, or by TLS, within a bound of time that counts for all of it.
//!
//! A request is handed to its connection through a channel, and one that is put there in the very moment in which the connection
//! ends stays there, unanswered for ever ([hyper#4122](https://github.com/hyperium/hyper/issues/4122)). So each connection says
//! when it is gone, and a request that nobody answers after that was never sent ([`Client::request`]).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{
    CaptureConnection, Connected, Connection, HttpConnector, capture_connection,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::address::{Address, Way};
use crate::answer::Response;

/// How many connections without work are kept to each server.
const IDLE: usize = 64;
/// How long one is kept: less than servers keep theirs (30 s), or a request would meet a closed one.
const IDLE_FOR: Duration = Duration::from_secs(20);
/// How soon a machine that is gone without a word is noticed.
const PROBE: Duration = Duration::from_secs(15);

/// How long after the end of its connection a request may still be answered, or find another one.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Requests to one server, over connections that are kept. A clone is another handle of the same connections.
#[derive(Clone)]
pub(crate) struct Client(legacy::Client<Connector, Full<Bytes>>);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The connection could not be made, or broke.
    Broken(legacy::Error),
    /// The connection that was to take the request had ended: it was not sent.
    Abandoned,
}

impl Client {
    /// The beginning of the answer.
    pub(crate) async fn request(self, mut request: Request<Full<Bytes>>) -> Result<Response, NoAnswer> {
        let taken = capture_connection(&mut request);
        tokio::select! {
            biased;
            answer = self.0.request(request) => answer.map_err(NoAnswer::Broken),
            () = abandoned(taken) => Err(NoAnswer::Abandoned),
        }
    }
}

/// Ends some time after the end of the connection that was to take a request, unless another one takes it.
async fn abandoned(mut taken: CaptureConnection) {
    loop {
        let by = taken.wait_for_connection_metadata().await.as_ref().and_then(lives);
        // None took it: then it is being answered that there is none.
        let Some(mut by) = by else { return std::future::pending().await };
        while by.changed().await.is_ok() {}
        tokio::time::sleep(AFTERWARDS).await;
        let now = taken.connection_metadata().as_ref().and_then(lives);
        if now.is_none_or(|now| now.same_channel(&by)) {
            return;
        }
    }
}

/// What is closed when the connection is.
fn lives(connection: &Connected) -> Option<watch::Receiver<()>> {
    let mut extras = http::Extensions::new();
    connection.get_extras(&mut extras);
    extras.remove()
}

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
    let client = legacy::Builder::new(TokioExecutor::new())
        .pool_max_idle_per_host(IDLE)
        .pool_idle_timeout(IDLE_FOR)
        .pool_timer(TokioTimer::new())
        .build(Connector { way, within });
    Client(client)
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

/// One connection, of whatever kind; and what is closed with it.
pub(crate) struct Wire(TokioIo<Pin<Box<dyn Duplex>>>, watch::Sender<()>);

impl Wire {
    fn new(stream: impl Duplex + 'static) -> Self {
        Self(TokioIo::new(Box::pin(stream)), watch::Sender::new(()))
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.1.subscribe())
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
