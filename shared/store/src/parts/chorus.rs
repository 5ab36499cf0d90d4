//! One question for all who ask it at once.
//!
//! Who asks is answered by a question that was put after they asked, never by one that was under way already: what that found may be
//! older than what they know of. So of any number who ask at once the first puts the question, and those who came meanwhile share the
//! next one. An error is shared as well: they do not wait one after the other for somebody who does not answer.
//!
//! A question outlives who put it: it runs as a task of its own, so that it is answered, or fails and tells the store that somebody is silent, also
//! where nobody waits for it so long, and those who came later are not held up by one that begins anew with each of them. So it must end by itself; in etcd that is
//! after some 15 to 20 s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::{Result, StoreError};

/// A question that many ask, and what the last answer was.
#[derive(Debug)]
pub struct Chorus<T> {
    /// How often it was put.
    put: AtomicU64,
    /// Held while it is being answered.
    last: Arc<Mutex<Last<T>>>,
}

/// Which question it was, and what came of it.
type Last<T> = Option<(u64, Result<T>)>;

impl<T> Default for Chorus<T> {
    fn default() -> Self {
        Self { put: AtomicU64::new(0), last: Arc::new(Mutex::new(None)) }
    }
}

impl<T: Clone + Send + 'static> Chorus<T> {
    /// What `question` answers, asked by this caller or by somebody else after this was called. Costs at most two questions' time, and a
    /// task for each that is put; needs a tokio runtime.
    ///
    /// # Errors
    /// What the question answers; [`StoreError::Unavailable`] where it ended without an answer.
    pub async fn ask<F>(&self, question: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let before = self.put.load(Ordering::SeqCst);
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((number, answer)) = &*last
            && *number > before
        {
            return answer.clone();
        }
        let number = self.put.fetch_add(1, Ordering::SeqCst) + 1;
        let question = question();
        let put = tokio::spawn(async move {
            let answer = question.await;
            *last = Some((number, answer.clone()));
            answer
        });
        put.await.unwrap_or_else(|error| {
            let why = format!("a question to it ended without an answer: {error}; ask again");
            Err(StoreError::Unavailable { place: "the store".into(), why })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    /// How often something was asked.
    type Count = Arc<AtomicU64>;

    /// Answers how often it was asked, after a while.
    fn counts(count: &Count) -> impl Future<Output = Result<u64>> + Send + use<> {
        let count = Arc::clone(count);
        async move {
            let n = count.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(n)
        }
    }

    /// Fails, after ten seconds.
    fn fails(count: &Count) -> impl Future<Output = Result<u64>> + Send + use<> {
        let count = Arc::clone(count);
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(10)).await;
            Err(slow())
        }
    }

    fn slow() -> StoreError {
        StoreError::Unavailable { place: "x".into(), why: "it is slow".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_once_shares_a_question_that_was_put_after_they_asked() {
        let (chorus, count) = (Chorus::default(), Count::default());
        let all = join_all((0..100).map(|_| chorus.ask(|| counts(&count)))).await;
        // All of them asked before the first was put: one is enough, and a second at most.
        assert!(all.iter().all(Result::is_ok));
        assert!(count.load(Ordering::SeqCst) <= 2, "{count:?}");
        // While one is under way, who comes is answered by the next.
        let late = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            join_all((0..100).map(|_| chorus.ask(|| counts(&count)))).await
        };
        let (first, late) = tokio::join!(chorus.ask(|| counts(&count)), late);
        let first = first.unwrap();
        assert!(late.iter().all(|n| *n.as_ref().unwrap() == first + 1), "{first}: {late:?}");
        // And who comes later asks anew.
        assert_eq!(chorus.ask(|| counts(&count)).await.unwrap(), first + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_shared() {
        let (chorus, count) = (Chorus::default(), Count::default());
        let begun = tokio::time::Instant::now();
        let all = join_all((0..50).map(|_| chorus.ask(|| fails(&count)))).await;
        assert!(all.iter().all(|answer| *answer == Err(slow())));
        assert!(begun.elapsed() <= Duration::from_secs(21), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_question_to_the_others() {
        let (chorus, count) = (Chorus::default(), Count::default());
        let second = Duration::from_secs(1);
        for _ in 0..5 {
            let gives_up = tokio::time::timeout(second, chorus.ask(|| fails(&count))).await;
            assert!(gives_up.is_err());
        }
        // It is still the first one, and comes to its end without anybody.
        assert_eq!(count.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(chorus.ask(|| async { Ok(7) }).await, Ok(7));
    }

    #[tokio::test]
    async fn one_that_breaks_is_an_error_and_not_the_last() {
        let chorus = Chorus::<u64>::default();
        let breaks = chorus.ask(|| poll_fn(|_| -> Poll<Result<u64>> { panic!("it breaks") })).await;
        assert!(matches!(breaks, Err(StoreError::Unavailable { .. })), "{breaks:?}");
        assert_eq!(chorus.ask(|| async { Ok(7) }).await, Ok(7));
    }
}
