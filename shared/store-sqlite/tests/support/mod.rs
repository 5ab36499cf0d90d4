//! What the tests of durability share: a workload whose commits can be told whole from half, and the check of what
//! is left of it.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

pub(crate) mod shim;

use std::collections::BTreeMap;

use shoal_core::{Change, Commit, Document, Key, Range, Revision};
use shoal_store::{Result, Store};
use shoal_store_sqlite::SqliteStore;

/// The key of this text.
pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// The `n`th commit of a writer: three rows in three places, all of which say `n`. Larger ones fill several pages.
pub(crate) fn commit(writer: &str, n: u64) -> Commit {
    let fill = "x".repeat((n as usize * 977) % 5000);
    let value = Document::parse(&format!("{{\"n\":{n},\"fill\":\"{fill}\"}}")).unwrap();
    let at = |place: String| Change::put(key(&place), value.clone());
    Commit {
        idempotency: Some(format!("{writer} {n}")),
        ..Commit::new(
            writer,
            n.to_string(),
            vec![
                at(format!("hosts/{writer}")),
                at(format!("dns/example.com/members/{writer}")),
                at(format!("lb/{writer}")),
            ],
        )
    }
}

/// What every writer was told that it has done: the number of its last acknowledged commit.
pub(crate) type Acknowledged = BTreeMap<String, u64>;

/// Looks at all that happened after `seen`, and at what stands now: every commit whole, every writer's in order
/// and without gaps, nothing acknowledged missing, rows, indexes and history agreeing. Each writer has at most
/// one commit in flight, so at most one more than acknowledged may be there.
pub(crate) async fn check(
    store: &SqliteStore,
    seen: &mut Revision,
    written: &mut BTreeMap<String, u64>,
    acknowledged: &Acknowledged,
) -> Result<(), String> {
    let mut before = None;
    let mut entries = Vec::new();
    'pages: loop {
        let page = store.log(&Range::All, before, 1000).await.map_err(|e| e.to_string())?;
        let Some(last) = page.last() else { break };
        before = Some(last.info.revision);
        for entry in page {
            if entry.info.revision <= *seen {
                break 'pages;
            }
            entries.push(entry);
        }
    }
    entries.reverse();
    for entry in entries {
        *seen = entry.info.revision;
        let (writer, n) = (entry.info.author.clone(), entry.info.message.parse::<u64>().unwrap());
        let mut expected = commit(&writer, n).changes;
        expected.sort_by(|a, b| a.key.cmp(&b.key));
        if entry.changes != expected {
            return Err(format!("revision {seen} is not whole: {:?}", entry.changes));
        }
        let next = written.get(&writer).map_or(0, |last| last + 1);
        if n != next {
            return Err(format!("{writer} wrote {n} at revision {seen} where {next} should be"));
        }
        written.insert(writer, n);
    }
    for (writer, n) in acknowledged {
        let there = written.get(writer).copied();
        if there.is_none_or(|there| there < *n) {
            return Err(format!("{writer} was told that {n} is done, {there:?} is there"));
        }
        if there.is_some_and(|there| there > n + 1) {
            return Err(format!("{writer} was told of {n}, {there:?} is there: somebody invented commits"));
        }
    }
    for (writer, n) in written.iter() {
        let naming = Range::Naming(writer.parse().unwrap());
        for range in
            [Range::Key(key(&format!("hosts/{writer}"))), Range::Key(key(&format!("lb/{writer}"))), naming]
        {
            let page =
                store.read(&shoal_store::Query::new(range.clone())).await.map_err(|e| e.to_string())?;
            let stands: Vec<_> = page.rows.iter().map(|r| r.value.clone()).collect();
            if stands != [commit(writer, *n).changes[0].value.clone()] {
                return Err(format!("{range} should say {n}: {stands:?}"));
            }
        }
    }
    Ok(())
}

/// SQLite's own check of the whole file, indexes included.
pub(crate) fn integrity(path: &std::path::Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
}
