//! Checking documents against the JSON Schemas that agents publish.
//!
//! A schema is compiled once and kept for as long as its row stays; nothing is ever fetched from anywhere, and
//! patterns run on an engine without backtracking, so a schema from the database can neither reach out nor stall.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Document, Schema};

/// The most compiled schemas that are kept: namespaces are few, versions come and go.
const MAX_KEPT: usize = 256;
/// The longest piece of a document that an error repeats, in characters.
const MAX_SHOWN: usize = 80;

/// Where a document breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The place, as a JSON pointer; empty: the whole document.
    pub path: String,
    /// What the schema asks for there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "the whole document" } else { &self.path };
        write!(f, "at {place}: expected {}, found {}", self.expected, self.found)
    }
}

/// The schema of one namespace, compiled.
#[derive(Debug)]
pub struct Checker {
    tag: Validator,
    host: Option<Validator>,
}

impl Checker {
    /// Compiles both halves.
    ///
    /// # Errors
    /// Which half is not a JSON Schema, and why. A `$ref` to another place than the schema itself is one.
    pub fn compile(schema: &Schema) -> Result<Self, String> {
        let compile = |half: &str, schema: &Value| {
            jsonschema::options()
                .with_pattern_options(PatternOptions::regex())
                .build(schema)
                .map_err(|e| unusable(half, &e))
        };
        Ok(Self {
            tag: compile("tag", &schema.tag)?,
            host: schema.host.as_ref().map(|host| compile("host", host)).transpose()?,
        })
    }

    /// Checks a tag's document, or an effective one.
    ///
    /// # Errors
    /// The first place where it breaks the schema.
    pub fn check_tag(&self, document: &Value) -> Result<(), Box<Fault>> {
        self.tag.validate(document).map_err(|e| Box::new(fault(&e)))
    }

    /// Whether hosts may override anything.
    #[must_use]
    pub fn allows_override(&self) -> bool {
        self.host.is_some()
    }

    /// Checks what a host overrides.
    ///
    /// # Errors
    /// The first place where it breaks the schema; the whole, where nothing may be overridden.
    pub fn check_host(&self, over: &Value) -> Result<(), Box<Fault>> {
        match &self.host {
            Some(host) => host.validate(over).map_err(|e| Box::new(fault(&e))),
            None => Err(Box::new(Fault {
                path: String::new(),
                expected: "nothing: the schema allows no overrides".to_owned(),
                found: shown(over),
            })),
        }
    }
}

/// Compiled schemas by the rows they are of.
#[derive(Debug, Default)]
pub(crate) struct Checkers(Mutex<HashMap<usize, (Document, Compiled)>>);

/// A schema's row, compiled, or why it cannot be.
pub(crate) type Compiled = Result<Arc<Checker>, String>;

impl Checkers {
    /// The checker of a schema's row.
    pub(crate) fn of(&self, row: &Document) -> Compiled {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, compiled)) = kept.get(&row.address()) {
            return compiled.clone();
        }
        let compiled = row
            .to::<Schema>()
            .map_err(|e| e.to_string())
            .and_then(|schema| Checker::compile(&schema))
            .map(Arc::new);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        // The row is kept too: its address is taken for as long as it names the entry.
        kept.insert(row.address(), (row.clone(), compiled.clone()));
        compiled
    }
}

fn unusable(half: &str, error: &ValidationError<'_>) -> String {
    if let ValidationErrorKind::Referencing(_) = error.kind() {
        return format!(
            "its {half:?} refers to something outside of itself, or to nothing: a schema stands alone"
        );
    }
    format!("its {half:?}: {}", fault(error))
}

fn pointer(error: &ValidationError<'_>) -> String {
    error.instance_path().as_str().to_owned()
}

