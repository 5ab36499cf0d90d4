//! What to do next about one machine: by what is there, where its host is in its life, and the time.
//!
//! A machine is destroyed at the end of a time that begins when its reason is seen, and that stands in the memo, in the ledger: a restart
//! goes on where it was. Taken back meanwhile, it is forgotten; an edit of the host begins it anew.
//!
//! What is reported is lost where the agent is killed at the wrong moment. So facts are a step of their own, and what is not remembered to be
//! told is told again: before the host becomes active, and before it is retired.

use serde::{Deserialize, Serialize};
use shoal_agent::{At, HostName, Lifecycle, Millis, Moment, Revision, Step, Value};
use shoal_machine::{Care, Drift, Reason, Wish};

use crate::agent::Vm;
use crate::item::{Attempt, Have, Item, Stage};

/// Makes a machine and starts it.
pub(crate) const CREATE: &str = "create";
/// Starts one that does not run.
pub(crate) const START: &str = "start";
/// Takes over what somebody else made: the engine's word, and a person's.
pub(crate) const ADOPT: &str = "adopt";
/// Writes down what it is, as facts.
pub(crate) const TELL: &str = "tell";
/// Writes down that it is up: its host is active.
pub(crate) const REPORT: &str = "report";
/// Writes down that its time is over: its host drains.
pub(crate) const DRAIN: &str = "drain";
/// Writes down that it is gone, though nobody wanted that, or did not come up in time: its host failed.
pub(crate) const FAIL: &str = "fail";
/// Changes what can be changed of one that stands.
pub(crate) const CORRECT: &str = "correct";
/// Remembers how it is to be cared for, and what its host is called: that may be deleted, and then nobody else knows.
pub(crate) const NOTE: &str = "note";
/// Forgets that it was to be destroyed, or that it had failed.
pub(crate) const KEEP: &str = "keep";
/// Destroys it.
pub(crate) const DESTROY: &str = "destroy";
/// Destroys it, of a host that is not there any more, or says that it is gone.
pub(crate) const REMOVE: &str = "remove";
/// Writes down that it is destroyed, as facts.
pub(crate) const FORGET: &str = "forget";
/// Writes down that it is destroyed: its host is retired.
pub(crate) const RETIRE: &str = "retire";

/// How often a machine that starts is looked at at first, and one that stops, in milliseconds.
pub(crate) const SOON: Millis = 1_000;
/// How often one that runs is, and one that waits for load balancers; a machine that starts at least so often.
const POLL: Millis = 30_000;

/// What is remembered of a machine that is to be destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leaving {
    /// Why.
    pub(crate) reason: Reason,
    /// What its host was last called, where no host says that any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostName>,
    /// When its host was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Revision>,
    /// Not before then.
    pub(crate) until: Moment,
    /// It was told to stop. Whoever has to be asked was asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stopping: bool,
}

impl Leaving {
    fn of(memo: &Value) -> Option<Self> {
        serde_json::from_value(memo.clone()).ok()
    }

    fn memo(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The same of one that was told to stop.
    pub(crate) fn stopping(memo: &Value) -> Value {
        Self::of(memo).map_or_else(|| memo.clone(), |leaving| Self { stopping: true, ..leaving }.memo())
    }
}

/// What the host of a machine that nobody wants any more was last called.
pub(crate) fn host_of(memo: &Value) -> Option<HostName> {
    Leaving::of(memo)?.host
}

/// What is remembered of a machine that is to stand. What a newer program remembers beside is passed over: all else still counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Its facts were written down since it last came up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    told: bool,
    /// When it was begun to make it, or to start it; until it has come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<Moment>,
    /// It was said here that its host failed. Where somebody else says so, that is not taken back here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
    /// It was told to stop, to be corrected then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    correcting: bool,
    /// Which attempt at making it is the next, or was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<Attempt>,
    /// Nothing had room for it: not before then it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pause: Option<Moment>,
    /// When it was last decided to make it, where no look has shown it since, and nobody has said for certain that nothing was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<Moment>,
}

