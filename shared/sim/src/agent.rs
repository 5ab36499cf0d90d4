//! The agents that simulated swarms run: one type in three kinds, so that a swarm can mix them.
//!
//! | kind | its target | what it is there to try |
//! |---|---|---|
//! | [`Kind::Pool`] | items that stand alone | a removal that waits with a memo, items fed by many sources, a mark of what is paused |
//! | [`Kind::Zone`] | a file that is written as a whole, and goes with its head | what is held stays in the file, several tags feed one unit, one change takes all of it |
//! | [`Kind::Vm`] | a provider of machines | long effects, ids that nobody asked for, tokens, facts |
//!
//! An item is a [`Thing`]: for every source that feeds it, what that source says. So the simulator sees of every
//! change not only that something went, but whose part of it went, and can ask for the reason.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_core::{HostName, Lifecycle, TagName};
use shoal_engine::{Agent, At, Blocked, Desired, Look, Moment, Source, Step, Unit};

/// The part of an item that says that a person holds a host of it.
const MARK: &str = "somebody holds it";
/// How long a server of a pool stays after nobody wants it.
const LINGER: i64 = 15_000;
/// How often something that is being built is looked at.
pub(crate) const PEEK: i64 = 7_000;

/// Which agent, and which target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Pool,
    Zone,
    Vm,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Pool, Self::Zone, Self::Vm];

    /// The namespace.
    pub(crate) fn namespace(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Zone => "zone",
            Self::Vm => "vm",
        }
    }
}

/// The pure half.
#[derive(Clone, Debug)]
pub(crate) struct SimAgent {
    pub(crate) kind: Kind,
    /// It does not say which of its changes take a whole unit with them.
    pub(crate) blind: bool,
    /// Whether it marks what a person holds with more than a mark.
    pub(crate) overdone: bool,
}

impl SimAgent {
    /// As it should be.
    pub(crate) fn of(kind: Kind) -> Self {
        Self { kind, blind: false, overdone: false }
    }
}

/// A tag's document.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// Where its items stand; its own key by default.
    #[serde(default)]
    pub(crate) unit: Option<String>,
    /// What it says of its items. `bad`: nobody can tell which items; `clash`: this source is left out; `none`: no
    /// item although there is a source; `stuck`: nobody can tell what the item should be.
    pub(crate) text: String,
    /// Items of the tag itself.
    #[serde(default)]
    pub(crate) fixed: Vec<String>,
    /// An item that every member feeds too.
    #[serde(default)]
    pub(crate) shared: Option<String>,
    /// A host whose site every item shows.
    #[serde(default)]
    pub(crate) beside: Option<String>,
}

/// `<unit>:<name>`. The name is a host's, or starts with `fixed-` or `shared-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ItemKey(pub(crate) String);

impl ItemKey {
    pub(crate) fn new(unit: &str, name: &str) -> Self {
        Self(format!("{unit}:{name}"))
    }

    pub(crate) fn unit(&self) -> &str {
        self.0.split_once(':').map_or("", |(unit, _)| unit)
    }

