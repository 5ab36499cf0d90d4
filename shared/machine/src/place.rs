//! Where a machine is placed: the words that whoever chooses rooms writes, and whoever makes machines reads.
//!
//! A room is a box or an availability zone. The fact of placement about a machine names it; a machine that was there before anybody
//! placed it says itself where it stands.

use std::collections::BTreeMap;

use shoal_core::{Fact, Host};

/// The namespace of rules and facts.
pub const NAMESPACE: &str = "placement";
/// The field of a host that says that it is a box or a zone, and what it has; and that of the fact about a machine that names its room.
pub const BOX: &str = "box";
/// The field of a machine that says what it needs.
pub const SIZE: &str = "size";
/// The field of a machine, under `placement`, that says where it stands, where nobody placed it.
pub const ON: &str = "on";

/// The field of the fact of machines about a room that says which machines are gone whose hosts are not there any more: their ids.
pub const GONE: &str = "gone";

/// Amounts by name, as people write them: `{cpu: 4, memory: 8589934592}`. Memory and disk are in octets.
pub type Named = BTreeMap<String, u64>;

/// The fact of placement about a host, among its facts.
#[must_use]
pub fn fact(facts: &[Fact]) -> Option<&Fact> {
    facts.iter().find(|fact| fact.namespace.as_str() == NAMESPACE)
}

/// The room that a machine was given, as the fact about it says; the name that the room had then.
#[must_use]
pub fn given(facts: &[Fact]) -> Option<String> {
    fact(facts)?.document.text(BOX).map(std::borrow::Cow::into_owned)
}

/// The room where a machine says itself that it stands.
#[must_use]
pub fn says(host: &Host) -> Option<String> {
    host.field(NAMESPACE)?.get(ON)?.as_str().map(str::to_owned)
}

/// The room that a machine has: the one it was given, else the one where it says that it stands.
#[must_use]
pub fn room(host: &Host, facts: &[Fact]) -> Option<String> {
    given(facts).or_else(|| says(host))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_core::{Document, HostId, Lifecycle, Revision};

    use super::*;

    #[test]
    fn what_placement_says_goes_before_what_the_machine_says() {
        let host = Host {
            name: "web1.example.com".parse().unwrap(),
            id: HostId("0198".to_owned()),
            state: Lifecycle::Placed,
            owner: None,
            environment: None,
            expires: None,
            revision: Revision(1),
            document: Document::from(json!({"placement": {"on": "b.example.com"}})),
        };
        let fact = |namespace: &str, document| Fact {
            namespace: namespace.parse().unwrap(),
            document: Document::from(document),
            revision: Revision(1),
        };
        let other = [fact("lb", json!({"box": "x"})), fact("placement", json!({"no_room": {}}))];
        assert_eq!(room(&host, &other).as_deref(), Some("b.example.com"));
        assert_eq!(
            room(&host, &[fact("placement", json!({"box": "a.example.com"}))]).as_deref(),
            Some("a.example.com")
        );
    }
}
