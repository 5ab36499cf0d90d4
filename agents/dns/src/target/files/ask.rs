//! Asking a server which serial of a zone it serves.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::name::Zone;

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) enum Answer {
    /// It serves this serial.
    Serial(u32),
    /// It answers, and does not serve the zone.
    NotServed,
    /// It answers, and cannot tell: a zone that it has in its configuration and could not load is like that.
    Failing,
    /// Nothing is known.
    Silence,
}

impl Answer {
    pub(super) fn serial(self) -> Option<u32> {
        match self {
            Self::Serial(serial) => Some(serial),
            Self::NotServed | Self::Failing | Self::Silence => None,
        }
    }

    /// Whether the server certainly serves something else than this serial.
    pub(super) fn contradicts(self, serial: Option<u32>) -> bool {
        match self {
            Self::Serial(served) => Some(served) != serial,
            Self::NotServed | Self::Failing => true,
            Self::Silence => false,
        }
    }
}

/// Asks once, and once more if nothing comes.
pub(in crate::target) async fn serial(server: SocketAddr, zone: &Zone, within: Duration) -> Answer {
    for _ in 0..2 {
        // Refused by the system (nobody listens), or silence: nothing is known.
        if let Ok(Ok(answer)) = timeout(within / 2, once(server, zone)).await {
            return answer;
        }
    }
    Answer::Silence
}

/// Asks until the server answers this: that it serves a serial, or that it does not serve the zone.
///
/// A reload is not done when `rndc` or `nsd-control` returns, and no server tells when it is, so it is asked again: after 10 ms,
/// then twice as long each time up to half a second. What fails for so long as `fails` without a break is not waited for.
pub(super) async fn until(
    server: SocketAddr,
    zone: &Zone,
    wanted: Answer,
    within: Duration,
    fails: Duration,
) -> Result<(), String> {
    let end = Instant::now() + within;
    let mut pause = Duration::from_millis(10);
    let mut failing = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let answer = serial(server, zone, left.min(Duration::from_secs(1))).await;
        if answer == wanted {
            return Ok(());
        }
        let since = (answer == Answer::Failing).then(|| failing.unwrap_or_else(Instant::now));
        failing = since;
        let given_up = since.is_some_and(|since| since.elapsed() >= fails);
        if given_up || end.saturating_duration_since(Instant::now()) <= pause {
            return Err(match answer {
                Answer::Serial(serial) => match wanted {
                    Answer::Serial(wanted) => format!("{server} serves serial {serial}, not {wanted}"),
                    _ => format!("{server} still serves {zone}, with serial {serial}"),
                },
                Answer::NotServed => format!("{server} does not serve {zone}"),
                Answer::Failing => {
                    format!("{server} knows {zone} and cannot serve it (SERVFAIL or the like); see its log")
                }
                Answer::Silence => format!("{server} does not answer"),
            });
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

async fn once(server: SocketAddr, zone: &Zone) -> std::io::Result<Answer> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let name = Name::from_ascii(format!("{zone}.")).map_err(std::io::Error::other)?;
    let mut query = Message::query();
    query.metadata.op_code = OpCode::Query;
    query.add_query(Query::query(name.clone(), RecordType::SOA));
    socket.send(&query.to_vec().map_err(std::io::Error::other)?).await?;
    let mut buffer = [0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let Ok(answer) = Message::from_vec(&buffer[..len]) else { continue };
        if answer.metadata.id != query.metadata.id {
            continue;
        }
        let serial = answer.answers.iter().filter(|record| record.name == name).find_map(|record| {
            match &record.data {
                RData::SOA(soa) => Some(soa.serial),
                _ => None,
            }
        });
        return Ok(match (answer.metadata.response_code, serial) {
            (ResponseCode::NoError, Some(serial)) if answer.metadata.authoritative => Answer::Serial(serial),
            // Also what another zone above it says of the name.
            (
                ResponseCode::NoError
                | ResponseCode::NXDomain
                | ResponseCode::Refused
                | ResponseCode::NotAuth,
                _,
            ) => Answer::NotServed,
            _ => Answer::Failing,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_fails_has_not_forgotten_the_zone() {
        let zone = Zone::parse("example.com").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        let codes = [
            (ResponseCode::ServFail, Answer::Failing),
            (ResponseCode::FormErr, Answer::Failing),
            (ResponseCode::Refused, Answer::NotServed),
            (ResponseCode::NXDomain, Answer::NotServed),
            (ResponseCode::NotAuth, Answer::NotServed),
            (ResponseCode::NoError, Answer::NotServed),
        ];
        for (code, expected) in codes {
            let reply = async {
                let mut buffer = [0; 512];
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..len]).unwrap();
                let mut reply = Message::response(query.metadata.id, OpCode::Query);
                reply.metadata.response_code = code;
                socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            };
            let (answer, ()) = tokio::join!(serial(server, &zone, Duration::from_secs(60)), reply);
            assert_eq!(answer, expected, "{code}");
        }
    }
}
