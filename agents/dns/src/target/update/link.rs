//! Messages to the server and back: over TCP, signed and checked by TSIG where there is a key.
//!
//! Connections are kept for a moment after their last good exchange, so that changes that follow each other do not open one each, in
//! several zones at once neither ([RFC 7766 section 6.2.1](https://www.rfc-editor.org/rfc/rfc7766#section-6.2.1)). One that anything went wrong with, that the server closed, or that was idle for longer is never used again. A server that
//! closes it in the moment of sending leaves an exchange without an answer, which is looked at like any other. Answers are bounded by time and
//! by size.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Record, RecordType, TSigVerifier, TSigner};
use shoal_agent::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::target::tsig::now;

/// A zone of more records than this is not looked at: it would not fit into memory with all the rest.
const MOST_RECORDS: usize = 20_000_000;
/// A whole zone may take so many times as long as one answer.
const TRANSFER: u32 = 10;
/// How long a connection is kept: below what servers wait for the next question (BIND 30 s).
const KEPT: Duration = Duration::from_secs(5);

/// How many are kept: as many as zones that change together, mostly a forward zone and its reverse ones.
const MOST_KEPT: usize = 4;

/// How the server is reached.
pub(super) struct Link {
    pub(super) server: SocketAddr,
    pub(super) signer: Option<TSigner>,
    pub(super) within: Duration,
    /// The one used last is the last.
    kept: Mutex<Vec<(TcpStream, Instant)>>,
}

/// A connection, and what came of it.
pub(super) struct Connection<'a> {
    link: &'a Link,
    stream: TcpStream,
}

/// Why an exchange gave no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// The server never got it.
    Unsent(String),
    /// It may have got it, and done what it says.
    Unanswered(String),
}

impl Lost {
    /// For people.
    pub(super) fn fault(self, what: impl Into<String>) -> Fault {
        match self {
            Self::Unsent(why) => Fault::new(what, why),
            Self::Unanswered(why) => {
                Fault::new(what, format!("{why}; whether it was done is not known, and is looked at"))
            }
        }
    }
}

impl Link {
    pub(super) fn new(server: SocketAddr, signer: Option<TSigner>, within: Duration) -> Self {
        Self { server, signer, within, kept: Mutex::default() }
    }

    /// A connection that was kept and can still be used; those that cannot are closed.
    fn kept(&self) -> Option<TcpStream> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is awaited on them: what can be read is their end, or what nobody asked for.
        kept.retain(|(stream, since)| {
            let silent =
                matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
            silent && since.elapsed() < KEPT
        });
        Some(kept.pop()?.0)
    }

    pub(super) async fn connect(&self) -> Result<Connection<'_>, Lost> {
        if let Some(stream) = self.kept() {
            return Ok(Connection { link: self, stream });
        }
        let failed =
            |why: &dyn std::fmt::Display| Lost::Unsent(format!("connecting to {}: {why}", self.server));
        match timeout(self.within, TcpStream::connect(self.server)).await {
            Ok(Ok(stream)) => {
                // Whole messages are written; a later one of a connection must not wait for what came before it.
                stream.set_nodelay(true).map_err(|e| failed(&e))?;
                Ok(Connection { link: self, stream })
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&format!("nothing within {} s", self.within.as_secs()))),
        }
    }
}

