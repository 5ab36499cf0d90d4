//! Power loss: whatever was acknowledged is there when the power is back, whole, and nothing else is there by half.
//!
//! A workload runs once on a VFS that writes down every write and every sync. Then power is cut at many points
//! of that record, and the database is opened from what the disk would hold.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shoal_core::Revision;
use shoal_store::{ClaimAnswer, ClaimRequest, LedgerWrite, Store};
use shoal_store_sqlite::{Options, SqliteStore};
use support::shim::{Disk, Shim, Step, Unsynced};
use support::{Acknowledged, check, commit};

const SEED: u64 = 0x5EA1;
const WRITERS: usize = 6;
const COMMITS: u64 = 30;
const CUTS: usize = 160;
/// The VFS through which the remains are looked at.
const LOOKS: &str = "looks";

fn want(holder: &str) -> ClaimRequest {
    ClaimRequest {
        name: "unit/x".into(),
        of: 100,
        holder: holder.into(),
        ttl: Some(Duration::from_secs(3600)),
    }
}

/// Writers of commits, claims and ledger rows, all at once; the store is closed and opened again in the middle.
async fn work(shim: &'static Shim, path: &std::path::Path, vfs: &str) {
    for half in 0..2 {
        // A small log, so that it is copied into the file and begun anew again and again. The second half is cut into slices.
        let options = Options::vfs(vfs).checkpoint_after(40).slices_of(if half == 0 { 1000 } else { 2 });
        let store = Arc::new(SqliteStore::open_with(path, options).await.unwrap());
        let tasks: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let name = format!("w{writer}");
                    for n in half * COMMITS..(half + 1) * COMMITS {
                        store.commit(commit(&name, n)).await.unwrap();
                        shim.note(&name, n);
                        if n % 10 == 9 {
                            let holder = format!("{name} {n}");
                            let ClaimAnswer::Granted(claim) = store.claim(&want(&holder)).await.unwrap()
                            else {
                                panic!("there is a place for everybody");
                            };
                            shim.note("claim", claim.number);
                            let row =
                                LedgerWrite { key: name.clone(), value: Some(n.to_le_bytes().to_vec()) };
                            store.write_ledger(vec![row], &claim).await.unwrap();
                            shim.note(&format!("ledger {name}"), n);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

/// Opens what is left and holds it against what was acknowledged.
async fn look(folder: &std::path::Path, notes: &BTreeMap<String, u64>) -> Result<(), String> {
    let path = folder.join("shoal.db");
    let store = SqliteStore::open_with(&path, Options::vfs(LOOKS)).await.map_err(|e| e.to_string())?;
    let mut acknowledged = Acknowledged::new();
    for (who, what) in notes {
        if who == "claim" {
            let ClaimAnswer::Granted(claim) = store.claim(&want("late")).await.map_err(|e| e.to_string())?
            else {
                return Err("no place left".into());
            };
            if claim.number <= *what {
                return Err(format!("the number {} was given out again, {what} was the last", claim.number));
            }
        } else if let Some(writer) = who.strip_prefix("ledger ") {
            let page = store.ledger(writer, None, 1).await.map_err(|e| e.to_string())?;
            let there = page.rows.first().map(|(_, v)| u64::from_le_bytes(v.as_slice().try_into().unwrap()));
            if there.is_none_or(|there| there < *what) {
                return Err(format!("the ledger of {writer} says {there:?}, {what} was acknowledged"));
            }
        } else {
            acknowledged.insert(who.clone(), *what);
        }
    }
    check(&store, &mut Revision(0), &mut BTreeMap::new(), &acknowledged).await
}

/// Cuts the power at `cuts` random points of the record; answers what was wrong, with the step at which.
async fn cut(steps: &[Step], cuts: usize, unsynced: &[Unsynced]) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut points: Vec<_> = (0..cuts).map(|_| random.random_range(0..=steps.len())).collect();
    points.sort_unstable();
    static LOOK: Once = Once::new();
    LOOK.call_once(|| Shim::register(LOOKS).forget());
    let (mut disk, mut notes, mut done, mut wrong) = (Disk::default(), BTreeMap::new(), 0, Vec::new());
    for point in points {
        for step in &steps[done..point] {
            disk.take(step);
            if let Step::Note(who, what) = step {
                let last = notes.entry(who.clone()).or_insert(*what);
                *last = (*last).max(*what);
            }
        }
        done = point;
        for kind in unsynced {
            let folder = tempfile::tempdir().unwrap();
            disk.lose_power(folder.path(), *kind, &mut random);
            if let Err(what) = look(folder.path(), &notes).await {
                wrong.push(format!("seed {SEED:#x}, step {point} of {}, {kind:?}: {what}", steps.len()));
            }
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives() {
    let shim = Shim::register("power");
    let folder = tempfile::tempdir().unwrap();
    work(shim, &folder.path().join("shoal.db"), "power").await;
    let steps = shim.steps();
    let count = |f: fn(&Step) -> bool| steps.iter().filter(|s| f(s)).count();
    let synced =
        |end: &str| steps.iter().filter(|s| matches!(s, Step::Sync { file } if file.ends_with(end))).count();
    assert!(
        synced("-wal") > 20 && synced(".db") > 5,
        "the log was synced, and copied into the file several times"
    );
    assert!(count(|s| matches!(s, Step::Delete { .. })) > 0, "the log was taken away when the store closed");
    let wrong = cut(&steps, CUTS, &[Unsynced::Lost, Unsynced::Anything]).await;
    assert!(wrong.is_empty(), "{} cuts went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The same test on a disk that lies about its syncs: it must fail, or it shows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_disk_is_caught() {
    let shim = Shim::register("liar");
    shim.lie();
    let folder = tempfile::tempdir().unwrap();
    work(shim, &folder.path().join("shoal.db"), "liar").await;
    assert!(!cut(&shim.steps(), 10, &[Unsynced::Lost]).await.is_empty());
}
