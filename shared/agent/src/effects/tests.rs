//! A write whose answer is lost can come late, and must then change nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use shoal_store::{Fut, MemoryStore, Result as Stored};

use super::*;
use crate::clock::Wall;
use crate::drive::tests::{Nobody, Nothing};

/// Loses the first writes to the ledger: they are still on their way.
struct Slow {
    store: MemoryStore,
    lose: AtomicUsize,
    late: Mutex<Vec<(Vec<LedgerWrite>, Claim)>>,
    /// Never answers a lost write, rather than with an error.
    silent: bool,
}

impl Store for Slow {
    fn write_ledger(&self, rows: Vec<LedgerWrite>, held: &Claim) -> Fut<'_, Stored<()>> {
        let lose = |n: usize| n.checked_sub(1);
        if self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_err() {
            return self.store.write_ledger(rows, held);
        }
        self.late.lock().unwrap().push((rows, held.clone()));
        if self.silent {
            return Box::pin(std::future::pending());
        }
        let lost = StoreError::Unavailable { place: "the server".into(), why: "it was cut off".into() };
        Box::pin(async { Err(lost) })
    }

    shoal_store::forward!(store: head, read, commit, log, watch, claim, release, claims, ledger, report, reports);
}

type Act = shoal_engine::Act<Nobody>;

async fn carry_out(hands: &Arc<Hands<Nothing>>, act: Act) -> Answer<Nobody> {
    hands.clone().carry_out(Effect { id: 1, act }).await.1
}

async fn claim(hands: &Arc<Hands<Nothing>>) -> u64 {
    let answer = carry_out(hands, Act::Claim { unit: "a".into(), ttl: 60_000 }).await;
    let Answer::Claim(Claimed::Held { number, .. }) = answer else { panic!("nobody else asks") };
    number
}

fn write(number: u64, text: &str) -> Act {
    let row = LedgerRow { key: "nobody/a/0".into(), value: Some(text.as_bytes().to_vec()) };
    Act::WriteLedger { unit: "a".into(), number, rows: vec![row] }
}

#[tokio::test]
async fn a_late_write_never_overwrites_what_came_after_it() {
    for silent in [false, true] {
        let (store, lose, late) = (MemoryStore::new(), AtomicUsize::new(1), Mutex::default());
        let store = Arc::new(Slow { store, lose, late, silent });
        let limit = Duration::from_millis(50);
        let hands =
            Hands::new("nobody".into(), "i".into(), store.clone(), Nothing, Arc::new(Wall::new()), limit);
        let hands = Arc::new(hands);
        let first = claim(&hands).await;
        let answer = carry_out(&hands, write(first, "old")).await;
        if silent {
            // Nobody waited for the answer: that the claim goes is seen when it is used again.
            assert!(matches!(answer, Answer::Fault(_)));
            let again = carry_out(&hands, write(first, "old")).await;
            assert!(matches!(again, Answer::Fenced));
        } else {
            assert!(matches!(answer, Answer::Fenced));
        }
        let second = claim(&hands).await;
        assert!(second > first);
        assert!(matches!(carry_out(&hands, write(second, "new")).await, Answer::Done));
        let (rows, held) = store.late.lock().unwrap().pop().unwrap();
        let came = store.store.write_ledger(rows, &held).await;
        assert!(matches!(came, Err(StoreError::Fenced { .. })), "{came:?}");
        let page = store.ledger("", None, 9).await.unwrap();
        assert_eq!(page.rows, [("nobody/a/0".to_owned(), b"new".to_vec())]);
    }
}
