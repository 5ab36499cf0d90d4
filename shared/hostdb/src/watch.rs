//! Watches as [server-sent events]: whole commits, in order, resumable.
//!
//! Every event carries the id `<epoch>-<revision>`. A client that lost its connection, or whose server was
//! restarted, sends the last id it saw (`Last-Event-ID`) and hears every commit after it once. Events:
//!
//! * `commit`: a [`LogEntry`](shoal_core::LogEntry) with those of its changes that pass the filter;
//! * `upto`: nothing that passes the filter is missing up to this revision;
//! * `reset`: the position is of another epoch, or no longer known: read everything at this revision and compare;
//! * `error`: a problem; the stream ends after it. Also when who watches may no longer: a token was revoked or has expired, a rule
//!   was changed.
//!
//! A comment is sent when nothing else was for a while, so that a dead connection is noticed. A slow client holds
//! up nobody but itself: the stream is pulled, and what is not pulled stays in the store.
//!
//! [server-sent events]: https://html.spec.whatwg.org/multipage/server-sent-events.html

mod lost;
mod words;

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use http::HeaderMap;
use schemars::json_schema;
use serde_json::json;
use shoal_core::{Epoch, Key, Member, Range, Revision, TagName};
use shoal_store::{Feed, Filter, Position, StoreError};

use crate::access::Caller;
use crate::app::App;
use crate::problem::{Answer, Problem};
use crate::request::{Asker, Params};
use crate::spec::{Param, Routes, get, number, query, text};

pub(crate) use words::Words;

/// What a watch sends.
pub(crate) const EVENTS: &str = "Server-sent events: `commit`, `upto`, `reset`, `error`, each with the id `<epoch>-<revision>`; \
     it ends when the server does, or the client.";
/// The form of a position.
const POSITION: &str = "^(?:[0-9]{1,19}-)?[0-9]{1,19}$";

/// The path of this module.
pub(crate) fn routes(to: Routes) -> Routes {
    let position = || json_schema!({"type": "string", "pattern": POSITION});
    let watch = get("Commits as they happen", watch)
        .takes(described())
        .takes([
            text("after", position(), "After which revision; left out: from now on."),
            number("progress", 1, LONGEST, "Says how far it has seen at most that often, in seconds."),
            stop_after(),
            text("Last-Event-ID", position(), "The id of the last event; it goes before `after`.").header(),
        ])
        .streams(EVENTS);
    to.at("/api/v2/watch", [watch])
}

/// The parameter that ends a watch.
pub(crate) fn stop_after() -> Param {
    number("stop_after", 1, LONGEST, "Ends the stream after so many seconds; left out: it goes on.")
}

/// When a watch ends by itself.
pub(crate) fn end(params: &Params) -> Answer<Option<Duration>> {
    Ok(params.within("stop_after", 1, LONGEST)?.map(Duration::from_secs))
}

/// The parameters that say which keys: see [`ranges`].
pub(crate) fn described() -> [Param; 4] {
    let prefix = json_schema!({"type": "string", "pattern": "^(?:.*/)?$"});
    [
        query::<Key>("key", "This key.").many(),
        text("prefix", prefix, "Keys that begin so; it ends with a slash, or is empty.").many(),
        query::<TagName>("tag", "This tag and its members.").many(),
        query::<Member>("naming", "Every row that names this member.").many(),
    ]
}

/// The longest time that a watch may be told to take for anything, in seconds.
const LONGEST: u64 = 3600;
/// How many clients come back in a second, about, when this server was lost to all of them.
const BACK: u32 = 2_000;
/// Within how long clients come back, each at a time of its own: at least, and at most, because they think a server dead some
/// ten seconds later.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// The most ranges of one filter.
const MAX_RANGES: usize = 1000;

/// `GET /api/v2/watch`
async fn watch(
    State(app): State<Arc<App>>,
    Asker(caller): Asker,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let params = params.only(&["after", "key", "prefix", "tag", "naming", "progress", "stop_after"])?;
    let ranges = ranges(&params)?;
    let mut filter = if ranges.is_empty() { Filter::all() } else { Filter::of(ranges) };
    if let Some(seconds) = params.within("progress", 1, LONGEST)? {
        filter.progress = Duration::from_secs(seconds);
    }
    // Many begin at once where a server was lost.
    let head = app.db.store().newest().await?;
    let read = |text: &str| {
        position(text, head.epoch).ok_or_else(|| {
            Problem::bad_request(format!(
                "{text:?} is no position: send back the id of the last event, <epoch>-<revision>, \
                 or a revision of this database"
            ))
        })
    };
    let asked = params.get("after").map(read).transpose()?;
    let last = headers.get("last-event-id").map(|id| read(id.to_str().unwrap_or("?"))).transpose()?;
    let after = last.or(asked).unwrap_or(head);
    events(&app, &caller, filter, after, end(&params)?)
}

