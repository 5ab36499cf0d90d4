//! Watches that survive their connections.
//!
//! A watch knows its position: the last commit, or how far it was told that nothing is missing. When its connection
//! breaks, or nothing comes for so long that it must be dead, it waits a random part of what the server asked for and goes on after
//! that position, at this server or the next. Whether anything happened in between is for the database to say.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use serde::{Deserialize, Serialize};
use shoal_core::{LogEntry, Range, Revision};
use shoal_store::{Feed, Filter, Flow, Head, Position, Result, StoreError};
use tokio::time::Instant;

use crate::answer::{Loss, Problem, Response, Trouble, piece, root};
use crate::events::{Event, Events};
use crate::link::{Again, Call, Link, Pauses};

const WHAT: &str = "watch";
/// The longest that a server can make its clients wait before they come back.
const WIDEST: Duration = Duration::from_secs(10);

/// Every commit after `after` that passes the filter.
pub(crate) fn watch(link: Arc<Link>, filter: Filter, after: Position) -> Flow<Result<Feed>> {
    let watch = Watch {
        lost: Lost::none(&link),
        link,
        filter,
        position: after,
        upto: None,
        open: None,
        ended: false,
    };
    Box::pin(stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) }))
}

struct Watch {
    link: Arc<Link>,
    filter: Filter,
    position: Position,
    /// What was last said to be without gaps.
    upto: Option<Revision>,
    open: Option<Open>,
    lost: Lost,
    ended: bool,
}

/// One connection.
struct Open {
    at: usize,
    response: Response,
    events: Events,
}

/// What happened since the last message.
struct Lost {
    since: Option<Instant>,
    pauses: Pauses,
    /// Within how long the server asked its clients to come back; it takes that much more patience.
    window: Duration,
}

impl Lost {
    fn none(link: &Link) -> Self {
        Self { since: None, pauses: Pauses::new(link.options.pauses), window: Duration::ZERO }
    }
}

#[derive(Serialize)]
struct WireWatch<'a> {
    ranges: &'a [Range],
    progress_ms: u64,
    after: Position,
}

#[derive(Deserialize)]
struct WireUpto {
    revision: Revision,
}

impl Watch {
    /// The next message; after an error, nothing.
    async fn next(&mut self) -> Option<Result<Feed>> {
        while !self.ended {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(feed)) => return Some(Ok(feed)),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Connects, or takes what comes. `None`: nothing to tell yet.
    async fn step(&mut self) -> Result<Option<Feed>> {
        let Some(open) = &mut self.open else { return self.connect().await.map(|()| None) };
        let at = open.at;
        let next = tokio::select! {
            next = open.next(self.link.options.heartbeat) => next,
            () = self.link.is_hung(at) => Err("it answers nothing any more".to_owned()),
        };
        match next {
            Ok(event) => self.take(event).await,
            Err(why) => self.again(why).await.map(|()| None),
        }
    }

    /// Leaves the connection, and waits before the next one.
    async fn again(&mut self, why: String) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if let Some(window) = open.events.retry.map(|window| window.min(WIDEST)) {
            // The server knows how many are to come back to it, and that takes them so much longer.
            let (first, most) = self.link.options.pauses;
            self.lost.pauses = Pauses::new((window.max(first), most.max(window)));
            self.lost.window = window;
        }
        self.pause(open.at, Loss { why, sent: false, after: None }).await
    }

    async fn connect(&mut self) -> Result<()> {
        let progress_ms = u64::try_from(self.filter.progress.as_millis()).unwrap_or(u64::MAX);
        let wish = WireWatch { ranges: &self.filter.ranges, progress_ms, after: self.position };
        let call = Call::post(WHAT, "/store/watch", &wish, Again::Always)?;
        let (at, answer) = self.link.open(&call).await;
        match answer {
            Ok(response) => {
                self.open = Some(Open { at, response, events: Events::new(self.link.options.largest) });
                Ok(())
            }
            Err(Trouble::Said(error) | Trouble::Elsewhere(error)) => Err(error),
            Err(Trouble::Lost(loss)) => self.pause(at, loss).await,
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn pause(&mut self, at: usize, loss: Loss) -> Result<()> {
        self.link.pass_over(at);
        let since = *self.lost.since.get_or_insert_with(Instant::now);
        let wait = loss.after.unwrap_or_default() + self.lost.pauses.next();
        tracing::debug!(server = at, ?wait, "a watch broke: {}", loss.why);
        if !self.link.met() || since.elapsed() + wait > self.link.options.patience + self.lost.window {
            return Err(self.link.dead(WHAT, &[(at, loss.why)]));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn take(&mut self, event: Event) -> Result<Option<Feed>> {
        let unreadable = |e: serde_json::Error| StoreError::Unavailable {
            place: "the server".to_owned(),
            why: format!(
                "cannot {WHAT}: its event {:?} cannot be read ({e}); are server and program of one version?",
                event.name
            ),
        };
        let feed = match event.name.as_str() {
            "commit" => {
                let entry: LogEntry = serde_json::from_str(&event.data).map_err(unreadable)?;
                let new = entry.info.revision > self.position.revision;
                self.position.revision = self.position.revision.max(entry.info.revision);
                new.then(|| Feed::Commit(Arc::new(entry)))
            }
            "upto" => {
                let WireUpto { revision } = serde_json::from_str(&event.data).map_err(unreadable)?;
                // A new connection says again what an old one said.
                let new = self.upto.is_none_or(|told| told < revision) && revision >= self.position.revision;
                self.position.revision = self.position.revision.max(revision);
                self.upto = self.upto.max(Some(revision));
                new.then_some(Feed::Upto(revision))
            }
            "reset" => {
                let head: Head = serde_json::from_str(&event.data).map_err(unreadable)?;
                (self.position, self.upto) = (head, None);
                Some(Feed::Reset(head))
            }
            "error" => {
                let problem: Problem = serde_json::from_str(&event.data).map_err(unreadable)?;
                return match problem.store_error {
                    Some(error) if !error.is_transient() => Err(error),
                    _ => self.again(problem.detail).await.map(|()| None),
                };
            }
            // What a newer server may say besides.
            _ => None,
        };
        self.lost = Lost::none(&self.link);
        Ok(feed)
    }
}

impl Open {
    /// The next event, or why there are no more.
    async fn next(&mut self, heartbeat: Duration) -> Result<Event, String> {
        loop {
            if let Some(event) = self.events.next().map_err(|e| e.to_string())? {
                return Ok(event);
            }
            match tokio::time::timeout(heartbeat, piece(&mut self.response)).await {
                Ok(Ok(Some(piece))) => self.events.feed(&piece).map_err(|e| e.to_string())?,
                Ok(Ok(None)) => return Err("the server ended it".to_owned()),
                Ok(Err(error)) => return Err(format!("the connection broke: {}", root(&error))),
                Err(_) => return Err(format!("not even a sign of life for {heartbeat:?}")),
            }
        }
    }
}
