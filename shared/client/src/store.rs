//! The store.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shoal_core::docs::{HostDoc, TagDoc};
use shoal_core::{
    Commit, Committed, Hits, HostName, Key, LogEntry, Namespace, Proposal, Range, Revision, Status,
};
use shoal_store::parts::Chorus;
use shoal_store::{
    Asked, Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Flow, Fut, Head, Inventory, LedgerPage,
    LedgerWrite, Listed, ListedLog, May, NewPassword, OwnToken, Page, Position, Proposed, Query, Result,
    Search, Store, StoreError, Who,
};

use crate::address::{Address, BadAddress};
use crate::link::{Again, Call, Link, Options};
use crate::watch;

/// How long it may take to ask how new the database is. Others wait for the answer, too: one request that is lost on its way must not hold them up for longer than
/// they would have waited for their own.
const NEWEST: Duration = Duration::from_secs(10);

/// A database behind one server or several. A clone is another handle of the same connections.
#[derive(Clone, Debug)]
pub struct HttpStore {
    link: Arc<Link>,
    /// How new the database is, for all who want to know at once.
    newest: Arc<Chorus<Head>>,
}

impl HttpStore {
    /// The database behind `https://HOST:PORT`, `http://HOST:PORT`, `unix:/PATH`, or several of them with commas between: servers of one
    /// database, of which the first that answers is asked. Connects when it is first used.
    ///
    /// # Errors
    /// What is not an address.
    pub fn new(addresses: &str) -> Result<Self, BadAddress> {
        Self::with(addresses, Options::default())
    }

    /// The same with other bounds, or showing who is asking.
    ///
    /// # Errors
    /// What is not an address, or a file of [`Options::access`] that is not what it should be.
    pub fn with(addresses: &str, options: Options) -> Result<Self, BadAddress> {
        let all = Address::all(addresses)?;
        Ok(Self { link: Arc::new(Link::new(all, options)?), newest: Arc::default() })
    }

    async fn post<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.ask(Call::post(what, path, body, Again::Always)?).await
    }

    /// A request whose answer says only that it was done.
    async fn tell(&self, what: &'static str, path: &'static str, body: &impl Serialize) -> Result<()> {
        self.link.ask(Call::post(what, path, body, Again::Always)?).await.map(drop)
    }

    /// A list, page by page, each as large as the server likes.
    async fn all<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &'static str,
        only: Vec<(&'static str, String)>,
    ) -> Result<Vec<T>> {
        let (mut all, mut after): (Vec<T>, Option<String>) = (Vec::new(), None);
        loop {
            let mut query = only.clone();
            query.extend(after.take().map(|after| ("after", after)));
            let page: WireList<T> = self.ask(Call::get(what, path, query)).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let what = call.what;
        let answer = self.link.ask(call).await?;
        serde_json::from_slice(&answer).map_err(|e| StoreError::Unavailable {
            place: "the server".to_owned(),
            why: format!(
                "cannot {what}: its answer is not what was asked for ({e}); are server and program of one version?"
            ),
        })
    }
}

fn slow() -> StoreError {
    let why =
        format!("cannot ask for the newest revision: no answer within {} s; ask again", NEWEST.as_secs());
    StoreError::Unavailable { place: "the server".to_owned(), why }
}

/// How a page of a list is asked for.
fn paged(at: Option<Revision>, after: Option<&str>) -> Vec<(&'static str, String)> {
    let at = at.map(|at| ("revision", at.to_string()));
    at.into_iter().chain(after.map(|after| ("after", after.to_owned()))).collect()
}

#[derive(Serialize)]
struct WireQuery<'a> {
    range: &'a Range,
    at: Option<Revision>,
    after: Option<&'a Key>,
    limit: usize,
    tombstones: bool,
}

#[derive(Deserialize)]
struct WireList<T> {
    items: Vec<T>,
    #[serde(default = "Option::default")]
    next: Option<String>,
}

#[derive(Serialize)]
struct WireLog<'a> {
    range: &'a Range,
    before: Option<Revision>,
    limit: usize,
}

#[derive(Serialize)]
struct WireLedgerQuery<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
}

/// A row of the ledger; its octets as base64.
#[derive(Serialize, Deserialize)]
struct WireLedgerRow {
    key: String,
    value: Option<String>,
}

#[derive(Deserialize)]
struct WireLedgerPage {
    rows: Vec<WireLedgerRow>,
    more: bool,
}

