//! `/api/v2/status` and `/api/v2/claims`: what agents last said of themselves, and who works on what.
//!
//! Neither has a history, so their pages are of no one revision: each says how far the database was when it was made. What
//! is there all the while that somebody turns the pages is in them once.

use std::fmt;
use std::str::FromStr;

use schemars::json_schema;
use shoal_core::{Revision, Status};
use shoal_store::Claim;

use super::List;
use crate::problem::Answer;
use crate::request::Ask;
use crate::spec::{Op, Routes, get, query, shared, text};

/// The paths of this module; programs know them under another name.
pub(super) fn routes(to: Routes) -> Routes {
    to.at("/api/v2/status", [described_reports()])
        .at("/api/v2/claims", [described_claims()])
        .at("/api/v2/store/reports", [described_reports()])
        .at("/api/v2/store/claims", [described_claims()])
}

fn described_reports() -> Op {
    let after = json_schema!({"type": "string", "pattern": "/"});
    get("What agents last said of themselves", reports)
        .takes([text("after", after, "`next` of the page before."), shared("limit")])
        .answers::<List<Status>>("A page of reports.")
}

fn described_claims() -> Op {
    let after = json_schema!({"type": "string", "pattern": "#[0-9]{1,9}$"});
    get("Who works on what", claims)
        .takes([query::<String>("name", "Only what begins so.")])
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

/// `GET /api/v2/claims` and `/api/v2/store/claims`
async fn claims(ask: Ask) -> Answer {
    let ask = ask.only(&["name", "after", "limit"])?;
    let after = after::<Place>(&ask)?;
    let all = ask.store().claims(ask.params.get("name").unwrap_or("")).await?;
    ask.page(now(&ask), all, |claim: &Claim| Place(claim.name.clone(), claim.slot), after)
}

/// `GET /api/v2/status` and `/api/v2/store/reports`
async fn reports(ask: Ask) -> Answer {
    let ask = ask.only(&["after", "limit"])?;
    let after = after::<Speaker>(&ask)?;
    let all = ask.store().reports().await?;
    ask.page(now(&ask), all, |said: &Status| Speaker(said.agent.to_string(), said.instance.clone()), after)
}

fn after<K: FromStr>(ask: &Ask) -> Answer<Option<K>> {
    ask.params.parse("after", "the `next` of an earlier page")
}

fn now(ask: &Ask) -> Revision {
    ask.app.db.view().revision()
}