    pub(crate) fn name(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, name)| name)
    }

    /// Whether several hosts may feed it.
    pub(crate) fn is_shared(&self) -> bool {
        self.name().starts_with("shared-")
    }

    /// Whether a file of which this goes is none any more.
    pub(crate) fn is_head(&self) -> bool {
        self.name() == "fixed-a"
    }

    /// Whether the tag itself feeds it.
    pub(crate) fn is_fixed(&self) -> bool {
        self.name().starts_with("fixed-")
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an item should be: for every source, what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Thing {
    pub(crate) parts: BTreeMap<String, String>,
}

impl Thing {
    /// The same with the mark that a person holds a host of it.
    pub(crate) fn marked(&self) -> Self {
        let mut marked = self.clone();
        marked.parts.insert(MARK.to_owned(), String::new());
        marked
    }
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Have {
    pub(crate) thing: Thing,
    /// The target's own number for it; 0: not known.
    pub(crate) id: u64,
    /// It is not done yet.
    pub(crate) building: bool,
}

impl PartialEq<Thing> for Have {
    fn eq(&self, want: &Thing) -> bool {
        !self.building && self.thing == *want
    }
}

/// A source as parts of things name it.
pub(crate) fn part_name(tag: &TagName, host: Option<&HostName>) -> String {
    match host {
        Some(host) => format!("{tag}: {host}"),
        None => tag.to_string(),
    }
}

impl Agent for SimAgent {
    type Spec = Spec;
    type Key = ItemKey;
    type Item = Thing;
    type Have = Have;

    fn namespace(&self) -> &str {
        self.kind.namespace()
    }

    fn serves(&self, state: Lifecycle) -> bool {
        match self.kind {
            Kind::Pool => state == Lifecycle::Active,
            Kind::Zone => matches!(state, Lifecycle::Active | Lifecycle::Draining),
            Kind::Vm => !matches!(state, Lifecycle::Retired | Lifecycle::Failed),
        }
    }

    fn unit(&self, key: &ItemKey) -> Unit {
        Unit(key.unit().to_owned())
    }

    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<ItemKey>, Blocked> {
        let spec = from.spec;
        if spec.text == "bad" {
            return Err(Blocked::new(from.name(), "nobody can tell which items"));
        }
        let unit = spec.unit.as_deref().unwrap_or(from.tag.key());
        Ok(match from.host {
            None => spec.fixed.iter().map(|name| ItemKey::new(unit, &format!("fixed-{name}"))).collect(),
            Some(host) => {
                let shared = spec.shared.iter().map(|name| ItemKey::new(unit, &format!("shared-{name}")));
                std::iter::once(ItemKey::new(unit, host.name.as_str())).chain(shared).collect()
            }
        })
    }

    fn desired(
        &self,
        _: &ItemKey,
        from: &[Source<'_, Spec>],
        look: &dyn Look,
    ) -> Result<Desired<Thing>, Blocked> {
        let (mut parts, mut left_out) = (BTreeMap::new(), Vec::new());
        for source in from {
            let spec = source.spec;
            match spec.text.as_str() {
                "none" => continue,
                "clash" => {
                    left_out.push(Blocked::new(source.name(), "it clashes"));
                    continue;
                }
                "stuck" => return Err(Blocked::new(source.name(), "nobody can tell what it should be")),
                _ => {}
            }
            let site =
                |host: &shoal_core::Host| host.text("site").map_or_else(String::new, |s| s.into_owned());
            let mut text = spec.text.clone();
            if let Some(host) = source.host {
                text = format!("{text} at {}", site(host));
                if host.state == Lifecycle::Draining {
                    text.push_str(", draining");
                }
            }
            if let Some(beside) = spec.beside.as_deref().and_then(|name| look.host(name)) {
                text = format!("{text} beside {}", site(beside));
            }
            parts.insert(part_name(source.tag, source.host_name()), text);
        }
        Ok(if parts.is_empty() {
            Desired::nothing(left_out)
        } else {
            Desired { item: Some(Thing { parts }), left_out }
        })
    }

    fn made(&self, item: &Thing) -> Option<Have> {
        // A provider gives ids: only a look shows them.
        (self.kind != Kind::Vm).then(|| Have { thing: item.clone(), id: 0, building: false })
    }

    fn paused(&self, item: &Thing) -> Option<Thing> {
        let mut marked = item.marked();
        if self.overdone {
            marked.parts.retain(|part, _| part == MARK);
        }
        (self.kind == Kind::Pool).then_some(marked)
    }

    fn takes_unit(&self, key: &ItemKey, _: &Have, to: Option<&Thing>) -> bool {
        self.kind == Kind::Zone && key.is_head() && to.is_none() && !self.blind
    }

    fn step(&self, _: &ItemKey, at: At<'_, Self>, now: Moment) -> Step {
        if at.have.is_some_and(|have| have.building) {
            return Step::Wait {
                until: Some(now + PEEK),
                why: "it is being built".into(),
                memo: at.memo.clone(),
            };
        }
        if self.kind == Kind::Pool && at.want.is_none() && at.have.is_some() {
            let end = at.memo.get("until").and_then(Value::as_i64).unwrap_or(now + LINGER);
            let memo = json!({ "until": end });
            return if now < end {
                Step::Wait { until: Some(end), why: "its connections".into(), memo }
            } else {
                Step::Act { verb: "remove", memo }
            };
        }
        at.by_default()
    }
}
