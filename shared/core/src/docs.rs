//! Hosts and tags as people and programs write them: the one form that files, the server, the command line and the
//! previews of agents share.
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
//!
//! A file may also hold what else is to be done, as an [`Edit`]: `edit: delete` with `key: hosts/web1.example.com`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::codec::{self, BadText, Format};
use crate::{
    Document, Edit, Expect, HostId, HostName, HostRecord, Lifecycle, Member, Revision, TagName, TagRecord,
};

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    #[schemars(with = "Map<String, Value>")]
    pub document: Document,
    /// The revision that last wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

/// A tag with its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    #[schemars(with = "Map<String, Value>")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
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
            (true, false) => Self::Host(codec::form(value)?),
            (false, true) => Self::Tag(codec::form(value)?),
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

    /// # Errors
    /// Its document is no map.
    pub fn check(&self) -> Result<(), BadText> {
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

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// What a host or a tag is to be.
    Doc(Doc),
    /// Something else that is to be done.
    Edit(Edit),
}

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{error}", .document.map(|n| format!("document {n}: ")).unwrap_or_default())]
pub struct BadFile {
    /// Which document it is, from 1 on, where there are several.
    pub document: Option<usize>,
    /// What is wrong.
    pub error: BadText,
}

impl Entry {
    /// The edit that does what the document says.
    #[must_use]
    pub fn into_edit(self) -> Edit {
        match self {
            Self::Doc(doc) => doc.into_edit(Expect::Any),
            Self::Edit(edit) => edit,
        }
    }

    fn read(value: Value) -> Result<Self, BadText> {
        match value.get("edit") {
            Some(_) => codec::form(value).map(Self::Edit),
            None => Doc::read(value).map(Self::Doc),
        }
    }

    /// Every document of a file, JSON or YAML; a list counts as its elements, so that what a
    /// listing prints can be given back.
    ///
    /// # Errors
    /// Not a text of either, or a document of another form.
    pub fn all(text: &[u8]) -> Result<Vec<Self>, BadFile> {
        let format = format_of(text);
        let values = codec::read_many(text, format).map_err(|error| BadFile { document: None, error })?;
        let many = values.len() > 1;
        let entry = |(at, value)| {
            let document = many.then_some(at + 1);
            Self::read(value).map_err(|error| BadFile { document, error })
        };
        values.into_iter().filter(|value| !value.is_null()).enumerate().map(entry).collect()
    }
}

/// JSON begins with a brace or bracket, and its names stand in quotes: `{host: web1}` is YAML.
fn format_of(text: &[u8]) -> Format {
    let mut rest = text.iter().filter(|octet| !octet.is_ascii_whitespace()).peekable();
    let opens = rest.peek().is_some_and(|octet| matches!(octet, b'{' | b'['));
    let quoted = rest
        .find(|octet| !matches!(octet, b'{' | b'['))
        .is_none_or(|octet| matches!(octet, b'"' | b']' | b'}'));
    if opens && quoted { Format::Json } else { Format::Yaml }
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

    #[test]
    fn files_hold_hosts_tags_and_edits_also_as_lists() {
        let text = "host: web1.example.com\nstate: draining\ndocument: {a: 1}\n---\ntag: dns/example.com\n\
                    members: [web1.example.com]\nrevision: 7\n---\nedit: delete\nkey: hosts/old.example.com\n";
        let edits: Vec<Edit> =
            Entry::all(text.as_bytes()).unwrap().into_iter().map(Entry::into_edit).collect();
        assert!(matches!(&edits[0], Edit::PutHost { host, .. } if host.as_str() == "web1.example.com"));
        assert!(matches!(&edits[1], Edit::PutTag { expect: Expect::At(Revision(7)), .. }));
        assert!(matches!(&edits[2], Edit::Delete { .. }));
        let list = Entry::all(b"- host: web1\n  revision: 3\n- {tag: dns/x}\n").unwrap();
        assert_eq!(list, Entry::all(br#"[{"host": "web1", "revision": 3}, {"tag": "dns/x"}]"#).unwrap());
        assert_eq!(list, Entry::all(b"[{host: web1, revision: 3}, {tag: dns/x}]").unwrap());
        assert!(Entry::all(br#"{"host": "web1", }"#).unwrap_err().to_string().contains("not JSON"));
        assert!(matches!(&list[..], [Entry::Doc(Doc::Host(_)), Entry::Doc(Doc::Tag(_))]), "{list:?}");
    }

    #[test]
    fn faults_name_the_document() {
        for (text, names) in [
            ("host: web1.example.com\n---\nhots: x", "document 2: it has neither"),
            ("host: web1.example.com\nstat: active", "unknown field `stat`"),
            ("- a", "host: NAME"),
            ("edit: deleet", "deleet"),
            ("a: [", "line"),
        ] {
            let error = Entry::all(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(names), "{error}");
        }
    }
}