impl Progress {
    fn of(memo: &Value) -> Self {
        serde_json::from_value(memo.clone()).unwrap_or_default()
    }

    fn memo(self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The same, with its facts written down.
    pub(crate) fn told(memo: &Value) -> Value {
        Self { told: true, begun: None, asked: None, ..Self::of(memo) }.memo()
    }

    /// The same of one that was told to stop, to be corrected then.
    pub(crate) fn correcting(memo: &Value) -> Value {
        Self { correcting: true, ..Self::of(memo) }.memo()
    }

    /// Which attempt at making a machine was decided on.
    pub(crate) fn attempt(memo: &Value) -> Attempt {
        Self::of(memo).attempt.unwrap_or_default()
    }

    /// The same after that attempt was refused: the next one, and not before then.
    pub(crate) fn refused(memo: &Value, pause: Option<Moment>) -> Value {
        let attempt = Self::attempt(memo);
        let attempt = Some(Attempt { way: attempt.way.saturating_add(1), ..attempt });
        Self { attempt, pause, asked: None, ..Self::of(memo) }.memo()
    }
}

fn act(verb: &'static str, at: &At<'_, Vm>) -> Step {
    Step::Act { verb, memo: at.memo.clone() }
}

/// What changes nothing of what is wanted: no drift, and nothing that the guard counts.
fn run(verb: &'static str, at: &At<'_, Vm>) -> Step {
    Step::Run { verb, memo: at.memo.clone() }
}

fn hold(why: impl Into<String>) -> Step {
    Step::Hold { why: why.into() }
}

/// `patience`: how long a machine may take to be made and to come up; `unseen`: how long what was made may not be seen.
pub(crate) fn step(at: &At<'_, Vm>, now: Moment, patience: Millis, unseen: Millis) -> Step {
    match (at.want, at.have) {
        // It may have come while one of ours was being made, and is none of it: that is a person's to say.
        (Some(want), Some(have)) if have.is_unmarked() => Step::Clash {
            why: format!("a machine called {} is there already, and Shoal did not make it", want.host),
        },
        (None, Some(have)) if have.is_unmarked() => hold("what is there is not Shoal's"),
        // It was destroyed, and nobody else can say so.
        (None, None) if Leaving::of(at.memo).is_some() => act(FORGET, at),
        (None, None) => may_show(at, now, unseen).unwrap_or_else(Step::rest),
        (None, Some(_)) => match last(at) {
            Some(last) => leave(Reason::Removed, None, &last.care, None, REMOVE, at, now),
            None => hold("nothing says how it is to be cared for; it stays"),
        },
        (Some(want), None) => absent(want, at, now, patience, unseen),
        (Some(want), Some(have)) => there(want, have, at, now, patience),
    }
}

/// What it was last made as, or is being made as.
fn last<'a>(at: &At<'a, Vm>) -> Option<&'a Item> {
    at.last.or_else(|| at.tried.last().copied())
}

/// It was asked for, and no look has shown it since: it may be there all the same. Before that time is over nobody takes it for gone.
fn may_show(at: &At<'_, Vm>, now: Moment, unseen: Millis) -> Option<Step> {
    let end = Progress::of(at.memo).asked?.saturating_add(unseen);
    (now < end).then(|| Step::Wait {
        until: Some(end.min(now.saturating_add(POLL))),
        why: format!(
            "what was asked for to be seen: a machine may have been made, and counts as none in {} s",
            end.saturating_sub(now).saturating_add(999) / 1_000
        ),
        memo: at.memo.clone(),
    })
}

