//! Who is told, and when: contacts, contact groups and time periods that tags define for a whole server.
//!
//! A tag's `define` says them by name. Several tags give the union; where two say what excludes each other, the tag that comes
//! first by name is right and both are named. By which command a contact is told is no part of it: the tag names *ways*
//! (`mail`), and the node's configuration says which commands a way has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_agent::{Blocked, Desired, Source, checked};

use crate::item::{Item, Subject};
use crate::name::{Name, Word};
use crate::spec::{ContactSpec, PeriodSpec, Spec};

/// The most definitions of a kind in one tag, members of a group, or days of a period.
const MAX_LISTED: usize = 500;

/// What is defined. In this order they stand in a file: what is named comes before what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A time period.
    Period,
    /// Somebody who is told.
    Contact,
    /// Several of them.
    ContactGroup,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Period => "period",
            Self::Contact => "contact",
            Self::ContactGroup => "contact_group",
        })
    }
}

/// One definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    /// A time period.
    Period(Period),
    /// Somebody who is told.
    Contact(Contact),
    /// The contacts of a group.
    ContactGroup(BTreeSet<Name>),
}

impl Definition {
    /// Whether it names one of this kind.
    pub(crate) fn names(&self, kind: Kind, name: &Name) -> bool {
        match (self, kind) {
            (Self::Period(period), Kind::Period) => period.exclude.contains(name),
            (Self::Contact(contact), Kind::Period) => contact.period.as_ref() == Some(name),
            (Self::ContactGroup(members), Kind::Contact) => members.contains(name),
            _ => false,
        }
    }
}

/// A time period: what is not in it, is out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// The hours of each day.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub days: BTreeMap<Day, Hours>,
    /// Periods that are cut out of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<Name>,
}

/// Somebody who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Where mail goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Word>,
    /// A number or address for short messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pager: Option<Word>,
    /// When; `None`: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Name>,
    /// In which ways.
    pub via: BTreeSet<Name>,
}

checked! {
    /// `monday`, or `2026-12-25`.
    Day
}

checked! {
    /// `09:00-17:00,18:00-20:00`.
    Hours
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WEEK: [&str; 7] =
            ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        // A day that the calendar does not have is refused here and not by a server.
        if WEEK.contains(&text) || text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() {
            return Ok(Self(text.into()));
        }
        Err(format!("{text:?} is no day: that is monday to sunday, or a date such as 2026-12-25"))
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let minutes = |time: &str| {
            let (hour, minute) = time.split_once(':')?;
            let two = |text: &str| (text.len() == 2).then(|| text.parse::<u32>().ok())?;
            Some(two(hour)? * 60 + two(minute).filter(|minute| *minute < 60)?)
        };
        let good = |span: &str| {
            let (from, to) = span.split_once('-')?;
            let (from, to) = (minutes(from)?, minutes(to)?);
            Some(from < to && to <= 24 * 60)
        };
        if text.len() <= 500 && text.split(',').all(|span| good(span) == Some(true)) {
            return Ok(Self(text.into()));
        }
        Err(format!("{text:?} are no hours: they are written as 09:00-17:00, several with a comma between"))
    }
}

/// What a tag defines, and what it calls by names that are none. Proportional to what the tag defines.
pub(crate) fn subjects(spec: &Spec) -> (Vec<Subject>, Vec<String>) {
    let (mut subjects, mut faults) = (Vec::new(), Vec::new());
    let define = &spec.define;
    let mut all = |kind: Kind, names: &mut dyn Iterator<Item = &String>| {
        for name in names.take(MAX_LISTED) {
            match name.parse() {
                Ok(name) => subjects.push(Subject::Definition(kind, name)),
                Err(why) => faults.push(format!("define: {kind} {why}")),
            }
        }
    };
    all(Kind::Period, &mut define.periods.keys());
    all(Kind::Contact, &mut define.contacts.keys());
    all(Kind::ContactGroup, &mut define.contact_groups.keys());
    (subjects, faults)
}

