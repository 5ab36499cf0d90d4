//! Reading hosts, tags and whole views out of a store, as of now or of any revision.
//!
//! The server and the command line share this. A reading that takes several pages is of one revision: the first
//! page's.

use shoal_core::{
    HostName, HostRecord, Key, Kind, Namespace, Range, Revision, Row, TagName, TagRecord, View,
};
use shoal_store::{Page, Query, Store, StoreError};

use shoal_core::docs::{HostDoc, TagDoc};

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

/// The hosts and the tags of one namespace, as far as they stand by themselves: without what rules select, what tags of other namespaces
/// contain, and facts. `None`: there are such rules or tags, and the whole view has to be read.
///
/// # Errors
/// What the store says.
pub async fn plain(store: &dyn Store, namespace: &Namespace) -> Result<Option<View>, StoreError> {
    let mut view = View::new();
    let mut at = None;
    for range in [Range::Key(Key::schema(namespace)), Range::namespace(namespace.as_str()), Range::hosts()] {
        let mut query = Query { at, ..Query::new(range) };
        loop {
            let page = store.read(&query).await?;
            (at, query.at) = (Some(page.at), Some(page.at));
            for row in page.rows {
                let member = row.key.as_member().map(|(_, member)| member);
                if member.is_some_and(|m| m.starts_with("select:") || (m.starts_with('@') && m.contains('/')))
                {
                    return Ok(None);
                }
                view.load(row);
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    view.loaded(at.unwrap_or_default());
    Ok(Some(view))
}

fn record<T: serde::de::DeserializeOwned>(row: &Row) -> Result<T, StoreError> {
    let value = row.value.as_ref().map_or("null", |v| v.as_str());
    serde_json::from_str(value).map_err(|e| StoreError::Corrupt {
        place: format!("the row {} (revision {})", row.key, row.revision),
        why: e.to_string(),
    })
}