/// It is wanted, and not there.
fn absent(want: &Item, at: &At<'_, Vm>, now: Moment, patience: Millis, unseen: Millis) -> Step {
    if want.life.reason(now).is_some() {
        // Whoever retires a host says that its machine is gone. Of one that was made by hand that is not known here.
        if want.stands && at.last.is_none() {
            return hold(
                "it stands here by its host's own word, and nobody made it here: set its host to retired when it is gone",
            );
        }
        if Leaving::of(at.memo).is_some() {
            return act(FORGET, at);
        }
        return may_show(at, now, unseen).unwrap_or_else(|| act(RETIRE, at));
    }
    if want.life.is_to_drain(now) {
        return act(DRAIN, at);
    }
    let anew = "to have it made anew, set the state of its host to placed; to be rid of it, drain it and say why (`vm: {destroy: unneeded}`)";
    let progress = Progress::of(at.memo);
    let begun = progress.begun.unwrap_or(now);
    let asked = progress.asked;
    let failed = || Progress { begun: Some(begun), failed: true, asked, ..Progress::default() }.memo();
    match (want.life.state, at.last) {
        // Where it could not be made for so long, others may have to take its place.
        (Lifecycle::Building, _) if is_late(begun, now, patience) => Step::Act { verb: FAIL, memo: failed() },
        (Lifecycle::Building, _) => create(
            Progress { told: false, begun: Some(begun), failed: false, correcting: false, ..progress },
            now,
        ),
        (Lifecycle::Placed, _) => {
            // Decided twice of one placing it is one creation: what was begun of it may be there.
            let known = progress.attempt.filter(|attempt| attempt.placed == want.since);
            // Of another placing it is another machine, beside what may be there of the one before.
            if known.is_none()
                && let Some(wait) = may_show(at, now, unseen)
            {
                return wait;
            }
            let attempt = known.unwrap_or(Attempt { placed: want.since, way: 0 });
            let pause = progress.pause.filter(|_| known.is_some());
            create(Progress { begun: Some(now), attempt: Some(attempt), pause, ..Progress::default() }, now)
        }
        (Lifecycle::Active, Some(_)) => Step::Act { verb: FAIL, memo: failed() },
        (Lifecycle::Active, None) => hold(format!(
            "its host is active, and nobody made the machine here: if it stands elsewhere, take the host out of the tag; {anew}"
        )),
        (Lifecycle::Failed, _) => hold(format!("it failed, and is not there; {anew}")),
        _ => hold(format!("its host drains, and the machine is not there; {anew}")),
    }
}

/// Makes it, unless nothing had room for it a moment ago.
fn create(progress: Progress, now: Moment) -> Step {
    match progress.pause.filter(|pause| now < *pause) {
        None => {
            let memo = Progress { pause: None, asked: Some(now), ..progress }.memo();
            Step::Act { verb: CREATE, memo }
        }
        Some(pause) => Step::Wait {
            until: Some(pause),
            why: "room for it: the provider refused every way to make it (the agent's log says why), and is asked again".to_owned(),
            memo: progress.memo(),
        },
    }
}

/// Whether what is there was made before its host was placed: then another is to be made, and this one must not pass for it. What was
/// just made knows of this placing; the host only does not show yet that it is building.
fn is_predecessor(want: &Item, at: &At<'_, Vm>) -> bool {
    let mut known = at.last.into_iter().chain(at.tried.iter().copied()).peekable();
    want.life.state == Lifecycle::Placed && known.peek().is_some() && known.all(|one| one.since != want.since)
}

