//! Preconditions in memory.

use std::time::Duration;

use shoal_core::{Pre, Range, Revision};

use super::core::Memory;
use crate::{Result, StoreError};

impl Memory {
    /// Whether all of it is so, as things stand.
    pub(super) fn check(&self, pre: &[Pre], uptime: Duration) -> Result<()> {
        for pre in pre {
            let failed = |actual| Err(StoreError::Conflict { pre: pre.clone(), actual });
            match pre {
                Pre::At(key, seen) => {
                    let live = self.version(key, None).filter(|v| v.value.is_some()).map(|v| v.revision);
                    if live != Some(*seen) {
                        return failed(live);
                    }
                }
                Pre::Exists(key) => {
                    let last = self.version(key, None);
                    if last.is_none_or(|v| v.value.is_none()) {
                        return failed(last.map(|v| v.revision));
                    }
                }
                Pre::Absent(key) => {
                    if let Some(last) = self.version(key, None).filter(|v| v.value.is_some()) {
                        return failed(Some(last.revision));
                    }
                }
                Pre::Unchanged(range, since) => {
                    if let Some(last) = self.last_write(range).filter(|last| last > since) {
                        return failed(Some(last));
                    }
                }
                Pre::Held { name, number } => {
                    if !self.is_held(name, *number, uptime) {
                        return Err(StoreError::Fenced { name: name.clone(), number: *number });
                    }
                }
            }
        }
        Ok(())
    }

    /// The newest revision that wrote in the range.
    fn last_write(&self, range: &Range) -> Option<Revision> {
        self.log_revisions(range, None).next()
    }
}