/// The stream of one watch.
pub(crate) fn events(
    app: &Arc<App>,
    caller: &Arc<Caller>,
    filter: Filter,
    after: Position,
    end: Option<Duration>,
) -> Answer<Response> {
    if filter.ranges.len() > MAX_RANGES {
        return Err(Problem::bad_request(format!(
            "a filter has at most {MAX_RANGES} ranges: watch more than that, \
            and leave out what you do not need"
        )));
    }
    filter.ranges.iter().try_for_each(|range| caller.reads_range(range))?;
    let seat = app.watchers.clone().try_acquire_owned().map_err(|_| {
        Problem::busy(format!(
            "{} watches are open, and that is as many as this server takes",
            app.limits.watchers
        ))
    })?;
    let seat = Seat::new(app.clone(), seat);
    let mut epoch = after.epoch;
    let lost = lost::lost(app.clone(), caller.clone(), filter.ranges.clone());
    let gate = Arc::new(lost::Gate::new(app, caller, filter.ranges.clone(), after.epoch));
    let feed = app.db.store().watch(filter, after);
    let who = caller.clone();
    let passed = ends_with_error(feed).then(move |message| {
        let gate = gate.clone();
        async move {
            if let Ok(feed) = &message {
                gate.passes(feed).await;
            }
            message
        }
    });
    let stream = passed.map(move |message| {
        Ok::<_, Infallible>(match message {
            Ok(feed) => {
                let feed = lost::seen(&seat.app, &who, feed);
                event(&seat.app, feed, &mut epoch).retry(retry(seat.app.metrics.watchers.get()))
            }
            Err(error) => Event::default().event("error").data(Problem::from(error).to_string()),
        })
    });
    let stop = app.stop.clone();
    let end = async move {
        match end {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let why = Arc::new(OnceLock::new());
    let said = why.clone();
    let stream = stream.take_until(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = end => {}
            problem = lost => drop(said.set(problem)),
        }
    });
    let last = futures::stream::once(async move { why.get().cloned() }).filter_map(
        |problem: Option<Problem>| async move {
            problem
                .map(|problem| Ok::<_, Infallible>(Event::default().event("error").data(problem.to_string())))
        },
    );
    let stream = stream.chain(last);
    let alive = KeepAlive::new().interval(app.limits.heartbeat).text("alive");
    Ok(Sse::new(stream).keep_alive(alive).into_response())
}

fn event(app: &App, feed: Feed, epoch: &mut Epoch) -> Event {
    let (name, revision, data) = match feed {
        Feed::Commit(entry) => return app.words.of(&entry, *epoch),
        Feed::Upto(revision) => ("upto", revision, json!({"revision": revision})),
        Feed::Reset(head) => {
            *epoch = head.epoch;
            ("reset", head.revision, json!({"epoch": head.epoch, "revision": head.revision}))
        }
    };
    Event::default().event(name).id(format!("{}-{revision}", epoch.0)).data(data.to_string())
}

/// Within how long so many watchers are to come back.
fn retry(watchers: i64) -> Duration {
    let watchers = u32::try_from(watchers).unwrap_or(0);
    (Duration::from_secs(1) * watchers / BACK).clamp(RETRY.0, RETRY.1)
}

/// The stream up to and with its first error: a store may repeat it.
fn ends_with_error<T>(
    stream: impl Stream<Item = Result<T, StoreError>>,
) -> impl Stream<Item = Result<T, StoreError>> {
    let mut failed = false;
    stream.take_while(move |item| {
        let go_on = !failed;
        failed = item.is_err();
        std::future::ready(go_on)
    })
}

fn position(text: &str, epoch: Epoch) -> Option<Position> {
    Some(match text.split_once('-') {
        Some((epoch, revision)) => {
            Position { epoch: Epoch(epoch.parse().ok()?), revision: Revision(revision.parse().ok()?) }
        }
        None => Position { epoch, revision: Revision(text.parse().ok()?) },
    })
}

/// The ranges that the parameters `key`, `prefix`, `tag` and `naming` name.
pub(crate) fn ranges(params: &Params) -> Answer<Vec<Range>> {
    let mut all = Vec::new();
    for key in params.all("key") {
        all.push(Range::Key(key.parse::<Key>()?));
    }
    for prefix in params.all("prefix") {
        if !prefix.ends_with('/') && !prefix.is_empty() {
            return Err(Problem::bad_request(format!("prefix={prefix:?} does not end with '/'"))
                .with("field", "prefix"));
        }
        all.push(Range::Prefix(prefix.to_owned()));
    }
    for tag in params.all("tag") {
        let tag: TagName = tag.parse()?;
        all.push(Range::Key(Key::tag(&tag)));
        all.push(Range::members(&tag));
    }
    for member in params.all("naming") {
        all.push(Range::Naming(member.parse::<Member>()?));
    }
    Ok(all)
}

/// A place among the watchers, counted.
struct Seat {
    app: Arc<App>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Seat {
    fn new(app: Arc<App>, place: tokio::sync::OwnedSemaphorePermit) -> Self {
        app.metrics.watchers.inc();
        Self { app, _place: place }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.app.metrics.watchers.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_watch_the_longer_they_take_to_come_back() {
        for (watchers, millis) in
            [(0, 1_000), (2_000, 1_000), (3_000, 1_500), (10_000, 5_000), (50_000, 8_000)]
        {
            assert_eq!(retry(watchers), Duration::from_millis(millis), "{watchers}");
        }
    }

    #[test]
    fn positions_are_ids_or_revisions() {
        let at = |epoch, revision| Some(Position { epoch: Epoch(epoch), revision: Revision(revision) });
        assert_eq!(position("7-12", Epoch(1)), at(7, 12));
        assert_eq!(position("12", Epoch(1)), at(1, 12));
        for bad in ["", "-", "a", "1-", "1-2-3", "-1"] {
            assert_eq!(position(bad, Epoch(1)), None, "{bad}");
        }
    }
}
