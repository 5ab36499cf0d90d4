//! Accepting and serving connections, within bounds and until told to stop.
//!
//! One loop per listener accepts; each connection is a task of its own. At the bound a connection is answered
//! with 503 at once, so that a client knows, instead of waiting in a queue of the kernel. A client that asks and does not
//! read what it gets is cut, or it would hold its connection and what is left of the answer for ever. When `stop` fires, the
//! listeners close, watches end, requests under way finish within the grace time, and what is still there after
//! it is cut.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::limits::Limits;
use crate::listen::{Listener, Socket};
use crate::metrics::Metrics;
use crate::peer::Peer;

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
    let limits = Arc::new(limits);
    let mut loops = JoinSet::new();
    for listener in listeners {
        let each = Loop {
            router: router.clone(),
            limits: limits.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        loops.spawn(each.run(listener));
    }
    while loops.join_next().await.is_some() {}
}

struct Loop {
    router: Router,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Loop {
    async fn run(self, listener: Listener) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(_) = open.join_next(), if !open.is_empty() => {}
                accepted = accept(&listener.socket) => match accepted {
                    Ok((stream, peer)) => self.start(stream, peer, &mut open),
                    Err(error) => {
                        tracing::warn!(at = %listener.at(), %error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let finish = async { while open.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limits.grace, finish).await.is_err() {
            tracing::warn!(connections = open.len(), "cut connections that did not finish in time");
            open.shutdown().await;
        }
    }

    fn start(&self, stream: Stream, peer: Peer, open: &mut JoinSet<()>) {
        // The gauge counts across listeners; only this task raises it, so the bound can be passed by at most the
        // number of listeners.
        if self.metrics.connections.get() >= i64::try_from(self.limits.connections).unwrap_or(i64::MAX) {
            self.metrics.refused_connections.inc();
            if open.len() > self.limits.connections + MAX_REFUSALS {
                return;
            }
            match stream {
                Stream::Tcp(s) => refuse(s, open),
                Stream::Unix(s) => refuse(s, open),
            }
            return;
        }
        let held = Held::new(self.metrics.clone());
        match stream {
            Stream::Tcp(s) => {
                // Answers are written whole; waiting for more to send would only delay them.
                let _ = s.set_nodelay(true);
                self.connection(s, peer, held, open);
            }
            Stream::Unix(s) => self.connection(s, peer, held, open),
        }
    }

    fn connection<S>(&self, stream: S, peer: Peer, held: Held, open: &mut JoinSet<()>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        // Runs while something is to be written and nobody takes it.
        stream.set_write_timeout(Some(self.limits.write_timeout));
        let stream = Box::pin(stream);
        let from = peer.clone();
        let service = self.router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(from.clone());
            request
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let stop = self.stop.clone();
        open.spawn(async move {
            let _held = held;
            let mut serving = std::pin::pin!(serving);
            let ended = tokio::select! {
                ended = serving.as_mut() => ended,
                () = stop.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
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
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
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

fn refuse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut stream: S, open: &mut JoinSet<()>) {
    let answer = async move {
        // Clients take an answer to a request that they have not sent yet for a broken connection.
        let mut head = [0; 1024];
        // How much of it came does not matter: it is not looked at.
        let _some = stream.read(&mut head).await?;
        stream.write_all(FULL.as_bytes()).await?;
        stream.shutdown().await
    };
    open.spawn(async move {
        let _ = tokio::time::timeout(REFUSAL, answer).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Extension;
    use axum::routing::get;

    use crate::listen::Listen;

    #[test]
    fn the_canned_refusal_has_the_length_it_says() {
        let (head, body) = FULL.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
    /// What requests on this listener say of who sends them: (by the client's own knowledge, by the server).
    async fn told(listen: &Listen) -> (String, String) {
        let listener = Listener::bind(listen).await.unwrap();
        let at = listener.at().clone();
        let router =
            Router::new().route("/", get(|Extension(peer): Extension<Peer>| async move { peer.to_string() }));
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        let serving = tokio::spawn(serve(vec![listener], router, Limits::default(), metrics, stop.clone()));
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut answer = String::new();
        let own = match &at {
            Listen::Tcp(address) => {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.write_all(request).await.unwrap();
                stream.read_to_string(&mut answer).await.unwrap();
                stream.local_addr().unwrap().to_string()
            }
            Listen::Unix(path) => {
                let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
                stream.write_all(request).await.unwrap();
                stream.read_to_string(&mut answer).await.unwrap();
                format!("uid {}", std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap()))
            }
        };
        stop.cancel();
        serving.await.unwrap();
        (own, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[tokio::test]
    async fn requests_say_who_sent_them() {
        let dir = tempfile::tempdir().unwrap();
        for listen in [Listen::Tcp("127.0.0.1:0".parse().unwrap()), Listen::Unix(dir.path().join("s"))] {
            let (own, told) = told(&listen).await;
            assert_eq!(told, own);
        }
    }
}
