//! `NAMESPACE/KEY/perms` and `NAMESPACE/.default/perms`: the rules of access, as HostDB writes them.
//!
//! They are the rows `access/rules/…`: a map of a user or a group to `data` and `members`, each `RW` or `RO`. HostDB has one set of names for users and
//! groups; here a group stands as `@NAME`. So a name that is no user's and a group's is taken for the group, and one that is neither's, yet, stands for both: whichever
//! is made later, it is who was meant. Like
//! everything below `access/` they are for administrators. Whether an object is protected is not HostDB's to say, and stays as it is.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use shoal_core::access::{Right, Rights, Rules, is_name};
use shoal_core::codec::{self, Format};
use shoal_core::{Document, Edit, Expect, Key, Namespace};

use super::fault::{Answer, Fault};
use super::id::Object;
use super::yaml::yaml;
use crate::app::App;
use crate::reading::{self, Found};

/// Where the rules of an object stand, or (`None`) those of its namespace.
pub(super) fn key(ns: &Namespace, of: Option<&Object>) -> Answer<Key> {
    let key = match of {
        None => format!("access/rules/{ns}"),
        Some(object) => format!("access/rules/{}", object.key()),
    };
    Ok(key.parse()?)
}

/// The rules of an object; nothing where it has none of its own.
pub(super) async fn get(
    app: &App,
    at: &Key,
    of: Option<&Object>,
    revision: Option<shoal_core::Revision>,
) -> Answer<String> {
    let store = &**app.db.store();
    if let Found::Here(row) = reading::row(store, at, revision).await? {
        let rules = row.value.map(|value| value.to::<Rules>()).transpose();
        let rules =
            rules.map_err(|e| Fault::bad_request(format!("{at} is no rule: {e}")))?.unwrap_or_default();
        return yaml(&shown(&rules));
    }
    if let Some(object) = of
        && !matches!(reading::row(store, &object.key(), revision).await?, Found::Here(_))
    {
        return Err(Fault::not_found(format!("Resource {} does not exist.", object.key())));
    }
    Ok(String::new())
}

fn shown(rules: &Rules) -> Value {
    let word = |right: Right| match right {
        Right::None => "none",
        Right::Ro => "RO",
        Right::Rw => "RW",
    };
    let one = |rights: &Rights| json!({"data": word(rights.data), "members": word(rights.members)});
    let plain = |name: &str| match name.strip_prefix('@') {
        // Of a name that stands for both with the same rights, one is shown.
        Some(group) if rules.allow.get(group).is_none_or(|rights| Some(rights) == rules.allow.get(name)) => {
            group.to_owned()
        }
        _ => name.to_owned(),
    };
    Value::Object(rules.allow.iter().map(|(name, rights)| (plain(name), one(rights))).collect::<Map<_, _>>())
}

/// The edit that makes these the rules.
pub(super) async fn put(app: &App, at: Key, value: &str) -> Answer<Edit> {
    let said: BTreeMap<String, Rights> =
        if value.trim().is_empty() { BTreeMap::new() } else { codec::read(value.as_bytes(), Format::Yaml)? };
    let mut rules = Rules::default();
    let mut expect = Expect::Absent;
    if let Found::Here(row) = reading::row(&**app.db.store(), &at, None).await? {
        expect = Expect::At(row.revision);
        let stands = row.value.and_then(|value| value.to::<Rules>().ok());
        rules.protected = stands.and_then(|stands| stands.protected);
    }
    let view = app.db.fresh_view().await?;
    let known = |kind: &str, name: &str| {
        format!("access/{kind}/{name}").parse::<Key>().is_ok_and(|key| view.exists(&key))
    };
    for (name, rights) in said {
        let group = format!("@{name}");
        let (user, is_group) = (known("users", &name), known("groups", &name));
        // `*`, `anonymous`, `agent dns` and `@ops` say themselves what they are.
        if !user && !is_group && is_name(&name) {
            rules.allow.insert(group.clone(), rights);
        }
        rules.allow.insert(if !user && is_group { group } else { name }, rights);
    }
    let value = Document::of(&rules).map_err(|e| Fault::bad_request(e.to_string()))?;
    Ok(Edit::Write { key: at, value, expect })
}

/// The edit that takes the rules away.
pub(super) fn delete(at: Key) -> Edit {
    Edit::Delete { key: at, follow: false, expect: Expect::Exists }
}
