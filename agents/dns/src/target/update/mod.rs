//! A server that takes dynamic updates (RFC 2136), in zones that others write into as well.
//!
//! **What is Shoal's** is a record set, and the ledger says which. Others may have their own under the same name and anywhere else in the
//! zone; a message never names them. Start of authority and name servers belong to whoever made the zone at the server.
//!
//! **A look** at a whole zone is a transfer, signed like everything else. Whether single names are free is asked with an
//! update that requires it and changes nothing: a question would be answered from a wildcard.
//!
//! **A change** goes with what it was made from as its condition, so it is made of that or not at all, and a stale holder's
//! change is refused by the server unless the world is as that holder saw it. Many changes go in one message; where one of them is refused, or where they do not fit
//! into one, halves of the message find it, and the others are made.

mod link;
mod message;
mod settings;
mod zone;

use std::collections::BTreeMap;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use shoal_agent::{Applied, Batch, Edit, Fault, Fence, Nature, Observed, Outcome, Scope, Seen, Target, Unit};

use link::{Link, Lost};
use message::Verdict;
pub use settings::UpdateSettings;

use super::files::zone_of;
use crate::Dns;
use crate::name::Zone;
use crate::record::{Have, Key, Node};
use crate::target::tsig::ROOM;

/// How many changes go in one message, mostly of some 20 KiB: fewer, where they would not fit.
const TOGETHER: usize = 100;
/// More names than this are not asked for one by one: the whole zone is.
const FEW: usize = 50;

/// A server that takes updates.
pub struct Update {
    link: Link,
}

impl std::fmt::Debug for Update {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        write!(f, "Update({})", self.link.server)
    }
}

