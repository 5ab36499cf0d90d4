//! A custom agent whose unit is written as a whole: for each `hostsfile/` tag one file like `/etc/hosts`, with a
//! line for each member. One file, to be copied as the `src/main.rs` of a crate of its own.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use shoal_agent::*;

/// The document of a `hostsfile/` tag.
#[derive(Deserialize, JsonSchema)]
#[serde(crate = "shoal_agent::serde", deny_unknown_fields)]
#[schemars(crate = "shoal_agent::schemars")]
struct Spec {
    /// Whether the first label of a host's name is a name of it, too.
    #[serde(default)]
    short: bool,
}

/// Names one item: one host in the file of one tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(crate = "shoal_agent::serde")]
struct Key {
    tag: TagName,
    host: HostName,
}
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.tag, self.host)
    }
}

/// What one item is. Not called `Line`: that is a name of the prelude, and this file needs it below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "shoal_agent::serde")]
struct Entry {
    address: IpAddr,
    names: Vec<String>,
}

/// What should be.
struct HostsFile;
impl Agent for HostsFile {
    type Spec = Spec;
    type Key = Key;
    type Item = Entry;
    type Have = Entry;
    fn namespace(&self) -> &str {
        "hostsfile"
    }
    fn unit(&self, key: &Key) -> Unit {
        key.tag.as_str().into()
    }
    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<Key>, Blocked> {
        // The tag itself is a source without a host, and feeds nothing here.
        let key = |host: &HostName| Key { tag: from.tag.clone(), host: host.clone() };
        Ok(from.host_name().map(key).into_iter().collect())
    }
    fn desired(&self, key: &Key, from: &[Source<'_, Spec>], _: &dyn Look) -> Result<Desired<Entry>, Blocked> {
        // The key holds the tag and the host, so there is one source.
        let Some((source, host)) = from.iter().find_map(|source| Some((source, source.host?))) else {
            return Ok(Desired::nothing(vec![]));
        };
        let left_out = |why: String| Ok(Desired::nothing(vec![Blocked::new(source.name(), why)]));
        let Some(text) = host.text("address") else {
            return left_out("its document has no `address`".into());
        };
        let Ok(address) = text.parse() else {
            return left_out(format!("its `address` {text:?} is no IP address"));
        };
        let mut names = vec![key.host.to_string()];
        if source.spec.short {
            names.extend(key.host.as_str().split_once('.').map(|(label, _)| label.to_owned()));
        }
        Ok(Desired::item(Entry { address, names }))
    }
    fn made(&self, item: &Entry) -> Option<Entry> {
        Some(item.clone())
    }
}

/// What is, and how to change it: files `hosts.<tag>` in a folder.
#[derive(Deserialize)]
#[serde(crate = "shoal_agent::serde", deny_unknown_fields)]
struct Folder {
    dir: PathBuf,
}

/// The first line of each file. A file without it is somebody else's.
const MARK: &str = "# Kept by Shoal: what is edited here is undone. See hostsfile/ tags.";

impl Folder {
    /// The tag of a unit, and its file. A unit's name may come from the ledger, so it is parsed like any other.
    fn file(&self, unit: &Unit) -> Result<(TagName, PathBuf), Fault> {
        let tag: TagName = unit.0.parse().map_err(|e| Fault::new(format!("find the file of {unit}"), e))?;
        let path = self.dir.join(format!("hosts.{}", tag.key()));
        Ok((tag, path))
    }

    /// What stands in the file.
    fn read(&self, unit: &Unit) -> Result<BTreeMap<Key, Entry>, Fault> {
        let (tag, path) = self.file(unit)?;
        let fault = |why: String| Fault::new(format!("read {}", path.display()), why);
        if !self.dir.is_dir() {
            // A folder that is not mounted is not an empty folder.
            return Err(fault("its folder is not there".into()));
        }
        let text = match files::read(&path) {
            Seen::There(text) | Seen::Ours(text) => text,
            Seen::Nothing => return Ok(BTreeMap::new()),
            Seen::Unknown(why) => return Err(fault(why)),
        };
        if text.lines().next() != Some(MARK) {
            return Err(fault("Shoal did not write it".into()).next("move it away"));
        }
        let line = |line: &str| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let address = words.next()?.parse().ok()?;
            let names: Vec<String> = words.collect();
            let host = names.first()?.parse().ok()?;
            Some((Key { tag: tag.clone(), host }, Entry { address, names }))
        };
        Ok(text.lines().filter_map(line).collect())
    }
}

impl Target<HostsFile> for Folder {
    fn nature(&self) -> Nature {
        // `marks_own`: what stands in a file that begins with the mark is ours, whatever the ledger says.
        Nature { whole: true, marks_own: true, ..Nature::default() }
    }
    fn location(&self, _: &Unit) -> String {
        format!("files in {}", self.dir.display())
    }
    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<HostsFile>, Fault> {
        let there = self.read(unit)?;
        let keys = match scope {
            Scope::All => there.keys().cloned().collect(),
            Scope::Keys(keys) => keys.to_vec(),
        };
        Ok(Observed::of(keys, |key| there.get(key).cloned().map_or(Seen::Nothing, Seen::Ours)))
    }
    async fn apply(
        &self,
        unit: &Unit,
        batch: &Batch<HostsFile>,
        fence: &Fence,
    ) -> Result<Applied<HostsFile>, Fault> {
        let (_, path) = self.file(unit)?;
        let mut text = format!("{MARK}\n");
        for (_, line) in &batch.after {
            let entry = match line {
                Line::Want(entry) | Line::Keep(entry) => entry,
            };
            text += &format!("{} {}\n", entry.address, entry.names.join(" "));
        }
        fence.check()?;
        files::put(&path, (!batch.after.is_empty()).then_some(text.as_str()))?;
        Ok(Applied::all(batch))
    }
}

fn main() -> ExitCode {
    shoal_agent::main(|folder: Folder| Ok((HostsFile, folder)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_agent::laws::{Broken, Laws};
    use shoal_agent::serde_json::json;

    /// Hosts with addresses; edited, every other one has none any more.
    fn laws() -> Laws<HostsFile> {
        Laws::new(|| HostsFile, "hostsfile/office", json!({}))
            .then(json!({"short": true}))
            .host(|n| json!({"address": format!("192.0.2.{}", n + 1)}))
            .edited(|n| if n % 2 == 0 { json!({}) } else { json!({"address": "198.51.100.1"}) })
    }

    #[test]
    fn it_keeps_the_laws() -> Result<(), Broken> {
        laws().check()
    }

    #[test]
    fn it_keeps_them_with_real_files() -> Result<(), Broken> {
        let root = tempfile::tempdir().expect("a scratch folder");
        let count = std::cell::Cell::new(0);
        laws().check_with(|| {
            count.set(count.get() + 1);
            let dir = root.path().join(count.get().to_string());
            std::fs::create_dir(&dir).expect("a folder of its own for each target");
            Folder { dir }
        })
    }
}
