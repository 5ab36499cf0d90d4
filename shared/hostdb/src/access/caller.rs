//! Who sent a request, and what they may see.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use shoal_core::access::{Denied, Facet, Index, Principal, Target, hidden};
use shoal_core::{
    ACCESS, Change, FACTS, HostName, Key, LogEntry, Member, MemberKind, Namespace, Range, Row, TagName, View,
};

use crate::certificate::Certificate;
use crate::problem::Answer;

/// Who sent a request, and the rows that decide about them.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) index: Arc<Index>,
    pub(super) of: Arc<Somebody>,
}

/// What is known of who sent a request, without the rows: it may be kept for longer than they are.
#[derive(Clone, Debug)]
pub(crate) struct Somebody {
    pub(crate) who: Principal,
    /// From where, for the record.
    pub(crate) origin: Option<String>,
    /// What vouches for it.
    pub(super) shown: Shown,
    /// Until when.
    pub(crate) until: Option<Timestamp>,
    /// Whether anything is asked at all.
    pub(crate) asked: bool,
    /// Of the connection: it has to be good for as long as anything is answered.
    pub(crate) certificate: Option<Arc<Certificate>>,
}

/// What vouches for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// A token, by its id and the hash of its secret.
    Token(String, String),
    /// A name that a certificate, or another service, vouches for.
    Name(String),
    /// A name that the system vouches for.
    Local(String),
    /// A certificate that is an agent's.
    Agent(Namespace),
    /// Nothing, or what no row says anything of: being on this machine as the server's own user.
    Place,
}

impl Deref for Caller {
    type Target = Somebody;

    fn deref(&self) -> &Somebody {
        &self.of
    }
}

impl Caller {
    /// The same rows, and what is said of somebody else.
    pub(super) fn with(&self, of: Somebody) -> Self {
        Self { index: self.index.clone(), of: Arc::new(of) }
    }

    /// Whoever it is, where nobody is asked.
    pub(crate) fn unasked(origin: Option<String>) -> Self {
        let who = Principal::local("anybody");
        let of = Somebody { who, origin, shown: Shown::Place, until: None, asked: false, certificate: None };
        Self { index: Arc::default(), of: Arc::new(of) }
    }

    /// Whether rows below `access/` are theirs to see.
    fn administers(&self) -> bool {
        !self.asked || self.index.administers(&self.who).is_ok()
    }

    /// Whether there may be anything that is kept from them, but what is below `access/`.
    pub(crate) fn restricted(&self) -> bool {
        self.asked && !self.index.reads_everything(&self.who)
    }

    /// The right to read one row.
    pub(crate) fn reads(&self, key: &Key) -> Answer<()> {
        if self.asked {
            self.index.may_read_key(&self.who, key)?;
        }
        Ok(())
    }

    /// The right to read a host.
    pub(crate) fn reads_host(&self, host: &HostName) -> Answer<()> {
        self.right(Target { namespace: shoal_core::HOSTS, key: Some(host.as_str()), facet: Facet::Data })
    }

    /// The right to read who is in a tag.
    pub(crate) fn reads_members(&self, tag: &TagName) -> Answer<()> {
        self.right(Target { namespace: tag.namespace(), key: Some(tag.key()), facet: Facet::Members })
    }

    fn right(&self, target: Target<'_>) -> Answer<()> {
        if self.asked {
            self.index.must_read(&self.who, target)?;
        }
        Ok(())
    }

    /// The right to read all of a range.
    pub(crate) fn reads_range(&self, range: &Range) -> Answer<()> {
        if self.asked {
            self.index.may_read(&self.who, range)?;
        }
        Ok(())
    }

    /// Whether a row is theirs to see.
    pub(crate) fn sees(&self, key: &Key) -> bool {
        !self.asked || self.index.reads_row(&self.who, key)
    }

