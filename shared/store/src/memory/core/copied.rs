//! What a copy of a database in memory is made of, and takes.

use std::sync::Arc;

use shoal_core::Committed;

use super::Memory;
use crate::parts::out_of_order;
use crate::{Piece, Result, Retry};

impl Memory {
    /// The last fencing number that was given out.
    pub(in crate::memory) fn fence(&self) -> u64 {
        self.claims.last()
    }

    /// See [`Whole::retries`](crate::Whole::retries). A place is how many come before what follows it.
    pub(in crate::memory) fn retries(&self, after: u64, limit: usize) -> Vec<(u64, Retry)> {
        let from = usize::try_from(after).unwrap_or(usize::MAX);
        let some = (after.saturating_add(1)..).zip(self.remembered.order.iter().skip(from).take(limit));
        some.filter_map(|(place, key)| {
            let (digest, done) = self.remembered.by_key.get(key)?;
            let Committed { revision, changed, .. } = *done;
            Some((place, Retry { key: key.to_string(), digest: *digest, revision, changed }))
        })
        .collect()
    }

    /// See [`Draft::take`](crate::Draft::take).
    ///
    /// # Errors
    /// As there.
    pub(in crate::memory) fn take(&mut self, piece: Piece) -> Result<()> {
        match piece {
            Piece::Commits(commits) => {
                for entry in commits {
                    let (asked, newest) = (entry.info.revision, self.head().revision);
                    if asked <= newest {
                        return Err(out_of_order("the copy in memory", asked, newest));
                    }
                    self.write(Arc::unwrap_or_clone(entry));
                }
            }
            Piece::Retries(retries) => {
                for Retry { key, digest, revision, changed } in retries {
                    self.remembered.add(key.into(), digest, Committed { revision, changed, replayed: false });
                }
            }
            Piece::Ledger(rows) => self.ledger.extend(rows),
            Piece::Claims(claims) => claims.into_iter().for_each(|claim| self.claims.keep(claim)),
        }
        Ok(())
    }

    /// See [`Draft::clear`](crate::Draft::clear).
    pub(in crate::memory) fn clear_beside(&mut self) {
        self.remembered = super::Remembered::default();
        self.ledger.clear();
        self.claims.clear();
    }

    /// Fencing numbers go on above this one.
    pub(in crate::memory) fn go_on_above(&mut self, fence: u64) {
        self.claims.go_on_above(fence);
    }
}
