//! Who is in a tag, or in the tags of a namespace, for those who may not read all of the database.
//!
//! What it takes is read, and no more: the tags, what they nest (of whatever namespace), and the hosts; where there are rules, the facts, too.
//! It is answered whole or refused, by the first range that is not for who asks. Where hosts are not, those that a tag names are known by that
//! name alone: a member row says that there is such a host. What rules select is then refused.

use std::collections::BTreeSet;

use shoal_core::{Document, HostName};
use shoal_core::{FACTS, HostId, HostRecord, Key, Kind, MemberKind, Range, Revision, Row, TagName, View};
use shoal_store::{Query, Store, StoreError};

/// What it is about.
#[derive(Clone, Copy)]
pub(crate) enum Of<'a> {
    /// One tag.
    Tag(&'a TagName),
    /// All tags of a namespace.
    Namespace(&'a str),
}

impl Of<'_> {
    /// As people call it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Tag(tag) => format!("who is in tag {tag}"),
            Self::Namespace(namespace) => format!("the tags of {namespace}"),
        }
    }
}

/// A view that holds these tags with who is in them, as of `at`. Costs a reading of the tags, of what they nest, and of all hosts.
///
/// # Errors
/// What the store says; [`StoreError::Denied`] for what is not for who asks.
pub(crate) async fn view(store: &dyn Store, of: &Of<'_>, at: Option<Revision>) -> Result<View, StoreError> {
    let mut parts =
        Parts { store, at, view: View::new(), seen: BTreeSet::new(), hosts: BTreeSet::new(), rules: false };
    let mut next = match of {
        Of::Tag(tag) => vec![(*tag).clone()],
        Of::Namespace(namespace) => parts.tags(Range::namespace(namespace)).await?,
    };
    while let Some(tag) = next.pop() {
        if parts.seen.insert(tag.clone()) {
            next.extend(parts.tags(Range::Key(Key::tag(&tag))).await?);
            next.extend(parts.tags(Range::members(&tag)).await?);
        }
    }
    match parts.load(Range::hosts()).await {
        Ok(_) if parts.rules => drop(parts.load(Range::Prefix(format!("{FACTS}/"))).await?),
        Ok(_) => {}
        Err(StoreError::Denied { .. }) if !parts.rules => parts.named(),
        Err(error) => return Err(error),
    }
    parts.view.loaded(parts.at.unwrap_or_default());
    Ok(parts.view)
}

struct Parts<'s> {
    store: &'s dyn Store,
    /// The revision of the first page, from then on.
    at: Option<Revision>,
    view: View,
    /// The tags that are read.
    seen: BTreeSet<TagName>,
    /// The hosts that they name.
    hosts: BTreeSet<HostName>,
    /// Whether something is selected by a rule.
    rules: bool,
}

impl Parts<'_> {
    /// Reads a range of tags; answers those that they nest.
    async fn tags(&mut self, range: Range) -> Result<Vec<TagName>, StoreError> {
        let mut nested = Vec::new();
        for key in self.load(range).await? {
            match key.kind() {
                Kind::Tag(tag) => drop(self.seen.insert(tag)),
                Kind::Member(tag, member) => {
                    nested.extend(member.as_tag(tag.namespace()));
                    match member.kind() {
                        MemberKind::Rule(_) => self.rules = true,
                        MemberKind::Host(name) => self.hosts.extend(name.parse::<HostName>().ok()),
                        MemberKind::Nested(_) | MemberKind::Foreign(_) => {}
                    }
                }
                _ => {}
            }
        }
        Ok(nested)
    }

    /// Reads a range; answers the keys at which something stands.
    async fn load(&mut self, range: Range) -> Result<Vec<Key>, StoreError> {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let query = Query { at: self.at, after, ..Query::new(range.clone()) };
            let page = self.store.read(&query).await?;
            self.at = Some(page.at);
            for row in page.rows {
                keys.push(row.key.clone());
                self.view.load(row);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(keys),
            }
        }
    }

    /// Hosts of which nothing is known but that there are such.
    fn named(&mut self) {
        for host in std::mem::take(&mut self.hosts) {
            let record = HostRecord {
                id: HostId(host.to_string()),
                state: shoal_core::Lifecycle::default(),
                owner: None,
                environment: None,
                expires: None,
                document: Document::empty(),
            };
            let row = Row {
                key: Key::host(&host),
                value: Document::of(&record).ok(),
                revision: Revision::default(),
                moved: None,
            };
            self.view.load(row);
        }
    }
}