    /// Whether it is theirs to see who is in a tag.
    pub(crate) fn sees_members(&self, tag: &TagName) -> bool {
        let target = Target { namespace: tag.namespace(), key: Some(tag.key()), facet: Facet::Members };
        !self.asked || self.index.reads(&self.who, target)
    }

    /// Whether a host is theirs to see.
    pub(crate) fn sees_host(&self, host: &str) -> bool {
        let target = Target { namespace: shoal_core::HOSTS, key: Some(host), facet: Facet::Data };
        !self.asked || self.index.reads(&self.who, target)
    }

    /// Whether what concerns the agent of a namespace is theirs to see.
    pub(crate) fn sees_work(&self, namespace: &str) -> bool {
        !self.asked || self.index.reads(&self.who, Target::namespace(namespace))
    }

    /// The right to read what concerns the agent of a namespace.
    pub(crate) fn reads_work(&self, namespace: &str) -> Answer<()> {
        self.right(Target::namespace(namespace))
    }

    /// The right to read what concerns the agents of all namespaces that begin so.
    pub(crate) fn reads_works(&self, begin: &str) -> Answer<()> {
        if self.asked {
            self.index.may_read_work(&self.who, begin)?;
        }
        Ok(())
    }

    /// Whether they may do an agent's work.
    ///
    /// # Errors
    /// The no.
    pub(crate) fn works(&self, namespace: &str, what: &str) -> Result<(), Denied> {
        if !self.asked {
            return Ok(());
        }
        self.index.may_work(&self.who, namespace, what)
    }

    /// A row of a range that they may read, as they may see it: without where it went, or came from, if that is kept from them; `None`: it is no part of that range for them.
    ///
    /// # Errors
    /// A review of what they may not read.
    pub(crate) fn row(&self, mut row: Row) -> Answer<Option<Row>> {
        if !self.asked {
            return Ok(Some(row));
        }
        row.moved = row.moved.filter(|other| self.sees(other));
        if row.key.namespace() != ACCESS {
            return Ok(Some(row));
        }
        if !self.administers() {
            return match (&row.value, row.key.as_str().starts_with("access/reviews/")) {
                (_, false) => Ok(None),
                (None, true) => Ok(Some(row)),
                (Some(value), true) => {
                    self.index.may_read_review(&self.who, value)?;
                    if let Some(without) = self.index.review_without(&self.who, value) {
                        row.value = Some(without);
                    }
                    Ok(Some(row))
                }
            };
        }
        if let Some(without) = row.value.as_ref().and_then(|value| hidden(&row.key, value)) {
            row.value = Some(without);
        }
        Ok(Some(row))
    }

    /// A change of a range that they may read, as they may see it; `None`: it is no part of that range for them.
    fn change(&self, mut change: Change) -> Option<Change> {
        change.moved = change.moved.filter(|other| self.sees(other));
        if change.key.namespace() != ACCESS {
            return Some(change);
        }
        if !self.administers() {
            if !change.key.as_str().starts_with("access/reviews/") {
                return None;
            }
            if let Some(value) = &change.value {
                self.index.may_read_review(&self.who, value).ok()?;
                if let Some(without) = self.index.review_without(&self.who, value) {
                    change.value = Some(without);
                }
            }
            return Some(change);
        }
        if let Some(without) = change.value.as_ref().and_then(|value| hidden(&change.key, value)) {
            change.value = Some(without);
        }
        Some(change)
    }

    /// What a commit says of ranges that they may read; `None`: as it is.
    pub(crate) fn entry(&self, entry: &LogEntry) -> Option<LogEntry> {
        let tells = |change: &Change| change.moved.as_ref().is_some_and(|other| !self.sees(other));
        let whole =
            || !holds_access(&entry.changes, |change| &change.key) && !entry.changes.iter().any(tells);
        if !self.asked || whole() {
            return None;
        }
        let changes = entry.changes.iter().cloned().filter_map(|change| self.change(change)).collect();
        Some(LogEntry { info: entry.info.clone(), changes })
    }

