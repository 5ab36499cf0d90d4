//! What a database holds, as counts and digests: two that have the same tally are the same.
//!
//! It is read in the order that every store has, page by page, so pages may be cut otherwise and the memory is that of one page. The history is
//! read whole, and what stands by it now and stood at three revisions before: rows are filed apart from the history in every store. Each part has
//! a digest of its own, so that a difference is told by where it is.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use shoal_core::{LogEntry, Range, Revision, Row};

use super::{Migrated, Step, Told};
use crate::{Claim, Head, Query, Result, Retry, Whole};

/// At how many revisions it is compared what stood there, the newest among them.
const LOOKS: u64 = 4;

/// What one database holds.
#[derive(Debug)]
pub(super) struct Tally {
    commits: u64,
    changes: u64,
    rows: u64,
    ledger: u64,
    retries: u64,
    claims: u64,
    /// What each part is called, and its digest.
    parts: Vec<(String, [u8; 32])>,
}

/// A digest of fields that do not run into each other.
#[derive(Default)]
struct Sum(Sha256);

impl Sum {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn octets(&mut self, octets: &[u8]) {
        // A length before each field.
        self.number(octets.len() as u64);
        self.0.update(octets);
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.octets(text.as_bytes()),
            None => self.number(u64::MAX),
        }
    }

    fn commit(&mut self, entry: &LogEntry) {
        let info = &entry.info;
        self.number(info.revision.0);
        self.number(info.time.as_millisecond().cast_unsigned());
        for text in [Some(&info.author), info.principal.as_ref(), info.origin.as_ref(), Some(&info.message)] {
            self.text(text.map(String::as_str));
        }
        self.number(entry.changes.len() as u64);
        for change in &entry.changes {
            self.text(Some(change.key.as_str()));
            self.text(change.value.as_ref().map(|value| value.as_str()));
            self.text(change.moved.as_ref().map(|key| key.as_str()));
        }
    }

    fn row(&mut self, row: &Row) {
        self.number(row.revision.0);
        self.text(Some(row.key.as_str()));
        self.text(row.value.as_ref().map(|value| value.as_str()));
        self.text(row.moved.as_ref().map(|key| key.as_str()));
    }

    fn retry(&mut self, retry: &Retry) {
        self.text(Some(&retry.key));
        self.octets(&retry.digest);
        self.number(retry.revision.0);
        self.number(retry.changed as u64);
    }

    fn claim(&mut self, claim: &Claim) {
        self.text(Some(&claim.name));
        self.number(u64::from(claim.slot));
        self.text(Some(&claim.holder));
        self.number(claim.number);
    }

    fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl Tally {
    /// Reads everything up to this revision.
    pub(super) async fn of(
        whole: &dyn Whole,
        upto: Revision,
        step: Step,
        told: &mut dyn FnMut(Told),
    ) -> Result<Self> {
        let mut tally =
            Self { commits: 0, changes: 0, rows: 0, ledger: 0, retries: 0, claims: 0, parts: Vec::new() };
        tally.history(whole, upto, step, told).await?;
        let mut looks: Vec<_> = (1..=LOOKS).map(|n| Revision(share(upto.0, n))).collect();
        looks.dedup();
        for at in looks {
            told(Told { step, done: upto, of: Revision(0) });
            tally.standing(whole, at).await?;
        }
        tally.beside(whole).await?;
        Ok(tally)
    }

    async fn history(
        &mut self,
        whole: &dyn Whole,
        upto: Revision,
        step: Step,
        told: &mut dyn FnMut(Told),
    ) -> Result<()> {
        let (mut at, mut sum) = (Revision(0), Sum::default());
        while at < upto {
            told(Told { step, done: at, of: upto });
            let some = whole.history(at).await?;
            let Some(last) = some.last() else { break };
            at = last.info.revision;
            for entry in some.iter().take_while(|entry| entry.info.revision <= upto) {
                self.commits += 1;
                self.changes += entry.changes.len() as u64;
                sum.commit(entry);
            }
        }
        self.parts.push(("the history".to_owned(), sum.end()));
        Ok(())
    }

    /// What stood at a revision, tombstones among it; the last one that is asked for is counted.
    async fn standing(&mut self, whole: &dyn Whole, at: Revision) -> Result<()> {
        let mut query = Query { at: Some(at), tombstones: true, ..Query::new(Range::All) };
        let mut sum = Sum::default();
        self.rows = 0;
        loop {
            let page = whole.rows(&query).await?;
            for row in &page.rows {
                self.rows += u64::from(row.value.is_some());
                sum.row(row);
            }
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        self.parts.push((format!("what stood at revision {at}"), sum.end()));
        Ok(())
    }

    /// What stands beside the history, leases left out.
    async fn beside(&mut self, whole: &dyn Whole) -> Result<()> {
        let (mut place, mut sum) = (0, Sum::default());
        loop {
            let some = whole.retries(place).await?;
            let Some((last, _)) = some.last() else { break };
            place = *last;
            self.retries += some.len() as u64;
            some.iter().for_each(|(_, retry)| sum.retry(retry));
        }
        self.parts.push(("the idempotency keys".to_owned(), sum.end()));
        let (mut after, mut sum) = (None, Sum::default());
        loop {
            let page = whole.ledger_rows(after.as_deref()).await?;
            self.ledger += page.rows.len() as u64;
            for (key, value) in &page.rows {
                sum.text(Some(key));
                sum.octets(value);
            }
            after = page.rows.last().map(|(key, _)| key.clone());
            if !page.more || after.is_none() {
                break;
            }
        }
        self.parts.push(("the ledger".to_owned(), sum.end()));
        let mut sum = Sum::default();
        for claim in whole.held().await?.iter().filter(|claim| claim.ttl.is_none()) {
            self.claims += 1;
            sum.claim(claim);
        }
        self.parts.push(("the claims".to_owned(), sum.end()));
        Ok(())
    }

    /// The first part in which two differ.
    pub(super) fn differs(&self, other: &Self) -> Option<String> {
        let mut both = self.parts.iter().zip(&other.parts);
        both.find(|(here, there)| here != there).map(|((what, _), _)| what.clone())
    }

    /// What is said of it.
    pub(super) fn migrated(&self, head: Head) -> Migrated {
        let mut sum = Sum::default();
        self.parts.iter().for_each(|(_, digest)| sum.octets(digest));
        let mut digest = String::new();
        for octet in sum.end() {
            let _ = write!(digest, "{octet:02x}");
        }
        Migrated {
            head,
            commits: self.commits,
            changes: self.changes,
            rows: self.rows,
            ledger: self.ledger,
            retries: self.retries,
            claims: self.claims,
            digest,
        }
    }
}

/// The `n`th of [`LOOKS`] equal parts of a number.
fn share(of: u64, n: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(n) / u128::from(LOOKS)).unwrap_or(of)
}
