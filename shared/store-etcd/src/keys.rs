//! The names of all keys in etcd. What stands at each, and why, is in `docs/decisions/0009-etcd-store.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_core::{Key, Revision};

/// A range of etcd's keys: from the first to before the second.
pub(crate) type Span = (Vec<u8>, Vec<u8>);

/// The keys of one database, and what its fencing numbers count from.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    head: &'static str,
    base: Arc<AtomicU64>,
}

impl Keys {
    /// The keys of the database of this name.
    pub(crate) fn new(name: &str) -> Self {
        Self { prefix: format!("{name}/"), head: "log", base: Arc::default() }
    }

    /// The same of one that is being made from another: its identity stands where nobody takes it for a database's.
    pub(crate) fn of_draft(name: &str) -> Self {
        Self { head: "draft", ..Self::new(name) }
    }

    /// Fencing numbers count from here from now on, if not from higher up: it rises with every other life of the database, also while
    /// this process goes on.
    pub(crate) fn count_from(&self, base: u64) {
        self.base.fetch_max(base, Ordering::SeqCst);
    }

    /// What the fencing numbers count from: each is this and etcd's revision that made the claim.
    pub(crate) fn base(&self) -> u64 {
        self.base.load(Ordering::SeqCst)
    }

    fn at(&self, rest: std::fmt::Arguments<'_>) -> Vec<u8> {
        format!("{}{rest}", self.prefix).into_bytes()
    }

    /// All that stands under the name.
    pub(crate) fn all(&self) -> Span {
        let from = self.at(format_args!(""));
        (from.clone(), end_of(from))
    }

    /// The database's identity and newest revision. Every commit is conditional on it.
    pub(crate) fn head(&self) -> Vec<u8> {
        self.at(format_args!("{}", self.head))
    }

    /// A commit.
    pub(crate) fn entry(&self, revision: Revision) -> Vec<u8> {
        self.at(format_args!("log/{:016x}", revision.0))
    }

    /// The revision in the name of a commit.
    pub(crate) fn of_entry(&self, name: &[u8]) -> Option<Revision> {
        let number = std::str::from_utf8(name.get(self.prefix.len() + 4..)?).ok()?;
        u64::from_str_radix(number, 16).ok().map(Revision)
    }

    /// The commits in `from..to`.
    pub(crate) fn entries(&self, from: Revision, to: Revision) -> Span {
        (self.entry(from), self.entry(to))
    }

    /// The head and all commits: what watchers listen to.
    pub(crate) fn news(&self) -> Span {
        (self.head(), end_of(self.at(format_args!("log/"))))
    }

    /// What stands at a key now.
    pub(crate) fn row(&self, key: &str) -> Vec<u8> {
        self.at(format_args!("row/{key}"))
    }

    /// The rows whose keys start so.
    pub(crate) fn rows(&self, prefix: &str) -> Span {
        let from = self.row(prefix);
        (from.clone(), end_of(from))
    }

