//! Reading hosts, tags and whole views out of a store, as of now or of any revision.
//!
//! The server and the command line share this. A reading that takes several pages is of one revision: the first
//! page's.

use std::collections::BTreeSet;

use shoal_core::{
    HostName, HostRecord, Key, Kind, Member, MemberKind, Namespace, Range, Revision, Row, TagName, TagRecord,
    View,
};
use shoal_store::{Page, Query, Store, StoreError, Texts};

use shoal_core::docs::{HostDoc, TagDoc};

use crate::inventory;

/// What stands at a key, or what is left there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// It exists.
    Here(T),
    /// It was deleted or renamed.
    Gone {
        /// By which revision.
        revision: Revision,
        /// Where it went, if it was renamed.
        to: Option<Key>,
    },
    /// Nothing ever stood there.
    Never,
}

impl<T> Found<T> {
    /// What exists.
    pub fn here(self) -> Option<T> {
        match self {
            Self::Here(found) => Some(found),
            Self::Gone { .. } | Self::Never => None,
        }
    }

    /// The same with what exists turned into something else.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Here(found) => Found::Here(into(found)),
            Self::Gone { revision, to } => Found::Gone { revision, to },
            Self::Never => Found::Never,
        }
    }

    /// The same for somebody who may not read everything: where it went is left out, unless `sees` that.
    #[must_use]
    pub fn seen_by(self, sees: impl FnOnce(&Key) -> bool) -> Self {
        match self {
            Self::Gone { revision, to } => Self::Gone { revision, to: to.filter(|to| sees(to)) },
            other => other,
        }
    }

    /// Why there is nothing, as the end of a sentence about `what`.
    #[must_use]
    pub fn missing(&self, what: &str) -> String {
        match self {
            Self::Here(_) => format!("{what} exists"),
            Self::Gone { revision, to: Some(to) } => {
                format!("{what} was renamed to {to} in revision {revision}")
            }
            Self::Gone { revision, to: None } => format!("{what} was deleted in revision {revision}"),
            Self::Never => format!("there is no {what}"),
        }
    }
}

/// The row at `key` as of `at` (`None`: now).
///
/// # Errors
/// What the store says.
pub async fn row(store: &dyn Store, key: &Key, at: Option<Revision>) -> Result<Found<Row>, StoreError> {
    let query = Query { range: Range::Key(key.clone()), at, after: None, limit: 1, tombstones: true };
    Ok(match store.read(&query).await?.rows.pop() {
        None => Found::Never,
        Some(row) if row.value.is_some() => Found::Here(row),
        Some(row) => Found::Gone { revision: row.revision, to: row.moved },
    })
}

/// What is left at a key where nothing stands any more, as a view knows it.
#[must_use]
pub fn left<T>(view: &View, key: &Key) -> Found<T> {
    match view.tombstone(key) {
        Some(grave) => Found::Gone { revision: grave.revision, to: grave.moved.clone() },
        None => Found::Never,
    }
}

/// [`tag`] as a view knows it.
#[must_use]
pub fn known_tag(view: &View, name: &TagName, most: usize) -> Found<TagDoc> {
    let Some(tag) = view.tag(name) else { return left(view, &Key::tag(name)) };
    let members: Vec<Member> = view.direct_members(name).into_iter().map(|(member, _)| member).collect();
    let total = members.len();
    let revision = view.tag_revision(name).unwrap_or(tag.revision);
    let kept = if total > most { Vec::new() } else { members };
    let mut doc = TagDoc::of(name.clone(), tag.record(), kept, revision);
    if total > most {
        (doc.members, doc.members_total) = (None, u64::try_from(total).ok());
    }
    Found::Here(doc)
}

