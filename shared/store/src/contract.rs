//! The contract: what every store does, whichever engine it stands on.
//!
//! The conformance suite holds every store to what is written here. What a store cannot promise does not
//! stand here.

use shoal_core::docs::{HostDoc, TagDoc};
use shoal_core::{Commit, Committed, Hits, HostName, LogEntry, Namespace, Proposal, Range, Revision, Status};

use crate::{
    Asked, Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Flow, Fut, Head, Inventory, LedgerPage,
    LedgerWrite, Listed, ListedLog, May, NewPassword, OwnToken, Page, Position, Proposed, Query, Result,
    Search, Texts, Who, Whole,
};

/// Hosts, tags and all the rest, in one versioned place. Object-safe: it is chosen at run time.
///
/// Every method may fail with [`StoreError::Unavailable`](crate::StoreError::Unavailable), and then nothing is known. Dropping a future
/// stops waiting; the work may still be done.
pub trait Store: Send + Sync + 'static {
    /// The database's identity and newest revision.
    fn head(&self) -> Fut<'_, Result<Head>>;

    /// The same, for who asks before each of many reads: answered from memory where the store hears of every commit before it is
    /// acknowledged, and else by one question for all who ask at once. It is no older than any commit that was acknowledged, by whomever,
    /// before this was called; [`Store::head`] may be newer still.
    fn newest(&self) -> Fut<'_, Result<Head>> {
        self.head()
    }

    /// Rows of `range` in key order, as they stood at `at` (`None`: now). Tombstones are left out unless the
    /// query asks for them. All pages of one reading use the first page's `at`.
    ///
    /// # Errors
    /// [`StoreError::Future`](crate::StoreError::Future) for a revision that does not exist yet. An unreadable range is an error, never a
    /// shorter page.
    fn read(&self, query: &Query) -> Fut<'_, Result<Page>>;

    /// Does all of it or nothing. When this answers, the commit survives `kill -9` and power loss (in stores that
    /// keep anything at all). Changes that change nothing are left out; when none is left, nothing is written
    /// and the answer is the newest revision.
    ///
    /// The idempotency key is looked at first: a retry gets the first answer, whatever its preconditions. It is
    /// remembered for as long as [`REMEMBERED`](crate::REMEMBERED) says. A commit that was refused is not.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](crate::StoreError::Conflict) for the first precondition that does not hold, but [`StoreError::Fenced`](crate::StoreError::Fenced) for
    /// a lost claim ([`Pre::Held`](shoal_core::Pre::Held)): the first may go better after reading again, the
    /// second never will. [`StoreError::Reused`](crate::StoreError::Reused), [`StoreError::Invalid`](crate::StoreError::Invalid), [`StoreError::Full`](crate::StoreError::Full).
    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed>>;

    /// [`Store::commit`], but where the store can do so the revision is not below `least`: numbers may be skipped. For who
    /// has worked out beforehand what a large commit leads to, and needs its number for that. Stores ignore what would skip
    /// more than [`MAX_SKIP`](crate::MAX_SKIP).
    ///
    /// # Errors
    /// As there.
    fn commit_at(&self, commit: Commit, least: Revision) -> Fut<'_, Result<Committed>> {
        let _ = least;
        self.commit(commit)
    }

    /// Commits that wrote in `range`, newest first, each with what it wrote there; `before` is exclusive. At most
    /// `limit` and [`MAX_PAGE`](crate::MAX_PAGE) of them, and fewer, but at least one if there is one, when
    /// they are large ([`MAX_PAGE_BYTES`](crate::MAX_PAGE_BYTES)): the log has ended when the answer is empty.
    /// Costs what it answers, not what the database holds (a prefix of more than three segments costs what its
    /// first three answer).
    fn log(&self, range: &Range, before: Option<Revision>, limit: usize) -> Fut<'_, Result<Vec<LogEntry>>>;

    /// Every commit after `after` that passes the filter, whole, in order, without gaps or repeats. The stream
    /// ends only with an error.
    fn watch(&self, filter: Filter, after: Position) -> Flow<Result<Feed>>;

    /// Takes or renews a claim. Renewing (the same holder asks again) keeps the number, unless the claim has
    /// expired: then it protected nothing for a while, and the answer is a new number, or that it is taken.
    fn claim(&self, want: &ClaimRequest) -> Fut<'_, Result<ClaimAnswer>>;

    /// Gives a claim back. One that is no longer held is not an error.
    fn release(&self, claim: &Claim) -> Fut<'_, Result<()>>;

    /// All held claims whose name starts with `prefix`, by name and slot.
    fn claims(&self, prefix: &str) -> Fut<'_, Result<Vec<Claim>>>;

    /// Ledger rows whose key starts with `prefix`, in key order, after `after`. At most `limit` and
    /// [`MAX_PAGE`](crate::MAX_PAGE) of them, fewer when they are large; [`LedgerPage::more`] says.
    fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> Fut<'_, Result<LedgerPage>>;

    /// Writes ledger rows, all or none, as durably as a commit, if `held` is still held.
    ///
    /// # Errors
    /// [`StoreError::Fenced`](crate::StoreError::Fenced) when the claim was lost.
    fn write_ledger(&self, rows: Vec<LedgerWrite>, held: &Claim) -> Fut<'_, Result<()>>;

    /// Replaces what this agent instance last said of itself.
    ///
    /// # Errors
    /// [`StoreError::Invalid`](crate::StoreError::Invalid) where [`MAX_INSTANCES`](crate::MAX_INSTANCES) others of the agent live.
    fn report(&self, status: Status) -> Fut<'_, Result<()>>;

    /// What agents last said of themselves. Expired reports are among them until a store forgets them: after
    /// [`REPORT_GRACE`](crate::REPORT_GRACE) at the earliest, and when an agent has more than
    /// [`MAX_REPORTS`](crate::MAX_REPORTS) that expired, or that stand for good. One that has not expired is there.
    fn reports(&self) -> Fut<'_, Result<Vec<Status>>>;

    /// Everything that stands in the database, for who copies it; `None`: this store cannot tell all of it (one behind a server does not).
    fn whole(&self) -> Option<&dyn Whole> {
        None
    }

    /// A page of the hosts that an expression selects, where the store has a view to ask ([`View::search`](shoal_core::View::search));
    /// `None`: it has none, and who asks loads one.
    ///
    /// # Errors
    /// [`StoreError::Invalid`](crate::StoreError::Invalid) for what is no expression, [`StoreError::Future`](crate::StoreError::Future).
    fn search(&self, _: &Search) -> Fut<'_, Result<Option<Hits>>> {
        Box::pin(async { Ok(None) })
    }

    /// The rows around a host ([`View::around`](shoal_core::View::around)) as of `at` (`None`: now), whole, where the store has a view
    /// or an index to pick them by; `None`: it has none, and who asks loads one. There may be more rows than those; no rows: there is no
    /// such host. What rules cannot say of it ([`View::doubt`](shoal_core::View::doubt)) shows for now alone.
    ///
    /// # Errors
    /// [`StoreError::Future`](crate::StoreError::Future).
    fn around(&self, _: &HostName, _at: Option<Revision>) -> Fut<'_, Result<Option<Page>>> {
        Box::pin(async { Ok(None) })
    }

    /// What stands in these ranges now, one behind the other and each in key order, all of one moment, where the store has it at hand;
    /// `None`: it has not, and who asks reads pages. Of a member row there is the key alone, and nothing in place of its value. The first
    /// member of which `last` says so is the last row of all.
    ///
    /// # Errors
    /// As for [`Store::read`]. Costs the memory of all of it.
    fn texts(&self, _ranges: &[Range], _last: fn(&str) -> bool) -> Fut<'_, Result<Option<Texts>>> {
        Box::pin(async { Ok(None) })
    }

    /// The hosts as an Ansible inventory, as JSON, where the store has a server that writes it; `None`: it has none, and who asks
    /// writes it.
    ///
    /// # Errors
    /// As for [`Store::search`].
    fn inventory(&self, _: &Inventory) -> Fut<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async { Ok(None) })
    }

    /// Whether somebody may do something, where the store has a server that asks; `None`: it has none, and who asks reads the rules. Of
    /// oneself everybody may ask, of others administrators.
    ///
    /// # Errors
    /// [`StoreError::Denied`](crate::StoreError::Denied), [`StoreError::Invalid`](crate::StoreError::Invalid) also for who is nobody.
    fn may(&self, _: &Asked) -> Fut<'_, Result<Option<May>>> {
        Box::pin(async { Ok(None) })
    }

    /// Who asks, as a server sees it; `None`: there is none, and people say themselves who they are.
    ///
    /// # Errors
    /// As for [`Store::may`].
    fn who(&self) -> Fut<'_, Result<Option<Who>>> {
        Box::pin(async { Ok(None) })
    }

    /// A page of the hosts that are for who asks to read, by name, after `after`, as of `at` (`None`: now), where the store has a server that
    /// leaves out the others; `None`: it has none, and [`Store::read`] answers all of them. Nothing may be worked out from what is missing.
    ///
    /// # Errors
    /// [`StoreError::Future`](crate::StoreError::Future).
    fn list_hosts(
        &self,
        _at: Option<Revision>,
        _after: Option<&str>,
    ) -> Fut<'_, Result<Option<Listed<HostDoc>>>> {
        Box::pin(async { Ok(None) })
    }

    /// The same of tags, without their members: of a namespace, or of all (`None`).
    ///
    /// # Errors
    /// As for [`Store::list_hosts`].
    fn list_tags(
        &self,
        _namespace: Option<&Namespace>,
        _at: Option<Revision>,
        _after: Option<&str>,
    ) -> Fut<'_, Result<Option<Listed<TagDoc>>>> {
        Box::pin(async { Ok(None) })
    }

    /// The same of commits that wrote in any of these ranges (none: everywhere), newest first, before `before`, at most `limit`. Ranges are keys,
    /// prefixes, and the members of tags.
    ///
    /// # Errors
    /// As for [`Store::log`].
    fn list_log(
        &self,
        _ranges: &[Range],
        _before: Option<Revision>,
        _limit: usize,
    ) -> Fut<'_, Result<Option<ListedLog>>> {
        Box::pin(async { Ok(None) })
    }

    /// The tokens and sessions of who asks, where the store has a server that asks who it is.
    ///
    /// # Errors
    /// [`StoreError::Denied`](crate::StoreError::Denied).
    fn own_tokens(&self) -> Fut<'_, Result<Option<Vec<OwnToken>>>> {
        Box::pin(async { Ok(None) })
    }

    /// Revokes one of them, for this reason; `false`: there is no server that asks, and nothing was done.
    ///
    /// # Errors
    /// [`StoreError::Denied`](crate::StoreError::Denied), [`StoreError::Invalid`](crate::StoreError::Invalid) for a token that is not theirs.
    fn revoke_own(&self, _id: &str, _message: &str) -> Fut<'_, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    /// Replaces the password of a user, who knows the one of now; `false`: there is no server that asks, and nothing was done.
    ///
    /// # Errors
    /// [`StoreError::Denied`](crate::StoreError::Denied) where it is not the password of now, [`StoreError::Invalid`](crate::StoreError::Invalid) for a
    /// new one that is none.
    fn change_password(&self, _: &NewPassword) -> Fut<'_, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    /// Does a proposal, where the store has a server that prepares it; `None`: it has none, and who asks prepares it. A large
    /// one is better prepared near the database: what it rests on has less time to change.
    ///
    /// # Errors
    /// [`StoreError::Invalid`](crate::StoreError::Invalid) also for one that is refused; otherwise as for [`Store::commit`].
    fn propose(&self, _: &Proposal) -> Fut<'_, Result<Option<Proposed>>> {
        Box::pin(async { Ok(None) })
    }
}
