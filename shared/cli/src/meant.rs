//! What may have been meant by a name under which nothing stands: people leave out a host's domain, and swap letters.
//!
//! A suggestion is about something else that failed: what cannot be read is not suggested, and the search is bounded. Another number is
//! another thing and no slip: who asks for `web9` is not told of `web1`.

use shoal_core::{Key, Kind, Range};
use shoal_store::{MAX_PAGE, Query, Store};

/// The most names that are suggested.
const MEANT: usize = 3;

/// The hosts, or tags of the same namespace, that may be meant by this key. Costs at most three reads of one page.
pub(crate) async fn names(store: &dyn Store, key: &Key) -> Vec<String> {
    let full = full(store, key).await;
    if full.is_empty() { near(store, key).await } else { full }
}

/// The hosts of which this is the beginning, up to a dot.
pub(crate) async fn full(store: &dyn Store, key: &Key) -> Vec<String> {
    if !matches!(key.kind(), Kind::Host(_)) {
        return Vec::new();
    }
    let all = read(store, format!("{key}."), MEANT).await;
    all.iter().map(name).collect()
}

/// Those that differ by a letter or two. Where many begin alike, only the first of them are looked at.
async fn near(store: &dyn Store, key: &Key) -> Vec<String> {
    // Of others nothing would be found among all that is read.
    if !matches!(key.kind(), Kind::Host(_) | Kind::Tag(_)) {
        return Vec::new();
    }
    let Some((area, typed)) = key.as_str().split_once('/') else { return Vec::new() };
    let alike = |one: &Key| match (key.kind(), one.kind()) {
        (Kind::Host(_), Kind::Host(_)) | (Kind::Tag(_), Kind::Tag(_)) => {
            one.as_str().split_once('/').is_some_and(|(_, name)| is_near(typed, name))
        }
        _ => false,
    };
    let half = typed.chars().count() / 2;
    for begins in Some(half).filter(|half| *half > 1).into_iter().chain([1]) {
        let start: String = typed.chars().take(begins).collect();
        let all = read(store, format!("{area}/{start}"), MAX_PAGE).await;
        let found: Vec<String> = all.iter().filter(|one| alike(one)).take(MEANT).map(name).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

async fn read(store: &dyn Store, prefix: String, limit: usize) -> Vec<Key> {
    let page = store.read(&Query { limit, ..Query::new(Range::Prefix(prefix)) }).await;
    page.map(|page| page.rows.into_iter().map(|row| row.key).collect()).unwrap_or_default()
}

/// As people type it.
fn name(key: &Key) -> String {
    key.as_str().strip_prefix("hosts/").unwrap_or(key.as_str()).to_owned()
}

fn is_near(typed: &str, name: &str) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let most = if typed.chars().count() < 5 { 1 } else { 2 };
    let long = typed.chars().count().abs_diff(name.chars().count());
    long <= most && digits(typed) == digits(name) && (1..=most).contains(&distance(typed, name))
}

/// How many letters are missing, too many, other ones, or swapped with their neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        let pairs = [
            ("", "", 0),
            ("", "ab", 2),
            ("web", "web", 0),
            ("wbe", "web", 1),
            ("wb", "web", 1),
            ("webb", "web", 1),
        ];
        for (a, b, far) in
            pairs.into_iter().chain([("web", "wax", 2), ("abcd", "badc", 2), ("amz", "ams", 1)])
        {
            assert_eq!((distance(a, b), distance(b, a)), (far, far), "{a} {b}");
        }
    }

    #[test]
    fn a_slip_is_near_and_another_number_is_not() {
        assert!(is_near("web1.amz.example.com", "web1.ams.example.com"));
        assert!(is_near("wbe", "web") && is_near("exmaple.com", "example.com"));
        assert!(!is_near("web9.example.com", "web1.example.com") && !is_near("web1", "web12"));
        assert!(!is_near("web", "web") && !is_near("web", "wax") && !is_near("none", "example.com"));
    }
}