/// The first of `keys` at which nothing ever stood: it is mostly a mistyped name.
///
/// # Errors
/// What the store says.
pub async fn never<'k>(
    store: &dyn Store,
    keys: impl IntoIterator<Item = &'k Key>,
) -> Result<Option<&'k Key>, StoreError> {
    for key in keys {
        if matches!(row(store, key, None).await?, Found::Never) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// A host as of `at`.
///
/// # Errors
/// What the store says; [`StoreError::Corrupt`] for a row that is no host.
pub async fn host(
    store: &dyn Store,
    name: &HostName,
    at: Option<Revision>,
) -> Result<Found<HostDoc>, StoreError> {
    match row(store, &Key::host(name), at).await? {
        Found::Here(row) => Ok(Found::Here(HostDoc::of(name.clone(), record(&row)?, row.revision))),
        Found::Gone { revision, to } => Ok(Found::Gone { revision, to }),
        Found::Never => Ok(Found::Never),
    }
}

/// A tag with its members as of `at`; with their number alone where they are more than `most`. Its revision is the newest that wrote its document, or added or
/// removed one of its members.
///
/// # Errors
/// What the store says; [`StoreError::Corrupt`] for a row that is no tag.
pub async fn tag(
    store: &dyn Store,
    name: &TagName,
    at: Option<Revision>,
    most: usize,
) -> Result<Found<TagDoc>, StoreError> {
    // The members first, so that both are of the revision of their first page.
    let mut query = Query { at, tombstones: true, ..Query::new(Range::members(name)) };
    let (mut newest, mut members, mut total) = (Revision::default(), Vec::new(), 0);
    loop {
        let page = store.read(&query).await?;
        for row in &page.rows {
            newest = newest.max(row.revision);
            if let (Some(_), Kind::Member(_, member)) = (&row.value, row.key.kind()) {
                total += 1;
                // Beyond that they are counted, and no longer kept.
                if total <= most {
                    members.push(member);
                } else {
                    members = Vec::new();
                }
            }
        }
        query.at = Some(page.at);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    match row(store, &Key::tag(name), query.at).await? {
        Found::Here(row) => {
            let revision = newest.max(row.revision);
            let mut doc = TagDoc::of(name.clone(), record::<TagRecord>(&row)?, members, revision);
            if total > most {
                (doc.members, doc.members_total) = (None, u64::try_from(total).ok());
            }
            Ok(Found::Here(doc))
        }
        Found::Gone { revision, to } => Ok(Found::Gone { revision, to }),
        Found::Never => Ok(Found::Never),
    }
}

/// A page of hosts as of `at`, after `after`.
///
/// # Errors
/// What the store says; [`StoreError::Corrupt`] for a row that is no host.
pub async fn hosts(
    store: &dyn Store,
    at: Option<Revision>,
    after: Option<&HostName>,
    limit: usize,
) -> Result<(Revision, Vec<HostDoc>, Option<HostName>), StoreError> {
    let query = Query { at, after: after.map(Key::host), limit, ..Query::new(Range::hosts()) };
    let page = store.read(&query).await?;
    let next = page.next.and_then(|key| match key.kind() {
        Kind::Host(name) => Some(name),
        _ => None,
    });
    let mut all = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        if let Kind::Host(name) = row.key.kind() {
            all.push(HostDoc::of(name, record::<HostRecord>(row)?, row.revision));
        }
    }
    Ok((page.at, all, next))
}

/// The whole database as of `at`. Costs a reading of all of it.
///
/// # Errors
/// What the store says.
pub async fn view(store: &dyn Store, at: Option<Revision>) -> Result<View, StoreError> {
    let mut view = View::new();
    let mut query = Query { at, tombstones: true, ..Query::new(Range::All) };
    loop {
        let Page { at, rows, next } = store.read(&query).await?;
        rows.into_iter().for_each(|row| view.load(row));
        query.at = Some(at);
        match next {
            Some(next) => query.after = Some(next),
            None => {
                view.loaded(at);
                return Ok(view);
            }
        }
    }
}

/// A view that answers about one host as the whole one would, as of `at`. Costs what a server or a file's indexes say of the host, and in
/// other stores a reading of everything.
///
/// # Errors
/// What the store says.
pub async fn around(store: &dyn Store, host: &HostName, at: Option<Revision>) -> Result<View, StoreError> {
    let Some(Page { at, rows, .. }) = store.around(host, at).await? else { return view(store, at).await };
    let mut view = View::new();
    rows.into_iter().for_each(|row| view.load(row));
    view.loaded(at);
    Ok(view)
}

/// A host, and the schema of a namespace: all that its own variables there are made of, as of now. Costs two rows.
///
/// # Errors
/// What the store says.
pub async fn alone(store: &dyn Store, host: &HostName, namespace: &Namespace) -> Result<View, StoreError> {
    let (mut view, mut at) = (View::new(), None);
    for key in [Key::host(host), Key::schema(namespace)] {
        let page = store.read(&Query { at, ..Query::new(Range::Key(key)) }).await?;
        at = Some(page.at);
        page.rows.into_iter().for_each(|row| view.load(row));
    }
    view.loaded(at.unwrap_or_default());
    Ok(view)
}

/// A view that answers who is in a tag as the whole one would, as of `at`. Costs the tag, what it nests and the hosts that they
/// name; where a rule is among them, a reading of everything.
///
/// # Errors
/// What the store says.
pub async fn below(store: &dyn Store, tag: &TagName, at: Option<Revision>) -> Result<View, StoreError> {
    let mut found = Vec::new();
    let (mut seen, mut open) = (BTreeSet::from([tag.clone()]), vec![tag.clone()]);
    let mut hosts = BTreeSet::new();
    let mut pages = Pages { store, at };
    while let Some(tag) = open.pop() {
        let mut rows = pages.all(Range::Key(Key::tag(&tag))).await?;
        rows.extend(pages.all(Range::members(&tag)).await?);
        for row in rows {
            if let Kind::Member(_, member) = row.key.kind() {
                match (member.kind(), member.as_tag(tag.namespace())) {
                    (MemberKind::Rule(_), _) => return self::view(store, pages.at).await,
                    (_, Some(nested)) => open.extend(Some(nested).filter(|tag| seen.insert(tag.clone()))),
                    (_, None) => hosts.extend(member.as_str().parse().ok().map(|name| Key::host(&name))),
                }
            }
            found.push(row);
        }
    }
    if hosts.len() > FEW {
        found.extend(pages.all(Range::hosts()).await?.into_iter().filter(|row| hosts.contains(&row.key)));
    } else {
        for key in hosts {
            found.extend(pages.all(Range::Key(key)).await?);
        }
    }
    // In the order in which all rows are read, so that of ways that are as short the same is told.
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let mut view = View::new();
    found.into_iter().for_each(|row| view.load(row));
    view.loaded(pages.at.unwrap_or_default());
    Ok(view)
}

/// What a tag has for members as they are written, by text, with the revision that made each, as of `at`.
///
/// # Errors
/// What the store says.
pub async fn direct(
    store: &dyn Store,
    tag: &TagName,
    at: Option<Revision>,
) -> Result<Vec<(Member, Revision)>, StoreError> {
    let rows = Pages { store, at }.all(Range::members(tag)).await?;
    let members = rows.into_iter().filter_map(|row| match row.key.kind() {
        Kind::Member(_, member) => Some((member, row.revision)),
        _ => None,
    });
    let mut all: Vec<_> = members.collect();
    all.sort();
    Ok(all)
}

/// The tags that nest a tag, by name, as of `at`. Costs those.
///
/// # Errors
/// What the store says.
pub async fn nesting(
    store: &dyn Store,
    tag: &TagName,
    at: Option<Revision>,
) -> Result<Vec<TagName>, StoreError> {
    let (mut pages, mut found) = (Pages { store, at }, BTreeSet::new());
    // In its own namespace it stands by its key, in others by all of its name.
    for member in [Member::nested(tag, tag.namespace()), Member::nested(tag, "")] {
        for row in pages.all(Range::Naming(member)).await? {
            if let Kind::Member(holder, member) = row.key.kind()
                && member.as_tag(holder.namespace()).as_ref() == Some(tag)
                && !pages.all(Range::Key(Key::tag(&holder))).await?.is_empty()
            {
                found.insert(holder);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// A view that answers what a tag says by itself as the whole one would, as of `at`. Costs its row.
///
/// # Errors
/// What the store says.
pub async fn tag_alone(store: &dyn Store, tag: &TagName, at: Option<Revision>) -> Result<View, StoreError> {
    let (mut view, mut pages) = (View::new(), Pages { store, at });
    pages.all(Range::Key(Key::tag(tag))).await?.into_iter().for_each(|row| view.load(row));
    view.loaded(pages.at.unwrap_or_default());
    Ok(view)
}

/// Up to so many hosts are read one by one, and all of them where there are more: each is a question.
const FEW: usize = 64;

/// Readings of one revision: that of the first.
struct Pages<'s> {
    store: &'s dyn Store,
    at: Option<Revision>,
}

impl Pages<'_> {
    /// All rows of a range.
    async fn all(&mut self, range: Range) -> Result<Vec<Row>, StoreError> {
        let mut query = Query { at: self.at, ..Query::new(range) };
        let mut all = Vec::new();
        loop {
            let page = self.store.read(&query).await?;
            (self.at, query.at) = (Some(page.at), Some(page.at));
            all.extend(page.rows);
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(all),
            }
        }
    }
}

/// The rows that an inventory goes by which follows from the hosts and the tags of one namespace by themselves
/// ([`inventory::plain`]); up to the first member that takes more than those.
///
/// # Errors
/// What the store says.
pub async fn plain(store: &dyn Store, namespace: &Namespace) -> Result<Texts, StoreError> {
    let ranges = inventory::ranges(namespace);
    match store.texts(&ranges, inventory::beyond).await? {
        Some(texts) => Ok(texts),
        None => paged(store, &ranges, inventory::beyond).await,
    }
}

/// What [`Store::texts`] answers, out of pages.
async fn paged(store: &dyn Store, ranges: &[Range], last: fn(&str) -> bool) -> Result<Texts, StoreError> {
    let (mut texts, mut at) = (Texts::default(), None);
    for range in ranges {
        let mut query = Query { at, ..Query::new(range.clone()) };
        loop {
            let page = store.read(&query).await?;
            (at, query.at) = (Some(page.at), Some(page.at));
            for row in &page.rows {
                let member = row.key.as_member().map(|(_, member)| member);
                let value = row.value.as_ref().filter(|_| member.is_none());
                texts.push(row.key.as_str(), value.map_or("", |value| value.as_str()));
                if member.is_some_and(last) {
                    return Ok(texts);
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    Ok(texts)
}

fn record<T: serde::de::DeserializeOwned>(row: &Row) -> Result<T, StoreError> {
    let value = row.value.as_ref().map_or("null", |v| v.as_str());
    serde_json::from_str(value).map_err(|e| StoreError::Corrupt {
        place: format!("the row {} (revision {})", row.key, row.revision),
        why: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use shoal_core::{Change, Commit, Document};
    use shoal_store::MemoryStore;

    async fn commit(store: &MemoryStore, rows: Vec<(String, Value)>) -> Revision {
        let put = |(key, value): (String, Value)| Change::put(key.parse().unwrap(), Document::from(value));
        let commit = Commit::new("ann", "because", rows.into_iter().map(put).collect());
        store.commit(commit).await.unwrap().revision
    }

    fn rows(of: &[&str]) -> Vec<(String, Value)> {
        let value = |key: &str| if key.starts_with("hosts/") { json!({"id": key}) } else { json!({}) };
        of.iter().map(|key| ((*key).to_owned(), value(key))).collect()
    }

    /// In a store that has no texts.
    #[tokio::test]
    async fn an_inventory_out_of_pages_is_that_of_the_view() {
        let (store, tags) = (MemoryStore::new(), "tags".parse().unwrap());
        let keys =
            ["hosts/a", "hosts/b", "tags/x", "tags/x/members/a", "tags/x/members/@y", "tags/y", "dns/x"];
        commit(&store, rows(&keys)).await;
        let texts = plain(&store, &tags).await.unwrap();
        let whole = view(&store, None).await.unwrap();
        assert_eq!(inventory::plain(&texts, &tags), Some(inventory::list(&whole, &tags, None)));
        commit(&store, rows(&["tags/x/members/select: true"])).await;
        let texts = plain(&store, &tags).await.unwrap();
        assert_eq!(texts.iter().last(), Some(("tags/x/members/select: true", "")), "hosts were read in vain");
        assert_eq!(inventory::plain(&texts, &tags), None);
    }

    /// What is read of one tag answers as the whole database does, now and at an old revision.
    #[tokio::test]
    async fn readings_of_one_tag_are_as_the_whole_says() {
        let store = MemoryStore::new();
        let first = commit(
            &store,
            rows(&[
                "hosts/a",
                "hosts/b",
                "hosts/c",
                "tags/x",
                "tags/x/members/a",
                "tags/x/members/@y",
                "tags/x/members/@dns/x",
                "tags/y",
                "tags/y/members/b",
                "tags/y/members/nobody",
                // A circle, which no checked commit makes, and tags that are not there.
                "tags/y/members/@x",
                "tags/y/members/@gone",
                "tags/gone/members/c",
                "dns/x",
                "dns/x/members/c",
                "dns/x/members/@x",
                "dns/y",
                "dns/y/members/@tags/y",
            ]),
        )
        .await;
        commit(&store, rows(&["tags/rules", "tags/rules/members/select: true", "tags/x/members/c"])).await;
        let many = (0..100).flat_map(|n| {
            let state = if n % 2 == 0 { "retired" } else { "active" };
            let host = (format!("hosts/m{n}"), json!({"id": "m", "state": state}));
            [host, (format!("tags/many/members/m{n}"), json!({}))]
        });
        commit(&store, many.chain(rows(&["tags/many", "tags/many/members/@y"])).collect()).await;
        for at in [None, Some(first)] {
            let whole = view(&store, at).await.unwrap();
            for tag in
                ["tags/x", "tags/y", "tags/gone", "dns/x", "dns/y", "tags/rules", "tags/many", "tags/none"]
            {
                let tag: TagName = tag.parse().unwrap();
                let some = below(&store, &tag, at).await.unwrap();
                let members = whole.members(&tag);
                assert_eq!(some.members(&tag), members, "{tag} at {at:?}");
                for host in &members {
                    assert_eq!(some.via(&tag, host.as_str()), whole.via(&tag, host.as_str()), "{tag} {host}");
                    assert_eq!(some.host(host.as_str()), whole.host(host.as_str()), "{host}");
                }
                assert_eq!(direct(&store, &tag, at).await.unwrap(), whole.direct_members(&tag), "{tag}");
                assert_eq!(nesting(&store, &tag, at).await.unwrap(), whole.tag_parents(&tag), "{tag}");
                let own = tag_alone(&store, &tag, at).await.unwrap();
                let effective = |view: &View| view.effective_document(&tag, None).map(|d| d.document);
                assert_eq!(effective(&own), effective(&whole), "{tag}");
                assert_eq!(some.revision(), whole.revision());
            }
        }
    }
}
