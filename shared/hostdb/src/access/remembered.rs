//! Who asked last over a connection, so that the next request need not be looked at anew.
//!
//! What is remembered is good only while nothing was written below `access/` (the index is the very same one), before what was shown ends, and for
//! who shows the same again: a right that was taken away counts for the next request. Of a token its digest is kept, and nothing longer than the
//! connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use shoal_core::access::Index;
use subtle::ConstantTimeEq;

use super::Caller;
use super::caller::Somebody;

/// For how long, where the system was asked for the name of a local user.
const BELIEVED: Duration = Duration::from_secs(60);

/// Of one connection. A clone is another handle of the same.
#[derive(Clone, Default)]
pub(crate) struct Remembered(Arc<Mutex<Option<Entry>>>);

struct Entry {
    /// The digest of the token that was shown, if one was.
    shown: Option<[u8; 32]>,
    /// The rows that they were looked up in. They are not kept for it: there may be many connections.
    index: Weak<Index>,
    of: Arc<Somebody>,
    since: Instant,
}

/// What is compared of what is shown.
pub(super) fn digest(token: Option<&str>) -> Option<[u8; 32]> {
    token.map(|token| Sha256::digest(token.as_bytes()).into())
}

impl Remembered {
    /// Who shows this, if it is known and still so at `now`.
    pub(super) fn find(
        &self,
        shown: Option<&[u8; 32]>,
        index: &Arc<Index>,
        now: Timestamp,
    ) -> Option<Caller> {
        let entry = self.entry();
        let Entry { shown: had, index: of_index, of, since } = entry.as_ref()?;
        let same = match (had, shown) {
            (None, None) => true,
            (Some(had), Some(shown)) => bool::from(had.ct_eq(shown)),
            _ => false,
        };
        let good = same
            // While it is referred to, nothing else is at its place.
            && std::ptr::eq(of_index.as_ptr(), Arc::as_ptr(index))
            && of.until.is_none_or(|until| now < until)
            && since.elapsed() < BELIEVED;
        good.then(|| Caller { index: index.clone(), of: of.clone() })
    }

    /// Remembers who showed this.
    pub(super) fn keep(&self, shown: Option<[u8; 32]>, caller: &Caller) {
        let (index, of) = (Arc::downgrade(&caller.index), caller.of.clone());
        *self.entry() = Some(Entry { shown, index, of, since: Instant::now() });
    }

    fn entry(&self) -> MutexGuard<'_, Option<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remembered")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_core::access::Principal;

    fn caller(index: &Arc<Index>, until: Option<Timestamp>) -> Caller {
        let unasked = Caller::unasked(None);
        let of = Somebody { who: Principal::person("ann"), until, asked: true, ..(*unasked.of).clone() };
        Caller { index: index.clone(), of: Arc::new(of) }
    }

    #[test]
    fn only_the_same_token_and_the_same_rows_are_remembered() {
        let now = Timestamp::now();
        let (index, remembered) = (Arc::new(Index::default()), Remembered::default());
        let (a, b) = (digest(Some("a")), digest(Some("b")));
        assert!(remembered.find(None, &index, now).is_none());
        remembered.keep(a, &caller(&index, None));
        assert_eq!(remembered.find(a.as_ref(), &index, now).unwrap().who.name, "ann");
        assert!(
            remembered.find(b.as_ref(), &index, now).is_none()
                && remembered.find(None, &index, now).is_none()
        );
        // Another index that says the same is another one.
        assert!(remembered.find(a.as_ref(), &Arc::new(Index::default()), now).is_none());
        let past = now - Duration::from_secs(1);
        remembered.keep(a, &caller(&index, Some(past)));
        assert!(remembered.find(a.as_ref(), &index, now).is_none());
        remembered.keep(None, &caller(&index, None));
        assert!(
            remembered.find(None, &index, now).is_some()
                && remembered.find(a.as_ref(), &index, now).is_none()
        );
    }
}
