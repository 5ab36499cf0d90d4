//! What `ansible-inventory --list` prints, read without losing what is odd about it.
//!
//! The output is a JSON map: `_meta.hostvars` has each host's variables, every other key is a group with `hosts`
//! and `children`. Groups without any host are left out of it by Ansible, though their parents go on naming
//! them; hosts without variables may be missing from `hostvars`; scripts that imitate it write a plain list of hosts
//! for a group, and can even build circles. None of that is fatal here: what cannot be used is left out, with a
//! [`Note`] that names it.
//!
//! Variables may hold secrets: vaulted values are dropped where they are read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{ImportError, Note};

/// An inventory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Each host's variables.
    pub hosts: BTreeMap<String, Map<String, Value>>,
    /// Each group, with what stands directly in it.
    pub groups: BTreeMap<String, Group>,
    /// Groups that some group names as its child, and that the inventory does not have.
    pub absent: BTreeSet<String>,
}

/// What stands directly in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Hosts.
    pub hosts: BTreeSet<String>,
    /// Groups, absent ones included.
    pub children: BTreeSet<String>,
}

impl Inventory {
    /// Reads the text, and notes what is odd.
    ///
    /// # Errors
    /// Text that is not JSON, or not a map of groups at all: an empty answer, a list, an error message.
    pub fn parse(text: &str, notes: &mut Vec<Note>) -> Result<Self, ImportError> {
        let value: Value = serde_json::from_str(text).map_err(ImportError::Json)?;
        let Value::Object(mut map) = value else {
            return Err(ImportError::NotAnInventory("the top is not a map"));
        };
        let hostvars = match map.remove("_meta") {
            Some(Value::Object(mut meta)) => meta.remove("hostvars"),
            _ => return Err(ImportError::NotAnInventory("it has no _meta.hostvars")),
        };
        let Some(Value::Object(hostvars)) = hostvars else {
            return Err(ImportError::NotAnInventory("_meta.hostvars is not a map"));
        };
        let mut inventory = Self::default();
        for (name, vars) in hostvars {
            let Value::Object(vars) = vars else {
                notes.push(Note::new(name, "its variables are not a map; taken as none"));
                continue;
            };
            inventory.hosts.insert(name, vars);
        }
        for (name, value) in map {
            match group(value) {
                Ok(group) => {
                    inventory.groups.insert(name, group);
                }
                Err(why) => notes.push(Note::new(format!("group {name}"), why)),
            }
        }
        inventory.complete(notes);
        Ok(inventory)
    }

    /// Makes it whole: hosts that only groups name, absent children, circles, hosts outside `all`.
    fn complete(&mut self, notes: &mut Vec<Note>) {
        let named: BTreeSet<String> = self.groups.values().flat_map(|g| g.hosts.iter().cloned()).collect();
        for name in named {
            self.hosts.entry(name).or_default();
        }
        let children: BTreeSet<String> =
            self.groups.values().flat_map(|g| g.children.iter().cloned()).collect();
        self.absent = children.into_iter().filter(|name| !self.groups.contains_key(name)).collect();
        for name in &self.absent {
            notes.push(Note::new(
                format!("group {name}"),
                "named as a child, and not in the inventory: no host is in it",
            ));
        }
        self.cut_circles(notes);
        if self.groups.contains_key("all") {
            let reached = self.hosts_below("all");
            let outside: Vec<String> = self.hosts.keys().filter(|h| !reached.contains(*h)).cloned().collect();
            for name in outside {
                notes.push(Note::new(
                    &name,
                    "in no group; Ansible has every host in `all`, so it is put there",
                ));
                self.groups.entry("all".to_owned()).or_default().hosts.insert(name);
            }
        }
    }

    fn hosts_below(&self, top: &str) -> BTreeSet<String> {
        let (mut seen, mut todo, mut hosts) = (BTreeSet::new(), vec![top], BTreeSet::new());
        while let Some(name) = todo.pop() {
            let Some(group) = self.groups.get(name).filter(|_| seen.insert(name)) else { continue };
            hosts.extend(group.hosts.iter().cloned());
            todo.extend(group.children.iter().map(String::as_str));
        }
        hosts
    }

