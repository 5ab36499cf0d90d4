//! A no, with what decided it.

use std::fmt;

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

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, wanted, rule, hint, .. } = self;
        write!(f, "{who} may not {wanted}: refused by {rule}; {hint}")
    }
}

impl std::error::Error for Denied {}
