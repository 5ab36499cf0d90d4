//! What the tags of a namespace make of a node: pure.
//!
//! A tag's document has `classes` (a list of names, or a map from name to parameters), `parameters` (top-scope variables) and
//! `environment`. Lists of classes add up like maps; a class that is `false` in a stronger place is not there. All of it is checked before
//! Puppet sees it: names become paths there.

use serde_json::{Map, Value, json};
use shoal_core::codec::{self, Format};
use shoal_core::{Effective, HostName, View};

/// The parameter that says what the database knows of the node besides.
const OWN: &str = "shoal";
/// What a document may say.
const FIELDS: [&str; 3] = ["classes", "parameters", "environment"];

/// An answer to Puppet.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) yaml: String,
    /// What people should know, and that stops nothing.
    pub(super) notes: Vec<String>,
    /// Whether tags of equal depth contradict each other.
    pub(super) contradicts: bool,
}

/// What the tags of the namespace say of a host that exists.
///
/// # Errors
/// What is not in the form that Puppet takes, and who wrote it.
pub(super) fn node(view: &View, host: &HostName, namespace: &str) -> Result<Node, String> {
    let effective =
        view.effective_in(namespace, host, shape).ok_or_else(|| format!("there is no host {host}"))?;
    let mut notes: Vec<String> = effective.conflicts.iter().map(said).collect();
    let contradicts = !notes.is_empty();
    let mut said = match &effective.value {
        Value::Object(map) => map.clone(),
        _ => return Err(format!("what {host} says under {namespace:?} is not a map")),
    };
    for field in said.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
        notes.push(format!(
            "{field:?} in {} means nothing here: a document has {}",
            writer(&effective, field),
            FIELDS.join(", ")
        ));
    }
    let classes = classes(&effective, said.shift_remove("classes"))?;
    let mut parameters = parameters(&effective, said.shift_remove("parameters"))?;
    if parameters.contains_key(OWN) {
        notes.push(format!("the parameter {OWN:?} is Shoal's own: what a tag says of it is not used"));
    }
    parameters.insert(OWN.to_owned(), own(view, host));
    let mut answer = Map::new();
    answer.insert("classes".to_owned(), Value::Object(classes));
    answer.insert("parameters".to_owned(), Value::Object(parameters));
    if let Some(environment) = environment(&effective, said.shift_remove("environment"))? {
        answer.insert("environment".to_owned(), environment);
    }
    let yaml = codec::write(&Value::Object(answer), Format::Yaml).map_err(|e| e.to_string())?;
    Ok(Node { yaml: format!("---\n{yaml}"), notes, contradicts })
}

/// Brings `classes` into one form, so that what several tags say adds up.
fn shape(document: &mut Value) {
    let Some(classes) = document.get_mut("classes") else { return };
    match classes {
        Value::Array(names) if names.iter().all(Value::is_string) => {
            let names = std::mem::take(names).into_iter().filter_map(|name| match name {
                Value::String(name) => Some((name, json!({}))),
                _ => None,
            });
            *classes = Value::Object(names.collect());
        }
        Value::Object(classes) => {
            classes.values_mut().filter(|class| class.is_null()).for_each(|class| *class = json!({}));
        }
        Value::Null => *classes = json!({}),
        _ => {}
    }
}

fn said(conflict: &shoal_core::Conflict) -> String {
    let said = conflict.between.iter().map(|said| {
        format!("{} says {}", crate::names::shown(&said.origin.key), crate::out::plain(&said.value))
    });
    let said: Vec<String> = said.collect();
    format!("{} is contradicted: {}; the last is used", conflict.path, said.join(", "))
}

