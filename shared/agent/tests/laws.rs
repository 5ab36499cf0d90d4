//! The laws can be broken: each of these agents and targets is caught.

#![allow(clippy::unwrap_used, reason = "all of this is a test, its helpers too")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use shoal_agent::laws::Laws;
use shoal_agent::*;

/// How an agent errs.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It counts its calls.
    Counts,
    /// What it makes is never what it wants.
    NeverDone,
    /// The tag itself feeds an item for which all hosts are read.
    ReadsAll,
    /// It takes what it was about to do for done: what a step remembers is written down before it is done.
    TrustsMemo,
    /// It does not: every host is a unit of its own, of two items.
    SmallUnits,
    /// It looks at another host, although it says that a unit is one host's alone.
    LooksAround,
}

struct Odd(Fault);

#[derive(Deserialize, JsonSchema)]
struct Spec {
    text: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Have(String);

impl From<String> for Have {
    fn from(item: String) -> Self {
        Self(if item.contains("never") { item + "!" } else { item })
    }
}

impl PartialEq<String> for Have {
    fn eq(&self, item: &String) -> bool {
        self.0 == *item
    }
}

static CALLS: AtomicU64 = AtomicU64::new(0);

impl Agent for Odd {
    type Spec = Spec;
    type Key = String;
    type Item = String;
    type Have = Have;
    fn namespace(&self) -> &str {
        "odd"
    }
    fn unit(&self, key: &String) -> Unit {
        match key.split_once(' ') {
            Some((host, _)) => host.into(),
            None => "all".into(),
        }
    }
    fn units_of(&self, host: &HostName) -> Option<Vec<Unit>> {
        matches!(self.0, Fault::SmallUnits | Fault::LooksAround).then(|| vec![host.as_str().into()])
    }
    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<String>, Blocked> {
        let mut keys: Vec<String> = from.host.iter().map(|host| host.name.to_string()).collect();
        if matches!(self.0, Fault::SmallUnits | Fault::LooksAround) {
            keys = keys.iter().flat_map(|host| [format!("{host} one"), format!("{host} two")]).collect();
        }
        if self.0 == Fault::ReadsAll {
            keys.push("summary".into());
        }
        Ok(keys)
    }
    fn desired(
        &self,
        key: &String,
        from: &[Source<'_, Spec>],
        look: &dyn Look,
    ) -> Result<Desired<String>, Blocked> {
        let text = from.first().map(|source| source.spec.text.clone()).unwrap_or_default();
        Ok(Desired::item(match self.0 {
            Fault::Counts => format!("{text} {}", CALLS.fetch_add(1, Ordering::Relaxed)),
            Fault::NeverDone => format!("{text} never"),
            Fault::LooksAround => format!("{text} {}", look.host("law0.example.com").is_some()),
            Fault::ReadsAll | Fault::TrustsMemo | Fault::SmallUnits | Fault::None => format!("{key} {text}"),
        }))
    }
    fn step(&self, _: &String, at: At<'_, Self>, _: Moment) -> Step {
        match at.by_default() {
            Step::Act { verb: "create", .. } if self.0 == Fault::TrustsMemo => match at.memo.as_bool() {
                Some(true) => Step::rest(),
                _ => Step::Act { verb: "create", memo: json!(true) },
            },
            step => step,
        }
    }
}

/// A target in memory.
struct Things {
    things: Mutex<BTreeMap<String, String>>,
    fault: Careless,
}

/// How a target errs.
#[derive(Clone, Copy, PartialEq)]
enum Careless {
    No,
    /// It writes all that it was given, and nothing else stays.
    Wipes,
    /// It bears its mark on everything.
    MarksAll,
}

impl Things {
    fn new(fault: Careless) -> Self {
        Self { things: Mutex::default(), fault }
    }
}

impl Target<Odd> for Things {
    fn nature(&self) -> Nature {
        Nature { marks_own: self.fault == Careless::MarksAll, ..Nature::default() }
    }
    async fn observe(&self, _: &Unit, scope: Scope<'_, String>) -> Result<Observed<Odd>, shoal_agent::Fault> {
        let things = self.things.lock().unwrap();
        let keys = match scope {
            Scope::All => things.keys().cloned().collect(),
            Scope::Keys(keys) => keys.to_vec(),
        };
        let look = |key: &String| match (things.get(key), self.fault) {
            (None, _) => Seen::Nothing,
            (Some(have), Careless::MarksAll) => Seen::Ours(Have(have.clone())),
            (Some(have), _) => Seen::There(Have(have.clone())),
        };
        Ok(Observed::of(keys, look))
    }
    async fn apply(
        &self,
        _: &Unit,
        batch: &Batch<Odd>,
        fence: &Fence,
    ) -> Result<Applied<Odd>, shoal_agent::Fault> {
        let mut things = self.things.lock().unwrap();
        if self.fault == Careless::Wipes {
            things.clear();
        }
        Ok(Applied::each(batch, fence, |edit| {
            match &edit.to {
                Some(to) => things.insert(edit.key.clone(), to.clone()),
                None => things.remove(&edit.key),
            };
            Ok(())
        }))
    }
}

fn disturbed(fault: Careless) -> &'static str {
    let laws = Laws::new(|| Odd(Fault::None), "odd/all", json!({"text": "a"})).then(json!({"text": "b"}));
    let put = |target: &Things, key: &String, have: &Have| {
        target.things.lock().unwrap().insert(key.clone(), have.0.clone());
    };
    laws.check_foreign_with(|| Things::new(fault), put).err().map_or("", |broken| broken.law)
}

#[test]
fn a_target_that_touches_what_is_not_shoals_is_caught() {
    assert_eq!(disturbed(Careless::No), "");
    assert_eq!(disturbed(Careless::Wipes), "foreign items stay as they are");
    assert_eq!(disturbed(Careless::MarksAll), "foreign items stay as they are");
}

fn broken(fault: Fault) -> &'static str {
    let laws = Laws::new(move || Odd(fault), "odd/all", json!({"text": "a"})).then(json!({"text": "b"}));
    laws.check().err().map_or("", |broken| broken.law)
}

#[test]
fn an_agent_whose_unit_is_one_host_keeps_them() {
    assert_eq!(broken(Fault::SmallUnits), "");
}

#[test]
fn what_is_broken_says_what_was_committed() {
    let laws = Laws::new(|| Odd(Fault::NeverDone), "odd/all", json!({"text": "a"}));
    let said = laws.check().unwrap_err().to_string();
    assert!(said.contains("the beginning (+odd/all +hosts/law0.example.com"), "{said}");
}

#[test]
fn each_law_catches_who_breaks_it() {
    assert_eq!(broken(Fault::None), "");
    assert_eq!(broken(Fault::Counts), "same input, same plan");
    assert_eq!(broken(Fault::NeverDone), "after converging, nothing is left to do");
    assert_eq!(broken(Fault::TrustsMemo), "stopped anywhere and run again, it converges");
    assert_eq!(broken(Fault::LooksAround), "what is a host's alone follows from what concerns it");
    assert_eq!(broken(Fault::ReadsAll), "the cost follows the change, not the fleet");
}