impl Update {
    /// The target of these settings. Touches nothing but the file of the key.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(settings: &UpdateSettings) -> Result<Self, Fault> {
        let signer = settings.signer()?;
        Ok(Self { link: Link::new(settings.server, signer, settings.within()) })
    }

    fn fault(&self, what: &str, zone: &Zone, code: ResponseCode) -> Fault {
        let fault = Fault::new(format!("{what} {zone} at {}", self.link.server), format!("it says {code}"));
        let key = match &self.link.signer {
            Some(signer) => format!("the key {}", signer.signer_name()),
            None => "this agent's address".to_owned(),
        };
        match code {
            ResponseCode::Refused => fault.next(format!("let {key} do it (allow-update or update-policy, and allow-transfer)")),
            ResponseCode::NotAuth | ResponseCode::NotZone => fault.next(format!(
                "make the zone at this server, as its primary; and see that it has {key} with the same secret and a clock that is right"
            )),
            ResponseCode::NotImp => fault.next("give the address of a server that takes updates"),
            _ => fault,
        }
    }

    /// Every name of the zone.
    async fn all(&self, zone: &Zone) -> Result<BTreeMap<Key, Node>, Fault> {
        let what = || format!("transfer {zone} from {}", self.link.server);
        let malformed = |why: String| Fault::new(what(), why);
        let mut question =
            message::question(rand::random(), zone.as_str(), RecordType::AXFR).map_err(malformed)?;
        let mut connection = self.link.connect().await.map_err(|lost| lost.fault(what()))?;
        let records = connection.transfer(&mut question).await.map_err(|lost| lost.fault(what()))?;
        let records = records.map_err(|code| self.fault("transfer", zone, code))?;
        zone::nodes(zone, &records).map_err(malformed)
    }

    /// These names, and no others.
    async fn some(&self, zone: &Zone, keys: &[Key]) -> Result<BTreeMap<Key, Node>, Fault> {
        let what = || format!("look at names of {zone} at {}", self.link.server);
        let malformed = |why: String| Fault::new(what(), why);
        let lost = |lost: Lost| lost.fault(what());
        // The zone itself is always there.
        let (apex, rest): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| key.is_apex());
        let mut there = apex;
        let mut asked = vec![rest];
        let mut connection = self.link.connect().await.map_err(lost)?;
        while let Some(keys) = asked.pop() {
            if keys.is_empty() {
                continue;
            }
            let mut probe = message::update(rand::random(), zone).map_err(malformed)?;
            for key in &keys {
                message::require_nothing(&mut probe, key).map_err(malformed)?;
            }
            let answer = connection.ask(&mut probe).await.map_err(lost)?;
            match answer.metadata.response_code {
                ResponseCode::NoError => {}
                ResponseCode::YXDomain if keys.len() == 1 => there.extend(keys),
                ResponseCode::YXDomain => {
                    let (left, right) = keys.split_at(keys.len() / 2);
                    asked.extend([left.to_vec(), right.to_vec()]);
                }
                code => return Err(self.fault("look at names of", zone, code)),
            }
        }
        let mut records = Vec::new();
        for key in there {
            let mut question =
                message::question(rand::random(), &key.name(), RecordType::ANY).map_err(malformed)?;
            let answer = connection.ask(&mut question).await.map_err(lost)?;
            match answer.metadata.response_code {
                ResponseCode::NoError => records.extend(answer.answers),
                // It went between the two questions.
                ResponseCode::NXDomain => {}
                code => return Err(self.fault("look at names of", zone, code)),
            }
        }
        connection.keep();
        zone::nodes(zone, &records).map_err(malformed)
    }

    /// Makes these changes in one message, or finds out which of them cannot be made.
    async fn make(&self, zone: &Zone, edits: &[Edit<Dns>], fence: &Fence, each: &mut Vec<(Key, Outcome)>) {
        let mut parts: Vec<&[Edit<Dns>]> = edits.chunks(TOGETHER).rev().collect();
        while let Some(part) = parts.pop() {
            let all = |outcome: &Outcome| {
                part.iter().map(|edit| (edit.key.clone(), outcome.clone())).collect::<Vec<_>>()
            };
            let message = match self.message(zone, part) {
                Ok(message) => message,
                // Too long, or one of them can never be sent: the others can.
                Err(_) if part.len() > 1 => {
                    halve(&mut parts, part);
                    continue;
                }
                Err(why) => {
                    let fault = Fault::new(format!("update {zone} at {}", self.link.server), why).permanent();
                    each.extend(all(&Outcome::Failed(fault)));
                    continue;
                }
            };
            let answer = match fence.check() {
                Ok(()) => self.send(zone, message).await,
                Err(fault) => Err(fault),
            };
            let code = match answer {
                Ok(code) => code,
                Err(fault) => {
                    each.extend(all(&Outcome::Failed(fault)));
                    continue;
                }
            };
            match message::verdict(code) {
                Verdict::Done => each.extend(all(&Outcome::Done)),
                Verdict::Stale | Verdict::Malformed if part.len() > 1 => halve(&mut parts, part),
                Verdict::Stale => each.extend(all(&Outcome::Stale)),
                Verdict::Malformed => {
                    each.extend(all(&Outcome::Failed(self.fault("update", zone, code).permanent())));
                }
                Verdict::Refused | Verdict::Failed => {
                    each.extend(all(&Outcome::Failed(self.fault("update", zone, code))));
                }
            }
        }
    }

    async fn send(&self, zone: &Zone, mut message: Message) -> Result<ResponseCode, Fault> {
        let what = || format!("update {zone} at {}", self.link.server);
        if !message::changes_something(&message) {
            return Ok(ResponseCode::NoError);
        }
        let mut connection = self.link.connect().await.map_err(|lost| lost.fault(what()))?;
        let answer = connection.ask(&mut message).await.map_err(|lost| lost.fault(what()))?;
        connection.keep();
        Ok(answer.metadata.response_code)
    }

    /// These changes as one message; or why they cannot be one, which is never so of the same changes later.
    fn message(&self, zone: &Zone, edits: &[Edit<Dns>]) -> Result<Message, String> {
        let mut message = message::update(rand::random(), zone)?;
        for edit in edits {
            message::change(&mut message, edit)?;
        }
        let room = if self.link.signer.is_some() { ROOM } else { 0 };
        if message::fits(&message, room)? {
            return Ok(message);
        }
        let names: Vec<String> = edits.iter().map(|edit| edit.key.name()).collect();
        Err(format!(
            "all that stands under {} and all that is to come does not fit into one message, which has {} octets; have fewer or \
             shorter records under one name",
            names.join(", "),
            u16::MAX
        ))
    }
}

/// The first half of a part that cannot be made as it is comes next, then the second.
fn halve<'a>(parts: &mut Vec<&'a [Edit<Dns>]>, part: &'a [Edit<Dns>]) {
    let (left, right) = part.split_at(part.len() / 2);
    parts.extend([right, left]);
}

impl Target<Dns> for Update {
    fn nature(&self) -> Nature {
        Nature { shared: true, conditional: true, ..Nature::default() }
    }

    fn location(&self, _: &Unit) -> String {
        format!("updates at {}", self.link.server)
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Dns>, Fault> {
        let zone = zone_of(unit)?;
        let nodes = match scope {
            Scope::Keys(keys) if keys.len() <= FEW => self.some(&zone, keys).await?,
            _ => self.all(&zone).await?,
        };
        let seen = nodes.into_iter().map(|(key, node)| (key, Seen::There(Have::of(node))));
        Ok(Observed { seen: seen.collect(), complete: true })
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Dns>, fence: &Fence) -> Result<Applied<Dns>, Fault> {
        let zone = zone_of(unit)?;
        let mut each = Vec::with_capacity(batch.changes.len());
        self.make(&zone, &batch.changes, fence, &mut each).await;
        Ok(Applied { each, facts: Vec::new() })
    }
}
