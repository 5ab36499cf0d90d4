//! Keys of many versions, and commits of which only the older ones are filed under their scopes: whatever is asked, the answer is
//! that of the store in memory, which keeps nothing but a list.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shoal_core::{Change, Commit, Document, Key, Pre, Range, Revision};
use shoal_store::{MemoryStore, Query, Store};
use shoal_store_sqlite::{SqliteStore, verify};

/// Few keys, so that each is written again and again: one of them by most commits.
const KEYS: [&str; 8] = [
    "hosts/busy",
    "hosts/a",
    "dns/a",
    "dns/a/members/busy",
    "dns/a/members/a",
    "dns/ab",
    "facts/vm/busy",
    "lb/z",
];

fn commit(changes: Vec<Change>) -> Commit {
    Commit::new("ann", "m", changes)
}

fn change(random: &mut StdRng, n: u64) -> Change {
    let at = if random.random_bool(0.6) { 0 } else { random.random_range(0..KEYS.len()) };
    let key: Key = KEYS[at].parse().unwrap();
    let id = if KEYS[at].starts_with("hosts/") { "\"id\":\"1\"," } else { "" };
    let text = format!("{{{id}\"document\":{{\"n\":{n}}}}}");
    let value = random.random_bool(0.8).then(|| Document::parse(&text).unwrap());
    Change { key, value, moved: None }
}

fn ranges() -> Vec<Range> {
    let prefixes = ["", "hosts/", "dns/", "dns/a/", "dns/a/members/", "dns/a/members/b", "nothing/"];
    let members = ["busy", "a", "none"];
    (prefixes.iter().map(|p| Range::Prefix((*p).to_owned())))
        .chain(KEYS.iter().map(|k| Range::Key(k.parse().unwrap())))
        .chain(members.iter().map(|m| Range::Naming(m.parse().unwrap())))
        .chain(["a", "none"].map(|h| Range::Concerning(h.parse().unwrap())))
        .chain([Range::All])
        .collect()
}

/// Asks both everything that there is to ask.
async fn compare(sqlite: &SqliteStore, memory: &MemoryStore, at: Revision) {
    for range in ranges() {
        for tombstones in [false, true] {
            let query = Query { at: Some(at), tombstones, limit: 3, ..Query::new(range.clone()) };
            let mut query = (query.clone(), query);
            loop {
                let pages = (sqlite.read(&query.0).await.unwrap(), memory.read(&query.1).await.unwrap());
                assert_eq!(pages.0, pages.1, "{range} at {at}");
                let Some(next) = pages.0.next else { break };
                (query.0.after, query.1.after) = (Some(next.clone()), Some(next));
            }
        }
        let before = Some(Revision(at.0 + 1));
        let mut logs =
            (sqlite.log(&range, before, 40).await.unwrap(), memory.log(&range, before, 40).await.unwrap());
        // The times are those of two stores.
        for entry in logs.0.iter_mut().chain(&mut logs.1) {
            entry.info.time = jiff::Timestamp::UNIX_EPOCH;
        }
        assert_eq!(logs.0, logs.1, "the log of {range} before {before:?}");
        let pre = vec![Pre::Unchanged(range.clone(), at)];
        let ask = Commit { pre, ..commit(Vec::new()) };
        let said = (sqlite.commit(ask.clone()).await, memory.commit(ask).await);
        assert_eq!(said.0, said.1, "{range} unchanged since {at}");
    }
}

#[tokio::test]
async fn many_versions_read_as_the_store_in_memory_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let (sqlite, memory) = (SqliteStore::open(&path).await.unwrap(), MemoryStore::new());
    let mut random = StdRng::seed_from_u64(7);
    let mut last = 0;
    for n in 0..170 {
        let mut changes = vec![change(&mut random, n)];
        if random.random_bool(0.3) {
            changes.push(change(&mut random, n));
        }
        if n == 90 {
            // One that is filed at once, with all before it.
            changes
                .extend((0..20).map(|n| Change::put(format!("lb/n{n}").parse().unwrap(), Document::empty())));
        }
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes.dedup_by(|a, b| a.key == b.key);
        let done = (sqlite.commit(commit(changes.clone())).await, memory.commit(commit(changes)).await);
        assert_eq!(done.0, done.1);
        last = done.0.unwrap().revision.0;
        // Just before and after the scopes are filed, and in between.
        if n % 13 == 0 || (30..34).contains(&last) {
            compare(&sqlite, &memory, Revision(last)).await;
        }
    }
    assert!(last > 120, "only {last} revisions");
    for at in (0..=last).step_by(7) {
        compare(&sqlite, &memory, Revision(at)).await;
    }
    let verified = verify(&path, &mut |_, _| {}).unwrap();
    // A member may stand here without its tag: nobody above the store looks at what is committed.
    let damage: Vec<_> =
        verified.damage.iter().filter(|one| !one.what.contains("which does not exist")).collect();
    assert!(damage.is_empty(), "{damage:?}");
}
