//! `shoal facts upload`: what a machine says of itself, as facter and Puppet print it.
//!
//! What is equal to what stands there is not written: a commit wakes watchers and makes history. So what changes all the time is left out
//! unless it is asked for, and maps are kept in order of their names, in which nobody wrote them anyway.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};
use shoal_core::codec::{self, Format};
use shoal_core::{Document, Edit, Expect, HostName, Key};
use shoal_hostdb::reading;
use shoal_store::{MAX_VALUE, Outcome as Done, Proposed, StoreError, TransactError};

use crate::args::{Facts, FactsWork, Sign, Upload};
use crate::failure::{Failure, Outcome};
use crate::session::{Session, not_done};

/// The largest text that is read; what is kept of it has to fit a row.
const MAX: usize = 4 * MAX_VALUE;

/// What is another with every look.
const RESTLESS: [&str; 25] = [
    "uptime",
    "uptime_days",
    "uptime_hours",
    "uptime_seconds",
    "system_uptime",
    "sp_uptime",
    "system_profiler.uptime",
    "load_averages",
    "memoryfree",
    "memoryfree_mb",
    "swapfree",
    "swapfree_mb",
    "memory.*.available",
    "memory.*.available_bytes",
    "memory.*.used",
    "memory.*.used_bytes",
    "memory.*.capacity",
    "mountpoints.*.available",
    "mountpoints.*.available_bytes",
    "mountpoints.*.used",
    "mountpoints.*.used_bytes",
    "mountpoints.*.capacity",
    "processors.speed",
    "puppet_inventory_metadata",
    "last_run",
];
/// What holds secrets.
const SECRET: [&str; 2] = ["ec2_userdata", "ec2_metadata.iam"];

pub(crate) async fn run(session: &mut Session, args: Facts) -> Outcome {
    match args.work {
        FactsWork::Upload(args) => upload(session, args).await,
    }
}

async fn upload(session: &mut Session, args: Upload) -> Outcome {
    let Upload { host, file, namespace, only, without, all, plan, message, author } = args;
    session.exists(&Key::host(&host), None).await?;
    let document = facts(&text(&file)?, &host, &Choice { only, without, all })?;
    let key = Key::fact(&namespace, host.as_str()).map_err(|bad| Failure::Usage(bad.to_string()))?;
    let before = reading::row(&*session.store, &key, None).await.map_err(Failure::reading(key.as_str()))?;
    let before = before.here();
    let edits = match &before {
        Some(row) if row.value.as_ref() == Some(&document) => Vec::new(),
        _ => vec![Edit::Write { key, value: document, expect: Expect::Any }],
    };
    let message = message.or_else(|| Some(format!("facts of {host}")));
    let sign = Sign { message, author, review: false };
    let Some(row) = before.filter(|_| edits.is_empty()) else {
        return write(session, &sign, plan, edits).await;
    };
    let value = serde_json::json!({"revision": row.revision, "changed": 0});
    session.out.print(&value, |_| {
        format!("nothing to change: everything stands there already (revision {})\n", row.revision)
    })
}

/// Writes, without reading the whole database where a server can see to it.
async fn write(session: &mut Session, sign: &Sign, plan: bool, edits: Vec<Edit>) -> Outcome {
    if plan {
        return session.write(sign, plan, edits).await;
    }
    let proposal = session.proposal(sign, false, edits.clone()).await?;
    match session.store.propose(&proposal).await {
        Ok(Some(Proposed { committed, warnings })) => {
            let done = Done { committed, warnings, touched: shoal_core::Touched::default() };
            session.done(&proposal.author, &done, &[])
        }
        // Nothing was written. Prepared here, it is refused in the words of all refusals.
        Ok(None) | Err(StoreError::Invalid(_)) => session.write(sign, false, edits).await,
        Err(error) => Err(not_done(TransactError::Store(error))),
    }
}

/// Which facts are taken.
#[derive(Debug, Default)]
struct Choice {
    only: Vec<String>,
    without: Vec<String>,
    all: bool,
}

/// The facts of a text, as far as they are wanted.
fn facts(text: &[u8], host: &HostName, choice: &Choice) -> Outcome<Document> {
    let format = match text.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => Format::Json,
        _ => Format::Yaml,
    };
    let read: Value =
        codec::read(text, format).map_err(|error| Failure::Text { place: "the facts".to_owned(), error })?;
    let Value::Object(mut map) = read else {
        return Err(Failure::Missing(
            "nothing was written: the facts are not a map; `facter --json` prints what is expected"
                .to_owned(),
        ));
    };
    // As `puppet facts find` has it, and Puppet's own files.
    if let (Some(Value::Object(values)), Some(Value::String(name))) = (map.get("values"), map.get("name")) {
        if name.parse::<HostName>().ok().as_ref() != Some(host) {
            return Err(Failure::Missing(format!(
                "nothing was written: these are the facts of {name}, not of {host}"
            )));
        }
        map = values.clone();
    }
    let restless = RESTLESS.into_iter().filter(|_| !choice.all);
    let mut left_out: Vec<&str> = choice.without.iter().map(String::as_str).collect();
    if choice.only.is_empty() {
        left_out.extend(restless.chain(SECRET));
    } else {
        map = only(&map, &paths(&choice.only));
    }
    remove(&mut map, &paths(&left_out));
    if map.is_empty() {
        return Err(Failure::Missing("nothing was written: of the facts nothing is left".to_owned()));
    }
    sort(&mut map);
    Ok(Document::from(Value::Object(map)))
}