    /// The key of a row's name in etcd.
    pub(crate) fn of_row<'a>(&self, name: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(name.get(self.prefix.len() + 4..)?).ok()
    }

    /// That a revision wrote a key.
    pub(crate) fn version(&self, key: &Key, revision: Revision) -> Vec<u8> {
        self.at(format_args!("version/{key}\0{:016x}", newest_first(revision)))
    }

    /// The versions of a key up to `revision`, the newest first.
    pub(crate) fn versions(&self, key: &Key, revision: Revision) -> Span {
        (self.version(key, revision), self.at(format_args!("version/{key}\u{1}")))
    }

    /// That a member row names a member.
    pub(crate) fn naming(&self, member: &str, key: &str) -> Vec<u8> {
        self.at(format_args!("naming/{member}\0{key}"))
    }

    /// The member rows that name a member.
    pub(crate) fn all_naming(&self, member: &str) -> Span {
        let from = self.naming(member, "");
        (from.clone(), end_of(from))
    }

    /// That a revision wrote in a scope.
    pub(crate) fn scope(&self, scope: &str, revision: Revision) -> Vec<u8> {
        self.at(format_args!("scope/{scope}\0{:016x}", newest_first(revision)))
    }

    /// The newest revision that wrote in a scope.
    pub(crate) fn last(&self, scope: &str) -> Vec<u8> {
        self.at(format_args!("last/{scope}"))
    }

    /// A part of what is too large for one request.
    pub(crate) fn part(&self, id: &str, n: usize) -> Vec<u8> {
        self.at(format_args!("part/{id}/{n:08x}"))
    }

    /// All parts of it.
    pub(crate) fn parts(&self, id: &str) -> Span {
        let from = self.at(format_args!("part/{id}/"));
        (from.clone(), end_of(from))
    }

    /// That parts are being laid down, which nothing points to yet.
    pub(crate) fn stage(&self, id: &str) -> Vec<u8> {
        self.at(format_args!("stage/{id}"))
    }

    /// The id in the name of such a key.
    pub(crate) fn of_stage(&self, name: &[u8]) -> Option<String> {
        String::from_utf8(name.get(self.prefix.len() + 6..)?.to_owned()).ok()
    }

    /// That who lays them down, or carries them out, lives.
    pub(crate) fn alive(&self, id: &str) -> Vec<u8> {
        self.at(format_args!("alive/{id}"))
    }

    /// Who lives of those.
    pub(crate) fn all_alive(&self) -> Span {
        let from = self.alive("");
        (from.clone(), end_of(from))
    }

    /// That a large commit waits for its turn to be decided.
    pub(crate) fn turn(&self) -> Vec<u8> {
        self.at(format_args!("turn"))
    }

    /// Commits that may be done by whoever commits.
    pub(crate) fn queued(&self, id: &str) -> Vec<u8> {
        self.at(format_args!("queue/{id}"))
    }

    /// All of those.
    pub(crate) fn queue(&self) -> Span {
        let from = self.queued("");
        (from.clone(), end_of(from))
    }

    /// The id in the name of such a key.
    pub(crate) fn of_queue(&self, name: &[u8]) -> Option<String> {
        String::from_utf8(name.get(self.prefix.len() + 6..)?.to_owned()).ok()
    }

    /// What became of them.
    pub(crate) fn answer(&self, id: &str) -> Vec<u8> {
        self.at(format_args!("answer/{id}"))
    }

    /// The commit in parts that was decided and is not carried out yet.
    pub(crate) fn applying_commit(&self) -> Vec<u8> {
        self.at(format_args!("applying/commit"))
    }

    /// The same for the ledger.
    pub(crate) fn applying_ledger(&self) -> Vec<u8> {
        self.at(format_args!("applying/ledger"))
    }

    /// Both.
    pub(crate) fn applying(&self) -> Span {
        let from = self.at(format_args!("applying/"));
        (from.clone(), end_of(from))
    }

    /// What an idempotency key was used for.
    pub(crate) fn done(&self, key: &str) -> Vec<u8> {
        self.at(format_args!("done/{key}"))
    }

    /// The `n`th idempotency key.
    pub(crate) fn order(&self, n: u64) -> Vec<u8> {
        self.at(format_args!("order/{n:016x}"))
    }

    /// The idempotency keys after the `n`th, in their order.
    pub(crate) fn orders(&self, n: u64) -> Span {
        (self.order(n.saturating_add(1)), end_of(self.at(format_args!("order/"))))
    }

    /// What stands beside the history: idempotency keys, the ledger, claims.
    pub(crate) fn beside(&self) -> [Span; 4] {
        ["done/", "order/", "ledger/", "claim/"].map(|kind| {
            let from = self.at(format_args!("{kind}"));
            (from.clone(), end_of(from))
        })
    }

    /// A place of a claim.
    pub(crate) fn claim(&self, name: &str, slot: u32) -> Vec<u8> {
        self.at(format_args!("claim/{name}\0{slot:08x}"))
    }

    /// All places of a claim, and perhaps those of claims with a NUL in their names.
    pub(crate) fn places(&self, name: &str) -> Span {
        let from = self.at(format_args!("claim/{name}\0"));
        (from.clone(), end_of(from))
    }

    /// The claims whose names start so.
    pub(crate) fn claims(&self, prefix: &str) -> Span {
        let from = self.at(format_args!("claim/{prefix}"));
        (from.clone(), end_of(from))
    }

    /// Name and slot in the name of a claim's key.
    pub(crate) fn of_claim(&self, name: &[u8]) -> Option<(String, u32)> {
        let text = std::str::from_utf8(name.get(self.prefix.len() + 6..)?).ok()?;
        let (name, slot) = text.rsplit_once('\0')?;
        Some((name.to_owned(), u32::from_str_radix(slot, 16).ok()?))
    }

    /// A row of the ledger.
    pub(crate) fn ledger(&self, key: &str) -> Vec<u8> {
        self.at(format_args!("ledger/{key}"))
    }

    /// The key in its name.
    pub(crate) fn of_ledger(&self, name: &[u8]) -> Option<String> {
        String::from_utf8(name.get(self.prefix.len() + 7..)?.to_owned()).ok()
    }

    /// What an instance of an agent last said of itself.
    pub(crate) fn report(&self, agent: &str, instance: &str) -> Vec<u8> {
        self.at(format_args!("report/{agent}\0{instance}"))
    }

    /// The reports of an agent, or of all.
    pub(crate) fn reports(&self, agent: Option<&str>) -> Span {
        let from = match agent {
            Some(agent) => self.report(agent, ""),
            None => self.at(format_args!("report/")),
        };
        (from.clone(), end_of(from))
    }
}

