//! What is there when all is over: the database's log and ledger, and what stands in the agents' files, beside what a fresh run makes
//! of the same database.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use shoal_core::{Change, Range};
use shoal_store::{Query, Store};
use shoal_store_sqlite::SqliteStore;
use shoal_tests::process::output;
use shoal_tests::wait;
use tokio::runtime::Runtime;

use crate::checks::Logged;
use crate::clients::{commit, number_of};
use crate::world::{World, files};

/// Zone files by name, without what says how often each was written.
type Zones = BTreeMap<String, Vec<String>>;

/// Every commit, oldest first.
pub(crate) async fn log(store: &dyn Store) -> Result<Vec<Logged>> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = store.log(&Range::All, before, 1_000).await.context("the log")?;
        let Some(last) = page.last() else { break };
        before = Some(last.info.revision);
        all.extend(page.into_iter().map(|entry| {
            let wrote = |change: Change| (change.key.to_string(), change.value.as_ref().and_then(number_of));
            Logged {
                revision: entry.info.revision.0,
                time: entry.info.time.as_second(),
                id: entry.info.message,
                wrote: entry.changes.into_iter().map(wrote).collect(),
            }
        }));
    }
    all.reverse();
    Ok(all)
}

/// The number that stands in the ledger for each claim.
pub(crate) async fn ledger(store: &dyn Store) -> Result<BTreeMap<String, u64>> {
    let page = store.ledger("chaos/", None, 1_000).await.context("the ledger")?;
    let number = |(key, value): (String, Vec<u8>)| -> Result<(String, u64)> {
        let name = key.strip_suffix("/1").with_context(|| key.clone())?.to_owned();
        let number = String::from_utf8_lossy(&value).parse::<u64>().with_context(|| key.clone())?;
        Ok((name, number))
    };
    page.rows.into_iter().map(number).collect()
}

/// Waits until the agents say that they have done what the database says.
///
/// # Errors
/// They do not.
pub(crate) fn converged(world: &World) -> Result<()> {
    let url = world.direct();
    wait::until("convergence", wait::PATIENCE * 2, || {
        let mut shoal = world.program("shoal");
        output(shoal.args(["--store", &url, "wait", "--agent", "dns", "--timeout", "10s"]), &[0])
    })
    .map(drop)
}

/// Waits until the agents' files are what a fresh run makes of the database as it is. Answers how many there are.
///
/// # Errors
/// What differs.
pub(crate) fn is_as_from_scratch(world: &World, runtime: &Runtime, store: &dyn Store) -> Result<usize> {
    let wanted = from_scratch(world, runtime, store)?;
    wait::until("the files", wait::PATIENCE, || {
        let have = zones(&world.dir().join("zones"))?;
        let names: Vec<&String> =
            have.keys().chain(wanted.keys()).filter(|name| have.get(*name) != wanted.get(*name)).collect();
        ensure!(names.is_empty(), "{names:?} differ: there is {have:?}, and from scratch {wanted:?}");
        Ok(())
    })?;
    Ok(wanted.len())
}

/// The files that one run makes of the same tags in an empty database and an empty folder.
fn from_scratch(world: &World, runtime: &Runtime, store: &dyn Store) -> Result<Zones> {
    let dir = world.dir().join("scratch");
    let (folder, database) = (dir.join("zones"), dir.join("shoal.db"));
    fs::create_dir_all(&folder).context("a folder")?;
    runtime.block_on(async {
        let page = store.read(&Query::new(Range::namespace("dns"))).await.context("the tags")?;
        ensure!(page.next.is_none(), "there are more tags than one page holds");
        let put = |row: shoal_core::Row| Some(Change::put(row.key, row.value?));
        let changes = page.rows.into_iter().filter_map(put).collect();
        let scratch = SqliteStore::open(&database).await.context("a database")?;
        scratch.commit(commit("from scratch", Vec::new(), changes)).await.context("all at once")
    })?;
    let config = dir.join("dns.toml");
    fs::write(&config, files(&folder)).context("a configuration")?;
    let url = format!("sqlite:{}", database.display());
    output(world.program("shoal-dns").args(["--store", &url, "--once", "--config"]).arg(&config), &[0])?;
    zones(&folder)
}

fn zones(dir: &Path) -> Result<Zones> {
    let mut all = Zones::new();
    for entry in fs::read_dir(dir).context("the folder of zones")? {
        let path = entry.context("the folder of zones")?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        // The others are how the agent knows its folder, and what it was about to write when it was killed.
        if name.starts_with('z') && name.ends_with(".example") {
            let text = fs::read_to_string(&path).with_context(|| name.clone())?;
            all.insert(name, records(&text));
        }
    }
    Ok(all)
}

/// The records of a zone file, without comments and without the serial.
fn records(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with(';'));
    let record = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if words.get(3) == Some(&"SOA")
            && let Some(serial) = words.get_mut(6)
        {
            *serial = "SERIAL";
        }
        words.join(" ")
    };
    lines.map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_differ_by_records_and_not_by_serials() {
        let file = |serial: u32, address: &str| {
            format!(
                "; made\nx.example.\t60\tIN\tSOA\tns1. me. {serial} 1 2 3 4\nwww.x.example.\t60\tIN\tA\t{address}\n"
            )
        };
        assert_eq!(records(&file(1, "192.0.2.1")), records(&file(7, "192.0.2.1")));
        assert_ne!(records(&file(1, "192.0.2.1")), records(&file(1, "192.0.2.2")));
    }
}