    /// The right to have this much sifted: to be shown what is theirs of it, and how many others there are. Of less than a namespace that
    /// number would say what the others are, so it is read whole or not at all.
    pub(crate) fn may_sift(&self, ranges: &[Range]) -> Answer<()> {
        let wide = |range: &&Range| match range {
            Range::All => true,
            Range::Prefix(prefix) => prefix.split_once('/').is_none_or(|(_, rest)| rest.is_empty()),
            Range::Key(_) | Range::Naming(_) | Range::Concerning(_) => false,
        };
        ranges.iter().filter(|range| !wide(range)).try_for_each(|range| self.reads_range(range))
    }

    /// The no to a commit of which they may see nothing: the same for each. Whoever counts revisions would else be told every key.
    pub(crate) fn refused_all(&self) -> Denied {
        let rule = "built-in: a commit is shown to who may read something of what it wrote";
        Denied::unnamed(&self.who, "read a commit of which nothing is for you", rule)
    }

    /// The changes that they may see, and how many others there are.
    pub(crate) fn seen(&self, changes: Vec<Change>) -> (Vec<Change>, usize) {
        if !self.asked {
            return (changes, 0);
        }
        let all = changes.len();
        let review = |key: &Key| key.as_str().starts_with("access/reviews/");
        let seen = changes.into_iter().filter(|change| review(&change.key) || self.sees(&change.key));
        let seen: Vec<Change> = seen.filter_map(|change| self.change(change)).collect();
        let hidden = all - seen.len();
        (seen, hidden)
    }

    /// The right to read what a tag contains, through whatever: who is in each tag that it nests, and the documents where `data`.
    pub(crate) fn reads_nested(&self, view: &View, tag: &TagName, facets: &[Facet]) -> Answer<()> {
        let mut seen = BTreeSet::new();
        let mut next = vec![tag.clone()];
        while let Some(tag) = next.pop() {
            if !seen.insert(tag.clone()) {
                continue;
            }
            for facet in facets {
                self.right(Target { namespace: tag.namespace(), key: Some(tag.key()), facet: *facet })?;
            }
            if self.restricted() {
                let members = view.direct_members(&tag).into_iter();
                next.extend(members.filter_map(|(member, _): (Member, _)| member.as_tag(tag.namespace())));
            }
        }
        Ok(())
    }

    /// The right to read what all tags of a namespace contain, with the hosts, whatever namespace it comes from; and what expressions are
    /// evaluated on, where there are any (`rules`: there are).
    pub(crate) fn reads_contents(&self, view: &View, namespace: &Namespace, mut rules: bool) -> Answer<()> {
        if !self.restricted() {
            return Ok(());
        }
        self.reads_range(&Range::hosts())?;
        self.reads_range(&Range::namespace(namespace.as_str()))?;
        self.reads(&Key::schema(namespace))?;
        let mut seen = BTreeSet::new();
        let mut next: Vec<TagName> = view.tags_in(namespace.as_str()).map(|tag| tag.name.clone()).collect();
        while let Some(tag) = next.pop() {
            if !seen.insert(tag.clone()) {
                continue;
            }
            self.reads_members(&tag)?;
            for (member, _) in view.direct_members(&tag) {
                rules |= matches!(member.kind(), MemberKind::Rule(_));
                next.extend(member.as_tag(tag.namespace()));
            }
        }
        if rules { self.reads_range(&Range::Prefix(format!("{FACTS}/"))) } else { Ok(()) }
    }

    /// The no to something that only administrators do.
    pub(crate) fn must_administer(&self) -> Result<(), Denied> {
        if self.asked { self.index.administers(&self.who).map(drop) } else { Ok(()) }
    }
}

/// Whether rows in key order hold any that are below `access/`: at the price of a binary search.
fn holds_access<T>(rows: &[T], key: impl Fn(&T) -> &Key) -> bool {
    let at = rows.partition_point(|row| key(row).as_str() < "access/");
    rows.get(at).is_some_and(|row| key(row).namespace() == ACCESS)
}
