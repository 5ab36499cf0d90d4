//! Why a machine may be destroyed. Without one of these reasons none is: to drain a host is not to destroy it, and a machine whose
//! description is lost stays.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shoal_core::{Host, Lifecycle};

use crate::spec::NAMESPACE;

/// The field under `vm` by which a host that drains says that its machine is to be destroyed, and why.
pub const DESTROY: &str = "destroy";

/// Why a person, or a group, wants a machine destroyed. It stands in the host's document, under `vm`, and counts while the host drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Nobody needs it any more.
    Unneeded,
    /// Its group gets smaller.
    Shrunk,
    /// Another takes its place.
    Replaced,
}

/// Why a machine may be destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Somebody wants it, and the host drains.
    Wish(Wish),
    /// The host has expired, and drains.
    Expired,
    /// The host was deleted, or somebody retired it. No document says so: that the database remembers the deletion does.
    Removed,
}

impl Reason {
    /// The reason in one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wish(Wish::Unneeded) => "unneeded",
            Self::Wish(Wish::Shrunk) => "shrunk",
            Self::Wish(Wish::Replaced) => "replaced",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a host says of the end of its machine, and where in its life it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Where it is.
    pub state: Lifecycle,
    /// Why it is to be destroyed, as its own document says. What a tag says of all of its members is no wish about one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
    /// When its time is over, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

impl Life {
    /// What this host says.
    ///
    /// # Errors
    /// Its wish is none of the words that there are.
    pub fn of(host: &Host) -> Result<Self, String> {
        let said = host.field(NAMESPACE).and_then(|own| own.get(DESTROY).cloned());
        let wish = said.filter(|said| !said.is_null()).map(serde_json::from_value::<Wish>).transpose();
        Ok(Self {
            state: host.state,
            wish: wish.map_err(|e| format!("its `{NAMESPACE}.{DESTROY}`: {e}"))?,
            expires: host.expires.map(|end| end.as_millisecond()),
        })
    }

    /// Why its machine may be destroyed at this time; `None`: nothing says so. Whether it is protected is another question.
    #[must_use]
    pub fn reason(&self, now: i64) -> Option<Reason> {
        match self.state {
            Lifecycle::Draining => {
                self.wish.map(Reason::Wish).or_else(|| self.is_over(now).then_some(Reason::Expired))
            }
            _ => None,
        }
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now: i64) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    /// Whether it is to drain now, because its time is over, and does not yet.
    #[must_use]
    pub fn is_to_drain(&self, now: i64) -> bool {
        use Lifecycle::{Active, Building, Failed, Placed};
        self.is_over(now) && matches!(self.state, Placed | Building | Active | Failed)
    }
}

/// Whether who makes machines may take a host from one state to another. All else is people's, or placement's.
#[must_use]
pub fn may_become(from: Lifecycle, to: Lifecycle) -> bool {
    use Lifecycle::{Active, Building, Draining, Failed, Placed, Retired};
    matches!(
        (from, to),
        (Placed, Building)
            | (Placed | Building | Failed, Active)
            | (Building | Active, Failed)
            | (Placed | Building | Active | Failed, Draining)
            | (Draining, Retired)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(state: Lifecycle, wish: Option<Wish>, expires: Option<i64>) -> Life {
        Life { state, wish, expires }
    }

    #[test]
    fn to_drain_is_no_reason_by_itself() {
        use Lifecycle::{Active, Draining, Placed, Requested};
        assert_eq!(life(Draining, None, None).reason(10), None);
        assert_eq!(life(Draining, None, Some(11)).reason(10), None, "its time is to come");
        assert_eq!(life(Draining, None, Some(10)).reason(10), Some(Reason::Expired));
        let wish = Some(Wish::Unneeded);
        assert_eq!(life(Draining, wish, None).reason(10), Some(Reason::Wish(Wish::Unneeded)));
        assert_eq!(life(Active, wish, Some(1)).reason(10), None, "it does not drain");
        assert!(life(Active, None, Some(10)).is_to_drain(10) && life(Placed, None, Some(1)).is_to_drain(10));
        assert!(
            !life(Active, None, Some(11)).is_to_drain(10) && !life(Draining, None, Some(1)).is_to_drain(10)
        );
        assert!(!life(Requested, None, Some(1)).is_to_drain(10), "that is for who places it");
    }

    #[test]
    fn nothing_comes_back_to_life_by_itself() {
        for from in Lifecycle::ALL {
            assert!(!may_become(Lifecycle::Retired, from) && !may_become(from, Lifecycle::Placed), "{from}");
        }
        assert!(!may_become(Lifecycle::Draining, Lifecycle::Active), "that is for a person");
    }
}
