//! Messages to the server and back: over TCP, signed and checked by TSIG where there is a key.
//!
//! A connection serves one exchange, or several of one look; it is opened anew each time, so nothing has to be known about
//! what a connection that was idle has become. Answers are bounded by time and by size.

use std::net::SocketAddr;
use std::time::Duration;

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

/// How the server is reached.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) server: SocketAddr,
    pub(super) signer: Option<TSigner>,
    pub(super) within: Duration,
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
    pub(super) async fn connect(&self) -> Result<Connection<'_>, Lost> {
        let failed =
            |why: &dyn std::fmt::Display| Lost::Unsent(format!("connecting to {}: {why}", self.server));
        match timeout(self.within, TcpStream::connect(self.server)).await {
            Ok(Ok(stream)) => Ok(Connection { link: self, stream }),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&format!("nothing within {} s", self.within.as_secs()))),
        }
    }
}

impl Connection<'_> {
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
