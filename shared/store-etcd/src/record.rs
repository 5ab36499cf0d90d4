//! What stands in etcd at each key: JSON, so that `etcdctl` shows a person what there is.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use shoal_core::{Change, CommitInfo, Committed, Document, Epoch, Key, LogEntry, Revision};
use shoal_store::{Head, Result, StoreError};

/// The newest version of the layout that this program reads and writes: fencing numbers count from a base. A copy of another database is of it.
pub(crate) const VERSION: u32 = 2;
/// The version that a database begins with: without one.
pub(crate) const PLAIN: u32 = 1;
/// Larger values stand in the log alone, and the row points there: pages of rows stay small enough to ask for by the
/// thousand, and one large value fits in a request with its commit.
pub(crate) const INLINE: usize = 4 << 10;

/// At `log`: which database this is and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The version of the layout; also says whose it is.
    pub(crate) shoal: u32,
    /// Which life of the database.
    pub(crate) epoch: Epoch,
    /// The newest revision.
    pub(crate) revision: Revision,
    /// How many idempotency keys were ever used.
    pub(crate) remembered: u64,
    /// What its fencing numbers count from.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) base: u64,
    /// Of the attempt that wrote it ([`nonce_of`]): tells it from another of the same numbers, where a snapshot was restored and others wrote as
    /// much as was lost. 0 as long as nothing was committed, and in a database of before there was one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) nonce: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// At `draft`: a database that is being made from another one. Whoever writes there does so on the condition of this key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DraftRecord {
    /// What will be its identity.
    #[serde(flatten)]
    pub(crate) identity: Identity,
    /// Who makes it: unique among all that ever did.
    pub(crate) by: String,
    /// How often it was written by that one: tells each write from every other.
    pub(crate) step: u64,
}

/// What a head has of the attempt that writes it: the first half of that one's number, which is random.
pub(crate) fn nonce_of(attempt: &str) -> u64 {
    u64::from_str_radix(attempt.get(..16).unwrap_or(attempt), 16).unwrap_or(0)
}

impl Identity {
    pub(crate) fn head(&self) -> Head {
        Head { epoch: self.epoch, revision: self.revision }
    }
}

/// A value as it is kept: text that is passed through as it stands, so that a `null` is a value, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Text(pub(crate) Document);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(Document::trusted(raw.get())))
    }
}

/// What is there is a value, even `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text>, D::Error> {
    Text::deserialize(deserializer).map(Some)
}

/// At `row/<key>`: what stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowRecord {
    /// Who wrote it.
    pub(crate) revision: Revision,
    /// The value, if it is not too large.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Text>,
    /// The digest of a value that stands in the log alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) large: Option<String>,
    /// Where it went or came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moved: Option<Key>,
}

impl RowRecord {
    pub(crate) fn of(change: &Change, revision: Revision) -> Self {
        let (mut value, mut large) = (change.value.clone().map(Text), None);
        if let Some(text) = value.take_if(|text| text.0.as_str().len() > INLINE) {
            large = Some(digest(text.0.as_str()));
        }
        Self { revision, value, large, moved: change.moved.clone() }
    }

    /// What a commit is judged by: with the digest of a value in place of it.
    pub(crate) fn brief(&self) -> Self {
        let digest = || self.value.as_ref().map(|text| digest(text.0.as_str()));
        Self { revision: self.revision, value: None, large: self.large.clone().or_else(digest), moved: None }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.value.is_some() || self.large.is_some()
    }

    /// Whether it says the same.
    pub(crate) fn says(&self, value: Option<&Document>) -> bool {
        match (value, &self.value, &self.large) {
            (None, None, None) => true,
            (Some(value), Some(text), _) => *value == text.0,
            (Some(value), None, Some(large)) => digest(value.as_str()) == *large,
            _ => false,
        }
    }
}

fn digest(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text))
}

/// A change in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    key: Key,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moved: Option<Key>,
}

impl From<Change> for Stored {
    fn from(change: Change) -> Self {
        Self { key: change.key, value: change.value.map(Text), moved: change.moved }
    }
}

impl From<Stored> for Change {
    fn from(stored: Stored) -> Self {
        Self { key: stored.key, value: stored.value.map(|text| text.0), moved: stored.moved }
    }
}

/// Where the changes of a large commit are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// The name of all parts.
    pub(crate) id: String,
    /// The first key of each: so that what one key became is found without reading all.
    pub(crate) firsts: Vec<Key>,
}

/// At `log/<revision>`: a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) revision: Revision,
    pub(crate) author: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    pub(crate) message: String,
    pub(crate) time: Timestamp,
    /// Tells this attempt from every other: who lost the answer looks here whether it was done.
    pub(crate) attempt: String,
    /// The changes in key order; none where they stand in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<Stored>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parts: Option<Parts>,
}

impl Entry {
    pub(crate) fn info(&self) -> CommitInfo {
        CommitInfo {
            revision: self.revision,
            author: self.author.clone(),
            principal: self.principal.clone(),
            origin: self.origin.clone(),
            message: self.message.clone(),
            time: self.time,
        }
    }

    /// The whole, where it is not in parts.
    pub(crate) fn into_log(self) -> LogEntry {
        let info = self.info();
        LogEntry { info, changes: self.changes.into_iter().map(Change::from).collect() }
    }
}

/// At `done/<idempotency key>`: what it was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) digest: String,
    pub(crate) revision: Revision,
    pub(crate) changed: usize,
}

