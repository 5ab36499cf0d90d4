//! Room in the write-ahead log, made before it is needed.
//!
//! A sync that makes a file longer costs twice one that overwrites: the file system has to write down the new length as
//! well. SQLite lets its log grow by each commit, so every commit pays for that until the log is begun anew, and again when
//! it was taken away with the last connection. So who commits often appends zeros to the log, a step at a time and after
//! the answers are out, and the commits after that overwrite.
//!
//! Zeros behind the last frame are no frames: SQLite reads a log up to the first frame whose salt and checksum are not right
//! ([the format](https://www.sqlite.org/fileformat2.html#the_write_ahead_log)), and old frames stand there after each new
//! beginning anyway. They are appended under SQLite's lock for writers, behind the end of the file, so never where anybody
//! writes. The log itself carries no locks, so it may be opened and closed here.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rusqlite::Connection;

use crate::files::length;

/// What is appended at a time, in octets.
const STEP: usize = 1 << 20;
/// A log that is longer than this is left alone, in octets: large commits made it so, and it is cut back.
const LONGEST: u64 = 32 << 20;
/// So many times the log must have grown by a commit of this process: a command that commits once does not pay for others.
const HABIT: u32 = 8;

/// How long the log was, and how often it grew.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    length: u64,
    grew: u32,
}

impl Ahead {
    /// How long the log was when it was looked at last, in octets.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Called after a commit, while nobody of this process commits: appends a step where commits made the log longer, and
    /// answers the log, still to be synced. What does not succeed is left for another time: it only costs time.
    pub(crate) fn keep(&mut self, connection: &Connection, log: &Path) -> Option<File> {
        let length = length(log).ok()?;
        let grew = length > self.length;
        self.length = length;
        if !grew {
            return None;
        }
        self.grew = self.grew.saturating_add(1);
        if self.grew < HABIT || length > LONGEST {
            return None;
        }
        let (file, length) = append(connection, log).ok()?;
        self.length = length;
        Some(file)
    }
}

/// Answers the log and how long it is then.
fn append(connection: &Connection, log: &Path) -> std::io::Result<(File, u64)> {
    let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(std::io::Error::other);
    let done = begun.and_then(|()| {
        let mut file = OpenOptions::new().append(true).open(log)?;
        let length = file.metadata()?.len();
        file.write_all(&vec![0; STEP]).inspect_err(|_| {
            // No room for a step: what the disk still has is left to commits.
            let _ = file.set_len(length);
        })?;
        Ok((file, length + STEP as u64))
    });
    if !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shoal_core::{Change, Commit, Document, Key};
    use shoal_store::Store;

    use super::{HABIT, STEP};
    use crate::SqliteStore;

    #[tokio::test]
    async fn most_commits_overwrite_what_the_log_has_already() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shoal.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let (log, mut lengths) = (crate::open::log_of(&path), BTreeSet::new());
        let length = || std::fs::metadata(&log).unwrap().len();
        let mut before = 0;
        for n in 0..150_u32 {
            let host = Key::host(&format!("h{n}.example.com").parse().unwrap());
            let commit = Commit::new("a", "m", vec![Change::put(host, Document::empty())]);
            store.commit(commit).await.unwrap();
            let grown = length();
            lengths.insert(grown);
            // Who makes room ahead has its turn, however busy the machine: it only counts at first, and then appends where this one
            // made the log longer.
            let turns = if n > HABIT && grown > before { 1_000 } else { 1 };
            for _ in 0..turns {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                if length() >= grown + STEP as u64 {
                    break;
                }
            }
            before = length();
        }
        // Some three frames a commit, so the log grew 150 times by itself before.
        assert!(lengths.len() < 30, "the log had {} lengths", lengths.len());
        let last = *lengths.last().unwrap();
        assert!(last > 2 << 20 && last < 10 << 20, "the log has {last} octets");
        // What was appended is no frame: who opens the file anew reads the log to its end and no further.
        let other = rusqlite::Connection::open(&path).unwrap();
        let count: i64 = other.query_row("SELECT count(count) FROM changes", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 150);
        drop(other);
        drop(store);
        assert!(!log.exists(), "the last one to leave copies the log and takes it away");
    }
}
