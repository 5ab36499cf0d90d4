//! Rows as text, for who goes through many of them once: one transaction and one piece of memory, instead of pages of rows of which each
//! has pieces of its own.

use rusqlite::Connection;
use shoal_core::{Key, Range};
use shoal_store::{Query, Result, Texts};

use crate::fault::{Stop, damaged};
use crate::read::{each_version, head, int};

/// What stands in these ranges now; see [`Store::texts`](shoal_store::Store::texts).
///
/// Of what is not under `hosts/` most are members, of which no value is wanted: the index says it all, and the rest is looked up.
pub(crate) fn texts(
    connection: &Connection,
    ranges: &[Range],
    last: fn(&str) -> bool,
) -> Result<Texts, Stop> {
    let at = head(connection)?.revision;
    let mut texts = Texts::default();
    let mut lookup = connection.prepare_cached("SELECT id, value FROM changes WHERE id = ?1")?;
    let (hosts, mut ended) = (Range::hosts(), false);
    for range in ranges {
        each_version(connection, &Query::new(range.clone()), int(at), *range == hosts, |found| {
            if !found.live {
                return Ok(true);
            }
            let name = Key::written(found.name).map_err(damaged)?;
            if let Some((_, member)) = Key::member_in(&name) {
                texts.push(&name, "");
                ended = last(member);
                return Ok(!ended);
            }
            found.change(&mut lookup, |row, from| {
                texts.push(&name, row.get_ref(from + 1)?.as_str().map_err(rusqlite::Error::from)?);
                Ok(true)
            })
        })?;
        if ended {
            break;
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_core::{Change, Commit, Document, Key, Range};
    use shoal_store::{Query, Store, StoreError, Texts};

    use crate::SqliteStore;

    fn never(_: &str) -> bool {
        false
    }

    fn rules(member: &str) -> bool {
        member.starts_with("select:")
    }

    async fn put(store: &SqliteStore, changes: Vec<Change>) {
        let commit = Commit {
            pre: Vec::new(),
            changes,
            author: "ann".into(),
            principal: None,
            origin: None,
            message: "because".into(),
            idempotency: None,
            intent: None,
        };
        store.commit(commit).await.unwrap();
    }

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    /// Hosts and tags of several versions, some of them deleted.
    async fn fleet(store: &SqliteStore) {
        for round in 0..3 {
            let host = |n: u32| {
                let value = json!({"id": format!("{n}"), "document": {"round": round, "note": "é\n"}});
                Change::put(key(&format!("hosts/h{n:02}")), Document::from(value))
            };
            let mut changes: Vec<Change> = (0..40).filter(|n| n % (round + 1) == 0).map(host).collect();
            let member = |n: u32| {
                Change::put(
                    key(&format!("tags/t{}/members/h{n:02}", n % 3)),
                    Document::from(json!({"n": round})),
                )
            };
            changes.extend((0..40).map(member));
            changes.extend((0..3).map(|n| {
                Change::put(key(&format!("tags/t{n}")), Document::from(json!({"document": {"round": round}})))
            }));
            put(store, changes).await;
        }
        put(store, vec![Change::delete(key("hosts/h03")), Change::delete(key("tags/t1/members/h04"))]).await;
    }

    fn shown(texts: &Texts) -> Vec<(String, String)> {
        texts.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[tokio::test]
    async fn texts_are_what_pages_say_without_what_stands_at_members() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("shoal.db")).await.unwrap();
        fleet(&store).await;
        let ranges = [
            Range::Key(key("tags/t2")),
            Range::Key(key("tags/t9")),
            Range::namespace("tags"),
            Range::hosts(),
        ];
        let texts = store.texts(&ranges, never).await.unwrap().unwrap();
        let mut expected = Vec::new();
        for range in ranges {
            for row in store.read(&Query::new(range)).await.unwrap().rows {
                let member = row.key.as_member().is_some();
                let value = row.value.filter(|_| !member).map_or_else(String::new, |value| value.to_string());
                expected.push((row.key.to_string(), value));
            }
        }
        assert!(expected.len() == 1 + 3 + 39 + 39, "{}", expected.len());
        assert_eq!(shown(&texts), expected);
    }

    #[tokio::test]
    async fn texts_end_with_the_member_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("shoal.db")).await.unwrap();
        fleet(&store).await;
        put(&store, vec![Change::put(key("tags/t1/members/select: true"), Document::empty())]).await;
        let ranges = [Range::namespace("tags"), Range::hosts()];
        let texts = shown(&store.texts(&ranges, rules).await.unwrap().unwrap());
        let last = texts.last().map(|(key, _)| key.as_str());
        assert_eq!(last, Some("tags/t1/members/select: true"));
        assert!(texts.iter().any(|(key, _)| key == "tags/t1/members/h01"));
    }

    /// What cannot stand there is an error, and not left out.
    #[tokio::test]
    async fn damage_is_no_shorter_answer() {
        let folder = tempfile::tempdir().unwrap();
        let all = [
            ("DELETE FROM changes WHERE key = 'hosts/h07'", Range::hosts()),
            ("DELETE FROM changes WHERE key = 'tags/t1'", Range::namespace("tags")),
            ("UPDATE versions SET key = 'hosts/not a key' WHERE key = 'hosts/h07'", Range::hosts()),
            ("UPDATE versions SET key = 'not a key' WHERE key = 'hosts/h07'", Range::All),
            ("UPDATE changes SET value = NULL WHERE key = 'hosts/h07'", Range::hosts()),
            ("UPDATE changes SET value = NULL WHERE key = 'tags/t1'", Range::namespace("tags")),
        ];
        for (n, (sql, range)) in all.into_iter().enumerate() {
            let path = folder.path().join(format!("{n}.db"));
            let store = SqliteStore::open(&path).await.unwrap();
            fleet(&store).await;
            rusqlite::Connection::open(&path).unwrap().execute(sql, []).unwrap();
            let read = store.texts(&[range], never).await;
            assert!(matches!(&read, Err(StoreError::Corrupt { .. })), "{sql}: {read:?}");
        }
    }
}