#[derive(Serialize)]
struct WireLedgerWrite<'a> {
    rows: Vec<WireLedgerRow>,
    held: &'a Claim,
}

impl TryFrom<WireLedgerPage> for LedgerPage {
    type Error = StoreError;

    fn try_from(page: WireLedgerPage) -> Result<Self> {
        let row = |WireLedgerRow { key, value }| match BASE64.decode(value.unwrap_or_default().as_bytes()) {
            Ok(value) => Ok((key, value)),
            Err(e) => Err(StoreError::Corrupt {
                place: format!("the ledger's row {key}"),
                why: format!("the server sent what is no base64: {e}"),
            }),
        };
        Ok(Self { rows: page.rows.into_iter().map(row).collect::<Result<_>>()?, more: page.more })
    }
}

impl Store for HttpStore {
    fn head(&self) -> Fut<'_, Result<Head>> {
        Box::pin(self.ask(Call::get("ask for the newest revision", "/store/head", Vec::new())))
    }

    fn newest(&self) -> Fut<'_, Result<Head>> {
        let ask = || {
            let store = self.clone();
            async move { tokio::time::timeout(NEWEST, store.head()).await.unwrap_or_else(|_| Err(slow())) }
        };
        Box::pin(self.newest.ask(ask))
    }

    fn read(&self, query: &Query) -> Fut<'_, Result<Page>> {
        let Query { range, at, after, limit, tombstones } = query.clone();
        Box::pin(async move {
            let after = after.as_ref();
            let query = WireQuery { range: &range, at, after, limit, tombstones };
            self.post("read rows", "/store/read", &query).await
        })
    }

    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed>> {
        // By its key the database knows it again; without one, a second attempt would be a second commit.
        let again = if commit.idempotency.is_some() { Again::Always } else { Again::IfUnsent };
        Box::pin(async move { self.ask(Call::post("commit", "/store/commit", &commit, again)?).await })
    }

    fn log(&self, range: &Range, before: Option<Revision>, limit: usize) -> Fut<'_, Result<Vec<LogEntry>>> {
        let range = range.clone();
        Box::pin(async move {
            self.post("read the log", "/store/log", &WireLog { range: &range, before, limit }).await
        })
    }

    fn watch(&self, filter: Filter, after: Position) -> Flow<Result<Feed>> {
        watch::watch(Arc::clone(&self.link), filter, after)
    }

    fn claim(&self, want: &ClaimRequest) -> Fut<'_, Result<ClaimAnswer>> {
        // The same holder is given the same claim, so asking twice takes nothing more.
        let want = want.clone();
        Box::pin(async move { self.post("claim", "/store/claim", &want).await })
    }

    fn release(&self, claim: &Claim) -> Fut<'_, Result<()>> {
        let claim = claim.clone();
        Box::pin(async move { self.tell("give back a claim", "/store/release", &claim).await })
    }

    fn claims(&self, prefix: &str) -> Fut<'_, Result<Vec<Claim>>> {
        Box::pin(self.all("read the claims", "/store/claims", vec![("name", prefix.to_owned())]))
    }

    fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> Fut<'_, Result<LedgerPage>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(async move {
            let query = WireLedgerQuery { prefix: &prefix, after: after.as_deref(), limit };
            let page: WireLedgerPage = self.post("read the ledger", "/store/ledger/read", &query).await?;
            page.try_into()
        })
    }

    fn write_ledger(&self, rows: Vec<LedgerWrite>, held: &Claim) -> Fut<'_, Result<()>> {
        let held = held.clone();
        Box::pin(async move {
            let row =
                |LedgerWrite { key, value }| WireLedgerRow { key, value: value.map(|v| BASE64.encode(&v)) };
            let write = WireLedgerWrite { rows: rows.into_iter().map(row).collect(), held: &held };
            // It would overwrite what came after it, were it delayed and another attempt faster.
            let call = Call::post("write the ledger", "/store/ledger/write", &write, Again::IfUnsent)?;
            self.link.ask(call).await.map(drop)
        })
    }

    fn report(&self, status: Status) -> Fut<'_, Result<()>> {
        Box::pin(async move { self.tell("report", "/store/report", &status).await })
    }

    fn reports(&self) -> Fut<'_, Result<Vec<Status>>> {
        Box::pin(self.all("read the agents' reports", "/store/reports", Vec::new()))
    }

    fn search(&self, search: &Search) -> Fut<'_, Result<Option<Hits>>> {
        let Search { expression, at, after, limit } = search.clone();
        let mut query = vec![("where", expression), ("limit", limit.to_string())];
        query.extend(at.map(|at| ("revision", at.to_string())));
        query.extend(after.map(|after| ("after", after.to_string())));
        Box::pin(async move { self.ask(Call::get("search", "/search", query)).await.map(Some) })
    }

    fn around(&self, host: &HostName, at: Option<Revision>) -> Fut<'_, Result<Option<Page>>> {
        let mut query = vec![("host", host.to_string())];
        query.extend(at.map(|at| ("revision", at.to_string())));
        Box::pin(async move { self.ask(Call::get("read a host", "/store/around", query)).await.map(Some) })
    }

    fn inventory(&self, of: &Inventory) -> Fut<'_, Result<Option<Vec<u8>>>> {
        let mut query = vec![("namespace", of.namespace.to_string())];
        query.extend(of.expression.clone().map(|expression| ("where", expression)));
        Box::pin(async move {
            self.link.ask(Call::get("read the inventory", "/inventory", query)).await.map(Some)
        })
    }

    fn may(&self, asked: &Asked) -> Fut<'_, Result<Option<May>>> {
        let Asked { user, verb, on } = asked.clone();
        let query = vec![("user", user), ("verb", verb.as_str().to_owned()), ("on", on)];
        Box::pin(async move { self.ask(Call::get("ask who may", "/can", query)).await.map(Some) })
    }

    fn who(&self) -> Fut<'_, Result<Option<Who>>> {
        Box::pin(async { self.ask(Call::get("ask who asks", "/whoami", Vec::new())).await.map(Some) })
    }

    fn list_hosts(
        &self,
        at: Option<Revision>,
        after: Option<&str>,
    ) -> Fut<'_, Result<Option<Listed<HostDoc>>>> {
        let call = Call::get("list the hosts", "/hosts", paged(at, after));
        Box::pin(async move { self.ask(call).await.map(Some) })
    }

    fn list_tags(
        &self,
        namespace: Option<&Namespace>,
        at: Option<Revision>,
        after: Option<&str>,
    ) -> Fut<'_, Result<Option<Listed<TagDoc>>>> {
        let path = namespace.map_or_else(|| "/tags".to_owned(), |namespace| format!("/tags/{namespace}"));
        let call = Call::get("list the tags", path, paged(at, after));
        Box::pin(async move { self.ask(call).await.map(Some) })
    }

    fn list_log(
        &self,
        ranges: &[Range],
        before: Option<Revision>,
        limit: usize,
    ) -> Fut<'_, Result<Option<ListedLog>>> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(before.map(|before| ("before", before.to_string())));
        for range in ranges {
            match range {
                Range::Key(key) => query.push(("key", key.to_string())),
                Range::Prefix(prefix) => query.push(("prefix", prefix.clone())),
                Range::Naming(member) => query.push(("naming", member.to_string())),
                Range::All => query.push(("prefix", String::new())),
                // Of agents, which ask for no history.
                Range::Concerning(_) => return Box::pin(std::future::ready(Ok(None))),
            }
        }
        let call = Call::get("list the log", "/commits", query);
        Box::pin(async move { self.ask(call).await.map(Some) })
    }

    fn own_tokens(&self) -> Fut<'_, Result<Option<Vec<OwnToken>>>> {
        let call = Call::get("list your tokens", "/tokens", Vec::new());
        Box::pin(async move { Ok(Some(self.ask::<WireList<OwnToken>>(call).await?.items)) })
    }

    fn revoke_own(&self, id: &str, message: &str) -> Fut<'_, Result<bool>> {
        let query = vec![("message", message.to_owned())];
        let call = Call::get("revoke the token", format!("/tokens/{id}"), query).by(Method::DELETE);
        // Whether an answer was lost, a second attempt cannot tell from a token that is not theirs.
        Box::pin(async move { self.link.ask(call.once()).await.map(|_| true) })
    }

    fn change_password(&self, change: &NewPassword) -> Fut<'_, Result<bool>> {
        let call = Call::post("change the password", "/password", change, Again::IfUnsent);
        Box::pin(async move { self.link.ask(call?.by(Method::PUT)).await.map(|_| true) })
    }

    fn propose(&self, proposal: &Proposal) -> Fut<'_, Result<Option<Proposed>>> {
        let again = if proposal.idempotency.is_some() { Again::Always } else { Again::IfUnsent };
        let call = Call::post("commit", "/commits", proposal, again);
        Box::pin(async move { self.ask(call?).await.map(Some) })
    }
}
