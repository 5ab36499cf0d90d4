//! What an import did or would do, for people and programs.

use std::fmt;

use serde::Serialize;

/// The most lines of one kind that the text form prints; the JSON form has all.
const SHOWN: usize = 40;

/// Something that somebody should know, and that stopped nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// A host, a group, a row.
    pub about: String,
    /// What is odd about it, and what was done.
    pub what: String,
}

impl Note {
    /// One note.
    pub fn new(about: impl Into<String>, what: impl Into<String>) -> Self {
        Self { about: about.into(), what: what.into() }
    }
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Made.
    pub new: usize,
    /// Changed.
    pub changed: usize,
    /// As they were.
    pub same: usize,
    /// Removed.
    pub gone: usize,
}

impl Tally {
    pub(super) fn count(&mut self, new: bool, written: bool) {
        match (new, written) {
            (true, _) => self.new += 1,
            (false, true) => self.changed += 1,
            (false, false) => self.same += 1,
        }
    }
}

/// One change, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// `+` made, `~` changed, `-` removed.
    pub verb: char,
    /// What.
    pub what: String,
    /// What about it: the member, the fields.
    pub detail: String,
}

/// What an import did or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The import's name.
    pub name: String,
    /// Hosts.
    pub hosts: Tally,
    /// Tags.
    pub tags: Tally,
    /// Memberships.
    pub members: Tally,
    /// Hosts and tags of an earlier import that the inventory does not list any more.
    pub vanished: Vec<String>,
    /// Each change.
    pub changes: Vec<Line>,
    /// What is untidy.
    pub notes: Vec<Note>,
}

impl Report {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.changes.iter().take(SHOWN) {
            writeln!(f, "  {} {}  {}", line.verb, line.what, line.detail)?;
        }
        rest(f, self.changes.len(), "changes")?;
        for (what, tally) in [("hosts", self.hosts), ("tags", self.tags), ("memberships", self.members)] {
            let Tally { new, changed, same, gone } = tally;
            writeln!(f, "{what}: {new} new, {changed} changed, {gone} removed, {same} as they were")?;
        }
        if !self.vanished.is_empty() {
            writeln!(f, "not in the inventory any more (kept; --prune removes them):")?;
            for name in self.vanished.iter().take(SHOWN) {
                writeln!(f, "  {name}")?;
            }
            rest(f, self.vanished.len(), "of them")?;
        }
        if !self.notes.is_empty() {
            writeln!(f, "untidy in the inventory:")?;
            for note in self.notes.iter().take(SHOWN) {
                writeln!(f, "  {}: {}", note.about, note.what)?;
            }
            rest(f, self.notes.len(), "notes")?;
        }
        Ok(())
    }
}

fn rest(f: &mut fmt::Formatter<'_>, total: usize, what: &str) -> fmt::Result {
    match total.checked_sub(SHOWN) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(f, "  … and {more} more {what} (--output json has all)"),
    }
}
