//! Hosts, tags and facts as the view hands them out.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{
    Document, HostId, HostName, HostRecord, Key, Lifecycle, Namespace, Revision, TagName, TagRecord,
};

/// A host as it stands at the view's revision. Its document stays text until somebody asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its name now.
    pub name: HostName,
    /// Survives renames.
    pub id: HostId,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it belongs to.
    pub environment: Option<String>,
    /// When it may go.
    pub expires: Option<Timestamp>,
    /// The revision that last wrote its row.
    pub revision: Revision,
    /// What people wrote: a map.
    pub document: Document,
}

impl Host {
    /// One top-level field of the document; about 1 µs for a document of 1 KiB.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Value> {
        self.document.field(name)
    }

    /// One top-level field that is text; `None` also for one that is not.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.document.text(name)
    }

    /// What stands under the namespace's name, as JSON text, if it is a map. Whether it counts as an override is
    /// the schema's to say: see [`View::override_of`](super::View::override_of).
    #[must_use]
    pub fn under(&self, namespace: &str) -> Option<&str> {
        self.document.raw(namespace).filter(|raw| raw.starts_with('{'))
    }

    /// The row.
    #[must_use]
    pub fn record(&self) -> HostRecord {
        HostRecord {
            id: self.id.clone(),
            state: self.state,
            owner: self.owner.clone(),
            environment: self.environment.clone(),
            expires: self.expires,
            document: self.document.clone(),
        }
    }

    /// The host of a row.
    ///
    /// # Errors
    /// What does not fit [`HostRecord`].
    pub(crate) fn read(name: HostName, row: &Document, revision: Revision) -> Result<Self, String> {
        let raw: RawHost<'_> = serde_json::from_str(row.as_str()).map_err(|e| e.to_string())?;
        Ok(Self {
            name,
            id: HostId(raw.id.into_owned()),
            state: raw.state,
            owner: raw.owner,
            environment: raw.environment,
            expires: raw.expires,
            revision,
            document: map(raw.document)?,
        })
    }
}

/// A tag's own row as it stands at the view's revision; its members are asked of the view.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Its name now.
    pub name: TagName,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it belongs to.
    pub environment: Option<String>,
    /// When it may go.
    pub expires: Option<Timestamp>,
    /// The revision that last wrote its row; members are rows of their own.
    pub revision: Revision,
    /// What it says of its members: a map.
    pub document: Document,
}

impl Tag {
    /// The row.
    #[must_use]
    pub fn record(&self) -> TagRecord {
        TagRecord {
            owner: self.owner.clone(),
            environment: self.environment.clone(),
            expires: self.expires,
            document: self.document.clone(),
        }
    }

    /// The tag of a row.
    ///
    /// # Errors
    /// What does not fit [`TagRecord`].
    pub(crate) fn read(name: TagName, row: &Document, revision: Revision) -> Result<Self, String> {
        let raw: RawTag<'_> = serde_json::from_str(row.as_str()).map_err(|e| e.to_string())?;
        Ok(Self {
            name,
            owner: raw.owner,
            environment: raw.environment,
            expires: raw.expires,
            revision,
            document: map(raw.document)?,
        })
    }
}

/// What one namespace's agent or machines report about a host or a tag.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Who reports.
    pub namespace: Namespace,
    /// What.
    pub document: Document,
    /// Since when.
    pub revision: Revision,
}

/// A row that means nothing further to the view: a schema, a pause, an approval.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain {
    /// What stands there.
    pub document: Document,
    /// The revision that wrote it.
    pub revision: Revision,
}

/// What is left of a deleted or renamed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The revision that deleted it.
    pub revision: Revision,
    /// Where it went, if it was renamed.
    pub moved: Option<Key>,
}

/// A row that could not be understood. The last one that could stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong with it.
    pub why: String,
    /// The revision that wrote it.
    pub revision: Revision,
}

/// What the text of a host's row says of its state, and its document as JSON text: for who goes through many rows and needs no more of them. `None`:
/// the row cannot be read, and a view has no such host. Copies nothing of the document.
#[must_use]
pub fn host_row(row: &str) -> Option<(Lifecycle, &str)> {
    let raw: RawHost<'_> = serde_json::from_str(row).ok()?;
    let document = raw.document.map_or("{}", RawValue::get);
    document.starts_with('{').then_some((raw.state, document))
}

/// The document of a tag's row, in the same way.
#[must_use]
pub fn tag_row(row: &str) -> Option<&str> {
    let raw: RawTag<'_> = serde_json::from_str(row).ok()?;
    let document = raw.document.map_or("{}", RawValue::get);
    document.starts_with('{').then_some(document)
}

// The records again, borrowing the document: it is sliced out of the row, not parsed.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    state: Lifecycle,
    owner: Option<String>,
    environment: Option<String>,
    expires: Option<Timestamp>,
    #[serde(borrow)]
    document: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTag<'a> {
    owner: Option<String>,
    environment: Option<String>,
    expires: Option<Timestamp>,
    #[serde(borrow)]
    document: Option<&'a RawValue>,
}

fn map(raw: Option<&RawValue>) -> Result<Document, String> {
    let document = raw.map_or_else(Document::empty, |raw| Document::trusted(raw.get()));
    if document.is_map() { Ok(document) } else { Err("its document is not a map".to_owned()) }
}
