//! `/api/v2/status` and `/api/v2/claims`: what agents last said of themselves, and who works on what.
//!
//! Neither has a history, so their pages are of no one revision: each says how far the database was when it was made. What
//! is there all the while that somebody turns the pages is in them once.

use std::fmt;
use std::str::FromStr;

use schemars::json_schema;
use shoal_core::{Revision, Status};
use shoal_store::Claim;

use super::{List, sifted};
use crate::problem::Answer;
use crate::request::Ask;
use crate::spec::{Op, Routes, get, query, shared, text};

/// The paths of this module; programs know them under another name.
pub(super) fn routes(to: Routes) -> Routes {
    to.at("/api/v2/status", [described_reports(get("What agents last said of themselves", reports))])
        .at("/api/v2/claims", [described_claims(get("Who works on what", claims))])
        .at("/api/v2/store/reports", [described_reports(get("The same, all or nothing", all_reports))])
        .at("/api/v2/store/claims", [described_claims(get("The same, all or nothing", all_claims))])
}

fn described_reports(op: Op) -> Op {
    let after = json_schema!({"type": "string", "pattern": "/"});
    op.takes([text("after", after, "`next` of the page before."), shared("limit")])
        .answers::<List<Status>>("A page of reports.")
}

fn described_claims(op: Op) -> Op {
    let after = json_schema!({"type": "string", "pattern": "#[0-9]{1,9}$"});
    op.takes([query::<String>("name", "Only what begins so.")])
        .takes([text("after", after, "`next` of the page before."), shared("limit")])
        .answers::<List<Claim>>("A page of claims.")
}

/// What names a claim: what is claimed, and which of the places.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place(String, u32);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.0, self.1)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, slot) = text.rsplit_once('#').ok_or(())?;
        Ok(Self(name.to_owned(), slot.parse().map_err(drop)?))
    }
}

/// What names a report: the agent, and which instance of it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Speaker(String, String);

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

impl FromStr for Speaker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (agent, instance) = text.split_once('/').ok_or(())?;
        Ok(Self(agent.to_owned(), instance.to_owned()))
    }
}

/// Whose a claim is: `unit/dns/example.com` is of the namespace `dns`.
pub(super) fn whose(claim: &str) -> &str {
    claim.split('/').nth(1).unwrap_or(claim)
}

/// `GET /api/v2/claims`: those that are for who asks.
async fn claims(ask: Ask) -> Answer {
    claims_of(ask, false).await
}

/// `GET /api/v2/store/claims`: all, or none.
async fn all_claims(ask: Ask) -> Answer {
    claims_of(ask, true).await
}

/// What is asked for decides, and not what is there: a name that somebody thinks of, letter by letter, would else spell what is claimed.
async fn claims_of(ask: Ask, whole: bool) -> Answer {
    let ask = ask.only(&["name", "after", "limit"])?;
    let after = after::<Place>(&ask)?;
    let begin = ask.params.get("name").unwrap_or("");
    let (_, rest) = begin.split_once('/').unwrap_or_default();
    match rest.split_once('/') {
        Some((namespace, _)) => ask.caller.reads_work(namespace)?,
        None if whole => ask.caller.reads_works(rest)?,
        None => {}
    }
    let all = ask.store().claims(begin).await?;
    let (seen, hidden) = sifted(all, |claim: &Claim| ask.caller.sees_work(whose(&claim.name)));
    let hidden = if begin.is_empty() { hidden } else { 0 };
    ask.page(now(&ask), (seen, hidden), |claim: &Claim| Place(claim.name.clone(), claim.slot), after)
}

/// `GET /api/v2/status`: those that are for who asks.
async fn reports(ask: Ask) -> Answer {
    reports_of(ask, false).await
}

/// `GET /api/v2/store/reports`: all, or none.
async fn all_reports(ask: Ask) -> Answer {
    reports_of(ask, true).await
}

async fn reports_of(ask: Ask, whole: bool) -> Answer {
    let ask = ask.only(&["after", "limit"])?;
    let after = after::<Speaker>(&ask)?;
    let all = ask.store().reports().await?;
    if whole {
        all.iter().try_for_each(|said| ask.caller.reads_work(said.agent.as_str()))?;
    }
    let all = sifted(all, |said: &Status| ask.caller.sees_work(said.agent.as_str()));
    ask.page(now(&ask), all, |said: &Status| Speaker(said.agent.to_string(), said.instance.clone()), after)
}

fn after<K: FromStr>(ask: &Ask) -> Answer<Option<K>> {
    ask.params.parse("after", "the `next` of an earlier page")
}

fn now(ask: &Ask) -> Revision {
    ask.app.db.view().revision()
}
