//! What Route 53 knows of a record set beside its data: how it chooses between several sets of one name and type, what a set is an
//! alias of, and the health check that it depends on.
//!
//! [`Route`] and [`Alias`] are what a tag or a host says; [`Routing`] is what that comes to for one set, and what is there. Other
//! targets know nothing of the kind, and say so of the item that asks for it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most characters of what tells one set from the others.
const MAX_SET: usize = 128;

/// How Route 53 chooses between several record sets of one name and type. Exactly one of `weight`, `region`, `location`, `failover`
/// and `multivalue`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What tells this set from the others of its name and type, at most 128 characters. A pattern for a member's record; the host's own
    /// name where nothing is said. Needed in static records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Its share of the answers, in proportion to the weights of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub weight: Option<u8>,
    /// The AWS region that it stands in: who asks gets the set with the lowest latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where those come from who get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Whether it is the first choice, or what is answered while the first choice is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// Up to eight healthy sets are answered at a time. Only `true` says something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multivalue: Option<bool>,
}

/// Where those come from who get a set: a continent, a country, or a part of a country.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Two letters: `EU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continent: Option<String>,
    /// Two letters: `DE`. `*`: everybody whom no other set is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Of the country: `CA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdivision: Option<String>,
}

/// Which of two a fail-over set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failover {
    /// The first choice.
    Primary,
    /// What is answered otherwise.
    Secondary,
}

/// Something in AWS whose addresses are answered instead of data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// Its name: that of a load balancer, a distribution, a bucket's site, or of another record of the same type. Of the latter, relative
    /// to the zone.
    pub name: String,
    /// The hosted zone that the name stands in, by its id. Nothing: the very zone of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether the set counts as unhealthy while that is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evaluate: bool,
}

/// What stands about one record set, beside its data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// What tells it from others of its name and type; nothing: it is the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// How it is chosen; nothing: it is the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// The health check that it depends on: an id, or a name that the node's configuration gives to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// What it is an alias of; nothing: it has data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
}

/// How one of several sets is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// By its share.
    Weight(u8),
    /// By latency to this region.
    Region(String),
    /// By where who asks is.
    Location(Location),
    /// By health.
    Failover(Failover),
    /// Together with the others.
    Multivalue,
    /// In a way that no tag can ask for: somebody else's.
    Other(String),
}

impl Policy {
    /// Sets of one name and type are all chosen in one way.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Weight(_) => "weight",
            Self::Region(_) => "region",
            Self::Location(_) => "location",
            Self::Failover(_) => "failover",
            Self::Multivalue => "multivalue",
            Self::Other(_) => "another routing policy",
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.policy, &self.alias, &self.health) {
            (Some(policy), _, _) => write!(f, "a routing policy ({})", policy.kind()),
            (None, Some(alias), _) => write!(f, "an alias of {}", alias.name),
            (None, None, Some(health)) => write!(f, "the health check {health}"),
            (None, None, None) => f.write_str("a set of its own"),
        }
    }
}

impl Route {
    /// What this comes to, with `set` filled in.
    ///
    /// # Errors
    /// No policy, more than one, or one that says nothing.
    pub(crate) fn policy(&self, set: &str) -> Result<Policy, String> {
        if set.is_empty() || set.chars().count() > MAX_SET {
            return Err(format!("set {set:?} must have 1 to {MAX_SET} characters"));
        }
        let said = [
            self.weight.map(Policy::Weight),
            self.region.clone().map(Policy::Region),
            self.location.clone().map(Policy::Location),
            self.failover.map(Policy::Failover),
            self.multivalue.filter(|yes| *yes).map(|_| Policy::Multivalue),
        ];
        let mut said = said.into_iter().flatten();
        match (said.next(), said.next()) {
            (Some(Policy::Location(place)), None) => place.check().map(Policy::Location),
            (Some(policy), None) => Ok(policy),
            (None, _) => {
                Err("it needs one of weight, region, location, failover and multivalue: true".to_owned())
            }
            (Some(one), Some(other)) => Err(format!(
                "it has {} and {}; sets are chosen in one way: drop one",
                one.kind(),
                other.kind()
            )),
        }
    }
}

impl Location {
    fn check(self) -> Result<Self, String> {
        match (&self.continent, &self.country, &self.subdivision) {
            (Some(_), None, None) | (None, Some(_), _) => Ok(self),
            (None, None, _) => Err("location needs a continent or a country".to_owned()),
            (Some(_), _, _) => {
                Err("location has a continent and more; a country needs no continent: drop one".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "this is test code")]

    use super::*;

    fn policy(yaml: &str) -> Result<Policy, String> {
        serde_saphyr::from_str::<Route>(yaml).map_err(|e| e.to_string())?.policy("a")
    }

    #[test]
    fn a_set_is_chosen_in_exactly_one_way() {
        assert_eq!(policy("weight: 0"), Ok(Policy::Weight(0)));
        assert_eq!(policy("failover: primary"), Ok(Policy::Failover(Failover::Primary)));
        assert_eq!(policy("multivalue: true"), Ok(Policy::Multivalue));
        assert!(matches!(policy("location: {country: US, subdivision: CA}"), Ok(Policy::Location(_))));
        for (bad, word) in [
            ("{}", "one of"),
            ("multivalue: false", "one of"),
            ("{weight: 1, region: eu-west-1}", "drop one"),
            ("location: {}", "continent or a country"),
            ("location: {continent: EU, country: DE}", "drop one"),
            ("weight: 256", "256"),
        ] {
            let why = policy(bad).unwrap_err();
            assert!(why.contains(word), "{bad}: {why}");
        }
        assert!(Route { weight: Some(1), ..Route::default() }.policy(&"x".repeat(129)).is_err());
    }
}