/// One definition from all tags that say it; what cannot be used of one is left out with its place.
pub(crate) fn decide(kind: Kind, name: &Name, from: &[Source<'_, Spec>]) -> Desired<Item> {
    let mut made: Option<(Definition, String)> = None;
    let mut left_out = Vec::new();
    for source in from.iter().filter(|source| source.host.is_none()) {
        let define = &source.spec.define;
        let read = match kind {
            Kind::Period => define.periods.get(name.as_str()).map(period),
            Kind::Contact => define.contacts.get(name.as_str()).map(contact),
            Kind::ContactGroup => define
                .contact_groups
                .get(name.as_str())
                .map(|group| names("members", &group.members).map(Definition::ContactGroup)),
        };
        let definition = match read {
            None => continue,
            Some(Ok(definition)) => definition,
            Some(Err(why)) => {
                left_out.push(Blocked::new(source.name(), format!("define: {kind} {name}: {why}")));
                continue;
            }
        };
        match (&mut made, definition) {
            (None, definition) => made = Some((definition, source.name())),
            (Some((Definition::ContactGroup(members), _)), Definition::ContactGroup(more)) => {
                members.extend(more);
            }
            (Some((have, _)), definition) if *have == definition => {}
            (Some((_, by)), _) => left_out.push(Blocked {
                who: vec![source.name(), by.clone()],
                why: format!(
                    "define: {kind} {name}: {} says it otherwise than {by}, which is used; one of them must give way",
                    source.name()
                ),
            }),
        }
    }
    Desired { item: made.map(|(definition, _)| Item::Definition(Arc::new(definition))), left_out }
}

fn period(spec: &PeriodSpec) -> Result<Definition, String> {
    if spec.days.len() > MAX_LISTED {
        return Err(format!("days: there are {}, and {MAX_LISTED} are the most", spec.days.len()));
    }
    let day = |(day, hours): (&String, &String)| {
        Ok((day.parse()?, hours.parse().map_err(|why| format!("{day}: {why}"))?))
    };
    let days = spec.days.iter().map(day).collect::<Result<_, String>>()?;
    Ok(Definition::Period(Period { days, exclude: names("exclude", &spec.exclude)? }))
}

fn contact(spec: &ContactSpec) -> Result<Definition, String> {
    let word = |field: &str, said: &Option<String>| {
        said.as_ref().map(|text| text.parse().map_err(|why| format!("{field}: {why}"))).transpose()
    };
    let mut via = names("via", &spec.via)?;
    if via.is_empty() {
        via.insert("mail".parse()?);
    }
    Ok(Definition::Contact(Contact {
        email: word("email", &spec.email)?,
        pager: word("pager", &spec.pager)?,
        period: spec.period.as_ref().map(|name| name.parse()).transpose()?,
        via,
    }))
}

fn names(field: &str, said: &[String]) -> Result<BTreeSet<Name>, String> {
    if said.len() > MAX_LISTED {
        return Err(format!("{field}: there are {}, and {MAX_LISTED} are the most", said.len()));
    }
    said.iter().map(|name| name.parse().map_err(|why| format!("{field}: {why}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_hours_are_those_of_a_calendar_and_a_clock() {
        for good in ["monday", "2026-12-25", "2028-02-29"] {
            good.parse::<Day>().unwrap();
        }
        for bad in ["Monday", "day 1", "2026-02-30", "2026-12-25 00:00", "monday\nexclude", "", "2026-1-1"] {
            assert!(bad.parse::<Day>().is_err(), "{bad}");
        }
        for good in ["00:00-24:00", "09:00-17:30,18:00-20:00"] {
            good.parse::<Hours>().unwrap();
        }
        for bad in [
            "",
            "9:00-17:00",
            "17:00-09:00",
            "00:00-24:01",
            "09:00-17:60",
            "09:00-17:00,",
            "a-b",
            "09:00-17:00\n}",
        ] {
            assert!(bad.parse::<Hours>().is_err(), "{bad}");
        }
    }
}