/// It is wanted, and there.
fn there(want: &Item, have: &Have, at: &At<'_, Vm>, now: Moment, patience: Millis) -> Step {
    if is_predecessor(want, at) && !want.life.is_to_drain(now) {
        return leave(Reason::Wish(Wish::Replaced), want.since, &want.care, None, DESTROY, at, now);
    }
    if at.last.is_some_and(|last| last.care != want.care || last.host != want.host) {
        return run(NOTE, at);
    }
    if let Some(reason) = want.life.reason(now) {
        return leave(reason, want.since, &want.care, want.drained, DESTROY, at, now);
    }
    if want.life.is_to_drain(now) {
        return run(DRAIN, at);
    }
    if Leaving::of(at.memo).is_some() {
        return Step::Run { verb: KEEP, memo: Value::Null };
    }
    // It is seen.
    let progress = Progress { asked: None, ..Progress::of(at.memo) };
    if let Some(why) = &have.leaving
        && let Some(step) = is_taken(want, why, progress, now)
    {
        return step;
    }
    if want.life.state == Lifecycle::Failed && !progress.failed {
        return hold(
            "somebody says that it failed, and it is there: set the state of its host to active if it is well, or to placed to have it made anew",
        );
    }
    match have.stage {
        // Neither waited for nor started as it was before it has been put right.
        _ if progress.correcting && is_correctable(want, have) => Step::act(CORRECT),
        Stage::Stopped | Stage::Starting => comes_up(want, have.stage, progress, now, patience),
        Stage::Up if !progress.told => run(TELL, at),
        Stage::Up if want.life.state == Lifecycle::Active && progress.failed => {
            Step::Run { verb: KEEP, memo: Progress { failed: false, ..progress }.memo() }
        }
        Stage::Up if matches!(want.life.state, Lifecycle::Active | Lifecycle::Draining) => {
            settled(want, have, at, now)
        }
        Stage::Up => run(REPORT, at),
    }
}

/// Its provider takes it away: then its host has failed while there is still time for others to take its place.
fn is_taken(want: &Item, why: &str, progress: Progress, now: Moment) -> Option<Step> {
    match want.life.state {
        Lifecycle::Building | Lifecycle::Active => {
            Some(Step::Run { verb: FAIL, memo: Progress { failed: true, ..progress }.memo() })
        }
        Lifecycle::Failed if progress.failed => Some(Step::Wait {
            until: Some(now.saturating_add(POLL)),
            why: format!("its provider to take it away ({why})"),
            memo: progress.memo(),
        }),
        _ => None,
    }
}

fn is_late(begun: Moment, now: Moment, patience: Millis) -> bool {
    now.saturating_sub(begun) >= patience
}

/// It is there, and not up.
fn comes_up(want: &Item, stage: Stage, progress: Progress, now: Moment, patience: Millis) -> Step {
    let (host, state) = (&want.host, want.life.state);
    let stopped = stage == Stage::Stopped;
    if stopped && state == Lifecycle::Failed {
        return hold(format!(
            "{host} did not come up, and does not run: set its state to placed to have it made anew, or to active to have it started"
        ));
    }
    // Somebody who says that it is active has it tried once more.
    let Progress { begun, failed, .. } =
        if stopped && progress.failed { Progress::default() } else { progress };
    let begun = begun.unwrap_or(now);
    let fails = matches!(state, Lifecycle::Building | Lifecycle::Active);
    let late = fails && is_late(begun, now, patience);
    let memo =
        Progress { told: false, correcting: false, begun: Some(begun), failed: failed || late, ..progress }
            .memo();
    if late {
        return Step::Run { verb: FAIL, memo };
    }
    if stopped {
        return Step::Run { verb: START, memo };
    }
    // The longer it takes, the less often it is looked at; and once when it is late.
    let pause = (now.saturating_sub(begun) / 4).clamp(SOON, POLL);
    let until = now.saturating_add(pause);
    let until = if fails { until.min(begun.saturating_add(patience)) } else { until };
    Step::Wait { until: Some(until), why: format!("{host} to report that it is up"), memo }
}

/// Whether all that is not as its document says can be put right, and is to be.
fn is_correctable(want: &Item, have: &Have) -> bool {
    let differs = have.machine.differences(&want.machine);
    want.care.drift == Drift::Correct
        && !(differs.is_empty() && have.strayed.is_empty())
        && differs.iter().all(|what| can_be_changed(what))
}

