//! Locks in a repository that nobody holds any more.
//!
//! restic takes a lock for stale when it is older than half an hour, whoever holds it: a machine that slept, or one that is cut off,
//! may still write. Here one is broken only when its holder is known to be dead: it was a process of the very machine that restic runs
//! on, and there is no such process of restic. If any other would be broken along with it, none is, and the fault names the holder. How old
//! a lock is restic tells by the clock of the machine that it runs on; here, by the later one of that and this machine's.

use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;
use shoal_agent::Fault;

use super::program::{Caller, Stop};
use super::remote;

/// How old a lock is that `restic unlock` takes for stale, in seconds.
const STALE: i64 = 30 * 60;

/// How much later `restic unlock` may look than was looked here, in seconds.
const SLACK: i64 = 60;

/// A lock as restic writes it.
#[derive(Debug, Deserialize)]
struct Lock {
    time: Timestamp,
    hostname: String,
    pid: u64,
    #[serde(default)]
    exclusive: bool,
}

/// What is known of a lock's holder.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Dead,
    /// It lives, or nobody here can say. Whether restic would break its lock all the same.
    Elsewhere {
        would_break: bool,
    },
}

impl Lock {
    fn holder(&self, here: &str, now: i64, lives: impl Fn(u64) -> bool) -> Holder {
        let own = self.hostname.eq_ignore_ascii_case(here);
        if own && !lives(self.pid) {
            return Holder::Dead;
        }
        Holder::Elsewhere { would_break: now - self.time.as_second() >= STALE - SLACK }
    }

    fn name(&self) -> String {
        let kind = if self.exclusive { "an exclusive lock" } else { "a lock" };
        format!("{kind} of process {} on {} since {}", self.pid, self.hostname, self.time)
    }
}

/// Whether a process of restic has this number here, or may: where other users' processes are hidden, nobody can say.
fn lives(pid: u64) -> bool {
    if !Path::new("/proc/1/comm").exists() {
        return true;
    }
    let name = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
    name.is_ok_and(|name| name.trim().starts_with("restic"))
}

/// Breaks the locks of dead holders. Answers whether there were any.
///
/// # Errors
/// The locks cannot be read; or one stays whose holder is not known to be dead, and who that is.
pub(crate) async fn break_dead(restic: &Caller, stop: &mut Stop) -> Result<bool, Fault> {
    let args = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let ids = restic.text(&args(&["list", "locks", "--no-lock"]), stop).await?;
    let mut locks = Vec::new();
    for id in ids.lines().map(str::trim).filter(|id| !id.is_empty()) {
        let text = restic.text(&args(&["cat", "lock", id, "--no-lock"]), stop).await;
        // One that is gone by now is nobody's.
        let Ok(text) = text else { continue };
        let lock: Lock =
            serde_json::from_str(&text).map_err(|e| Fault::new("read a lock of the repository", e))?;
        locks.push(lock);
    }
    let pids: Vec<u64> = locks.iter().map(|lock| lock.pid).collect();
    let own = Timestamp::now().as_second();
    let (here, there, living) = match restic.over() {
        Some(over) => remote::living(over, &pids, stop).await?,
        None => {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            (name, own, pids.into_iter().filter(|pid| lives(*pid)).collect())
        }
    };
    let (mut dead, mut others) = (0, Vec::new());
    for lock in locks {
        match lock.holder(&here, own.max(there), |pid| living.contains(&pid)) {
            Holder::Dead => dead += 1,
            Holder::Elsewhere { would_break } => others.push((lock.name(), would_break)),
        }
    }
    let risky = others.iter().any(|(_, would_break)| *would_break);
    if dead > 0 && !risky {
        restic.text(&args(&["unlock"]), stop).await?;
        tracing::warn!("broke {dead} lock(s) in a repository, whose holders on {here} are dead");
        return Ok(true);
    }
    if let Some((name, _)) = others.first() {
        let next = "where that is dead, `restic unlock` breaks its lock; nobody here knows";
        return Err(Fault::new("use the repository", format!("{name} is in the way")).next(next));
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_known_to_be_dead_is() {
        let now = "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let lock = |hostname: &str, time: &str| Lock {
            time: time.parse().unwrap(),
            hostname: hostname.to_owned(),
            pid: 7,
            exclusive: true,
        };
        let fresh = "2026-03-01T11:59:00Z";
        assert_eq!(lock("web1", fresh).holder("web1", now, |_| false), Holder::Dead);
        let alive = Holder::Elsewhere { would_break: false };
        assert_eq!(lock("web1", fresh).holder("web1", now, |_| true), alive);
        assert_eq!(lock("web2", fresh).holder("web1", now, |_| false), alive);
        let old = lock("web2", "2026-03-01T11:00:00Z").holder("web1", now, |_| false);
        assert_eq!(old, Holder::Elsewhere { would_break: true });
        // A machine whose clock is half an hour ahead would break what is a minute old.
        let ahead = lock("web2", fresh).holder("web1", now + STALE, |_| false);
        assert_eq!(ahead, Holder::Elsewhere { would_break: true });
        // By the time that restic looks, this is as old.
        let soon = lock("web2", "2026-03-01T11:30:30Z").holder("web1", now, |_| false);
        assert_eq!(soon, Holder::Elsewhere { would_break: true });
    }
}