    /// Ansible refuses circles; what imitates it may not. Each edge that closes one is cut.
    fn cut_circles(&mut self, notes: &mut Vec<Note>) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            let children = self.groups.get(&name).map(|g| g.children.clone()).unwrap_or_default();
            for child in children {
                if child == name || self.reaches(&child, &name) {
                    notes.push(Note::new(
                        format!("group {name}"),
                        format!("its child {child} contains it: not nested"),
                    ));
                    if let Some(group) = self.groups.get_mut(&name) {
                        group.children.remove(&child);
                    }
                }
            }
        }
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(name) = todo.pop() {
            let Some(group) = self.groups.get(name).filter(|_| seen.insert(name)) else { continue };
            if group.children.contains(to) {
                return true;
            }
            todo.extend(group.children.iter().map(String::as_str));
        }
        false
    }
}

fn group(value: Value) -> Result<Group, &'static str> {
    let (hosts, children) = match value {
        Value::Array(hosts) => (Some(Value::Array(hosts)), None),
        Value::Object(mut map) => (map.remove("hosts"), map.remove("children")),
        _ => return Err("neither a map nor a list of hosts; left out"),
    };
    Ok(Group { hosts: names(hosts)?, children: names(children)? })
}

fn names(value: Option<Value>) -> Result<BTreeSet<String>, &'static str> {
    let texts = match value {
        None | Some(Value::Null) => return Ok(BTreeSet::new()),
        // Ansible's YAML form is a map from name to variables.
        Some(Value::Object(map)) => return Ok(map.into_iter().map(|(name, _)| name).collect()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err("its hosts or children are not a list; left out"),
    };
    texts
        .into_iter()
        .map(|t| match t {
            Value::String(text) => Ok(text),
            _ => Err("its hosts or children are not all text; left out"),
        })
        .collect()
}

/// Whether a vaulted value stands anywhere in it.
pub(super) fn is_vaulted(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.contains_key("__ansible_vault") || map.values().any(is_vaulted),
        Value::Array(list) => list.iter().any(is_vaulted),
        Value::String(text) => text.trim_start().starts_with("$ANSIBLE_VAULT"),
        _ => false,
    }
}

/// A variable as it can be kept: `__ansible_unsafe` unwrapped. `Err` says why it cannot.
pub(super) fn plain(value: &Value) -> Result<Value, &'static str> {
    match value {
        Value::Object(map) => {
            if map.contains_key("__ansible_vault") {
                return Err("it is vaulted: secrets are not imported");
            }
            if let (Some(inner), 1) = (map.get("__ansible_unsafe"), map.len()) {
                return plain(inner);
            }
            map.iter()
                .map(|(k, v)| Ok((k.clone(), plain(v)?)))
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object)
        }
        Value::Array(list) => list.iter().map(plain).collect::<Result<_, _>>().map(Value::Array),
        Value::String(text) if text.contains("{{") => Err("it is a template that Ansible did not resolve"),
        Value::String(text) if text.trim_start().starts_with("$ANSIBLE_VAULT") => {
            Err("it is vaulted: secrets are not imported")
        }
        other => Ok(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Inventory, Vec<Note>) {
        let mut notes = Vec::new();
        let inventory = Inventory::parse(text, &mut notes).unwrap();
        (inventory, notes)
    }

    #[test]
    fn oddities_are_noted_and_not_fatal() {
        let (inventory, notes) = parse(
            r#"{"_meta": {"hostvars": {"a": {"x": 1}, "lost": {}, "bad": 3}},
                "all": {"children": ["web", "gone"]}, "web": ["a", "b"], "odd": 7,
                "x": {"children": ["y"]}, "y": {"children": ["x"], "hosts": ["a"]}}"#,
        );
        assert_eq!(inventory.hosts.keys().collect::<Vec<_>>(), ["a", "b", "lost"]);
        assert_eq!(inventory.absent, BTreeSet::from(["gone".to_owned()]));
        assert!(inventory.groups["all"].hosts.contains("lost"));
        assert!(!inventory.reaches("x", "x") && inventory.groups["y"].children.contains("x"));
        let about: Vec<_> = notes.iter().map(|n| n.about.as_str()).collect();
        assert_eq!(about, ["bad", "group odd", "group gone", "group x", "lost"]);
    }

    #[test]
    fn what_is_no_inventory_is_refused() {
        for bad in ["", "[]", "{}", r#"{"_meta": {}}"#, r#"{"_meta": {"hostvars": []}}"#] {
            assert!(Inventory::parse(bad, &mut Vec::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_stay_outside() {
        assert!(plain(&serde_json::json!({"a": [{"__ansible_vault": "x"}]})).is_err());
        assert!(plain(&serde_json::json!("$ANSIBLE_VAULT;1.1")).is_err());
        assert_eq!(plain(&serde_json::json!({"__ansible_unsafe": "x"})).unwrap(), "x");
    }
}
