//! `shoal acl` and `shoal can`: the rules, and what they come to.

use std::collections::BTreeMap;

use serde::Serialize;
use shoal_core::access::{ANONYMOUS, Denied, EVERYBODY, Index, Known, Rules, Target, Verb};
use shoal_core::{ACCESS, Document, Edit, Expect, HOSTS, Key, RESERVED, Range, Row};
use shoal_store::{Asked, May, Query};

use crate::args::{Acl, AclSet, AclWork, Can, Entry, Ruled, Wanted};
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// The rows below `prefix`, by key.
pub(super) async fn rows(session: &Session, prefix: &str) -> Outcome<Vec<Row>> {
    let mut query = Query::new(Range::Prefix(prefix.to_owned()));
    let mut all = Vec::new();
    loop {
        let page =
            session.store.read(&query).await.map_err(Failure::reading(prefix.trim_end_matches('/')))?;
        all.extend(page.rows);
        query.at = Some(page.at);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(all),
        }
    }
}

/// One row, if it is there.
pub(super) async fn row(session: &Session, key: &Key) -> Outcome<Option<Row>> {
    let query = Query::new(Range::Key(key.clone()));
    Ok(session.store.read(&query).await.map_err(Failure::reading(key.as_str()))?.rows.pop())
}

/// A row as what it is; what cannot be read as that is nothing.
pub(super) fn read<T: serde::de::DeserializeOwned + Default>(row: Option<&Row>) -> T {
    row.and_then(|row| row.value.as_ref()?.to().ok()).unwrap_or_default()
}

/// The key of something below `access/`.
pub(super) fn key(what: &str, name: &str) -> Outcome<Key> {
    format!("access/{what}/{name}").parse().map_err(|e: shoal_core::BadName| Failure::Usage(e.to_string()))
}

/// That this stands there from now on, if what stands there is still what was seen.
pub(super) fn put<T: Serialize>(key: Key, value: &T, seen: Option<&Row>) -> Outcome<Edit> {
    let value =
        Document::of(value).map_err(|e| Failure::Other(anyhow::anyhow!("cannot write {key}: {e}")))?;
    let expect = seen.map_or(Expect::Absent, |row| Expect::At(row.revision));
    Ok(Edit::Write { key, value, expect })
}

#[derive(Serialize)]
struct Shown {
    of: String,
    #[serde(flatten)]
    rules: Rules,
}

/// `acl`
pub(crate) async fn acl(session: &mut Session, args: Acl) -> Outcome {
    match args.work {
        AclWork::Show { of } => show(session, of).await,
        AclWork::Set(args) => set(session, args).await,
        AclWork::Remove { of: Ruled(key), sign } => {
            let key: Key = key.parse().map_err(|e: shoal_core::BadName| Failure::Usage(e.to_string()))?;
            session
                .write(&sign, false, vec![Edit::Delete { key, follow: false, expect: Expect::Exists }])
                .await
        }
    }
}

async fn show(session: &mut Session, of: Option<Ruled>) -> Outcome {
    let wanted = of.map(|Ruled(key)| key);
    let about = |key: &str| {
        wanted
            .as_deref()
            .is_none_or(|of| key == of || key.strip_prefix(of).is_some_and(|rest| rest.starts_with('/')))
    };
    let all: Vec<Shown> = rows(session, "access/rules/")
        .await?
        .iter()
        .filter(|row| about(row.key.as_str()))
        .map(|row| Shown { of: place(row.key.as_str()), rules: read(Some(row)) })
        .collect();
    session.out.print(&all, |out| {
        let mut lines = Vec::new();
        for Shown { of, rules } in &all {
            for (who, rights) in &rules.allow {
                lines.push(vec![of.clone(), who.clone(), rights.data.to_string(), rights.members.to_string()]);
            }
            if let Some(protected) = rules.protected {
                let word = if protected { "protected" } else { "unprotected" };
                lines.push(vec![of.clone(), word.to_owned()]);
            }
        }
        let empty = "no rules: who says who they are reads, and only administrators write (`shoal group list` shows who)";
        out.table(&["OF", "WHO", "DATA", "MEMBERS"], lines, empty)
    })
}

/// What rules are about, as people write it.
fn place(key: &str) -> String {
    let place = key.strip_prefix("access/rules/").unwrap_or(key);
    if place.contains('/') { place.to_owned() } else { format!("{place}/") }
}

