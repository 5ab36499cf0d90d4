//! The distributed store: etcd 3.4 or later.
//!
//! # What it promises
//!
//! * All of the contract. An acknowledged commit was agreed on by a quorum of etcd's members and synced by them.
//! * Commits from any number of processes and machines, in one order. What a commit rests on is compared in the very
//!   transaction that writes it (see `judge` and `writer`).
//! * A commit that is larger than etcd's limits happens as one (see `large`); readers see all or nothing of it, and
//!   never wait for it.
//! * History, logs and old revisions are kept in keys of our own. Etcd may compact its history whenever it likes.
//! * Of several addresses one is enough, at first and later. A member that fails or hangs is left for the next one.
//! * A restart of etcd that is over within ten seconds passes unnoticed; nothing is done twice for it, also
//!   without an idempotency key. After that, calls and watches end with an error.
//! * Claims with an end are etcd's leases: etcd counts their time, so no clock of ours is trusted. Etcd's shortest lease is two seconds
//!   or so; a claim may protect longer than was asked for, never shorter.
//!
//! # What it assumes
//!
//! That nobody else writes under the database's name in etcd, and etcd's limits are not below their defaults; that is tried
//! when a database is made (see `limits`). The way there is encrypted with `etcds:`, and authenticated by a
//! certificate or by a user's password (see [`Papers`]).
//!
//! How it is laid out and why stands in `docs/decisions/0009-etcd-store.md`, how to set it up in `docs/etcd.md`.

mod address;
mod claims;
mod decide;
mod draft;
mod fault;
mod history;
mod judge;
mod keys;
mod known;
mod large;
mod ledger;
mod limits;
mod link;
mod members;
mod memory;
mod news;
mod open;
mod papers;
mod plan;
mod queue;
mod read;
mod record;
mod whole;
mod writer;

use std::sync::Arc;

use shoal_core::{Commit, Committed, Epoch, LogEntry, Range, Revision, Status};
use shoal_store::parts::{Chorus, History, Hub, validate, validate_claim, validate_ledger, validate_query};
use shoal_store::{
    Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Flow, Fut, Head, LedgerPage, LedgerWrite, Page, Position,
    Query, Result, Store, Whole,
};

use crate::address::Address;
use crate::keys::Keys;
use crate::ledger::Reports;
use crate::limits::Watching;
use crate::link::Link;
use crate::news::Listening;
use crate::read::Pages;
use crate::writer::Writer;

pub use crate::draft::EtcdDraft;
pub use crate::papers::Papers;

/// What to do where there is no database of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Make an empty one.
    Make,
    /// Say so.
    Refuse,
}

/// A [`Store`] in etcd. A clone is another handle of the same connection.
///
/// Needs a tokio runtime. What was begun is finished when the last handle goes, for as long as the runtime stays.
#[derive(Clone)]
pub struct EtcdStore(Arc<Inner>);

struct Inner {
    link: Link,
    keys: Keys,
    writer: Writer,
    reports: Reports,
    pages: Pages,
    listening: Arc<Listening>,
    /// How new the database is, for all who want to know at once.
    newest: Chorus<Head>,
    _room: Watching,
}

impl EtcdStore {
    /// Opens the database at `etcd://HOST:PORT[,HOST:PORT…][/NAME]`, and makes it where there is none. Shows nothing.
    ///
    /// # Errors
    /// [`StoreError::Invalid`](shoal_store::StoreError::Invalid) for an address that is none, and for a database of another program or a newer version,
    /// [`StoreError::Unavailable`](shoal_store::StoreError::Unavailable): each says where, what was attempted, and the way out.
    pub async fn open(address: &str) -> Result<Self> {
        Self::open_with(address, Missing::Make).await
    }