fn fault(error: &ValidationError<'_>) -> Fault {
    if let Some(deeper) = deeper(error) {
        return fault(deeper);
    }
    let path = pointer(error);
    let found = shown(error.instance());
    let (path, expected, found) = match error.kind() {
        ValidationErrorKind::Type { kind } => (path, kinds(kind), found),
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            (
                format!("{path}/{}", crate::view::escape(name)),
                "a value: it is required".to_owned(),
                "nothing".to_owned(),
            )
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let name = unexpected.first().map(|n| crate::view::escape(n)).unwrap_or_default();
            let found = unexpected.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
            (format!("{path}/{name}"), "no such field".to_owned(), cut(found))
        }
        ValidationErrorKind::Enum { options } => (path, format!("one of {}", shown(options)), found),
        ValidationErrorKind::Constant { expected_value } => (path, shown(expected_value), found),
        ValidationErrorKind::Minimum { limit } => (path, format!("at least {limit}"), found),
        ValidationErrorKind::Maximum { limit } => (path, format!("at most {limit}"), found),
        ValidationErrorKind::Pattern { pattern } => (path, format!("text that matches {pattern}"), found),
        ValidationErrorKind::Format { format } => (path, format!("text of the format {format}"), found),
        ValidationErrorKind::MinLength { limit } => (path, format!("at least {limit} characters"), found),
        ValidationErrorKind::MaxLength { limit } => (path, format!("at most {limit} characters"), found),
        ValidationErrorKind::MinItems { limit } => (path, format!("at least {limit} items"), found),
        ValidationErrorKind::MaxItems { limit } => (path, format!("at most {limit} items"), found),
        ValidationErrorKind::MinProperties { limit } => (path, format!("at least {limit} fields"), found),
        ValidationErrorKind::MaxProperties { limit } => (path, format!("at most {limit} fields"), found),
        ValidationErrorKind::UniqueItems => (path, "items that all differ".to_owned(), found),
        ValidationErrorKind::FalseSchema => (path, "nothing".to_owned(), found),
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            let forms: Vec<String> =
                context.iter().filter_map(|f| f.first()).map(|e| fault(e).expected).collect();
            (path, cut(forms.join(", or ")), found)
        }
        other => (path, format!("what {:?} asks for", other.keyword()), found),
    };
    Fault { path, expected, found }
}

/// Of several forms that all do not fit, the fault that lies deepest: the form that was meant fits furthest.
fn deeper<'e>(error: &'e ValidationError<'_>) -> Option<&'e ValidationError<'static>> {
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) =
        error.kind()
    else {
        return None;
    };
    let depth = |e: &ValidationError<'_>| e.instance_path().as_str().matches('/').count();
    let here = depth(error);
    context.iter().filter_map(|form| form.first()).filter(|e| depth(e) > here).max_by_key(|e| depth(e))
}

fn kinds(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => format!("{one}"),
        TypeKind::Multiple(many) => many.iter().map(|one| format!("{one}")).collect::<Vec<_>>().join(" or "),
    }
}

fn shown(value: &Value) -> String {
    cut(value.to_string())
}

fn cut(text: String) -> String {
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    text.chars().take(MAX_SHOWN).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(schema: Value, document: Value) -> String {
        let checker =
            Checker::compile(&Schema { tag: schema, host: None, agent: None, writes: None }).unwrap();
        checker.check_tag(&document).map_or_else(|f| f.to_string(), |()| "fits".to_owned())
    }

    #[test]
    fn faults_say_place_expected_and_found() {
        let schema = json!({
            "type": "object",
            "properties": {
                "ttl": {"type": "integer", "minimum": 1},
                "mode": {"enum": ["http", "tcp"]},
                "soa": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"refresh": {"type": "integer"}}}]},
                "port": {"type": ["integer", "string"]}
            },
            "required": ["ttl"],
            "additionalProperties": false
        });
        let all = [
            json!({"ttl": 5}),
            json!({"ttl": "5"}),
            json!({"ttl": 0}),
            json!({}),
            json!({"ttl": 5, "tll/x": 1}),
            json!({"ttl": 5, "mode": "udp"}),
            json!({"ttl": 5, "soa": {"refresh": "x"}}),
            json!({"ttl": 5, "soa": 7}),
            json!({"ttl": 5, "port": []}),
        ];
        let all: Vec<String> = all.into_iter().map(|d| faults(schema.clone(), d)).collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
fits
at /ttl: expected integer, found "5"
at /ttl: expected at least 1, found 0
at /ttl: expected a value: it is required, found nothing
at /tll~1x: expected no such field, found "tll/x"
at /mode: expected one of ["http","tcp"], found "udp"
at /soa/refresh: expected integer, found "x"
at /soa: expected null, or object, found 7
at /port: expected integer or string, found []
"#);
    }

    #[test]
    fn schemas_fetch_nothing() {
        for reference in ["https://example.com/x.json", "file:///etc/passwd"] {
            let schema = Schema { tag: json!({"$ref": reference}), host: None, agent: None, writes: None };
            assert!(Checker::compile(&schema).is_err(), "{reference}");
        }
    }
}
