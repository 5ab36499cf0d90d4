//! Accepting and serving connections, within bounds and until told to stop.
//!
//! One loop per listener accepts; each connection is a task of its own, its handshake included ([`crate::handshake`]). At the bound a connection is answered
//! with 503 at once, so that a client knows, instead of waiting in a queue of the kernel. A client that asks and does not
//! read what it gets is cut, or it would hold its connection and what is left of the answer for ever. When `stop` fires, the
//! listeners close, watches end, requests under way finish within the grace time, and what is still there after
//! it is cut.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::handshake::Handshakes;
use crate::limits::Limits;
use crate::listen::{Listener, Socket};
use crate::metrics::Metrics;
use crate::peer::{Door, Peer};
use crate::tls::Tls;

/// Enough for the longest rule in a path, and far too little to hurt.
const MAX_HEAD: usize = 64 << 10;
/// How long to wait after a failed accept (no file descriptors left): the failure would repeat at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection too many may take to hear that it is.
const REFUSAL: Duration = Duration::from_secs(1);
/// How many connections too many are told so at once; more are closed without a word.
const MAX_REFUSALS: usize = 64;

const FULL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n",
    "connection: close\r\ncontent-length: 161\r\n\r\n",
    r#"{"type":"urn:shoal:problem:busy","title":"The server has too much to do at once","status":503,"#,
    r#""detail":"too many connections are open: close some, or try again"}"#,
);

/// Serves `router` on `listeners` until `stop` fires and all is finished or cut.
pub(crate) async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let handshakes = Handshakes::new(limits.handshakes);
    let common = Arc::new(Common { router, limits, handshakes, stop });
    let mut loops = JoinSet::new();
    for listener in listeners {
        let each = Loop { common: common.clone(), metrics: metrics.clone() };
        loops.spawn(each.run(listener));
    }
    while loops.join_next().await.is_some() {}
}

/// What all connections share.
struct Common {
    router: Router,
    limits: Limits,
    handshakes: Handshakes,
    stop: CancellationToken,
}

struct Loop {
    common: Arc<Common>,
    metrics: Arc<Metrics>,
}

impl Loop {
    async fn run(self, listener: Listener) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = self.common.stop.cancelled() => break,
                Some(_) = open.join_next(), if !open.is_empty() => {}
                accepted = accept(&listener.socket) => match accepted {
                    Ok((stream, peer)) => self.start(stream, peer, &listener, &mut open),
                    Err(error) => {
                        tracing::warn!(at = %listener.at(), %error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let finish = async { while open.join_next().await.is_some() {} };
        if tokio::time::timeout(self.common.limits.grace, finish).await.is_err() {
            tracing::warn!(connections = open.len(), "cut connections that did not finish in time");
            open.shutdown().await;
        }
    }

    fn start(&self, stream: Stream, peer: Peer, listener: &Listener, open: &mut JoinSet<()>) {
        // The gauge counts across listeners; only this task raises it, so the bound can be passed by at most the
        // number of listeners.
        let most = self.common.limits.connections;
        let full = self.metrics.connections.get() >= i64::try_from(most).unwrap_or(i64::MAX);
        let held = if full {
            self.metrics.refused_connections.inc();
            if open.len() > most + MAX_REFUSALS {
                return;
            }
            None
        } else {
            Some(Held::new(self.metrics.clone()))
        };
        let (common, door) = (self.common.clone(), listener.door());
        match (stream, listener.tls.clone()) {
            (Stream::Tcp(stream), tls) => {
                // Answers are written whole; waiting for more to send would only delay them.
                let _ = stream.set_nodelay(true);
                // Apart, so that a plain connection needs no room for what TLS needs.
                match tls {
                    None => open.spawn(async move {
                        common.serve(common.timed(stream), peer, door, held).await;
                    }),
                    Some(tls) => open.spawn(async move { common.serve_tls(stream, peer, &tls, held).await }),
                };
            }
            (Stream::Unix(stream), _) => {
                open.spawn(async move { common.serve(common.timed(stream), peer, door, held).await });
            }
        }
    }
}

impl Common {
    /// One that is cut when nobody reads what is written to it.
    fn timed<S: AsyncRead + AsyncWrite>(&self, stream: S) -> Pin<Box<TimeoutStream<S>>> {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write_timeout));
        Box::pin(stream)
    }

    async fn serve_tls(&self, stream: TcpStream, mut peer: Peer, tls: &Tls, held: Option<Held>) {
        let agreed = tokio::select! {
            agreed = self.handshakes.accept(stream, tls, &self.limits, &mut peer) => agreed,
            () = self.stop.cancelled() => None,
        };
        if let Some(stream) = agreed {
            self.serve(stream, peer, Door::Tls, held).await;
        }
    }

