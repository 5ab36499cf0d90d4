//! A store with a view that follows it, and the one way in for writes that mean something.
//!
//! [`Database::open`] reads everything once and then follows the store's watch, so that questions are answered from
//! memory. [`Database::transact`] turns a [`Proposal`] into a commit as of the view, commits it, and when somebody
//! else was faster does both again on the newer view.
//!
//! Guarantees:
//!
//! * The view only moves forward, whole commits at a time, but for a database that was restored (another epoch).
//! * Read your writes: when `transact` answers, the view holds what it wrote.
//! * A refusal is as of the newest revision at the time of asking, never of a view that lags.
//! * A proposal with an idempotency key is done once, however often it is asked for, and although the commit that it
//!   would make today is another one.
//! * Who asks for it ([`Database::refresh`]) reads all that was committed before they asked, by whomever.
//! * While the store does not answer, the view stays as it is and says so ([`Database::trouble`]); it is never empty for want of an answer.

mod coming;
mod follow;
mod past;
mod recent;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rand::Rng;
use sha2::{Digest, Sha256};
use shoal_core::access::Denied;
use shoal_core::{
    Commit, Committed, Edit, Epoch, HostId, Kind, Pre, Prepared, Proposal, Range, Refusal, Revision, Scope,
    Touched, View, Warning, prepare_as, rollback,
};
use tokio::sync::watch;

use crate::{Store, StoreError};
use coming::Coming;
use recent::Known;

/// How often a proposal is prepared again because others were faster.
const ATTEMPTS: u32 = 24;
/// The longest wait for the view to catch up with a revision that exists.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Up to so many edits of hosts alone are prepared in place; anything else may touch many hosts and gets a thread.
const SMALL: usize = 16;
/// From so many edits on the view is worked out before the commit happens: some ten milliseconds of it.
const LARGE: usize = 2000;

/// A store and a view that follows it. A clone is another handle of the same.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    follower: tokio::task::JoinHandle<()>,
}

struct Shared {
    store: Arc<dyn Store>,
    view: RwLock<Arc<View>>,
    /// Locked by who changes the view.
    coming: Mutex<Option<Coming>>,
    /// What the view holds; sent after the view was replaced.
    reached: watch::Sender<Reached>,
    /// Up to when the view is known to hold all that was committed.
    known: Known,
}

/// Who decides whether a commit may happen, see [`Database::transact_if`].
pub type Judge<'a> = &'a (dyn Fn(&View, &mut Commit) -> Result<(), Denied> + Send + Sync);

/// How far the view has come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reached {
    epoch: Epoch,
    revision: Revision,
    trouble: Option<StoreError>,
}

/// What became of a proposal.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The commit that holds it.
    pub committed: Committed,
    /// What is allowed and yet worth knowing.
    pub warnings: Vec<Warning>,
    /// What it touched; nothing where it was done before.
    pub touched: Touched,
}

/// Why a proposal was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TransactError {
    /// It cannot be done as things stand. Nothing was written.
    #[error(transparent)]
    Refused(Refusal),
    /// The store did not do it.
    #[error(transparent)]
    Store(StoreError),
    /// Whoever judges commits does not let it pass. Nothing was written.
    #[error(transparent)]
    Denied(Box<Denied>),
    /// Others were faster each time. Nothing was written.
    #[error(
        "tried {attempts} times, and each time somebody else changed what it rests on ({last}); try again"
    )]
    Busy {
        /// How often it was tried.
        attempts: u32,
        /// What changed last.
        last: StoreError,
    },
}

