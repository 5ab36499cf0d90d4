//! Commits put into words once, however many watchers hear them.
//!
//! Watchers of everything are handed one and the same entry, and so are all whose filter lets the whole of a commit pass. Of the
//! newest such entries the event is kept, so that only the first of a thousand watchers pays for its JSON.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::sse::Event;
use serde_json::json;
use shoal_core::{Epoch, LogEntry};

/// How many events are kept: watchers hear a commit at about the same time.
const KEPT: usize = 4;
/// The longest text of a commit that is kept, in octets; a longer one is made anew for each watcher, in its own turn.
const LONGEST: usize = 256 << 10;

/// The events of the newest commits, at most [`KEPT`] of at most [`LONGEST`] octets.
#[derive(Default)]
pub(crate) struct Words {
    kept: Mutex<VecDeque<(Epoch, Arc<LogEntry>, Event)>>,
}

impl Words {
    /// The event that tells of a commit. Costs its JSON the first time, then a copy.
    pub(super) fn of(&self, entry: &Arc<LogEntry>, epoch: Epoch) -> Event {
        // Kept entries are alive, so nothing else can stand where they stand in memory.
        let same = |(of, have, _): &&(Epoch, Arc<LogEntry>, Event)| *of == epoch && Arc::ptr_eq(have, entry);
        if let Some((.., event)) = self.kept().iter().find(same) {
            return event.clone();
        }
        let data = serde_json::to_string(&**entry)
            .unwrap_or_else(|error| json!({"error": error.to_string()}).to_string());
        let id = format!("{}-{}", epoch.0, entry.info.revision);
        let event = Event::default().event("commit").id(id).data(&data);
        // Nobody else has an entry that was made for one watcher alone.
        if Arc::strong_count(entry) > 1 && data.len() <= LONGEST {
            let mut kept = self.kept();
            kept.truncate(KEPT - 1);
            kept.push_front((epoch, entry.clone(), event.clone()));
        }
        event
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<(Epoch, Arc<LogEntry>, Event)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_core::{Change, CommitInfo, Document, Revision};

    fn entry(revision: u64) -> Arc<LogEntry> {
        let info = CommitInfo {
            revision: Revision(revision),
            author: "ann".into(),
            principal: None,
            origin: None,
            message: "m".into(),
            time: jiff::Timestamp::UNIX_EPOCH,
        };
        let changes = vec![Change::put("hosts/web1".parse().unwrap(), Document::empty())];
        Arc::new(LogEntry { info, changes })
    }

    fn text(event: Event) -> String {
        format!("{event:?}")
    }

    #[test]
    fn a_commit_is_put_into_words_once_for_all_who_hear_it() {
        let words = Words::default();
        let first = entry(1);
        let hub = first.clone();
        let told = text(words.of(&first, Epoch(7)));
        assert!(told.contains("7-1") && told.contains("hosts/web1"), "{told}");
        assert_eq!(words.kept().len(), 1);
        assert_eq!(text(words.of(&hub, Epoch(7))), told);
        assert_eq!(words.kept().len(), 1, "it was kept once");
        // The same entry in another epoch has another id.
        assert!(text(words.of(&hub, Epoch(8))).contains("8-1"));
    }

    #[test]
    fn what_one_watcher_alone_hears_and_what_is_large_is_not_kept() {
        let words = Words::default();
        assert!(text(words.of(&entry(1), Epoch(7))).contains("7-1"));
        let mut large = LogEntry::clone(&entry(2));
        large.info.message = "m".repeat(LONGEST);
        let large = Arc::new(large);
        let _hub = large.clone();
        assert!(text(words.of(&large, Epoch(7))).contains("7-2"));
        assert!(words.kept().is_empty());
    }

    #[test]
    fn only_the_newest_are_kept() {
        let words = Words::default();
        let all: Vec<_> = (1..=10).map(entry).collect();
        let _hub = all.clone();
        all.iter().for_each(|entry| drop(words.of(entry, Epoch(7))));
        let kept: Vec<_> = words.kept().iter().map(|(_, entry, _)| entry.info.revision.0).collect();
        assert_eq!(kept, [10, 9, 8, 7]);
    }
}
