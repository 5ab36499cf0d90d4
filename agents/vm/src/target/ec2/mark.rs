//! What tells that an instance is Shoal's: tags that come with it in one call, and the client token that it was launched with.
//!
//! Tags are copied by whoever launches "more like this", and can be written by hand; the token of a launch cannot. It follows from what the
//! tags say, so that an instance is Shoal's only where both belong together.

use std::collections::BTreeMap;

use aws_smithy_types::base64;
use sha2::{Digest as _, Sha256};
use shoal_agent::{Fault, HostId, HostName, Revision};

use crate::item::Attempt;
use crate::target::provider::Order;

/// Tags of Shoal's own begin so.
pub(super) const OWN: &str = "shoal:";
/// The box in whose name it was launched.
pub(super) const BOX: &str = "shoal:box";
/// The id of its host.
pub(super) const ID: &str = "shoal:id";
const HOST: &str = "shoal:host";
const ATTEMPT: &str = "shoal:attempt";
const PROTECTED: &str = "shoal:protected";
/// The type that it was launched with, or has been given since.
pub(super) const TYPE: &str = "shoal:type";
/// The order, in pieces: `shoal:order.0`, … An empty one is left over from an order that was longer.
pub(super) const ORDER: &str = "shoal:order.";
/// What the console shows.
pub(super) const NAME: &str = "Name";
/// The most characters of a tag, and the most pieces of an order.
const PIECE: usize = 256;
const PIECES: usize = 16;

/// What stands in the tags of an instance of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) order: Order,
    pub(super) attempt: Attempt,
    /// `None`: its template says it.
    pub(super) kind: Option<String>,
    /// Shoal had EC2 refuse to terminate it.
    pub(super) protected: bool,
}

impl Mark {
    /// The token of the launch. Another attempt has another, and so has another placing of the host.
    pub(super) fn client_token(&self) -> String {
        let placed = self.attempt.placed.map_or(0, |revision| revision.0);
        let text = format!("{}\0{}\0{placed}\0{}", self.order.id.0, self.order.token, self.attempt.way);
        let digest = Sha256::digest(text.as_bytes());
        let digits: String = digest.iter().take(20).map(|octet| format!("{octet:02x}")).collect();
        format!("shoal-{digits}")
    }

    /// The tags.
    ///
    /// # Errors
    /// The machine's description has no room in them.
    pub(super) fn tags(&self, room: &HostName) -> Result<BTreeMap<String, String>, Fault> {
        let what = || format!("write the mark of {}", self.order.host);
        let mut order = self.order.clone();
        // It stands in the instance, and is not compared.
        order.machine.user_data = None;
        let text = serde_json::to_string(&order).map_err(|e| Fault::new(what(), e).permanent())?;
        // Of letters that tags of all kinds may have.
        let text = base64::encode(text);
        let mut tags = BTreeMap::new();
        let mut put = |key: &str, value: String| {
            tags.insert(key.to_owned(), value);
        };
        put(BOX, room.to_string());
        put(ID, self.order.id.0.clone());
        put(HOST, self.order.host.to_string());
        put(NAME, self.order.host.to_string());
        put(ATTEMPT, format!("{}.{}", self.attempt.placed.map_or(0, |at| at.0), self.attempt.way));
        if let Some(kind) = &self.kind {
            put(TYPE, kind.clone());
        }
        if self.protected {
            put(PROTECTED, "yes".to_owned());
        }
        let pieces: Vec<String> =
            text.as_bytes().chunks(PIECE).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect();
        if pieces.len() > PIECES || self.order.id.0.len() > PIECE {
            let why = "what its document says of it is too long for the tags of an instance";
            return Err(Fault::new(what(), why).next("give it fewer networks and addresses").permanent());
        }
        for (n, piece) in pieces.into_iter().enumerate() {
            put(&format!("{ORDER}{n}"), piece);
        }
        Ok(tags)
    }

