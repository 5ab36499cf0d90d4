//! Who is in a tag, or in the tags of a namespace, for those who may not read all of the database.
//!
//! What it takes is read, and no more: the tags, what they nest (of whatever namespace), and the hosts; where there are rules, the facts, too.
//! It is answered whole or refused, by the first range that is not for who asks. Where hosts are not, those that a tag names are known by that
//! name alone: a member row says that there is such a host. What rules select is then refused.
//!
//! A list for people ([`seen`]) is the other way round: what is not for who asks is left out and counted, and what cannot be said of the rest
//! is said to be unknown. Nothing is worked out from it.

use std::collections::BTreeSet;

use shoal_core::docs::TagDoc;
use shoal_core::{Document, HostName, Namespace};
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

/// What a server lists of a namespace for who asks.
pub(crate) struct Seen {
    /// The tags that are for them, without members.
    pub(crate) tags: Vec<TagDoc>,
    /// Who is in those, as far as that is.
    pub(crate) view: View,
    /// Tags whose members are not.
    closed: BTreeSet<TagName>,
    /// Tags of which it cannot be said whom their members come to.
    doubtful: BTreeSet<TagName>,
    /// How many tags were left out.
    pub(crate) hidden: usize,
}

/// The tags of a namespace (`None`: of all) that are for who asks, as a server lists them; `None`: there is none that does. Costs, besides the
/// list, a reading of each tag's members, of what they nest, and of all hosts.
///
/// # Errors
/// What the store says.
pub(crate) async fn seen(
    store: &dyn Store,
    namespace: Option<&Namespace>,
    at: Option<Revision>,
) -> Result<Option<Seen>, StoreError> {
    let (mut tags, mut hidden, mut at, mut after) = (Vec::new(), 0, at, None::<String>);
    loop {
        let Some(page) = store.list_tags(namespace, at, after.as_deref()).await? else { return Ok(None) };
        at = Some(page.revision);
        hidden += page.hidden;
        tags.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut parts = Parts::new(store, at);
    let (mut closed, mut doubtful) = (BTreeSet::new(), BTreeSet::new());
    let mut next: Vec<TagName> = tags.iter().map(|tag: &TagDoc| tag.tag.clone()).collect();
    while let Some(tag) = next.pop() {
        if !parts.seen.insert(tag.clone()) {
            continue;
        }
        // Without its row a view knows no tag. One that is nested may be there for its members alone.
        match parts.tags(Range::Key(Key::tag(&tag))).await {
            Ok(_) => {}
            Err(StoreError::Denied { .. }) => drop(doubtful.insert(tag.clone())),
            Err(error) => return Err(error),
        }
        match parts.tags(Range::members(&tag)).await {
            Ok(nested) => next.extend(nested),
            Err(StoreError::Denied { .. }) => drop(closed.insert(tag)),
            Err(error) => return Err(error),
        }
    }
    if !parts.evaluable().await? {
        doubtful.extend(parts.ruled.iter().cloned());
    }
    parts.view.loaded(parts.at.unwrap_or_default());
    Ok(Some(Seen { tags, view: parts.view, closed, doubtful, hidden }))
}

impl Seen {
    /// How many members a tag has as they are written; `None`: that is not for who asks.
    pub(crate) fn members(&self, tag: &TagName) -> Option<usize> {
        (!self.closed.contains(tag)).then(|| self.view.direct_members(tag).len())
    }

    /// How many hosts a tag comes to; `None`: some of what decides that is not for who asks.
    pub(crate) fn hosts(&self, tag: &TagName) -> Option<usize> {
        self.knows(tag).then(|| self.view.members(tag).len())
    }

    /// Whether it is known who is in a tag, through whatever it nests.
    fn knows(&self, tag: &TagName) -> bool {
        let (mut done, mut next) = (BTreeSet::new(), vec![tag.clone()]);
        while let Some(tag) = next.pop() {
            if self.closed.contains(&tag) || self.doubtful.contains(&tag) {
                return false;
            }
            if done.insert(tag.clone()) {
                let members = self.view.direct_members(&tag).into_iter();
                next.extend(members.filter_map(|(member, _)| member.as_tag(tag.namespace())));
            }
        }
        true
    }
}

/// A view that holds these tags with who is in them, as of `at`. Costs a reading of the tags, of what they nest, and of all hosts.
///
/// # Errors
/// What the store says; [`StoreError::Denied`] for what is not for who asks.
pub(crate) async fn view(store: &dyn Store, of: &Of<'_>, at: Option<Revision>) -> Result<View, StoreError> {
    let mut parts = Parts::new(store, at);
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
        Ok(_) if !parts.ruled.is_empty() => drop(parts.load(Range::Prefix(format!("{FACTS}/"))).await?),
        Ok(_) => {}
        Err(StoreError::Denied { .. }) if parts.ruled.is_empty() => parts.named(),
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
    /// The tags that select some by a rule.
    ruled: BTreeSet<TagName>,
}

impl<'s> Parts<'s> {
    fn new(store: &'s dyn Store, at: Option<Revision>) -> Self {
        let (seen, hosts, ruled) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { store, at, view: View::new(), seen, hosts, ruled }
    }

    /// Reads what members come to, as far as it is for who asks; whether rules can be evaluated on it.
    async fn evaluable(&mut self) -> Result<bool, StoreError> {
        match self.load(Range::hosts()).await {
            Ok(_) if self.ruled.is_empty() => Ok(true),
            Ok(_) => match self.load(Range::Prefix(format!("{FACTS}/"))).await {
                Ok(_) => Ok(true),
                Err(StoreError::Denied { .. }) => Ok(false),
                Err(error) => Err(error),
            },
            Err(StoreError::Denied { .. }) => {
                self.named();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a range of tags; answers those that they nest.
    async fn tags(&mut self, range: Range) -> Result<Vec<TagName>, StoreError> {
        let mut nested = Vec::new();
        for key in self.load(range).await? {
            match key.kind() {
                Kind::Tag(tag) => drop(self.seen.insert(tag)),
                Kind::Member(tag, member) => {
                    nested.extend(member.as_tag(tag.namespace()));
                    match member.kind() {
                        MemberKind::Rule(_) => drop(self.ruled.insert(tag)),
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
