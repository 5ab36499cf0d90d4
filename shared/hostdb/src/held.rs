//! The memory of large answers: what a client reads slowly stays here until it has.
//!
//! An answer of more than 1 MiB takes as much of [`Limits::answers`](crate::Limits::answers) as it is large, and gives it back when it
//! is sent, or nobody reads it any more. Where there is no room, a few wait for it for a moment, and the others are told to try again. One peer
//! has no more than half of it, or one answer, and who reads more slowly than so many octets a second is cut off: else a few slow readers would
//! keep large answers from everybody. Smaller answers are bounded by the number of connections; those that are worked out from much have
//! a place, of which there are [`Few`], and are held to the same: half of the places for one peer, and no slow reading.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

/// Up to so many octets an answer is small; also the unit of what there is.
const UNIT: usize = 1 << 20;
/// Octets that are handed over at a time: what is handed over counts no more.
const CHUNK: usize = 64 << 10;
/// How many answers wait for room, and for how long.
const WAITING: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long any answer may be read, beyond what is given to slow ones.
const WHOLE: Duration = Duration::from_secs(600);

/// The room for large answers of one server.
#[derive(Debug)]
pub(crate) struct Room {
    units: usize,
    left: Arc<Semaphore>,
    waiting: Semaphore,
    shares: Shares,
    pace: Pace,
}

/// How slowly a large answer may be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Octets in a second, at least.
    pub(crate) least: usize,
    /// What is given beyond that.
    pub(crate) grace: Duration,
}

impl Pace {
    /// The pace of an answer of so many octets: the larger it is the less it may be in the way, so it is read in ten minutes.
    fn of(self, octets: usize) -> Self {
        Self { least: self.least.max(octets / usize::try_from(WHOLE.as_secs()).unwrap_or(1)), ..self }
    }

    /// How long an answer may take of which so many octets were read.
    fn allows(self, sent: usize) -> Duration {
        self.grace + Duration::from_secs((sent / self.least.max(1)) as u64)
    }
}

/// Places for answers that are worked out from much.
#[derive(Debug)]
pub(crate) struct Few {
    places: usize,
    left: Arc<Semaphore>,
    shares: Shares,
    pace: Pace,
}

/// A place, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    _one: OwnedSemaphorePermit,
    _share: Share,
    pace: Pace,
}

impl Few {
    /// So many places, for answers that are read at this pace at least.
    pub(crate) fn new(places: usize, pace: Pace) -> Self {
        Self { places, left: Arc::new(Semaphore::new(places)), shares: Shares::default(), pace }
    }

    /// A place, if there is one for this peer: it has half of them, or one.
    pub(crate) fn take(&self, peer: String) -> Option<Place> {
        let share = Share::take(&self.shares, peer, 1, self.places / 2)?;
        let one = self.left.clone().try_acquire_owned().ok()?;
        Some(Place { _one: one, _share: share, pace: self.pace })
    }
}

impl Place {
    /// A body that keeps its place until it is sent, or nobody reads it any more. `cut` ends the connection: it is read too slowly.
    pub(crate) fn keeping(self, body: Body, cut: CancellationToken) -> Body {
        let octets = body.size_hint().exact().and_then(|octets| usize::try_from(octets).ok());
        let pace = self.pace.of(octets.unwrap_or(0));
        Held::body(body, Clock::start(pace, cut), self)
    }
}

/// Units that peers have.
type Shares = Arc<Mutex<HashMap<String, usize>>>;

/// What a peer has of the room, for as long as this lives.
#[derive(Debug)]
struct Share {
    shares: Shares,
    peer: String,
    units: usize,
}