/// Etcd sorts backwards only by reading all there is: so what is wanted newest first is named that way.
fn newest_first(revision: Revision) -> u64 {
    u64::MAX - revision.0
}

/// The revision in the last part of such a name.
pub(crate) fn revision_of(name: &[u8]) -> Option<Revision> {
    let at = name.len().checked_sub(16)?;
    let number = u64::from_str_radix(std::str::from_utf8(&name[at..]).ok()?, 16).ok()?;
    Some(Revision(u64::MAX - number))
}

/// The end of all that starts so.
pub(crate) fn end_of(mut prefix: Vec<u8>) -> Vec<u8> {
    // Every prefix starts with a name in ASCII, so there is something to raise.
    while prefix.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first_and_is_read_back() {
        let keys = Keys::new("x");
        let key: Key = "dns/a".parse().unwrap();
        let names: Vec<_> = [9, 8, 1, 0].map(|n| keys.version(&key, Revision(n))).into();
        assert!(names.is_sorted());
        assert_eq!(revision_of(&names[0]), Some(Revision(9)));
        let (from, to) = keys.versions(&key, Revision(8));
        assert!(names[0] < from && from == names[1] && names[3] < to);
        let longer = keys.version(&"dns/a/members/b".parse().unwrap(), Revision(1));
        assert!(longer >= to, "versions of a longer key stand apart");
    }

    #[test]
    fn names_are_read_back() {
        let keys = Keys::new("x");
        assert_eq!(keys.of_claim(&keys.claim("unit/a\0b", 17)), Some(("unit/a\0b".into(), 17)));
        assert_eq!(keys.of_row(&keys.row("dns/a")), Some("dns/a"));
        assert_eq!(keys.of_ledger(&keys.ledger("dns/a/0")).as_deref(), Some("dns/a/0"));
        assert_eq!(keys.of_stage(&keys.stage("id")).as_deref(), Some("id"));
        assert_eq!(keys.of_queue(&keys.queued("id")).as_deref(), Some("id"));
        assert_eq!(keys.of_entry(&keys.entry(Revision(4711))), Some(Revision(4711)));
        assert_eq!(end_of(vec![b'a', 0xff]), vec![b'b']);
    }
}