impl Connection<'_> {
    /// Keeps it for who comes next. Every exchange on it must have had its whole answer.
    pub(super) fn keep(self) {
        let mut kept = self.link.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT {
            kept.remove(0);
        }
        kept.push((self.stream, Instant::now()));
    }

    /// Sends a message and waits for its one answer.
    pub(super) async fn ask(&mut self, message: &mut Message) -> Result<Message, Lost> {
        let mut check = self.send(message).await?;
        let within = self.link.within;
        match timeout(within, self.receive(message.metadata.id, &mut check)).await {
            Ok(answer) => answer.map_err(Lost::Unanswered),
            Err(_) => Err(Lost::Unanswered(self.silent(within))),
        }
    }

    /// Asks for a whole zone ([RFC 5936](https://www.rfc-editor.org/rfc/rfc5936)). The records, the SOA once; or what the
    /// server said instead.
    pub(super) async fn transfer(
        &mut self,
        question: &mut Message,
    ) -> Result<Result<Vec<Record>, ResponseCode>, Lost> {
        let mut check = self.send(question).await?;
        let within = self.link.within * TRANSFER;
        let all = async {
            let mut records: Vec<Record> = Vec::new();
            loop {
                let answer = self.receive(question.metadata.id, &mut check).await?;
                if answer.metadata.response_code != ResponseCode::NoError {
                    return Ok(Err(answer.metadata.response_code));
                }
                for record in answer.answers {
                    // The zone begins and ends with its SOA.
                    let soa = record.record_type() == RecordType::SOA;
                    if records.is_empty() != soa {
                        if soa {
                            return Ok(Ok(records));
                        }
                        return Err("the transfer does not begin with an SOA record".to_owned());
                    }
                    if records.len() >= MOST_RECORDS {
                        return Err(format!("the zone has more than {MOST_RECORDS} records"));
                    }
                    records.push(record);
                }
            }
        };
        match timeout(within, all).await {
            Ok(answer) => answer.map_err(Lost::Unanswered),
            Err(_) => Err(Lost::Unanswered(format!(
                "{} did not send the zone within {} s",
                self.link.server,
                within.as_secs()
            ))),
        }
    }

    fn silent(&self, within: Duration) -> String {
        format!("{} did not answer within {} s", self.link.server, within.as_secs())
    }

    async fn send(&mut self, message: &mut Message) -> Result<Option<TSigVerifier>, Lost> {
        let unsent = |why: &dyn std::fmt::Display| Lost::Unsent(format!("to {}: {why}", self.link.server));
        let check = match &self.link.signer {
            Some(signer) => message.finalize(signer, now()).map_err(|e| unsent(&e))?,
            None => None,
        };
        let octets = message.to_vec().map_err(|e| unsent(&e))?;
        let length =
            u16::try_from(octets.len()).map_err(|_| unsent(&"the message is longer than 65535 octets"))?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(octets);
        match timeout(self.link.within, self.stream.write_all(&framed)).await {
            // Some of it may be there; a server does nothing about a part of a message.
            Ok(Ok(())) => Ok(check),
            Ok(Err(error)) => Err(Lost::Unanswered(format!("sending to {}: {error}", self.link.server))),
            Err(_) => Err(Lost::Unanswered(self.silent(self.link.within))),
        }
    }

    async fn receive(&mut self, id: u16, check: &mut Option<TSigVerifier>) -> Result<Message, String> {
        let server = self.link.server;
        let broken = |why: &dyn std::fmt::Display| format!("the answer of {server} cannot be used: {why}");
        let length = self.stream.read_u16().await.map_err(|e| broken(&e))?;
        let mut octets = vec![0; length.into()];
        self.stream.read_exact(&mut octets).await.map_err(|e| broken(&e))?;
        let plain = Message::from_vec(&octets).map_err(|e| broken(&e))?;
        if plain.metadata.id != id {
            return Err(broken(&"it answers another question"));
        }
        let Some(check) = check else { return Ok(plain) };
        // What refuses a key cannot be signed with it.
        if plain.metadata.response_code == ResponseCode::NotAuth
            && plain.signature.as_ref().is_none_or(|tsig| tsig.data.error.is_some())
        {
            return Ok(plain);
        }
        check.verify(&octets).map_err(|e| broken(&e))?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "this is test code")]

    use super::*;
    use crate::target::update::message;
    use hickory_proto::op::MessageType;
    use tokio::net::TcpListener;

    /// Answers what is asked on one connection, so many times, and closes it.
    async fn serve(listener: &TcpListener, times: usize) {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..times {
            let length = stream.read_u16().await.unwrap();
            let mut octets = vec![0; length.into()];
            stream.read_exact(&mut octets).await.unwrap();
            let mut answer = Message::from_vec(&octets).unwrap();
            answer.metadata.message_type = MessageType::Response;
            let octets = answer.to_vec().unwrap();
            stream.write_u16(octets.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&octets).await.unwrap();
        }
    }

    async fn exchange(link: &Link) {
        let mut question = message::question(7, "example.com", RecordType::SOA).unwrap();
        let mut connection = link.connect().await.unwrap();
        connection.ask(&mut question).await.unwrap();
        connection.keep();
    }

    #[tokio::test]
    async fn a_connection_serves_several_exchanges_until_the_server_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::new(listener.local_addr().unwrap(), None, Duration::from_secs(60));
        // Each connection that is opened takes two exchanges, and two are opened: a third would wait for ever.
        let server = async {
            serve(&listener, 2).await;
            serve(&listener, 2).await;
        };
        let client = async {
            for n in 1..=4 {
                exchange(&link).await;
                if n % 2 == 0 {
                    // The server closes it: its end has to be here before the next one asks.
                    let (stream, since) = link.kept.lock().unwrap().pop().unwrap();
                    stream.readable().await.unwrap();
                    link.kept.lock().unwrap().push((stream, since));
                }
            }
        };
        timeout(Duration::from_secs(120), async { tokio::join!(server, client) }).await.unwrap();
    }

    #[tokio::test]
    async fn exchanges_at_once_keep_a_connection_each_and_no_more_than_a_few() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::new(listener.local_addr().unwrap(), None, Duration::from_secs(60));
        let server = async {
            for _ in 0..MOST_KEPT + 2 {
                serve(&listener, 1).await;
            }
        };
        let client = async {
            let mut all = Vec::new();
            for _ in 0..MOST_KEPT + 2 {
                let mut connection = link.connect().await.unwrap();
                connection
                    .ask(&mut message::question(7, "example.com", RecordType::SOA).unwrap())
                    .await
                    .unwrap();
                all.push(connection);
            }
            all.into_iter().for_each(Connection::keep);
        };
        timeout(Duration::from_secs(120), async { tokio::join!(server, client) }).await.unwrap();
        assert_eq!(link.kept.lock().unwrap().len(), MOST_KEPT);
    }

    #[tokio::test]
    async fn a_connection_that_was_not_answered_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::new(listener.local_addr().unwrap(), None, Duration::from_millis(500));
        let mut question = message::question(7, "example.com", RecordType::SOA).unwrap();
        let mut connection = link.connect().await.unwrap();
        assert!(matches!(connection.ask(&mut question).await, Err(Lost::Unanswered(_))));
        drop(connection);
        assert!(link.kept().is_none());
    }
}