impl Share {
    /// So many units for a peer; nothing, where it had more than `most` then, and has any.
    fn take(shares: &Shares, peer: String, units: usize, most: usize) -> Option<Self> {
        let mut all = shares.lock().unwrap_or_else(PoisonError::into_inner);
        let has = all.get(&peer).copied().unwrap_or(0);
        if has > 0 && has + units > most {
            return None;
        }
        all.insert(peer.clone(), has + units);
        Some(Self { shares: shares.clone(), peer, units })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let left = all.get(&self.peer).map_or(0, |has| has.saturating_sub(self.units));
        match left {
            0 => all.remove(&self.peer),
            left => all.insert(self.peer.clone(), left),
        };
    }
}

/// What an answer takes.
#[derive(Debug)]
pub(crate) struct Taken {
    _units: OwnedSemaphorePermit,
    _share: Share,
    pace: Pace,
}

impl Room {
    /// Room for so many octets, at least for one answer, which is read at this pace at least.
    pub(crate) fn new(octets: usize, pace: Pace) -> Self {
        let units = (octets / UNIT).clamp(1, 1 << 20);
        let left = Arc::new(Semaphore::new(units));
        Self { units, left, waiting: Semaphore::new(WAITING), shares: Shares::default(), pace }
    }

    /// What an answer takes that is so large, until it is sent; `None`: it is small, or comes bit by bit.
    ///
    /// # Errors
    /// There is no room, or none for this peer.
    pub(crate) async fn take(
        &self,
        octets: Option<u64>,
        peer: impl FnOnce() -> String,
    ) -> Result<Option<Taken>, Problem> {
        let octets = octets.and_then(|octets| usize::try_from(octets).ok());
        let Some(octets) = octets.filter(|octets| *octets > UNIT) else { return Ok(None) };
        let (units, pace) = (octets.div_ceil(UNIT).min(self.units), self.pace.of(octets));
        let busy = || Problem::busy("too many large answers are being read: try again");
        let share = Share::take(&self.shares, peer(), units, self.units / 2).ok_or_else(busy)?;
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        if let Ok(taken) = self.left.clone().try_acquire_many_owned(units) {
            return Ok(Some(Taken { _units: taken, _share: share, pace }));
        }
        // Who waits has its answer in the memory, too.
        let _place = self.waiting.try_acquire().map_err(|_| busy())?;
        match tokio::time::timeout(PATIENCE, self.left.clone().acquire_many_owned(units)).await {
            Ok(Ok(taken)) => Ok(Some(Taken { _units: taken, _share: share, pace })),
            _ => Err(busy()),
        }
    }

    /// An answer whose body keeps what it took; the refusal instead of it, where there was no room. `cut` ends the connection: the answer
    /// is read too slowly.
    pub(crate) fn kept(
        answer: Response,
        taken: Result<Option<Taken>, Problem>,
        cut: CancellationToken,
    ) -> Response {
        match taken {
            Ok(None) => answer,
            Ok(Some(taken)) => answer.map(|body| Held::body(body, Clock::start(taken.pace, cut), taken)),
            Err(problem) => problem.into_response(),
        }
    }
}

/// Ends the connection of an answer that is read too slowly. It has a time of its own: for as long as the buffers of the kernel have
/// octets for somebody who takes a few now and then, nothing more is handed over, and nobody would look.
#[derive(Debug)]
struct Clock {
    /// Octets that were handed over.
    sent: Arc<AtomicUsize>,
    running: AbortHandle,
}

