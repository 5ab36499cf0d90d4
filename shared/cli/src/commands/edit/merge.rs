//! Two changes of one text, put together.
//!
//! Maps merge field by field. A tag's members are a set: whoever comes or goes on either side comes or goes. Any other list,
//! text or number is taken whole from the side that changed it. Where both changed it, differently, the first side's stands
//! and the clash is told.

use serde_json::{Map, Value};

/// A field that both changed, differently.
#[derive(Debug, PartialEq)]
pub(super) struct Clash {
    /// Where, as `document.ttl`.
    pub(super) path: String,
    /// What the one says; `None`: it is removed.
    pub(super) mine: Option<Value>,
    /// What the other says.
    pub(super) theirs: Option<Value>,
}

/// Both changes of `base` in one value. What the database writes (`revision`, `expect`) is `theirs`.
pub(super) fn merge(base: &Value, mine: &Value, theirs: &Value) -> (Value, Vec<Clash>) {
    let mut clashes = Vec::new();
    let merged = one("", Some(base), Some(mine), Some(theirs), &mut clashes);
    (merged.unwrap_or_default(), clashes)
}

fn one(
    path: &str,
    base: Option<&Value>,
    mine: Option<&Value>,
    theirs: Option<&Value>,
    clashes: &mut Vec<Clash>,
) -> Option<Value> {
    if matches!(path, "revision" | "expect") || mine == base {
        return theirs.cloned();
    }
    if theirs == base || mine == theirs {
        return mine.cloned();
    }
    match (base, mine, theirs) {
        (base, Some(Value::Object(mine)), Some(Value::Object(theirs))) => {
            let none = Map::new();
            let base = base.and_then(Value::as_object).unwrap_or(&none);
            Some(Value::Object(maps(path, base, mine, theirs, clashes)))
        }
        (Some(Value::Array(base)), Some(Value::Array(mine)), Some(Value::Array(theirs)))
            if path == "members" =>
        {
            let gone = |of: &[Value], one: &Value| base.contains(one) && !of.contains(one);
            let came = theirs.iter().filter(|one| !mine.contains(one) && !base.contains(one));
            Some(mine.iter().filter(|one| !gone(theirs, one)).chain(came).cloned().collect())
        }
        _ => {
            clashes.push(Clash { path: path.to_owned(), mine: mine.cloned(), theirs: theirs.cloned() });
            mine.cloned()
        }
    }
}

/// The fields in the order of `mine`, those that only the others have behind.
fn maps(
    path: &str,
    base: &Map<String, Value>,
    mine: &Map<String, Value>,
    theirs: &Map<String, Value>,
    clashes: &mut Vec<Clash>,
) -> Map<String, Value> {
    let others = theirs.keys().chain(base.keys()).filter(|name| !mine.contains_key(*name));
    let mut names: Vec<&String> = mine.keys().chain(others).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    let mut merged = Map::new();
    for name in names {
        let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if let Some(value) = one(&inner, base.get(name), mine.get(name), theirs.get(name), clashes) {
            merged.insert(name.clone(), value);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_of_different_fields_are_both_there() {
        let base = json!({"host": "a", "document": {"x": 1, "y": 2, "m": {"p": 1}}, "revision": 3});
        let mine = json!({"host": "a", "document": {"x": 5, "m": {"p": 1, "q": 2}}, "revision": 3});
        let theirs =
            json!({"host": "a", "owner": "ann", "document": {"x": 1, "y": 2, "m": {}}, "revision": 9});
        let (merged, clashes) = merge(&base, &mine, &theirs);
        let both = json!({"host": "a", "document": {"x": 5, "m": {"q": 2}}, "revision": 9, "owner": "ann"});
        assert_eq!((merged, clashes), (both, vec![]));
    }

    #[test]
    fn the_same_field_is_a_clash_and_mine_stands() {
        let (merged, clashes) = merge(&json!({"d": {"a": 1}}), &json!({"d": {"a": 2}}), &json!({"d": {}}));
        assert_eq!(merged, json!({"d": {"a": 2}}));
        assert_eq!(clashes, [Clash { path: "d.a".into(), mine: Some(json!(2)), theirs: None }]);
        let lists = merge(&json!({"l": [1]}), &json!({"l": [1, 2]}), &json!({"l": [1, 3]}));
        assert_eq!((lists.0, lists.1.len()), (json!({"l": [1, 2]}), 1));
        // The same change twice is none.
        assert!(merge(&json!({"a": 1}), &json!({"a": 2}), &json!({"a": 2})).1.is_empty());
    }

    #[test]
    fn members_come_and_go_on_both_sides() {
        let (merged, clashes) = merge(
            &json!({"members": ["a", "b", "c"]}),
            &json!({"members": ["a", "c", "d"]}),
            &json!({"members": ["a", "b", "e"]}),
        );
        assert_eq!((merged, clashes), (json!({"members": ["a", "d", "e"]}), vec![]));
    }
}
