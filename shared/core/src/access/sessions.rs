//! Sessions that go with what they rest on, in the same commit: whoever changes a password need not know of them.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{Token, TokenKind};
use crate::key::Access;
use crate::{ACCESS, Change, Document, Key, Kind, View};

/// How many sessions a user has at most. With one more, the oldest ends.
pub const MAX_SESSIONS: usize = 20;

/// What is asked of sessions before it is known which end.
pub(crate) const TOKENS: &str = "access/tokens/";

/// The sessions that end by these changes; `after` has them already. `None`: they are of no user and of no session, and nobody needs to look.
///
/// * A user who goes, is disabled, or gets another password or none has no session from before.
/// * Who begins more than [`MAX_SESSIONS`] loses the oldest.
///
/// Costs reading all tokens where a user or a session is written, and nothing else.
pub(crate) fn ended(before: &View, after: &View, changes: &BTreeMap<Key, Change>) -> Option<Vec<Key>> {
    let (mut all, mut some) = (BTreeSet::new(), BTreeSet::new());
    let mut asked = false;
    for change in changes.values().filter(|change| change.key.namespace() == ACCESS) {
        match change.key.kind() {
            Kind::Access(Access::User(name)) => {
                asked = true;
                if ends(before.row(&change.key).as_ref(), change.value.as_ref()) {
                    all.insert(name);
                }
            }
            Kind::Access(Access::Token(_)) => {
                if let Some(token) = session(change.value.as_ref()) {
                    asked = true;
                    some.insert(token.owner);
                }
            }
            _ => {}
        }
    }
    if !asked {
        return None;
    }
    let mut sessions: BTreeMap<String, Vec<(bool, jiff::Timestamp, Key)>> = BTreeMap::new();
    for (key, row) in after.plain(TOKENS) {
        let owned = |token: &Token| all.contains(&token.owner) || some.contains(&token.owner);
        if let Some(token) = session(Some(&row.document)).filter(owned) {
            let new = changes.get(key).is_some_and(|change| change.value.is_some());
            sessions.entry(token.owner).or_default().push((new, token.created, key.clone()));
        }
    }
    let mut gone = Vec::new();
    for (owner, mut of) in sessions {
        // The oldest first, and what is written just now last of all.
        of.sort();
        let many = of.len().saturating_sub(MAX_SESSIONS);
        let ends = |at: usize, new: bool| !new && (all.contains(&owner) || at < many);
        gone.extend(
            of.into_iter().enumerate().filter(|(at, (new, ..))| ends(*at, *new)).map(|(_, (.., key))| key),
        );
    }
    Some(gone)
}

/// Whether no session of a user is good any more.
fn ends(was: Option<&Document>, is: Option<&Document>) -> bool {
    let Some(is) = is else { return true };
    let disabled = |row: &Document| row.raw("disabled") == Some("true");
    let password = |row: &Document| row.text("password").map(std::borrow::Cow::into_owned);
    was.and_then(password) != password(is) || disabled(is)
}

/// The session that a row is, if it is one.
pub(super) fn session(row: Option<&Document>) -> Option<Token> {
    row?.to::<Token>().ok().filter(|token| token.kind == TokenKind::Session)
}