impl Clock {
    fn start(pace: Pace, cut: CancellationToken) -> Self {
        let sent = Arc::new(AtomicUsize::new(0));
        let (begun, seen) = (Instant::now(), sent.clone());
        let running = tokio::spawn(async move {
            let mut until = pace.allows(0);
            while begun.elapsed() < until {
                tokio::time::sleep_until(begun + until).await;
                until = pace.allows(seen.load(Ordering::Relaxed));
            }
            cut.cancel();
        });
        Self { sent, running: running.abort_handle() }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A body that is handed over chunk by chunk, as it is read at the other end, and keeps something until then.
struct Held<K> {
    body: Body,
    /// What came of the body and was not handed over yet.
    rest: Bytes,
    clock: Clock,
    _kept: K,
}

impl<K: Send + Unpin + 'static> Held<K> {
    fn body(body: Body, clock: Clock, kept: K) -> Body {
        Body::new(Self { body, rest: Bytes::new(), clock, _kept: kept })
    }
}

impl<K: Unpin> HttpBody for Held<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let next = self.rest.len().min(CHUNK);
        self.clock.sent.fetch_add(next, Ordering::Relaxed);
        // A copy: a part of it would keep all of it.
        let chunk = Bytes::copy_from_slice(&self.rest.split_to(next));
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of) = (self.rest.len() as u64, self.body.size_hint());
        match of.exact() {
            Some(octets) => SizeHint::with_exact(octets + rest),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { least: 64 << 10, grace: Duration::from_secs(30) };

    #[tokio::test]
    async fn one_peer_keeps_large_answers_from_nobody_else() {
        let room = Room::new(20 * UNIT, PACE);
        let take = |octets: usize, peer: &'static str| room.take(Some(octets as u64), || peer.to_owned());
        assert!(take(UNIT, "a").await.unwrap().is_none());
        let mut held = vec![take(6 * UNIT, "a").await.unwrap().unwrap()];
        assert!(take(5 * UNIT, "a").await.is_err());
        held.push(take(4 * UNIT, "a").await.unwrap().unwrap());
        assert!(take(2 * UNIT, "a").await.is_err());
        let other = take(10 * UNIT, "b").await.unwrap();
        assert!(other.is_some());
        drop((held, other));
        assert!(room.shares.lock().unwrap().is_empty());
        // One that is larger than a share is answered where its peer has no other.
        assert!(take(100 * UNIT, "a").await.unwrap().is_some());
    }

    #[test]
    fn one_peer_has_half_of_the_places() {
        let few = Few::new(4, PACE);
        let mut held = vec![few.take("a".to_owned()).unwrap(), few.take("a".to_owned()).unwrap()];
        assert!(few.take("a".to_owned()).is_none());
        held.extend([few.take("b".to_owned()).unwrap(), few.take("c".to_owned()).unwrap()]);
        assert!(few.take("d".to_owned()).is_none());
        drop(held);
        assert!(few.take("a".to_owned()).is_some() && few.shares.lock().unwrap().is_empty());
    }

    #[test]
    fn who_reads_a_little_now_and_then_is_given_little_time() {
        // 64 KiB every 29 s, as somebody would who wants to keep it for long.
        assert!(
            PACE.allows(0) == Duration::from_secs(30) && PACE.allows(2 * CHUNK) < Duration::from_secs(58)
        );
        // A slow line is none: 16 MiB at 64 KiB a second.
        assert!(PACE.allows(16 << 20) > Duration::from_secs(256));
    }

    #[test]
    fn the_largest_answer_is_read_in_ten_minutes() {
        let (small, large) = (PACE.of(16 << 20), PACE.of(256 << 20));
        assert_eq!(small.least, PACE.least);
        assert!(large.allows(200 << 20) > Duration::from_secs(400));
        assert!(large.allows(100 << 20) < Duration::from_secs(400));
        assert!(large.allows(256 << 20) < Duration::from_secs(640));
    }

    /// Also where nothing more is handed over, and nothing is cut that is read fast enough or ended.
    #[tokio::test(start_paused = true)]
    async fn the_time_goes_by_itself() {
        let [slow, fast, ended] = std::array::from_fn(|_| CancellationToken::new());
        let clocks = [Clock::start(PACE, slow.clone()), Clock::start(PACE, fast.clone())];
        drop(Clock::start(PACE, ended.clone()));
        clocks[1].sent.store(PACE.least * 60, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert!(!slow.is_cancelled());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(slow.is_cancelled() && !fast.is_cancelled());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(fast.is_cancelled() && !ended.is_cancelled());
    }
}
