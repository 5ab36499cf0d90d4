//! A no, with what decided it.

use std::fmt;

use super::Principal;

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Who asked.
    pub who: String,
    /// What they wanted: `write the members of lb/web`.
    pub wanted: String,
    /// What refuses it: the row and the entry in it, or what holds where no row says anything.
    pub rule: String,
    /// What to do next.
    pub hint: String,
    /// Whether somebody who says who they are may be answered otherwise (HTTP 401, not 403).
    pub unknown: bool,
}

impl Denied {
    /// The no to something that is kept from somebody with its name: which rule is about it would tell what it is.
    #[must_use]
    pub fn unnamed(who: &Principal, wanted: &str, rule: &str) -> Self {
        let hint = match who.is_anonymous() {
            true => {
                "say who you are: with a token (`shoal token create`), or through the server's Unix socket"
            }
            false => "an administrator may do it, and sees what it is",
        };
        Self {
            who: who.name.clone(),
            wanted: wanted.to_owned(),
            rule: rule.to_owned(),
            hint: hint.to_owned(),
            unknown: who.is_anonymous(),
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, wanted, rule, hint, .. } = self;
        write!(f, "{who} may not {wanted}: refused by {rule}; {hint}")
    }
}

impl std::error::Error for Denied {}