    /// [`EtcdStore::open`], and what to do where there is no database.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with(address: &str, missing: Missing) -> Result<Self> {
        Self::open_showing(address, missing, &Papers::default()).await
    }

    /// [`EtcdStore::open_with`], of an etcd that wants to know who comes: at
    /// `etcds://[USER@]HOST:PORT[,HOST:PORT…][/NAME][?quota=SIZE]` by TLS, and what is shown there. With `?quota=` it is known how
    /// large etcd's own database may be, where etcd does not say it itself (before 3.6).
    ///
    /// # Errors
    /// As there, [`StoreError::Invalid`](shoal_store::StoreError::Invalid) for a file that is not what it should be, and
    /// [`StoreError::Denied`](shoal_store::StoreError::Denied) where one end does not believe the other.
    pub async fn open_showing(address: &str, missing: Missing, papers: &Papers) -> Result<Self> {
        let address = Address::parse(address)?;
        let link = Link::connect(&address, papers)?;
        let keys = Keys::new(&address.name);
        let identity = open::open(&link, &keys, &address.name, missing).await?;
        keys.count_from(identity.base);
        let listening = Listening::new(link.clone(), keys.clone(), Arc::new(Hub::new(identity.head())));
        Ok(Self(Arc::new(Inner {
            writer: Writer::start(link.clone(), keys.clone()),
            reports: Reports::default(),
            pages: Pages::default(),
            listening: Arc::new(listening),
            newest: Chorus::default(),
            _room: Watching::start(link.clone()),
            link,
            keys,
        })))
    }

    /// Makes this another life of the database and answers its new epoch: for a snapshot of etcd that was restored. What
    /// follows the database, in this process or another, is told to read anew. Fencing numbers go on above all that were ever given out, leased claims
    /// end, and those without an end have another number: nobody holds one of before. To be done before anything else uses the database.
    ///
    /// # Errors
    /// As for a commit.
    pub async fn new_epoch(&self) -> Result<Epoch> {
        open::new_epoch(&self.0.link, &self.0.keys).await
    }

    fn at(&self) -> (&Link, &Keys) {
        (&self.0.link, &self.0.keys)
    }
}

impl Store for EtcdStore {
    fn head(&self) -> Fut<'_, Result<Head>> {
        let (link, keys) = self.at();
        Box::pin(async move { Ok(history::head(link, keys).await?.0.head()) })
    }

    fn newest(&self) -> Fut<'_, Result<Head>> {
        let ask = || {
            // It may outlive who asks.
            let (link, keys) = (self.0.link.clone(), self.0.keys.clone());
            async move { Ok(history::head(&link, &keys).await?.0.head()) }
        };
        Box::pin(self.0.newest.ask(ask))
    }

    fn read(&self, query: &Query) -> Fut<'_, Result<Page>> {
        let (query, (link, keys)) = (query.clone(), self.at());
        Box::pin(async move {
            let limit = validate_query(&query)?;
            read::page(link, keys, &self.0.pages, &query, limit).await
        })
    }

    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed>> {
        Box::pin(async move { self.0.writer.commit(validate(commit)?).await })
    }

    fn log(&self, range: &Range, before: Option<Revision>, limit: usize) -> Fut<'_, Result<Vec<LogEntry>>> {
        let (range, (link, keys)) = (range.clone(), self.at());
        Box::pin(async move { history::log(link, keys, &range, before, limit).await })
    }

    fn watch(&self, filter: Filter, after: Position) -> Flow<Result<Feed>> {
        let history: Arc<dyn History> = Arc::clone(&self.0.listening) as _;
        self.0.listening.news.hub.watch(history, filter, after)
    }

    fn claim(&self, want: &ClaimRequest) -> Fut<'_, Result<ClaimAnswer>> {
        let (want, (link, keys)) = (want.clone(), self.at());
        Box::pin(async move {
            validate_claim(&want)?;
            claims::claim(link, keys, &want).await
        })
    }

    fn release(&self, claim: &Claim) -> Fut<'_, Result<()>> {
        let (claim, (link, keys)) = (claim.clone(), self.at());
        Box::pin(async move { claims::release(link, keys, &claim).await })
    }

    fn claims(&self, prefix: &str) -> Fut<'_, Result<Vec<Claim>>> {
        let (prefix, (link, keys)) = (prefix.to_owned(), self.at());
        Box::pin(async move { claims::list(link, keys, &prefix).await })
    }

    fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> Fut<'_, Result<LedgerPage>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let (link, keys) = self.at();
        Box::pin(async move { ledger::page(link, keys, &prefix, after.as_deref(), limit).await })
    }

    fn write_ledger(&self, rows: Vec<LedgerWrite>, held: &Claim) -> Fut<'_, Result<()>> {
        let (held, (link, keys)) = (held.clone(), self.at());
        Box::pin(async move {
            validate_ledger(&rows)?;
            ledger::write_rows(link, keys, rows, &held).await
        })
    }

    fn report(&self, status: Status) -> Fut<'_, Result<()>> {
        let (link, keys) = self.at();
        Box::pin(async move { self.0.reports.report(link, keys, &status).await })
    }

    fn reports(&self) -> Fut<'_, Result<Vec<Status>>> {
        let (link, keys) = self.at();
        Box::pin(async move { ledger::reports(link, keys).await })
    }

    fn whole(&self) -> Option<&dyn Whole> {
        Some(self)
    }
}