async fn set(session: &mut Session, args: AclSet) -> Outcome {
    let AclSet { of: Ruled(key), entries, protected, unprotected, sign } = args;
    let key: Key = key.parse().map_err(|e: shoal_core::BadName| Failure::Usage(e.to_string()))?;
    let seen = row(session, &key).await?;
    let mut rules: Rules = read(seen.as_ref());
    let named: Vec<String> =
        entries.iter().filter(|entry| entry.1.is_some()).map(|entry| entry.0.clone()).collect();
    for Entry(who, rights) in entries {
        match rights {
            Some(rights) => drop(rules.allow.insert(who, rights)),
            None if rules.allow.remove(&who).is_some() => {}
            None => {
                let of = place(key.as_str());
                return Err(Failure::Missing(format!(
                    "{of} has no entry of {who}; `shoal acl show {of}` shows what it has"
                )));
            }
        }
    }
    if protected || unprotected {
        rules.protected = Some(protected);
    }
    let mut doubts = Vec::new();
    for name in &named {
        doubts.extend(doubt(session, name).await?);
    }
    let namespace = key.as_str().split('/').nth(2).unwrap_or_default().to_owned();
    doubts.extend(unused(session, &namespace).await?);
    let edit = put(key, &rules, seen.as_ref())?;
    session.write(&sign, false, vec![edit]).await?;
    warn(session, &doubts)
}

/// Says what may be mistyped in something that was written all the same.
pub(super) fn warn(session: &mut Session, doubts: &[String]) -> Outcome {
    if doubts.is_empty() || !session.out.is_text() {
        return Ok(());
    }
    let text: String = doubts.iter().map(|doubt| format!("warning: {doubt}\n")).collect();
    session.out.write(&text)
}

/// What is odd about the name of somebody in a rule: it counts as it stands, and is nobody's.
async fn doubt(session: &Session, name: &str) -> Outcome<Option<String>> {
    if name == EVERYBODY || name == ANONYMOUS || name.starts_with("agent ") {
        return Ok(None);
    }
    if let Some(group) = name.strip_prefix('@') {
        let there = row(session, &key("groups", group)?).await?.is_some();
        let doubt = || {
            format!(
                "there is no group {group}, so {name} is nobody yet; `shoal group add {group} NAME` makes it"
            )
        };
        return Ok((!there).then(doubt));
    }
    let is_group = row(session, &key("groups", name)?).await?.is_some();
    let is_user = row(session, &key("users", name)?).await?.is_some();
    Ok((is_group && !is_user)
        .then(|| format!("{name} is a group and no user that has a row: do you mean @{name}?")))
}

/// That nothing stands in a namespace, which may be mistyped.
pub(super) async fn unused(session: &Session, namespace: &str) -> Outcome<Option<String>> {
    if [HOSTS, ACCESS].contains(&namespace) || RESERVED.contains(&namespace) {
        return Ok(None);
    }
    let schema: Key = format!("schemas/{namespace}")
        .parse()
        .map_err(|e: shoal_core::BadName| Failure::Usage(e.to_string()))?;
    if row(session, &schema).await?.is_some() {
        return Ok(None);
    }
    let query = Query { limit: 1, ..Query::new(Range::Prefix(format!("{namespace}/"))) };
    let page = session.store.read(&query).await.map_err(Failure::reading(format!("{namespace}/")))?;
    Ok(page
        .rows
        .is_empty()
        .then(|| format!("nothing stands in {namespace}/ yet; `shoal get tags` shows what there is")))
}

/// `can`
pub(crate) async fn can(session: &mut Session, args: Can) -> Outcome {
    let Can { user, verb, on } = args;
    let target = Target::read(&on).map_err(Failure::Usage)?;
    let verb = match verb {
        Wanted::Read => Verb::Read,
        Wanted::Write => Verb::Write,
    };
    // A server knows who asks: of oneself everybody may.
    let asked = Asked { user: user.clone(), verb, on: on.clone() };
    if let Some(may) = session.store.may(&asked).await.map_err(Failure::reading("the rules"))? {
        return told(session, &may);
    }
    let mut index = Index::default();
    for row in rows(session, "access/").await? {
        if let Some(value) = &row.value {
            index.add(&row.key, value);
        }
    }
    let who = match index.called(&user) {
        Known::Principal(who) => who,
        Known::Not(why) => return Err(Failure::Missing(format!("{user}: {why}"))),
    };
    let answer = match target {
        Some(target) => index.may(&who, verb, target),
        None => index.administers(&who),
    };
    let protected = target.filter(|_| verb == Verb::Write).and_then(|target| index.protected(target));
    let may = match answer {
        Ok(by) => May { may: true, rule: by.to_string(), hint: None, review: protected },
        Err(Denied { rule, hint, .. }) => May { may: false, rule, hint: Some(hint), review: None },
    };
    told(session, &may)
}

fn told(session: &mut Session, may: &May) -> Outcome {
    let May { rule, hint, review, .. } = may;
    if may.may {
        let also =
            review.as_ref().map(|rule| format!("; through a review alone ({rule})")).unwrap_or_default();
        return session.out.print(may, |_| format!("yes: {rule}{also}\n"));
    }
    let hint = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    session.out.print(may, |_| format!("no: {rule}{hint}\n"))?;
    Err(Failure::No)
}

/// The rows of one kind, by name.
pub(super) async fn by_name(session: &Session, what: &str) -> Outcome<BTreeMap<String, Row>> {
    let prefix = format!("access/{what}/");
    let rows = rows(session, &prefix).await?;
    let name = |row: Row| Some((row.key.as_str().strip_prefix(&prefix)?.to_owned(), row));
    Ok(rows.into_iter().filter_map(name).collect())
}
