//! How a server serves, and how it leaves: no new work, wait for its connections or the deadline, say so, remove.
//!
//! What was decided stands in the item's memo, in the ledger, so a restart goes on where it was: the deadline does not begin anew.

use serde::{Deserialize, Serialize};
use shoal_agent::{At, Moment, Step, Value};

use crate::agent::Lb;
use crate::item::{Item, Key, Server, Standing};
use crate::spec::DRAIN;

/// How often connections are counted, in milliseconds.
pub(crate) const LOOK: Moment = 1_000;
/// How soon a server that cannot be spared is asked about again, in milliseconds.
const SPARED: Moment = 2_000;

/// What is remembered of a server that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leaving {
    /// When its connections are closed.
    pub(crate) until: Moment,
    /// It has drained, and that was written down.
    #[serde(default)]
    pub(crate) drained: bool,
}

impl Leaving {
    /// What an item remembers.
    pub(crate) fn of(memo: &Value) -> Option<Self> {
        serde_json::from_value(memo.clone()).ok()
    }

    pub(crate) fn memo(self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// What is remembered of a server whose facts say that it serves: that was written down together with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Told {
    told: bool,
}

impl Told {
    /// Whether the item remembers it.
    pub(crate) fn is(memo: &Value) -> bool {
        serde_json::from_value(memo.clone()).is_ok_and(|told: Self| told.told)
    }

    pub(crate) fn memo() -> Value {
        serde_json::to_value(Self { told: true }).unwrap_or_default()
    }
}

/// What to do next about a server that is wanted.
///
/// What was reported is lost where the agent is killed at the wrong moment, and a host that is said to have drained must not be
/// at work. So a change that is not remembered to be reported is reported again.
pub(crate) fn wanted(want: &Server, at: &At<'_, Lb>, standing: &Standing) -> Step {
    let told = Told::is(at.memo);
    let memo = if told { at.memo.clone() } else { Value::Null };
    let verb = match standing {
        standing if standing.is(want) && (told || !standing.reports) => return Step::rest(),
        standing if standing.is(want) => "report",
        standing if standing.draining => "return",
        _ => "update",
    };
    Step::Act { verb, memo }
}

/// Takes a server out of work.
pub(crate) const DRAIN_VERB: &str = "drain";
/// Closes what is left of its connections, and says that it has drained.
pub(crate) const FINISH: &str = "finish";

/// What to do next about a server that nobody wants any more.
pub(crate) fn step(key: &Key, at: &At<'_, Lb>, standing: &Standing, now: Moment) -> Step {
    let remembered = Leaving::of(at.memo);
    let Some(leaving) = remembered.filter(|_| standing.draining || !standing.known) else {
        if standing.serves && standing.spare == Some(0) {
            let why = format!("{} to have a server to spare before {} may leave", key.pool, host(key));
            return Step::wait(why, Some(now.saturating_add(SPARED)));
        }
        let until = remembered.map_or_else(|| now.saturating_add(deadline(at)), |leaving| leaving.until);
        return Step::Act { verb: DRAIN_VERB, memo: Leaving { until, drained: false }.memo() };
    };
    if leaving.drained {
        return Step::Act { verb: "remove", memo: leaving.memo() };
    }
    if standing.connections == 0 || now >= leaving.until {
        return Step::Act { verb: FINISH, memo: leaving.memo() };
    }
    let (count, left) = (standing.connections, leaving.until.saturating_sub(now).saturating_add(999) / 1000);
    let s = if count == 1 { "" } else { "s" };
    let why = format!("{count} connection{s} on {}, {left} s left", host(key));
    Step::Wait { until: Some(leaving.until.min(now.saturating_add(LOOK))), why, memo: leaving.memo() }
}

fn host(key: &Key) -> &str {
    key.host.as_ref().map_or("", |host| host.as_str())
}

/// How long it may take, in milliseconds, by what it was last made as.
fn deadline(at: &At<'_, Lb>) -> Moment {
    let last = at.last.or_else(|| at.tried.last().copied());
    let seconds = match last {
        Some(Item::Server(server)) => server.drain,
        _ => DRAIN,
    };
    Moment::from(seconds).saturating_mul(1000)
}