/// Who wrote what stands at a field or below it.
fn writer(effective: &Effective, field: &str) -> String {
    let at = |path: &str| {
        let mut below = effective.origins.iter().filter(|(of, _)| {
            of.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        below.next().map(|(_, origin)| crate::names::shown(&origin.key))
    };
    let path = format!("/{}", field.replace('~', "~0").replace('/', "~1"));
    at(&path).or_else(|| at("")).unwrap_or_else(|| "its tags".to_owned())
}

fn classes(effective: &Effective, said: Option<Value>) -> Result<Map<String, Value>, String> {
    let who = || writer(effective, "classes");
    let said = match said {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(format!("classes in {} is neither a list of names nor a map", who())),
    };
    let mut classes = Map::new();
    for (name, parameters) in said {
        if !is_class(&name) {
            return Err(format!("{name:?} in {} is not the name of a class", who()));
        }
        match parameters {
            Value::Object(parameters) => classes.insert(name, Value::Object(parameters)),
            Value::Bool(false) => continue,
            other => {
                return Err(format!(
                    "the class {name} in {} has {} where parameters stand: write a map, or false to leave it out",
                    who(),
                    crate::out::plain(&other)
                ));
            }
        };
    }
    Ok(classes)
}

fn parameters(effective: &Effective, said: Option<Value>) -> Result<Map<String, Value>, String> {
    let who = || writer(effective, "parameters");
    let said = match said {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(format!("parameters in {} is not a map", who())),
    };
    match said.keys().find(|name| !is_variable(name)) {
        Some(name) => Err(format!("{name:?} in {} is not the name of a variable", who())),
        None => Ok(said),
    }
}

fn environment(effective: &Effective, said: Option<Value>) -> Result<Option<Value>, String> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match said {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if word(&text) => Ok(Some(Value::String(text))),
        Some(other) => Err(format!(
            "environment in {} is {}: write letters, digits and _",
            writer(effective, "environment"),
            crate::out::plain(&other)
        )),
    }
}

/// `ntp`, `profile::web`, `::ntp`.
fn is_class(name: &str) -> bool {
    name.strip_prefix("::").unwrap_or(name).split("::").all(is_variable_in_lower_case)
}

fn is_variable_in_lower_case(word: &str) -> bool {
    is_variable(word) && !word.starts_with('_') && !word.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_variable(word: &str) -> bool {
    word.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What the database knows of the node besides. No revision: it would change every catalog with every commit.
fn own(view: &View, host: &HostName) -> Value {
    let tags: Vec<String> =
        view.memberships(host.as_str()).into_iter().map(|(tag, _)| tag.to_string()).collect();
    let mut own = json!({"tags": tags});
    if let (Value::Object(map), Some(host)) = (&mut own, view.host(host.as_str())) {
        map.insert("state".to_owned(), host.state.as_str().into());
        for (name, value) in [("owner", &host.owner), ("environment", &host.environment)] {
            if let Some(value) = value {
                map.insert(name.to_owned(), value.as_str().into());
            }
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_core::{Change, Document, Revision};

    fn view(rows: &[(&str, Value)]) -> View {
        let changes: Vec<Change> = rows
            .iter()
            .map(|(key, value)| Change::put(key.parse().unwrap(), Document::from(value.clone())))
            .collect();
        let mut view = View::new();
        view.apply(Revision(1), &changes);
        view
    }

    /// The answer for web1, which is in these tags, all of them its own.
    fn answer(host: Value, tags: &[(&str, Value)]) -> Result<(Value, Vec<String>), String> {
        let mut rows = vec![("hosts/web1".to_owned(), json!({"id": "1", "owner": "ann", "document": host}))];
        for (tag, document) in tags {
            rows.push(((*tag).to_owned(), json!({"document": document})));
            rows.push((format!("{tag}/members/web1"), json!({})));
        }
        let rows: Vec<(&str, Value)> =
            rows.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let node = node(&view(&rows), &"web1".parse().unwrap(), "puppet")?;
        assert!(node.yaml.starts_with("---\nclasses:"), "{}", node.yaml);
        assert_eq!(node.contradicts, node.notes.iter().any(|note| note.contains("contradicted")));
        Ok((codec::read(node.yaml.as_bytes(), Format::Yaml).unwrap(), node.notes))
    }

    #[test]
    fn lists_and_maps_of_classes_add_up() {
        let tags = [
            ("puppet/a", json!({"classes": ["base", "ntp"], "environment": "production"})),
            (
                "puppet/b",
                json!({"classes": {"ntp": {"servers": ["x"]}, "profile::web": null}, "parameters": {"role": "yes"}}),
            ),
            ("dns/x", json!({"ttl": 5})),
        ];
        let (said, notes) = answer(json!({"puppet": {"classes": {"base": false}}}), &tags).unwrap();
        assert_eq!(
            said,
            json!({
                "classes": {"ntp": {"servers": ["x"]}, "profile::web": {}},
                "parameters": {"role": "yes", "shoal": {"tags": ["dns/x", "puppet/a", "puppet/b"], "state": "active", "owner": "ann"}},
                "environment": "production",
            })
        );
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn a_known_node_without_tags_has_no_classes() {
        let (said, _) = answer(json!({}), &[]).unwrap();
        assert_eq!((&said["classes"], &said["environment"]), (&json!({}), &Value::Null));
    }

    #[test]
    fn contradictions_and_what_means_nothing_are_said() {
        let tags = [
            ("puppet/a", json!({"classes": {"ntp": {"pool": 1}}, "clases": []})),
            ("puppet/b", json!({"classes": {"ntp": {"pool": 2}}, "parameters": {"shoal": 1}})),
        ];
        let (said, notes) = answer(json!({}), &tags).unwrap();
        assert_eq!(said["classes"], json!({"ntp": {"pool": 2}}));
        assert!(
            notes[0].contains("/classes/ntp/pool is contradicted: tag puppet/a says 1, tag puppet/b says 2"),
            "{notes:?}"
        );
        assert!(notes[1].contains("\"clases\" in tag puppet/a"), "{notes:?}");
        assert!(notes[2].contains("Shoal's own"), "{notes:?}");
        // A stronger word decides.
        let over = json!({"puppet": {"classes": {"ntp": {"pool": 3}}}});
        let (said, notes) = answer(over, &tags[..]).unwrap();
        assert_eq!((&said["classes"]["ntp"]["pool"], notes.len()), (&json!(3), 2));
    }

    #[test]
    fn what_puppet_would_not_take_is_refused_with_who_wrote_it() {
        for (document, part) in [
            (json!({"classes": 5}), "classes in tag puppet/a is neither"),
            (json!({"classes": {"Ntp": {}}}), "\"Ntp\" in tag puppet/a is not the name of a class"),
            (json!({"classes": ["../x"]}), "\"../x\" in tag puppet/a"),
            (json!({"classes": {"ntp": 5}}), "the class ntp in tag puppet/a has 5"),
            (json!({"parameters": [1]}), "parameters in tag puppet/a is not a map"),
            (json!({"parameters": {"a-b": 1}}), "\"a-b\" in tag puppet/a"),
            (json!({"environment": "../x"}), "environment in tag puppet/a is ../x"),
        ] {
            let why = answer(json!({}), &[("puppet/a", document)]).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    /// The schema that comes with Shoal refuses when it is written what is refused here when a node asks, and nothing else but names of
    /// fields that mean nothing.
    #[test]
    fn the_schema_refuses_what_this_refuses() {
        let file = include_str!("../../../../../deploy/puppet/schema.yaml");
        let edit: Value = codec::read(file.as_bytes(), Format::Yaml).unwrap();
        assert_eq!((&edit["edit"], &edit["key"]), (&json!("write"), &json!("schemas/puppet")));
        let schema: shoal_core::Schema = serde_json::from_value(edit["value"].clone()).unwrap();
        let checker = shoal_core::Checker::compile(&schema).unwrap();
        let mut both = [0, 0];
        let (bad, good) = (
            ["../x", "Ntp", "a:b", "", "::", "ntp::", "_x", "x\n", "ntp::_x", "1x"],
            ["ntp", "::ntp", "a::b_2", "n9"],
        );
        let classes = bad.iter().chain(&good).flat_map(|name| {
            let values =
                [json!({}), json!({"x": [1]}), json!(null), json!(false), json!(true), json!(5), json!("x")];
            let maps = values.map(|value| json!({"classes": {*name: value}}));
            maps.into_iter().chain([json!({"classes": [name]}), json!({"classes": ["ok", name]})])
        });
        let names = ["role", "_r", "rOle9", "a-b", "Role", "9", "", "a::b", "x\n"];
        let parameters = names.iter().map(|name| json!({"parameters": {*name: {"any": [1, null]}}}));
        let environments = ["production", "a_1", "9", "", "../x", "a-b", "x\n"];
        let environments = environments.iter().map(|name| json!({"environment": name}));
        let forms = [json!(null), json!(5), json!([]), json!({}), json!(["x", 5]), json!("x"), json!(true)];
        let forms = forms.iter().flat_map(|form| FIELDS.map(|field| json!({field: form})));
        for document in classes.chain(parameters).chain(environments).chain(forms) {
            let (here, there) =
                (answer(json!({}), &[("puppet/a", document.clone())]), checker.check_tag(&document));
            assert_eq!(here.is_ok(), there.is_ok(), "{document}: {here:?}, {there:?}");
            assert_eq!(checker.check_host(&document).is_ok(), there.is_ok(), "{document}");
            both[usize::from(here.is_ok())] += 1;
        }
        assert!(both.iter().all(|count| *count > 20), "{both:?}");
        assert!(checker.check_tag(&json!({"clases": ["ntp"]})).is_err());
    }

    #[test]
    fn text_stays_text_in_ruby() {
        let words = [
            "yes",
            "on",
            "no",
            "null",
            "~",
            "0x1f",
            "1_000",
            "12:30:00",
            "2026-01-01",
            ":symbol",
            "1e3",
            "<<",
            "=",
            "y",
        ];
        let parameters: Map<String, Value> =
            words.iter().enumerate().map(|(n, word)| (format!("w{n}"), Value::from(*word))).collect();
        let rows = [("hosts/web1", json!({"id": "1", "document": {"puppet": {"parameters": parameters}}}))];
        let node = node(&view(&rows), &"web1".parse().unwrap(), "puppet").unwrap();
        for (n, word) in words.iter().enumerate() {
            let line =
                node.yaml.lines().find(|line| line.trim_start().starts_with(&format!("w{n}:"))).unwrap();
            assert!(line.ends_with('"') || line.ends_with('\''), "{word} is bare: {line}");
        }
    }
}