    /// Answers the requests of one connection; without a place for it (`held`) only that there is none.
    async fn serve<S>(&self, stream: S, peer: Peer, door: Door, held: Option<Held>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if held.is_none() {
            return refuse(stream).await;
        }
        let (from, cut) = (peer.clone(), peer.cut.clone());
        let service = self.router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(from.clone());
            request.extensions_mut().insert(door);
            request
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut serving = std::pin::pin!(serving);
        let served = async {
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = self.stop.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            }
        };
        let ended = tokio::select! {
            ended = served => ended,
            () = cut.cancelled() => return tracing::debug!(%peer, "cut: a large answer is read too slowly"),
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }
}

/// One open connection, counted.
struct Held(Arc<Metrics>);

impl Held {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn accept(socket: &Socket) -> io::Result<(Stream, Peer)> {
    Ok(match socket {
        Socket::Tcp(socket) => {
            let (stream, address) = socket.accept().await?;
            (Stream::Tcp(stream), Peer::tcp(address))
        }
        Socket::Unix(socket) => {
            let (stream, _) = socket.accept().await?;
            let peer = Peer::unix(&stream);
            (Stream::Unix(stream), peer)
        }
    })
}

/// Says that there is no place.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let answer = async move {
        // Clients take an answer to a request that they have not sent yet for a broken connection.
        let mut head = [0; 1024];
        // How much of it came does not matter: it is not looked at.
        let _some = stream.read(&mut head).await?;
        stream.write_all(FULL.as_bytes()).await?;
        stream.shutdown().await
    };
    let _: Result<io::Result<()>, _> = tokio::time::timeout(REFUSAL, answer).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    use crate::listen::Listen;

    #[test]
    fn the_canned_refusal_has_the_length_it_says() {
        let (head, body) = FULL.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
    /// A server that answers every request with who sent it, on this listener; and what stops it.
    async fn telling(listener: Listener) -> (Listen, impl AsyncFnOnce()) {
        let at = listener.at().clone();
        let tell = |request: axum::extract::Request, _: axum::middleware::Next| async move {
            let extensions = request.extensions();
            format!("{} {:?}", extensions.get::<Peer>().unwrap(), extensions.get::<Door>().unwrap())
                .into_response()
        };
        let router = Router::new().layer(axum::middleware::from_fn(tell));
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        let serving = tokio::spawn(serve(vec![listener], router, Limits::default(), metrics, stop.clone()));
        (at, async move || {
            stop.cancel();
            serving.await.unwrap();
        })
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    #[tokio::test]
    async fn requests_say_who_sent_them() {
        let dir = tempfile::tempdir().unwrap();
        let (at, stop) = telling(Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap()).await;
        let Listen::Tcp(address) = at else { panic!() };
        let stream = TcpStream::connect(address).await.unwrap();
        let own = stream.local_addr().unwrap();
        assert_eq!(ask(stream).await, format!("{own} Loopback"));
        stop().await;
        let path = dir.path().join("s");
        let (_, stop) = telling(Listener::bind(&Listen::Unix(path.clone())).await.unwrap()).await;
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap());
        assert_eq!(ask(UnixStream::connect(path).await.unwrap()).await, format!("uid {uid} Unix"));
        stop().await;
    }

    #[tokio::test]
    async fn a_client_certificate_says_who_sent_a_request() {
        use rustls::ClientConfig;
        use shoal_client::certificates::Authority;
        use shoal_client::tls;

        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem).unwrap();
        let (cert, key) = authority.server(&["localhost"]).unwrap().write(dir.path(), "server").unwrap();
        let files = crate::tls::TlsFiles { cert, key, client_ca: Some(ca.clone()), demand: false };
        let own = Tls::load(files).unwrap();
        let listener = Listener::with(&"https://127.0.0.1:0".parse().unwrap(), Some(&own)).await.unwrap();
        let (Listen::Tls(address), stop) = telling(listener).await else { panic!() };
        let pair = authority.client("agent-dns").unwrap().write(dir.path(), "client").unwrap();
        let config = || {
            let builder = ClientConfig::builder_with_provider(tls::provider());
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            builder.with_root_certificates(tls::authorities(&ca).unwrap())
        };
        let shown =
            config().with_client_auth_cert(tls::certificates(&pair.0).unwrap(), tls::key(&pair.1).unwrap());
        for (config, says) in [
            (shown.unwrap(), " with the certificate of \"agent-dns\" Tls"),
            (config().with_no_client_auth(), " Tls"),
        ] {
            let stream = TcpStream::connect(address).await.unwrap();
            let own = stream.local_addr().unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            assert_eq!(ask(stream).await, format!("{own}{says}"));
        }
        stop().await;
    }
}