/// Whether this of a machine that stands can be changed.
fn can_be_changed(what: &str) -> bool {
    matches!(what, "networks" | "size")
}

/// Whether a group makes another machine for this. Not for the disks of a slot: these outlive it.
fn is_for_its_group(want: &Item, have: &Have, what: &str) -> bool {
    match what {
        "image" | "provider" | "size" | "networks" => true,
        "disks" => have.machine.own_disks() != want.machine.own_disks(),
        _ => false,
    }
}

/// It is up, and its host says so.
fn settled(want: &Item, have: &Have, at: &At<'_, Vm>, now: Moment) -> Step {
    let differs = have.machine.differences(&want.machine);
    let all: Vec<String> =
        differs.iter().map(|what| format!("its {what}")).chain(have.strayed.iter().cloned()).collect();
    if all.is_empty() {
        let end = want.life.expires.filter(|end| *end > now);
        let again = Some(end.unwrap_or(Moment::MAX).min(now.saturating_add(POLL)));
        // Left there it would count when somebody has the host drain for another reason. It is no hold: the machine is looked after.
        return match want.life.wish.filter(|_| want.life.state == Lifecycle::Active) {
            None => Step::Rest { look_again: again },
            Some(wish) => Step::Wait {
                until: again,
                why: format!(
                    "somebody to take `vm.destroy` ({}) back: its host is active, and drained the next time, the machine goes for that",
                    Reason::Wish(wish)
                ),
                memo: at.memo.clone(),
            },
        };
    }
    let all = all.join(", ");
    if want.care.drift == Drift::Replace && differs.iter().any(|what| is_for_its_group(want, have, what)) {
        let why =
            format!("its group to have another take its place: it is not what its document says ({all})");
        return Step::Wait { until: Some(now.saturating_add(POLL)), why, memo: at.memo.clone() };
    }
    if differs.iter().any(|what| !can_be_changed(what)) {
        return hold(format!(
            "it is not what its document says ({all}), and only another machine can be: replace it, or say in the document what it is"
        ));
    }
    match want.care.drift {
        Drift::Correct => Step::act(CORRECT),
        Drift::Report | Drift::Replace => hold(format!(
            "it is not what its document says ({all}): `vm: {{drift: correct}}` has it put right, for which it is started anew"
        )),
    }
}

/// There is a reason to destroy it.
fn leave(
    reason: Reason,
    since: Option<Revision>,
    care: &Care,
    drained: Option<bool>,
    verb: &'static str,
    at: &At<'_, Vm>,
    now: Moment,
) -> Step {
    if care.protect {
        return hold(format!(
            "it is to be destroyed ({reason}), and is protected: `vm: {{protect: false}}` lets it go"
        ));
    }
    let known = Leaving::of(at.memo).filter(|leaving| leaving.reason == reason && leaving.since == since);
    let host = last(at).filter(|_| at.want.is_none()).map(|last| last.host.clone());
    let until = now.saturating_add(care.grace);
    let leaving = known.unwrap_or(Leaving { reason, host, since, until, stopping: false });
    let wait = |until: Moment, why: String| Step::Wait { until: Some(until), why, memo: leaving.memo() };
    if now < leaving.until {
        let left = leaving.until.saturating_sub(now).saturating_add(999) / 1_000;
        let back = match reason {
            Reason::Removed => "write its host again, with its id and its place, and",
            Reason::Wish(_) | Reason::Expired => "set the state of its host to active, and",
        };
        return wait(leaving.until, format!("it is destroyed ({reason}) in {left} s: {back} it stays"));
    }
    if drained == Some(false) {
        return wait(
            now.saturating_add(POLL),
            format!("load balancers to say that it has drained, before it is destroyed ({reason})"),
        );
    }
    let memo = leaving.memo();
    // The guard counted it when it was told to stop.
    if leaving.stopping && verb == DESTROY { Step::Run { verb, memo } } else { Step::Act { verb, memo } }
}
