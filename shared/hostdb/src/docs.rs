//! Hosts and tags as people and programs write them: the one form that files, the server and the command line
//! share.
//!
//! ```yaml
//! host: web1.example.com
//! state: active
//! owner: web team
//! document:
//!   address: 192.0.2.10
//! ---
//! tag: dns/example.com
//! document: {ttl: 300}
//! members: [web1.example.com, "@internal", "select: site == 'rdu3'"]
//! ```
//!
//! What a text leaves out is empty, but for a host's `state` and a tag's `members`: these stay as they are.
//! `id`, `revision` and `members_total` are written by the database. A text that carries a `revision` is only stored while the
//! host or tag is still at it, so that what was read, edited and sent back never overwrites somebody else's change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shoal_core::{
    Document, Edit, Expect, HostId, HostName, HostRecord, Lifecycle, Member, Revision, TagName, TagRecord,
};

use crate::codec::BadText;

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostDoc {
    /// Its name.
    pub host: HostName,
    /// Its id: given by the database, kept through renames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<HostId>,
    /// Where it is in its life; `None`: not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Lifecycle>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// When it may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What people say of it: a map.
    #[serde(default = "Document::empty")]
    pub document: Document,
    /// The revision that last wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

/// A tag with its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagDoc {
    /// Its name.
    pub tag: TagName,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// When it may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What it says of its members: a map.
    #[serde(default = "Document::empty")]
    pub document: Document,
    /// Its own members as they are written; `None`: not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
    /// How many members it has, where they are too many to be listed with it. Written by the database; as `members` is not
    /// said then, a tag that was read and is sent back keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members_total: Option<u64>,
    /// The newest revision that wrote its document or changed its members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

/// A host or a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Doc {
    /// A host.
    Host(HostDoc),
    /// A tag.
    Tag(TagDoc),
}

impl HostDoc {
    /// A host of which nothing is said.
    #[must_use]
    pub fn new(name: HostName) -> Self {
        Self {
            host: name,
            id: None,
            state: None,
            owner: None,
            environment: None,
            expires: None,
            document: Document::empty(),
            revision: None,
        }
    }

    /// The host of a row.
    #[must_use]
    pub fn of(name: HostName, record: HostRecord, revision: Revision) -> Self {
        Self {
            host: name,
            id: Some(record.id),
            state: Some(record.state),
            owner: record.owner,
            environment: record.environment,
            expires: record.expires,
            document: record.document,
            revision: Some(revision),
        }
    }
}

impl TagDoc {
    /// A tag that says nothing, and of whose members nothing is said.
    #[must_use]
    pub fn new(name: TagName) -> Self {
        Self {
            tag: name,
            owner: None,
            environment: None,
            expires: None,
            document: Document::empty(),
            members: None,
            members_total: None,
            revision: None,
        }
    }

    /// The tag of a row and its members.
    #[must_use]
    pub fn of(name: TagName, record: TagRecord, members: Vec<Member>, revision: Revision) -> Self {
        Self {
            tag: name,
            owner: record.owner,
            environment: record.environment,
            expires: record.expires,
            document: record.document,
            members: Some(members),
            members_total: None,
            revision: Some(revision),
        }
    }
}

impl Doc {
    /// Reads one document of a file.
    ///
    /// # Errors
    /// Neither a host nor a tag, or not of their form; the path of the field is named.
    pub fn read(value: Value) -> Result<Self, BadText> {
        let bad = |why: &str| BadText::Form { path: String::new(), why: why.to_owned() };
        let Value::Object(map) = &value else {
            return Err(bad("a document is a map that starts with `host: NAME` or `tag: NAMESPACE/KEY`"));
        };
        let doc = match (map.contains_key("host"), map.contains_key("tag")) {
            (true, false) => Self::Host(crate::codec::form(value)?),
            (false, true) => Self::Tag(crate::codec::form(value)?),
            (true, true) => return Err(bad("it has both `host` and `tag`: write two documents")),
            (false, false) => {
                return Err(bad(
                    "it has neither `host` nor `tag`: say which one it is, such as `host: web1.example.com`",
                ));
            }
        };
        doc.check()?;
        Ok(doc)
    }

    /// The edit that makes the host or tag as the document says. A document that carries a revision is stored only while
    /// that is still the newest, unless `expect` says otherwise.
    #[must_use]
    pub fn into_edit(self, expect: Expect) -> Edit {
        let or = |revision: Option<Revision>| match expect {
            Expect::Any => revision.map_or(Expect::Any, Expect::At),
            said => said,
        };
        match self {
            Self::Host(doc) => Edit::PutHost {
                expect: or(doc.revision),
                host: doc.host,
                id: doc.id,
                state: doc.state,
                owner: doc.owner,
                environment: doc.environment,
                expires: doc.expires,
                document: doc.document,
            },
            Self::Tag(doc) => Edit::PutTag {
                expect: or(doc.revision),
                tag: doc.tag,
                owner: doc.owner,
                environment: doc.environment,
                expires: doc.expires,
                document: doc.document,
                members: doc.members,
            },
        }
    }

    /// What it is, for people: `host web1`, `tag dns/example.com`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Host(host) => format!("host {}", host.host),
            Self::Tag(tag) => format!("tag {}", tag.tag),
        }
    }

    pub(crate) fn check(&self) -> Result<(), BadText> {
        let document = match self {
            Self::Host(host) => &host.document,
            Self::Tag(tag) => &tag.document,
        };
        match document.to::<Map<String, Value>>() {
            Ok(_) => Ok(()),
            Err(_) => Err(BadText::Form {
                path: "document".to_owned(),
                why: format!("expected a map, found {}", kind_of(&document.value())),
            }),
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing (null)",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_say_what_is_wrong_with_them() {
        let why = |value| Doc::read(value).unwrap_err().to_string();
        Doc::read(json!({"host": "web1", "document": {"a": 1}})).unwrap();
        assert!(why(json!({"host": "web1", "documnt": {}})).contains("unknown field `documnt`"));
        assert!(why(json!({"host": "web 1"})).contains("web 1"));
        assert!(why(json!({"host": "web1", "state": "up"})).contains("state"));
        assert!(why(json!({"host": "web1", "document": [1]})).contains("expected a map, found a list"));
        assert!(why(json!({"tag": "dns/x", "members": ["@@"]})).contains("members[0]"));
        assert!(why(json!({"name": "x"})).contains("neither"));
        assert!(why(json!([1])).contains("host: NAME"));
    }

    #[test]
    fn what_is_written_reads_back() {
        let doc = Doc::read(json!({
            "tag": "dns/example.com", "document": {"z": 1, "a": [1, {"b": null}]},
            "members": ["web1", "@x", "select: a == 1"], "expires": "2026-01-02T03:04:05Z", "revision": 7
        }))
        .unwrap();
        let again = Doc::read(serde_json::to_value(&doc).unwrap()).unwrap();
        assert_eq!(doc, again);
    }
}
