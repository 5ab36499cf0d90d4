//! The secrets that checks name, in a file of their own.
//!
//! Objects hold a reference to a secret ([`Slot`]); the values stand in one file of the generation, which only the server's group may
//! read. So files of objects, which many may read, the server's cache of objects and everything that is said of them hold no secret,
//! and references and values go live in one step. A secret keeps its number for as long as something names it.
//!
//! Secrets are read anew for every look and every candidate: a rotated one makes the file another one. One that cannot be read keeps
//! the value that stands there, if any does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use shoal_agent::Fault;
use shoal_agent::secrets::{SecretRef, Secrets};

use super::Dialect;
use super::file::HEAD;

/// The number of a secret in the server's language.
pub(in crate::target) type Slot = u16;

/// The numbers that are given out: the upper half of Nagios' `$USERn$`.
const SLOTS: std::ops::RangeInclusive<Slot> = 129..=256;
/// The longest secret, in octets.
const MAX_SECRET: usize = 4096;

/// The secrets of a generation. Nothing prints them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Vault(BTreeMap<SecretRef, (Slot, String)>);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    secret: SecretRef,
    slot: Slot,
    #[serde(borrow)]
    value: &'a str,
}

const LINE: &str = "#= ";

impl Vault {
    /// The number of a secret.
    pub(super) fn slot(&self, secret: &SecretRef) -> Option<Slot> {
        self.0.get(secret).map(|(slot, _)| *slot)
    }

    /// The text of its file.
    pub(super) fn text<D: Dialect>(&self) -> String {
        let mut out = HEAD.to_owned();
        let mut all = Vec::new();
        for (secret, (slot, value)) in &self.0 {
            let line = Line { secret: secret.clone(), slot: *slot, value };
            out.push_str(LINE);
            // Nothing in it can fail: text and a number.
            out.push_str(&serde_json::to_string(&line).unwrap_or_default());
            out.push('\n');
            all.push((secret.name(), *slot, value.as_str()));
        }
        D::secrets(&mut out, &all);
        out
    }

    /// Reads a file back, as far as it can be understood.
    pub(super) fn read(text: &str) -> Self {
        let mut vault = Self::default();
        let mut taken = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix(LINE)) {
            // What cannot be read is written anew.
            let Ok(Line { secret, slot, value }) = serde_json::from_str(line) else { continue };
            if SLOTS.contains(&slot) && fits(value).is_ok() && taken.insert(slot) {
                vault.0.insert(secret, (slot, value.to_owned()));
            }
        }
        vault
    }

    /// The secrets that are wanted now, as the node has them; and what cannot be had, and why.
    pub(super) fn next<'a>(
        &self,
        wanted: impl Iterator<Item = &'a SecretRef> + Clone,
        secrets: &Secrets,
        can_hold: &Result<(), Fault>,
    ) -> (Self, BTreeMap<SecretRef, Fault>) {
        let (mut next, mut missing) = (Self::default(), BTreeMap::new());
        let mut taken: BTreeSet<Slot> = wanted.clone().filter_map(|secret| self.slot(secret)).collect();
        for secret in wanted {
            let had = self.0.get(secret);
            let value = can_hold.clone().and_then(|()| get(secrets, secret));
            let value = match (value, had) {
                (Ok(value), _) => value,
                (Err(_), Some((_, value))) => value.clone(),
                (Err(fault), None) => {
                    missing.insert(secret.clone(), fault);
                    continue;
                }
            };
            let free = || SLOTS.rev().find(|slot| !taken.contains(slot));
            let Some(slot) = had.map(|(slot, _)| *slot).or_else(free) else {
                let why = format!("checks name more than {} secrets", SLOTS.count());
                missing.insert(secret.clone(), Fault::new(format!("take {secret}"), why).permanent());
                continue;
            };
            taken.insert(slot);
            next.0.insert(secret.clone(), (slot, value));
        }
        (next, missing)
    }

    /// The secrets that have another number in `next`, or had none.
    pub(super) fn moved<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = &'a SecretRef> {
        next.0.iter().filter(|(secret, (slot, _))| self.slot(secret) != Some(*slot)).map(|(secret, _)| secret)
    }

    /// A text that a program said, with references in place of secrets.
    pub(super) fn hide(&self, text: &str) -> String {
        let one = |text: String, (secret, (_, value)): (&SecretRef, &(Slot, String))| {
            text.replace(value.as_str(), &secret.to_string())
        };
        // What one value begins with may be another: the longest first, or the rest of it would stay.
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, (_, value))| std::cmp::Reverse(value.len()));
        all.into_iter().fold(text.to_owned(), one)
    }
}

fn get(secrets: &Secrets, secret: &SecretRef) -> Result<String, Fault> {
    let value = secrets.get(secret)?;
    fits(value.expose()).map_err(|why| {
        Fault::new(format!("take {secret}"), why).next(
            "make the secret another one, or have the command of the server's own library read it itself",
        )
    })?;
    Ok(value.expose().to_owned())
}

/// Whether a value can stand in a file of secrets, and in a command line between quotes.
fn fits(value: &str) -> Result<(), String> {
    if value.len() > MAX_SECRET {
        return Err(format!("it has more than {MAX_SECRET} octets"));
    }
    if value.trim() != value || value.is_empty() {
        return Err("it begins or ends with a blank".to_owned());
    }
    if value.chars().any(|c| c.is_control() || "'\"`\\$".contains(c)) {
        return Err(
            "it has a quote, a backquote, a backslash, a dollar sign or a control character, which no \
                    command line carries safely"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_value_stays_that_begins_with_another() {
        let all = [("a", "abc"), ("b", "abcdef"), ("c", "xabcdefx")];
        let line = |(slot, (name, value)): (Slot, &(&str, &str))| {
            (format!("secret:{name}").parse().unwrap(), (slot, (*value).to_owned()))
        };
        let vault = Vault((200..).zip(&all).map(line).collect());
        assert_eq!(vault.hide("abcdef, abc; xabcdefx"), "secret:b, secret:a; secret:c");
    }
}
