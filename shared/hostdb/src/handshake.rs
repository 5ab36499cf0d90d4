//! The beginning of a connection by TLS, within bounds of time and number.
//!
//! Whoever connects and says nothing holds a socket, and some memory once TLS begins. So a handshake has a few seconds, and
//! only so many are under way at once; with one more, the oldest is cut, and not the newest turned away: handshakes of
//! clients that mean it take milliseconds, so those who stall are the old ones.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::certificate::Certificate;
use crate::limits::Limits;
use crate::peer::Peer;
use crate::tls::Tls;

/// The first octet of every handshake.
const HANDSHAKE: u8 = 0x16;
/// How long who failed may take to read why. Were the connection closed with something unread, the system would cut off the
/// alert, too.
const LAST_WORD: Duration = Duration::from_secs(1);

const PLAIN: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close\r\n",
    "content-length: 122\r\n\r\n",
    r#"{"type":"urn:shoal:problem:plain-http","title":"TLS is spoken here","status":400,"detail":"write https:// in the address"}"#,
);

/// A connection by TLS, over one that is cut when nobody reads what is written.
pub(crate) type Stream = TlsStream<Pin<Box<TimeoutStream<TcpStream>>>>;

/// The handshakes that are under way.
pub(crate) struct Handshakes {
    most: usize,
    under_way: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    begun: u64,
    /// The oldest first.
    all: VecDeque<(u64, CancellationToken)>,
}

impl Handshakes {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), under_way: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes part, in the place of the oldest if there are too many.
    fn begin(&self) -> Turn<'_> {
        let cut = CancellationToken::new();
        let mut queue = self.queue();
        if queue.all.len() >= self.most
            && let Some((_, oldest)) = queue.all.pop_front()
        {
            oldest.cancel();
        }
        queue.begun += 1;
        let number = queue.begun;
        queue.all.push_back((number, cut.clone()));
        Turn { of: self, number, cut }
    }

    /// Agrees on TLS with who connected. `None`: it came to nothing, which was logged.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        tls: &Tls,
        limits: &Limits,
        peer: &mut Peer,
    ) -> Option<Stream> {
        let turn = self.begin();
        // Before the handshake: what is verified in it is by these authorities or newer ones.
        let generation = tls.generation();
        let agreed = tokio::select! {
            agreed = tokio::time::timeout(limits.handshake_timeout, agree(stream, tls, limits)) => agreed,
            () = turn.cut.cancelled() => Ok(Err(Some("too many others began a handshake after it".to_owned()))),
        };
        let why = match agreed {
            Ok(Ok(agreed)) => {
                let shown = agreed.get_ref().1.peer_certificates();
                match shown.map(|all| Certificate::of(all, tls, generation)).transpose() {
                    Ok(certificate) => {
                        peer.certificate = certificate.map(Arc::new);
                        return Some(agreed);
                    }
                    Err(why) => Some(why),
                }
            }
            Ok(Err(why)) => why,
            Err(_) => Some(format!("no handshake within {:?}", limits.handshake_timeout)),
        };
        tls.count_failure();
        match why {
            // Nobody said anything: those who look whether a port is open do so all the time.
            None => tracing::debug!(%peer, "closed before it began"),
            Some(why) => tracing::info!(%peer, "no TLS connection: {why}"),
        }
        None
    }
}

struct Turn<'a> {
    of: &'a Handshakes,
    number: u64,
    cut: CancellationToken,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.of.queue().all.retain(|(number, _)| *number != self.number);
    }
}

/// TLS with who connected; else why not, if it said anything at all.
async fn agree(mut stream: TcpStream, tls: &Tls, limits: &Limits) -> Result<Stream, Option<String>> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Err(None),
        Ok(_) if first[0] == HANDSHAKE => {}
        Ok(_) => {
            last_word(&mut stream, PLAIN).await;
            return Err(Some("it speaks no TLS; is its address http://…?".to_owned()));
        }
        Err(error) => return Err(Some(error.to_string())),
    }
    let mut stream = TimeoutStream::new(stream);
    // Runs while something is to be written and nobody takes it.
    stream.set_write_timeout(Some(limits.write_timeout));
    let accepting = TlsAcceptor::from(tls.config()).accept(Box::pin(stream)).into_fallible();
    match accepting.await {
        Ok(agreed) => Ok(agreed),
        Err((error, mut stream)) => {
            last_word(&mut stream, "").await;
            let known = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            Err(Some(known.map_or_else(|| error.to_string(), shoal_client::tls::explain)))
        }
    }
}

/// Says this, and then nothing more, so that it arrives.
async fn last_word<S>(stream: &mut S, text: &str)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let talk = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(LAST_WORD, talk).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_refusal_has_the_length_it_says() {
        let (head, body) = PLAIN.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }

    #[test]
    fn the_oldest_makes_room() {
        let handshakes = Handshakes::new(2);
        let (first, second) = (handshakes.begin(), handshakes.begin());
        assert!(!first.cut.is_cancelled());
        let third = handshakes.begin();
        assert!(first.cut.is_cancelled() && !second.cut.is_cancelled() && !third.cut.is_cancelled());
        drop((first, second, third));
        assert!(handshakes.queue().all.is_empty(), "nothing is kept of those that ended");
    }
}
