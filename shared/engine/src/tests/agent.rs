//! A small agent for the tests: `toy/<unit>` says a text; every member says it with its own note.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use shoal_core::{Change, HostId};

use crate::model::{Model, World};
use crate::{
    Agent, At, Blocked, Desired, Holder, Known, Look, Moment, Nature, Seen, Source, Step, Unit, Verdict, Why,
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) text: String,
    /// Items that no member contributes.
    #[serde(default)]
    pub(super) fixed: Vec<String>,
    /// Where its items stand, if not under the tag's own key.
    #[serde(default)]
    pub(super) unit: Option<String>,
}

#[derive(Default)]
pub(super) struct Toy {
    pub(super) logic: u32,
    /// What another version appends.
    pub(super) suffix: &'static str,
    /// The only unit that it reaches; before one is named, all.
    pub(super) near: std::sync::OnceLock<&'static str>,
}

impl Agent for Toy {
    type Spec = Spec;
    type Key = String;
    type Item = String;
    type Have = String;

    fn namespace(&self) -> &str {
        "toy"
    }
    fn logic(&self) -> u32 {
        self.logic
    }
    fn unit(&self, key: &String) -> Unit {
        key.split('/').next().unwrap_or_default().into()
    }
    fn reaches(&self, unit: &Unit) -> bool {
        self.near.get().is_none_or(|near| unit.0 == *near)
    }
    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<String>, Blocked> {
        let unit = from.spec.unit.as_deref().unwrap_or(from.tag.key());
        match from.host {
            None => Ok(from.spec.fixed.iter().map(|name| format!("{unit}/{name}")).collect()),
            Some(host) if host.field("garbled").is_some() => Err(Blocked::new(from.name(), "it is garbled")),
            Some(host) => Ok(vec![format!("{unit}/{}", host.name)]),
        }
    }
    fn desired(
        &self,
        _: &String,
        from: &[Source<'_, Spec>],
        look: &dyn Look,
    ) -> Result<Desired<String>, Blocked> {
        let mut text = Vec::new();
        let mut left_out = Vec::new();
        for source in from {
            let Some(host) = source.host else {
                text.push(source.spec.text.clone());
                continue;
            };
            if host.field("unclear").is_some() {
                return Err(Blocked::new(source.name(), "nobody can say"));
            }
            if host.field("absent").is_some() {
                return Ok(Desired::nothing(vec![]));
            }
            if host.field("bad").is_some() {
                left_out.push(Blocked::new(source.name(), "it is bad"));
                continue;
            }
            let note = host.text("note").unwrap_or_default().into_owned();
            let above = host.text("parent").and_then(|parent| look.host(&parent));
            if above.is_some_and(|above| above.field("unclear").is_some()) {
                return Err(Blocked::new(source.name(), "its parent is unclear"));
            }
            let parent = above.and_then(|above| above.text("note").map(|n| n.into_owned()));
            let said = source.facts.iter().filter(|fact| fact.namespace.as_str() == "said");
            let said: String =
                said.filter_map(|fact| fact.document.text("word").map(|word| word.into_owned())).collect();
            text.push(format!("{}{note}{}{said}", source.spec.text, parent.unwrap_or_default()));
        }
        let item = (!text.is_empty()).then(|| text.join(";") + self.suffix);
        Ok(Desired { item, left_out })
    }
    /// Only what says that it can be marked.
    fn paused(&self, item: &String) -> Option<String> {
        (item.contains("mark") && !item.ends_with(" paused")).then(|| format!("{item} paused"))
    }
    /// `@` is the head of its unit.
    fn takes_unit(&self, key: &String, _: &String, to: Option<&String>) -> bool {
        key.ends_with("/@") && to.is_none_or(|to| to.contains("headless"))
    }
    /// Where others write as well, what they write begins with `theirs`.
    fn part(&self, _: &String, have: &String, known: Known<'_, String>) -> Seen<String> {
        let Known { want, last, tried } = known;
        assert!(want.or(last).is_some() || !tried.is_empty(), "nothing is known to be asked about");
        if have.starts_with("theirs") { Seen::Nothing } else { Seen::There(have.clone()) }
    }
    /// What stands in the unit `kept` goes with the host that it was made of, and for no other reason.
    fn lets_go(&self, key: &String, because: &Why, look: &dyn Look) -> Result<(), String> {
        match because {
            Why::HostGone(host, _) => {
                assert!(look.host(host.as_str()).is_none(), "{host} is there");
                Ok(())
            }
            _ if key.starts_with("kept/") => {
                let n = key.trim_start_matches("kept/web").split('.').next().unwrap_or_default();
                match look.holder(&HostId(format!("h{n}"))) {
                    Holder::Nobody => Ok(()),
                    Holder::Host(..) | Holder::Unknown => Err("that is no reason".to_owned()),
                }
            }
            _ => Ok(()),
        }
    }
    fn step(&self, _: &String, at: At<'_, Self>, now: Moment) -> Step {
        match (at.want, at.memo.as_i64()) {
            (Some(want), _) if want.contains("person") => Step::Hold { why: "a person has to look".into() },
            // `drain:` waits a minute before it does anything.
            (Some(want), None) if want.contains("drain") && at.have.is_some_and(|have| have != want) => {
                Step::Wait { until: Some(now + 60_000), why: "a minute".into(), memo: json!(now + 60_000) }
            }
            (Some(_), Some(until)) if until > now => {
                Step::Wait { until: Some(until), why: "a minute".into(), memo: json!(until) }
            }
            _ => at.by_default(),
        }
    }
}

pub(super) type Toys = World<Toy, (Arc<Toy>, Model<Toy>)>;

pub(super) fn toys_of(nature: Nature) -> Toys {
    let agent = Arc::new(Toy { logic: 1, ..Toy::default() });
    World::new(agent.clone(), (agent, Model::new(nature, |item: &String| item.clone())))
}

pub(super) fn toys() -> Toys {
    toys_of(Nature::default())
}

pub(super) fn rows(rows: &[(&str, serde_json::Value)]) -> Vec<Change> {
    Toys::rows(rows)
}

pub(super) fn host(n: usize, document: serde_json::Value) -> serde_json::Value {
    json!({"id": format!("h{n}"), "state": "active", "document": document})
}

pub(super) fn tag(text: &str) -> serde_json::Value {
    json!({"document": {"text": text}})
}

pub(super) fn name(n: usize) -> String {
    format!("web{n}.example.com")
}

/// What a ledger says, as text.
pub(super) fn pages(ledger: &BTreeMap<String, Vec<u8>>) -> String {
    ledger.values().map(|page| String::from_utf8_lossy(page)).collect()
}

impl Toys {
    /// `n` hosts, all in `toy/<unit>`, which says `text`.
    pub(super) fn fleet(&mut self, unit: &str, n: usize, text: &str) {
        let mut all = vec![(format!("toy/{unit}"), tag(text))];
        for n in 0..n {
            all.push((format!("hosts/{}", name(n)), host(n, json!({}))));
            all.push((format!("toy/{unit}/members/{}", name(n)), json!({})));
        }
        let all: Vec<_> = all.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        self.commit(rows(&all));
    }

    pub(super) fn set(&mut self, key: &str, value: serde_json::Value) {
        self.commit(rows(&[(key, value)]));
    }

    pub(super) fn at(&self, unit: &str, n: usize) -> Option<&str> {
        self.place.1.items.get(&format!("{unit}/{}", name(n))).map(String::as_str)
    }

    pub(super) fn converge(&mut self) {
        let verdict = self.run();
        assert_eq!(verdict, Verdict::Converged, "{:?}", self.engine().troubles());
    }

    /// The state of the item's trouble, in words.
    pub(super) fn trouble(&mut self, unit: &str, n: usize) -> String {
        let key = format!("{unit}/{}", name(n));
        let all = self.engine().troubles();
        all.into_iter().find(|(_, item, _)| *item == key).map(|(_, _, why)| why).unwrap_or_default()
    }

    /// The digest of what is held.
    pub(super) fn digest(&mut self) -> String {
        self.engine().holds().next().map(|(_, hold)| hold.digest.clone()).unwrap_or_default()
    }

    pub(super) fn restart(&mut self) {
        self.crash();
        self.advance(70_000);
    }
}