impl Remembered {
    pub(crate) fn of(digest: [u8; 32], done: Committed) -> Self {
        Self {
            digest: data_encoding::HEXLOWER.encode(&digest),
            revision: done.revision,
            changed: done.changed,
        }
    }
}

/// At `claim/<name>\0<slot>`. The number is the revision of etcd that made the key, counted from the database's base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClaimRecord {
    pub(crate) holder: String,
    pub(crate) ttl: Option<std::time::Duration>,
    /// The number of one that was held in the database that this is a copy of; not above the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u64>,
}

/// A ledger row in a part: the value in base 64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerRecord {
    pub(crate) key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
}

/// The text of a record.
///
/// # Errors
/// [`StoreError::Invalid`] for a value that is no JSON.
pub(crate) fn write<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|e| StoreError::Invalid(format!("a value that is not JSON: {e}")))
}

/// The record of a text.
///
/// # Errors
/// [`StoreError::Corrupt`]: whatever stands there, we did not write it.
pub(crate) fn parse<T: DeserializeOwned>(place: &str, key: &[u8], text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| damaged(place, key, &error))
}

/// What stands at `key` cannot stand there.
pub(crate) fn damaged(place: &str, key: &[u8], why: &dyn std::fmt::Display) -> StoreError {
    let key = String::from_utf8_lossy(key).replace('\0', "\\0");
    StoreError::Corrupt { place: place.to_owned(), why: format!("at its key {key:?}: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_pass_through_as_they_stand() {
        for text in ["null", "{\"b\":1.0,\"a\":1e3}", "\"x\""] {
            let change = Change::put("lb/a".parse().unwrap(), Document::trusted(text));
            let row = RowRecord::of(&change, Revision(3));
            let back: RowRecord = parse("here", b"k", &write(&row).unwrap()).unwrap();
            assert_eq!(back, row);
            assert!(back.is_live() && back.says(change.value.as_ref()) && !back.says(None));
            let stored = Stored::from(change.clone());
            let back: Stored = parse("here", b"k", &write(&stored).unwrap()).unwrap();
            assert_eq!(Change::from(back), change);
        }
    }

    #[test]
    fn large_values_are_known_by_their_digest() {
        let value = |c: &str| Document::trusted(&format!("\"{}\"", c.repeat(INLINE)));
        let row = RowRecord::of(&Change::put("lb/a".parse().unwrap(), value("x")), Revision(3));
        assert!(row.value.is_none() && row.is_live());
        assert!(row.says(Some(&value("x"))) && !row.says(Some(&value("y"))) && !row.says(None));
        let gone = RowRecord::of(&Change::delete("lb/a".parse().unwrap()), Revision(3));
        assert!(!gone.is_live() && gone.says(None) && !gone.says(Some(&value("x"))));
    }

    #[test]
    fn what_a_row_says_is_seen_by_its_digest() {
        let value = |text: &str| Document::trusted(text);
        let key = || "lb/a".parse().unwrap();
        let row = RowRecord::of(&Change::put(key(), value("1")), Revision(3)).brief();
        assert!(row.value.is_none() && row.is_live() && row.revision == Revision(3));
        assert!(row.says(Some(&value("1"))) && !row.says(Some(&value("2"))) && !row.says(None));
        let gone = RowRecord::of(&Change::delete(key()), Revision(4)).brief();
        assert!(!gone.is_live() && gone.says(None) && !gone.says(Some(&value("1"))));
    }

    #[test]
    fn a_draft_is_read_as_the_identity_that_it_will_have() {
        let identity = Identity {
            shoal: VERSION,
            epoch: Epoch(u64::MAX),
            revision: Revision(5),
            remembered: 3,
            base: 0,
            nonce: 0,
        };
        let text = write(&DraftRecord { identity, by: "a".into(), step: 4 }).unwrap();
        assert_eq!(parse::<Identity>("here", b"k", &text).unwrap(), identity);
        let back: DraftRecord = parse("here", b"k", &text).unwrap();
        assert_eq!((back.identity, back.by.as_str(), back.step), (identity, "a", 4));
        // What has no base does not name it: so it was, and so it stays.
        assert!(!String::from_utf8(text).unwrap().contains("base"));
        let based = Identity { base: 1 << 40, ..identity };
        assert_eq!(parse::<Identity>("here", b"k", &write(&based).unwrap()).unwrap(), based);
    }

    /// As it was written before heads had one; and it stays so until the next commit.
    #[test]
    fn a_head_without_a_nonce_is_read_and_written_as_it_was() {
        let text = br#"{"shoal":1,"epoch":7,"revision":5,"remembered":3}"#;
        let old: Identity = parse("here", b"k", text).unwrap();
        assert_eq!((old.nonce, old.revision), (0, Revision(5)));
        assert_eq!(write(&old).unwrap(), text);
        let new = Identity { nonce: nonce_of(&"f".repeat(32)), ..old };
        assert_eq!(new.nonce, u64::MAX);
        assert_eq!(parse::<Identity>("here", b"k", &write(&new).unwrap()).unwrap(), new);
    }

    #[test]
    fn rubbish_is_called_damage() {
        let error = parse::<Identity>("etcd at h1", b"shoal/log", b"{}").unwrap_err().to_string();
        assert!(error.contains("etcd at h1 is damaged") && error.contains("shoal/log"), "{error}");
    }
}
