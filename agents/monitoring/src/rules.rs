//! The alert rules of a tag.
//!
//! An expression is data of Prometheus: it reads metrics and does nothing. It is passed on as it stands and nothing is filled
//! in, so that no field of a host becomes a part of it; whether it is one, Prometheus' own checker says.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_agent::{Blocked, Desired, Source};

use crate::item::{Item, Rule};
use crate::name::{Label, Name};
use crate::spec::{MAX_SECONDS, RuleSpec, Spec};

/// The longest expression, label or annotation, in octets.
const MAX_TEXT: usize = 10_000;
/// The most rules of a tag, and labels or annotations of a rule.
const MAX_LISTED: usize = 500;

/// The rules that a tag wants; one that cannot be used is left out alone.
pub(crate) fn decide(from: &[Source<'_, Spec>]) -> Desired<Item> {
    let (mut rules, mut left_out) = (BTreeMap::new(), Vec::new());
    for source in from.iter().filter(|source| source.host.is_none()) {
        for (name, spec) in source.spec.rules.iter().take(MAX_LISTED) {
            match read(name, spec) {
                Ok((name, rule)) => drop(rules.insert(name, rule)),
                Err(why) => left_out.push(Blocked::new(source.name(), format!("rules.{name}: {why}"))),
            }
        }
    }
    Desired { item: (!rules.is_empty()).then(|| Item::Rules(Arc::new(rules))), left_out }
}

fn read(name: &str, spec: &RuleSpec) -> Result<(Name, Rule), String> {
    let name = name.parse()?;
    if spec.lasts > MAX_SECONDS {
        return Err(format!("for: {} is more than {MAX_SECONDS}", spec.lasts));
    }
    let rule = Rule {
        expr: text("expr", &spec.expr)?,
        lasts: format!("{}s", spec.lasts),
        labels: texts("labels", &spec.labels)?,
        annotations: texts("annotations", &spec.annotations)?,
    };
    Ok((name, rule))
}

fn texts(field: &str, said: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if said.len() > MAX_LISTED {
        return Err(format!("{field}: there are {}, and {MAX_LISTED} are the most", said.len()));
    }
    let one = |(name, value): (&String, &String)| {
        let label: Label = name.parse().map_err(|why| format!("{field}: {why}"))?;
        Ok((label.to_string(), text(&format!("{field}.{name}"), value)?))
    };
    said.iter().map(one).collect()
}

fn text(field: &str, said: &str) -> Result<String, String> {
    if said.trim().is_empty() || said.len() > MAX_TEXT {
        return Err(format!("{field}: it has to have between 1 and {MAX_TEXT} octets"));
    }
    Ok(said.to_owned())
}
