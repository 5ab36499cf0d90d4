//! What is reported of hosts: in which pools they serve, and whether they have drained.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use shoal_agent::{Change, Document, Fault, HostName};

use super::index::{Role, Text};

/// Of which hosts something is to be reported, and which of them have just drained in the pool that is worked on.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) hosts: BTreeSet<HostName>,
    pub(super) drained: BTreeSet<HostName>,
}

/// The facts of these hosts, by what all pools say. Those that have drained in the pool `name` have done so whether its file still names them
/// or not. Where nobody knows whether a host serves in some pool, it has not drained.
pub(super) fn of(name: &str, report: &Report, all: &[(String, Arc<Text>)]) -> Vec<Change> {
    let mut pools: BTreeMap<&HostName, BTreeMap<&str, &str>> =
        report.hosts.iter().map(|host| (host, BTreeMap::new())).collect();
    for (pool, text) in all {
        for (host, role) in text.roles(&report.hosts) {
            let state = match role {
                Role::Serving => "serving",
                Role::Draining => "draining",
                Role::Unknown => "unknown",
            };
            if let Some(of_host) = pools.get_mut(host) {
                of_host.insert(pool, state);
            }
        }
    }
    for host in &report.drained {
        if let Some(of_host) = pools.get_mut(host) {
            of_host.insert(name, "drained");
        }
    }
    let fact = |(host, pools): (&HostName, BTreeMap<&str, &str>)| {
        let drained = pools.values().all(|state| *state == "drained");
        let key = format!("facts/lb/{host}").parse().ok()?;
        Some(Change::put(key, Document::from(json!({"drained": drained, "pools": pools}))))
    };
    pools.into_iter().filter_map(fact).collect()
}

/// The pools that have a file of this ending, in order of name, and where it is.
///
/// # Errors
/// The folder cannot be read, or not to its end.
pub(super) fn files(directory: &Path, ending: &str) -> Result<Vec<(String, PathBuf)>, Fault> {
    let names = shoal_agent::files::names::<String>(directory)?;
    let pool = |file: String| {
        let name = file.strip_suffix(ending)?;
        crate::item::is_pool(name).then(|| (name.to_owned(), directory.join(&file)))
    };
    let mut pools: Vec<_> = names.into_iter().filter_map(pool).collect();
    pools.sort_unstable();
    Ok(pools)
}
