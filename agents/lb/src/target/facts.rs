//! What is reported of hosts: in which pools they serve, and whether they have drained.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;
use shoal_agent::{Change, Document, Fault, HostName};

use super::file::{self, Dialect, Line};

/// The facts of these hosts, by what stands in the files of all pools. `drained`: the pool where these have just drained, though its file names them.
///
/// # Errors
/// A file cannot be read: then nobody knows where else a host serves.
pub(super) fn of<D: Dialect>(
    dialect: &D,
    directory: &Path,
    ending: &str,
    hosts: &BTreeSet<HostName>,
    drained: (&str, &BTreeSet<HostName>),
) -> Result<Vec<Change>, Fault> {
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    let mut pools: BTreeMap<&HostName, BTreeMap<String, &str>> =
        hosts.iter().map(|host| (host, BTreeMap::new())).collect();
    for name in files(directory, ending)? {
        let path = directory.join(format!("{name}{ending}"));
        let fault = |why: String| Fault::new(format!("read {}", path.display()), why);
        let text = std::fs::read_to_string(&path).map_err(|e| fault(e.to_string()))?;
        let said = file::read(dialect, &name, &text).map_err(fault)?;
        for (host, line) in &said.servers {
            let Some(of_host) = pools.get_mut(host) else { continue };
            let state = match line {
                _ if name == drained.0 && drained.1.contains(host) => "drained",
                Line::Made(kept) if kept.draining => "draining",
                Line::Made(_) | Line::Odd(_) => "serving",
            };
            of_host.insert(name.clone(), state);
        }
    }
    let fact = |(host, pools): (&HostName, BTreeMap<String, &str>)| {
        let drained = pools.values().all(|state| *state == "drained");
        let key = format!("facts/lb/{host}").parse().ok()?;
        Some(Change::put(key, Document::from(json!({"drained": drained, "pools": pools}))))
    };
    Ok(pools.into_iter().filter_map(fact).collect())
}

/// The pools that have a file, in order of name.
///
/// # Errors
/// The folder cannot be read, or not to its end.
pub(super) fn files(directory: &Path, ending: &str) -> Result<Vec<String>, Fault> {
    let names = shoal_agent::files::names::<String>(directory)?;
    let pool = |name: String| {
        let name = name.strip_suffix(ending)?;
        (!name.starts_with('.') && shoal_agent::TagName::new("lb", name).is_ok()).then(|| name.to_owned())
    };
    let mut names: Vec<String> = names.into_iter().filter_map(pool).collect();
    names.sort_unstable();
    Ok(names)
}
