//! Preconditions, as seen from inside the writing transaction.

use rusqlite::params;
use shoal_core::{Key, Pre, Range, Revision};
use shoal_store::StoreError;

use crate::claims;
use crate::fault::Stop;
use crate::log::last_write;
use crate::read::{int, version, written};
use crate::schema::first;
use crate::transact::Tx;

/// What stands at a key: when it was written, whether it lives, and where its value is.
pub(crate) struct Standing {
    pub(crate) revision: Revision,
    pub(crate) live: bool,
    pub(crate) change: i64,
}

impl Tx<'_> {
    /// What stands at `key`, if anything ever did.
    pub(crate) fn standing(&self, key: &Key) -> Result<Option<Standing>, Stop> {
        let now = version(self.connection, key.as_str(), first(int(self.head.revision) + 1))?;
        Ok(now.map(|(change, live)| Standing { revision: written(change), live, change }))
    }

    /// Whether all of it is so.
    pub(crate) fn check<'p>(&self, pre: impl IntoIterator<Item = &'p Pre>) -> Result<(), Stop> {
        for pre in pre {
            let (holds, actual) = match pre {
                Pre::At(key, seen) => {
                    let now = self.standing(key)?.filter(|s| s.live).map(|s| s.revision);
                    (now == Some(*seen), now)
                }
                Pre::Exists(key) => {
                    let last = self.standing(key)?;
                    (last.as_ref().is_some_and(|s| s.live), last.map(|s| s.revision))
                }
                Pre::Absent(key) => {
                    let live = self.standing(key)?.filter(|s| s.live).map(|s| s.revision);
                    (live.is_none(), live)
                }
                Pre::Unchanged(range, since) => {
                    let last = self.last_write(range)?;
                    (last.is_none_or(|last| last <= *since), last)
                }
                Pre::Held { name, number } => {
                    if !claims::is_held(self.connection, name, *number)? {
                        return Err(StoreError::Fenced { name: name.clone(), number: *number }.into());
                    }
                    (true, None)
                }
            };
            if !holds {
                return Err(StoreError::Conflict { pre: pre.clone(), actual }.into());
            }
        }
        Ok(())
    }

    fn last_write(&self, range: &Range) -> Result<Option<Revision>, Stop> {
        if *range == Range::All {
            return Ok(Some(self.head.revision).filter(|r| r.0 > 0));
        }
        last_write(self.connection, range, int(self.head.revision) + 1)
    }

    /// The value of the change `id`.
    pub(crate) fn stands(&self, id: i64, value: Option<&str>) -> Result<bool, Stop> {
        let mut sql = self.connection.prepare_cached("SELECT value IS ?2 FROM changes WHERE id = ?1")?;
        Ok(sql.query_row(params![id, value], |row| row.get(0))?)
    }
}
