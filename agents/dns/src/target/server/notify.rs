//! Telling secondaries that a zone changed ([RFC 1996](https://www.rfc-editor.org/rfc/rfc1996)), so that they ask for it at once.
//!
//! A message that nobody acknowledges is sent again, ever later, five times in all; then the secondary finds out by itself when
//! its refresh is due. Changes that come while one is told are told together. Each secondary is told by a task of its own: one that is down holds up nobody.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Record, RecordType, TSigner};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::answer::Zones;
use crate::name::Zone;
use crate::target::tsig;

/// How long the first acknowledgement is waited for; twice as long each further time.
const FIRST: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;

/// One secondary, and the zones that it is to be told of.
#[derive(Debug)]
pub(super) struct Secondary {
    address: SocketAddr,
    changed: Mutex<BTreeSet<Zone>>,
    wake: Notify,
}

impl Secondary {
    pub(super) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address, changed: Mutex::default(), wake: Notify::new() })
    }

    /// Says that a zone changed.
    pub(super) fn changed(&self, zone: &Zone) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(zone.clone());
        self.wake.notify_one();
    }

    fn next(&self) -> Option<Zone> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }

    /// Tells it of what changes, until the task is ended.
    pub(super) async fn tell(self: Arc<Self>, zones: Arc<Zones>) {
        loop {
            self.wake.notified().await;
            while let Some(zone) = self.next() {
                if !self.one(&zone, &zones).await {
                    tracing::warn!(%zone, secondary = %self.address, "it did not acknowledge that the zone changed");
                }
            }
        }
    }

    /// Whether it knows now, or need not.
    async fn one(&self, zone: &Zone, zones: &Zones) -> bool {
        let mut wait = FIRST;
        for _ in 0..TRIES {
            // As it is at each try: what it acknowledges is then the newest.
            let Some(message) = message(zone, zones) else { return true };
            if let Ok(Ok(())) = timeout(wait, self.send(message, zones.access.key.as_ref())).await {
                return true;
            }
            if self.changed.lock().unwrap_or_else(PoisonError::into_inner).contains(zone) {
                return true;
            }
            wait *= 2;
        }
        false
    }

    async fn send(&self, mut message: Message, key: Option<&TSigner>) -> Result<(), std::io::Error> {
        let any: SocketAddr = if self.address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.address).await?;
        if let Some(key) = key {
            message.finalize(key, tsig::now()).map_err(std::io::Error::other)?;
        }
        socket.send(&message.to_vec().map_err(std::io::Error::other)?).await?;
        let mut buffer = [0; 4096];
        loop {
            let Ok(len) = socket.recv(&mut buffer).await else {
                // Nobody listens there now: only time helps, and the caller has the measure of it.
                std::future::pending::<()>().await;
                continue;
            };
            let answer = Message::from_vec(&buffer[..len]);
            if answer.is_ok_and(|answer| answer.metadata.id == message.metadata.id) {
                return Ok(());
            }
        }
    }
}

/// That the zone has a new SOA; `None` when it is not served any more.
fn message(zone: &Zone, zones: &Zones) -> Option<Message> {
    let data = zones.get(zone)?;
    let data = data.read().unwrap_or_else(PoisonError::into_inner);
    let (apex, soa) = (data.apex()?, data.soa()?);
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Notify);
    message.metadata.authoritative = true;
    message.add_query(Query::query(apex.name.clone(), RecordType::SOA));
    message
        .answers
        .extend(soa.data.iter().map(|data| Record::from_rdata(apex.name.clone(), soa.ttl, data.clone())));
    Some(message)
}