impl From<StoreError> for TransactError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Database {
    /// Reads the whole store and begins to follow it. Costs a reading of everything: about a second for 100,000 hosts.
    ///
    /// # Errors
    /// What the store says; an unreadable range is never taken for an empty one.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let known = Known::now();
        let (head, view) = follow::load(&*store).await?;
        let reached = Reached { epoch: head.epoch, revision: view.revision(), trouble: None };
        let shared = Arc::new(Shared {
            store,
            view: RwLock::new(Arc::new(view)),
            coming: Mutex::new(None),
            reached: watch::Sender::new(reached),
            known,
        });
        let follower = tokio::spawn(follow::follow(shared.clone()));
        Ok(Self(Arc::new(Inner { shared, follower })))
    }

    /// The store, for history, claims, the ledger and reports.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.shared.store
    }

    /// The newest view: a snapshot that stays as it is. Costs nothing, and holds up nobody.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.0.shared.view()
    }

    /// The edits that bring `scope` back to what it was at `revision`, to be proposed. Costs reading that.
    ///
    /// # Errors
    /// What the store says, such as [`StoreError::Future`].
    pub async fn rollback(&self, scope: Scope<'_>, revision: Revision) -> Result<Vec<Edit>, StoreError> {
        let ranges = match scope {
            Scope::Everything => vec![Range::All],
            Scope::Key(key) => match key.kind() {
                Kind::Tag(tag) => vec![Range::Key(key.clone()), Range::members(&tag)],
                _ => vec![Range::Key(key.clone())],
            },
        };
        let then = follow::load_ranges(&**self.store(), &ranges, Some(revision)).await?;
        Ok(rollback(&self.view(), &then, scope))
    }

    /// Which life of the database the view shows.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.shared.reached.borrow().epoch
    }

    /// Why the view cannot follow just now, if it cannot.
    #[must_use]
    pub fn trouble(&self) -> Option<StoreError> {
        self.0.shared.reached.borrow().trouble.clone()
    }

    /// Waits until the view holds `revision`; bounded by the caller.
    pub async fn wait_for(&self, revision: Revision) {
        // It fails only without a sender, and `self` holds one.
        let _ = self.0.shared.reached.subscribe().wait_for(|r| r.revision >= revision).await;
    }

    /// Waits until the view holds more than `revision`, and says how much; bounded by the caller.
    pub async fn wait_past(&self, revision: Revision) -> Revision {
        let mut reached = self.0.shared.reached.subscribe();
        reached.wait_for(|r| r.revision > revision).await.map_or(revision, |r| r.revision)
    }

    /// What a proposal would do, as of the view. Writes nothing.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn preview(&self, proposal: &Proposal) -> Result<Prepared, Refusal> {
        self.prepare(self.view(), Arc::new(proposal.clone())).await
    }

    /// Does the proposal, whole or not at all.
    ///
    /// # Errors
    /// [`TransactError`]; only after [`StoreError::Unavailable`] is it unknown whether it happened.
    pub async fn transact(&self, proposal: Proposal) -> Result<Outcome, TransactError> {
        self.transact_if(proposal, &|_, _| Ok(())).await
    }

    /// [`Database::transact`], if `judge` lets what comes of it pass: the commit as it would happen, and the view before it. It may
    /// add preconditions, and say whose it is. What changes nothing is not judged.
    ///
    /// # Errors
    /// As there, and [`TransactError::Denied`] for what the judge says, as of the newest revision.
    pub async fn transact_if(&self, proposal: Proposal, judge: Judge<'_>) -> Result<Outcome, TransactError> {
        let intent = proposal
            .idempotency
            .is_some()
            .then(|| proposal.intent.clone().unwrap_or_else(|| digest(&proposal)));
        let proposal = Arc::new(proposal);
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            let edits = proposal.edits.len();
            let expected = (edits >= LARGE).then(|| self.0.shared.expect(edits)).flatten();
            let view = expected.as_ref().map_or_else(|| self.view(), |e| e.view.clone());
            let least = expected.as_ref().map_or(Revision(0), |e| e.revision);
            let mut prepared = match self.prepare_as(view.clone(), proposal.clone(), least).await {
                Ok((prepared, after)) if !prepared.commit.changes.is_empty() => {
                    if let Some(expected) = &expected {
                        expected.known(prepared.commit.changes.clone(), after);
                    }
                    prepared
                }
                // Nothing is refused, and nothing taken for done, on the word of a view that lags.
                answer => match self.newer(view.revision()).await? {
                    true => continue,
                    false => {
                        let answer = answer.map(|(prepared, _)| prepared);
                        return self.without_changes(answer, &proposal, intent.as_deref()).await;
                    }
                },
            };
            if let Err(denied) = judge(&view, &mut prepared.commit) {
                match self.newer(view.revision()).await? {
                    true => continue,
                    false => return Err(TransactError::Denied(Box::new(denied))),
                }
            }
            let commit = Commit { intent: intent.clone(), ..prepared.commit };
            match self.store().commit_at(commit, least).await {
                Ok(committed) => {
                    self.catch_up(committed.revision).await?;
                    let touched = if committed.replayed { Touched::default() } else { prepared.touched };
                    return Ok(Outcome { committed, warnings: prepared.warnings, touched });
                }
                Err(error @ StoreError::Conflict { .. }) if !of_caller(&error, &proposal) => {
                    last = Some(error);
                    self.newer(view.revision()).await?;
                    pause(attempt).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let last = last.unwrap_or_else(|| unavailable("the database changed all the time"));
        Err(TransactError::Busy { attempts: ATTEMPTS, last })
    }

    /// Catches up with the store. Whether there was anything after `revision`.
    async fn newer(&self, revision: Revision) -> Result<bool, StoreError> {
        let head = self.store().head().await?;
        if head.revision <= revision {
            return Ok(false);
        }
        self.catch_up(head.revision).await?;
        Ok(true)
    }

    /// Waits for the view to hold a revision that the store has.
    async fn catch_up(&self, revision: Revision) -> Result<(), StoreError> {
        if self.view().revision() >= revision {
            return Ok(());
        }
        tokio::time::timeout(CATCH_UP, self.wait_for(revision)).await.map_err(|_| {
            self.trouble().unwrap_or_else(|| {
                unavailable(&format!("the view did not reach revision {revision} in time"))
            })
        })
    }

    /// A proposal that is refused, or changes nothing, as of the newest revision. It may have been done before, and be
    /// refused for just that: then it was done.
    async fn without_changes(
        &self,
        answer: Result<Prepared, Refusal>,
        proposal: &Proposal,
        intent: Option<&str>,
    ) -> Result<Outcome, TransactError> {
        let mut pre = proposal.pre.clone();
        if answer.is_err() {
            // Holds for no database: asks for what was done before, and does nothing if it was not.
            pre.push(Pre::Held { name: "never".to_owned(), number: 0 });
        }
        let ask = Commit {
            pre,
            changes: Vec::new(),
            author: proposal.author.clone(),
            principal: proposal.principal.clone(),
            origin: proposal.origin.clone(),
            message: proposal.message.clone(),
            idempotency: proposal.idempotency.clone(),
            intent: intent.map(str::to_owned),
        };
        match answer {
            Ok(prepared) => {
                let committed = if intent.is_some() || !ask.pre.is_empty() {
                    self.store().commit(ask).await?
                } else {
                    Committed { revision: self.view().revision(), changed: 0, replayed: false }
                };
                Ok(Outcome { committed, warnings: prepared.warnings, touched: Touched::default() })
            }
            Err(refusal) if intent.is_none() => Err(TransactError::Refused(refusal)),
            Err(refusal) => match self.store().commit(ask).await {
                Ok(committed) => Ok(Outcome { committed, warnings: Vec::new(), touched: Touched::default() }),
                Err(error @ StoreError::Reused { .. }) => Err(error.into()),
                Err(_) => Err(TransactError::Refused(refusal)),
            },
        }
    }

    async fn prepare(&self, view: Arc<View>, proposal: Arc<Proposal>) -> Result<Prepared, Refusal> {
        self.prepare_as(view, proposal, Revision(0)).await.map(|(prepared, _)| prepared)
    }

    /// As if the commit got the revision `least`, or the next one.
    async fn prepare_as(
        &self,
        view: Arc<View>,
        proposal: Arc<Proposal>,
        least: Revision,
    ) -> Result<(Prepared, View), Refusal> {
        let revision = least.max(Revision(view.revision().0 + 1));
        if is_small(&proposal) {
            return prepare_as(&view, &proposal, &mut new_id, revision);
        }
        let work = tokio::task::spawn_blocking(move || prepare_as(&view, &proposal, &mut new_id, revision));
        match work.await {
            Ok(answer) => answer,
            Err(broken) => std::panic::resume_unwind(broken.into_panic()),
        }
    }
}

impl Shared {
    fn view(&self) -> Arc<View> {
        // Whoever panicked while writing left a whole view behind: it is replaced in one step.
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Database").field(&*self.0.shared.reached.borrow()).finish()
    }
}

/// Ids are time-ordered random numbers (UUID version 7): no two hosts ever have the same, and none is guessed.
fn new_id() -> HostId {
    HostId(uuid::Uuid::now_v7().to_string())
}

/// Whether it costs little whatever the database holds: a few hosts, no tag whose members would be visited.
fn is_small(proposal: &Proposal) -> bool {
    proposal.edits.len() <= SMALL
        && proposal.edits.iter().all(|edit| match edit {
            Edit::PutHost { id, .. } => id.is_none(),
            Edit::SetState { .. } => true,
            Edit::AddMembers { members, .. } | Edit::RemoveMembers { members, .. } => {
                members.len() <= SMALL && members.iter().all(|m| !m.as_str().starts_with(['@', 's']))
            }
            Edit::Patch { key, .. } | Edit::Delete { key, .. } => matches!(key.kind(), Kind::Host(_)),
            Edit::Write { key, .. } => !matches!(key.kind(), Kind::Schema(_)),
            Edit::Row { key, .. } => {
                matches!(key.kind(), Kind::Fact(..) | Kind::Pause(_) | Kind::Approval(..))
            }
            Edit::PutTag { .. } | Edit::Rename { .. } | Edit::SetMembers { .. } => false,
        })
}

/// What a repeated idempotency key is compared by.
fn digest(proposal: &Proposal) -> String {
    let mut hash = Sha256::new();
    for edit in &proposal.edits {
        // Edits are plain data; one that could not be written would count as an empty one.
        hash.update(serde_json::to_vec(edit).unwrap_or_default());
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether the precondition that failed is one that the caller named.
fn of_caller(error: &StoreError, proposal: &Proposal) -> bool {
    matches!(error, StoreError::Conflict { pre, .. } if proposal.pre.contains(pre))
}

/// After the second time somebody else was faster: some milliseconds, more each time, differing between rivals.
async fn pause(attempt: u32) {
    if attempt > 0 {
        let most = 2_u64.saturating_pow(attempt.min(6));
        let wait = rand::rng().random_range(0..=most);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable { place: "the database".to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests;