fn paths<T: AsRef<str>>(all: &[T]) -> Vec<Vec<&str>> {
    all.iter().map(|path| path.as_ref().split('.').collect()).collect()
}

/// What is left of each path below a name: nothing, if it ends there.
fn below<'p>(paths: &[Vec<&'p str>], name: &str) -> Vec<Vec<&'p str>> {
    let fits = |path: &&Vec<&str>| path.first().is_some_and(|first| *first == "*" || *first == name);
    paths.iter().filter(fits).map(|path| path[1..].to_vec()).collect()
}

fn only(map: &Map<String, Value>, paths: &[Vec<&str>]) -> Map<String, Value> {
    let mut kept = Map::new();
    for (name, value) in map {
        let below = below(paths, name);
        match value {
            value if below.iter().any(Vec::is_empty) => {
                kept.insert(name.clone(), value.clone());
            }
            Value::Object(inner) if !below.is_empty() => {
                let inner = only(inner, &below);
                if !inner.is_empty() {
                    kept.insert(name.clone(), Value::Object(inner));
                }
            }
            _ => {}
        }
    }
    kept
}

fn remove(map: &mut Map<String, Value>, paths: &[Vec<&str>]) {
    map.retain(|name, value| {
        let below = below(paths, name);
        if let (Value::Object(inner), false) = (value, below.is_empty()) {
            remove(inner, &below);
        }
        !below.iter().any(Vec::is_empty)
    });
}

fn sort(map: &mut Map<String, Value>) {
    map.sort_keys();
    map.values_mut().for_each(sort_within);
}

fn sort_within(value: &mut Value) {
    match value {
        Value::Object(map) => sort(map),
        Value::Array(list) => list.iter_mut().for_each(sort_within),
        _ => {}
    }
}

/// The text, if it is not too long.
fn text(path: &Path) -> Outcome<Vec<u8>> {
    let failed = |error| Failure::File { path: path.display().to_string(), error };
    let mut text = Vec::new();
    let most = MAX as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(path).map_err(failed)?.take(most).read_to_end(&mut text).map_err(failed)?;
    }
    if text.len() > MAX {
        return Err(Failure::Missing(format!("nothing was written: the facts have more than {MAX} octets")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value, choice: &Choice) -> Outcome<Value> {
        facts(value.to_string().as_bytes(), &"web1.example.com".parse().unwrap(), choice).map(|d| d.value())
    }

    fn facter() -> Value {
        json!({
            "uptime": "3 days", "os": {"name": "Debian", "family": "Debian"}, "kernel": "Linux",
            "memory": {"system": {"total_bytes": 8, "available_bytes": 5, "used_bytes": 3}},
            "ec2_userdata": "hunter2", "load_averages": {"1m": 0.1},
        })
    }

    #[test]
    fn what_changes_all_the_time_is_left_out() {
        let said = read(&facter(), &Choice::default()).unwrap();
        let expected = json!({"kernel": "Linux", "memory": {"system": {"total_bytes": 8}}, "os": {"family": "Debian", "name": "Debian"}});
        assert_eq!(said.to_string(), expected.to_string(), "in order of names");
        let all = read(&facter(), &Choice { all: true, ..Choice::default() }).unwrap();
        assert_eq!((&all["uptime"], &all["ec2_userdata"]), (&json!("3 days"), &Value::Null));
    }

    #[test]
    fn some_are_chosen() {
        let choice = |only: &[&str], without: &[&str]| Choice {
            only: only.iter().map(|name| (*name).to_owned()).collect(),
            without: without.iter().map(|name| (*name).to_owned()).collect(),
            all: false,
        };
        let said = read(&facter(), &choice(&["os", "memory.*.used_bytes", "x.y"], &["os.name"])).unwrap();
        assert_eq!(said, json!({"memory": {"system": {"used_bytes": 3}}, "os": {"family": "Debian"}}));
        let nothing = read(&facter(), &choice(&["x"], &[])).unwrap_err();
        assert!(nothing.to_string().contains("nothing is left"));
    }

    #[test]
    fn what_puppet_prints_is_read_and_of_the_right_node() {
        let of = |name: &str| json!({"name": name, "values": {"os": {"name": "x"}}, "timestamp": "2026"});
        assert_eq!(read(&of("WEB1.example.com"), &Choice::default()).unwrap(), json!({"os": {"name": "x"}}));
        let other = read(&of("web2.example.com"), &Choice::default()).unwrap_err().to_string();
        assert!(other.contains("facts of web2.example.com, not of web1.example.com"), "{other}");
        let yaml =
            b"--- !ruby/object:Puppet::Node::Facts\nname: web1.example.com\nvalues:\n  kernel: Linux\n";
        let read = facts(yaml, &"web1.example.com".parse().unwrap(), &Choice::default()).unwrap();
        assert_eq!(read.value(), json!({"kernel": "Linux"}));
        assert!(facts(b"[1]", &"web1".parse().unwrap(), &Choice::default()).is_err());
    }
}
