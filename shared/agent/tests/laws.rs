//! The laws can be broken: each of these agents is caught.

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
    fn unit(&self, _: &String) -> Unit {
        "all".into()
    }
    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<String>, Blocked> {
        let mut keys: Vec<String> = from.host.iter().map(|host| host.name.to_string()).collect();
        if self.0 == Fault::ReadsAll {
            keys.push("summary".into());
        }
        Ok(keys)
    }
    fn desired(
        &self,
        key: &String,
        from: &[Source<'_, Spec>],
        _: &dyn Look,
    ) -> Result<Desired<String>, Blocked> {
        let text = from.first().map(|source| source.spec.text.clone()).unwrap_or_default();
        Ok(Desired::item(match self.0 {
            Fault::Counts => format!("{text} {}", CALLS.fetch_add(1, Ordering::Relaxed)),
            Fault::NeverDone => format!("{text} never"),
            Fault::ReadsAll | Fault::None => format!("{key} {text}"),
        }))
    }
}

fn broken(fault: Fault) -> &'static str {
    let laws = Laws::new(move || Odd(fault), "odd/all", json!({"text": "a"})).then(json!({"text": "b"}));
    laws.check().err().map_or("", |broken| broken.law)
}

#[test]
fn each_law_catches_who_breaks_it() {
    assert_eq!(broken(Fault::None), "");
    assert_eq!(broken(Fault::Counts), "same input, same plan");
    assert_eq!(broken(Fault::NeverDone), "after converging, nothing is left to do");
    assert_eq!(broken(Fault::ReadsAll), "the cost follows the change, not the fleet");
}