    /// What tags say; `None`: they are no mark of this box.
    ///
    /// # Errors
    /// They are one, and cannot be read.
    pub(super) fn read(tags: &BTreeMap<String, String>, room: &HostName) -> Result<Option<Self>, String> {
        let Some(id) = tags.get(ID).filter(|_| tags.get(BOX).is_some_and(|name| name == room.as_str()))
        else {
            return Ok(None);
        };
        let mut text = String::new();
        for piece in (0..PIECES).map_while(|n| tags.get(&format!("{ORDER}{n}"))) {
            text.push_str(piece);
        }
        let text = base64::decode(text).map_err(|e| format!("its mark is damaged: {e}"))?;
        let order: Order = serde_json::from_slice(&text).map_err(|e| format!("its mark is damaged: {e}"))?;
        if order.id != HostId(id.clone()) {
            return Err("its mark names two hosts".to_owned());
        }
        let attempt = tags.get(ATTEMPT).and_then(|text| {
            let (placed, way) = text.split_once('.')?;
            let placed: u64 = placed.parse().ok()?;
            let placed = (placed != 0).then_some(Revision(placed));
            Some(Attempt { placed, way: way.parse().ok()? })
        });
        let attempt = attempt.ok_or("its mark says no attempt")?;
        let protected = tags.contains_key(PROTECTED);
        Ok(Some(Self { order, attempt, kind: tags.get(TYPE).cloned(), protected }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mark() -> Mark {
        let networks = json!([{"name": "lan", "addresses": ["192.0.2.10/24", "2001:db8::a/64"]}]);
        let machine = json!({"image": "debian", "size": {"cpu": 2}, "networks": networks, "user_data": "x".repeat(9_000)});
        let order = json!({"id": "0198", "host": "web1.example.com", "token": "t", "machine": machine});
        let attempt = Attempt { placed: Some(Revision(7)), way: 2 };
        let order = serde_json::from_value(order).unwrap();
        Mark { order, attempt, kind: Some("m7g.large".to_owned()), protected: true }
    }

    #[test]
    fn what_is_written_is_read() {
        let room: HostName = "z1.example.com".parse().unwrap();
        let mark = mark();
        let mut tags = mark.tags(&room).unwrap();
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-=._:/@ ".contains(c);
        for (key, value) in &tags {
            assert!(key.len() <= 128 && value.len() <= PIECE, "{key}");
            assert!(key.chars().all(plain) && value.chars().all(plain), "{key} {value}");
        }
        let mut read = Mark::read(&tags, &room).unwrap().unwrap();
        read.order.machine.user_data = mark.order.machine.user_data.clone();
        assert_eq!(read, mark);
        // What is left over of a longer order says nothing.
        let pieces = tags.keys().filter(|key| key.starts_with(ORDER)).count();
        tags.insert(format!("{ORDER}{pieces}"), String::new());
        assert_eq!(Mark::read(&tags, &room).unwrap().unwrap().order.machine.size, mark.order.machine.size);
        assert_eq!(Mark::read(&tags, &"z2.example.com".parse().unwrap()), Ok(None));
        tags.insert(ID.to_owned(), "0199".to_owned());
        assert!(Mark::read(&tags, &room).is_err());
        tags.remove("shoal:order.0");
        assert!(Mark::read(&tags, &room).is_err());
    }

    #[test]
    fn each_attempt_has_a_token_of_its_own() {
        let one = mark();
        let token = one.client_token();
        assert!(token.len() <= 64 && token == mark().client_token());
        let mut others = [one.clone(), one.clone(), one.clone()];
        others[0].attempt.way = 3;
        others[1].attempt.placed = Some(Revision(8));
        others[2].order.token = "u".to_owned();
        assert!(others.iter().all(|other| other.client_token() != token));
        // It does not depend on what may be written otherwise later.
        let other = Mark { kind: None, protected: false, ..one };
        assert_eq!(other.client_token(), token);
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let mut long = mark();
        let address = "2001:db8:1111:2222:3333:4444:5555:6666/64".parse().unwrap();
        let mut network = long.order.machine.networks[0].clone();
        network.addresses = vec![address; 16];
        long.order.machine.networks = vec![network; 16];
        assert!(long.tags(&"z1.example.com".parse().unwrap()).unwrap_err().permanent);
    }
}
