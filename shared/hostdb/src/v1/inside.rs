//! Places inside a document, as HostDB walks them: by the names of maps; the last name may also be an element of a list.

use serde_json::{Map, Value};

use super::fault::{Answer, Fault};

/// What stands at `path`. Only maps are walked into.
pub(super) fn get<'v>(document: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(document, |value, name| value.as_object()?.get(name))
}

/// Puts `value` at `path`; what it stands in exists already. Where that is a list, the name is added to it as an element.
pub(super) fn set(document: &mut Value, path: &[String], value: Value) -> Answer<()> {
    match parent(document, path)? {
        (Place::Map(map), last) => {
            map.insert(last.to_owned(), value);
        }
        (Place::List(list), last) => {
            if !list.iter().any(|element| is(element, last)) {
                list.push(Value::String(last.to_owned()));
            }
        }
    }
    Ok(())
}

/// Gives what stands at `path` another name, in its place.
pub(super) fn rename(document: &mut Value, path: &[String], to: &str) -> Answer<()> {
    match parent(document, path)? {
        (Place::Map(map), last) => {
            if !map.contains_key(last) {
                return Err(missing(path));
            }
            if map.contains_key(to) {
                return Err(Fault::bad_request(format!("Target already exists: {to}")));
            }
            let renamed = |(name, value)| (if name == last { to.to_owned() } else { name }, value);
            *map = std::mem::take(map).into_iter().map(renamed).collect();
        }
        (Place::List(list), last) => {
            if list.iter().any(|element| is(element, to)) {
                return Err(Fault::bad_request(format!("Target already exists: {to}")));
            }
            match list.iter_mut().find(|element| is(element, last)) {
                Some(element) => *element = Value::String(to.to_owned()),
                None => return Err(missing(path)),
            }
        }
    }
    Ok(())
}

/// Takes away what stands at `path`.
pub(super) fn delete(document: &mut Value, path: &[String]) -> Answer<()> {
    match parent(document, path)? {
        (Place::Map(map), last) => map.shift_remove(last).map(drop),
        (Place::List(list), last) => {
            list.iter().position(|element| is(element, last)).map(|at| drop(list.remove(at)))
        }
    }
    .ok_or_else(|| missing(path))
}

enum Place<'v> {
    Map(&'v mut Map<String, Value>),
    List(&'v mut Vec<Value>),
}

/// What `path` ends in, and its last name.
fn parent<'v, 'p>(document: &'v mut Value, path: &'p [String]) -> Answer<(Place<'v>, &'p str)> {
    let no = || Fault::not_found(format!("Parent resource of {} does not exist.", path.join("/")));
    let (last, above) = path.split_last().ok_or_else(no)?;
    let place = above.iter().try_fold(document, |value, name| value.as_object_mut()?.get_mut(name));
    match place.ok_or_else(no)? {
        Value::Object(map) => Ok((Place::Map(map), last)),
        Value::Array(list) => Ok((Place::List(list), last)),
        _ => Err(Fault::not_found(format!(
            "Parent resource of {} is neither a map nor a list.",
            path.join("/")
        ))),
    }
}

/// Whether an element of a list is what a path calls `name`: paths are text, whatever stands there.
fn is(element: &Value, name: &str) -> bool {
    match element {
        Value::String(text) => text == name,
        Value::Array(_) | Value::Object(_) => false,
        other => {
            let text = other.to_string();
            text == name
        }
    }
}

fn missing(path: &[String]) -> Fault {
    Fault::not_found(format!("Resource {} does not exist.", path.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn maps_are_walked_and_lists_take_elements() {
        let mut doc = json!({"Network": {"IP": "1.2.3.4", "n": 1}, "roles": ["web", 7]});
        assert_eq!(get(&doc, &path("Network/IP")), Some(&json!("1.2.3.4")));
        assert_eq!((get(&doc, &path("roles/web")), get(&doc, &path("Network/IP/x"))), (None, None));
        set(&mut doc, &path("Network/IP"), json!("2.2.2.2")).unwrap();
        set(&mut doc, &path("roles/db"), Value::Null).unwrap();
        set(&mut doc, &path("roles/db"), Value::Null).unwrap();
        rename(&mut doc, &path("Network/IP"), "Address").unwrap();
        rename(&mut doc, &path("roles/7"), "seven").unwrap();
        delete(&mut doc, &path("Network/n")).unwrap();
        // The order is as it was.
        assert_eq!(doc.to_string(), r#"{"Network":{"Address":"2.2.2.2"},"roles":["web","seven","db"]}"#);
        delete(&mut doc, &path("roles/web")).unwrap();
        assert_eq!(doc["roles"], json!(["seven", "db"]));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let mut doc = json!({"a": {"b": 1, "c": 2}, "l": ["x", "y"], "s": "text"});
        let before = doc.clone();
        for (result, status) in [
            (set(&mut doc, &path("no/b"), json!(1)), 404),
            (set(&mut doc, &path("s/b"), json!(1)), 404),
            (rename(&mut doc, &path("a/x"), "y"), 404),
            (rename(&mut doc, &path("a/b"), "c"), 400),
            (rename(&mut doc, &path("l/x"), "y"), 400),
            (rename(&mut doc, &path("l/z"), "q"), 404),
            (delete(&mut doc, &path("a/x")), 404),
            (delete(&mut doc, &path("l/z")), 404),
            (delete(&mut doc, &[]), 404),
        ] {
            assert_eq!(result.unwrap_err().status(), status);
        }
        assert_eq!(doc, before);
    }
}
