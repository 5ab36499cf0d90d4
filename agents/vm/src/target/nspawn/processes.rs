//! Which machines run: asked of the kernel each time.
//!
//! A machine runs as long as some process names its folder, `--directory=<folder>/root`, in its command line: from the very first one,
//! before systemd-nspawn is even started, to the last. Only processes of this system count, and of the agent's own user: inside machines
//! anybody may call a process anything.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use shoal_agent::Fault;
use tokio::time::Instant;

/// How often is looked whether a machine has ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long a machine may take to be gone after it was killed.
const KILLED: Duration = Duration::from_secs(10);

/// The argument that names a machine's folder.
pub(super) fn directory(place: &Path) -> String {
    format!("--directory={}", place.join("root").display())
}

/// The processes of all machines in a folder, by the argument that names each.
pub(super) fn running(machines: &Path) -> Result<BTreeMap<String, Vec<Pid>>, Fault> {
    let begins = format!("--directory={}/", machines.display());
    scan(|argument| argument.starts_with(&begins)).map_err(|e| Fault::new("look which machines run", e))
}

/// The processes of one machine; `None`: it does not run.
pub(super) fn of(place: &Path) -> Result<Option<Vec<Pid>>, Fault> {
    let (what, directory) = (format!("look whether {} runs", place.display()), directory(place));
    let mut all = scan(|argument| argument == directory).map_err(|e| Fault::new(what, e))?;
    Ok(all.remove(&directory))
}

fn scan(names: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, Vec<Pid>>> {
    let here = fs::read_link("/proc/self/ns/pid")?;
    let mut found: BTreeMap<String, Vec<Pid>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        if let Some(argument) = argument(&path, &here, &names) {
            found.entry(argument).or_default().push(pid);
        }
    }
    Ok(found)
}

/// The argument of a process that is asked for. One that ends meanwhile has none.
fn argument(process: &Path, here: &Path, names: &impl Fn(&str) -> bool) -> Option<String> {
    let line = fs::read(process.join("cmdline")).ok()?;
    let argument = line
        .split(|octet| *octet == 0)
        .filter_map(|part| std::str::from_utf8(part).ok())
        .find(|part| names(part))?;
    let own = fs::metadata(process).ok()?.uid() == geteuid().as_raw();
    let system = fs::read_link(process.join("ns/pid")).ok()?;
    (own && system == *here).then(|| argument.to_owned())
}

/// A machine that is to end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// When it was told.
    told: Option<Instant>,
    /// When somebody last asked whether it has ended.
    asked: Option<Instant>,
    killed: bool,
}

/// Has a machine end: told in an orderly way the first time, killed once `patience` is over. Answers whether no process of it is left, and
/// waits for nothing.
pub(super) fn ends(place: &Path, ending: &mut Ending, patience: Duration) -> Result<bool, Fault> {
    let what = || format!("stop {}", place.display());
    let Some(pids) = of(place)? else { return Ok(true) };
    // Nobody wanted it to end any more, and now somebody does again.
    if ending.asked.is_some_and(|asked| asked.elapsed() > patience + KILLED) {
        *ending = Ending::default();
    }
    let (now, first) = (Instant::now(), ending.told.is_none());
    ending.asked = Some(now);
    let since = now.duration_since(*ending.told.get_or_insert(now));
    let late = since >= patience;
    if since >= patience + KILLED {
        return Err(Fault::new(what(), "its processes do not end, though they were killed"));
    }
    // A second signal of the first kind would end it at once.
    if first || late {
        let signal = if late { Signal::KILL } else { Signal::TERM };
        for pid in pids {
            send(place, pid, signal).map_err(|e| Fault::new(what(), e))?;
        }
    }
    if late && !ending.killed {
        tracing::warn!("{} did not stop within {patience:?}, and is killed", place.display());
        ending.killed = true;
    }
    Ok(false)
}

/// Ends a machine in the same way. Returns when no process of it is left.
pub(super) async fn end(place: &Path, patience: Duration) -> Result<(), Fault> {
    let mut ending = Ending::default();
    while !ends(place, &mut ending, patience)? {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Sends a signal to a process of this machine. Its number may be another's by now: who holds it open is asked once more.
fn send(place: &Path, pid: Pid, signal: Signal) -> io::Result<()> {
    let gone = |e: rustix::io::Errno| if e == rustix::io::Errno::SRCH { Ok(()) } else { Err(e.into()) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(e) => return gone(e),
    };
    let path = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let (here, directory) = (fs::read_link("/proc/self/ns/pid")?, directory(place));
    match argument(&path, &here, &|part: &str| part == directory) {
        Some(_) => pidfd_send_signal(&process, signal).or_else(gone),
        None => Ok(()),
    }
}

/// Ends whoever is left in the network of a machine that does not run: where systemd-nspawn itself is killed, nobody else ends what it
/// started. Returns when no process is there.
///
/// # Errors
/// Something is there still; or it is the network of the box itself, in which nobody is ended.
pub(super) async fn clear(namespace: &Path) -> Result<(), Fault> {
    let what = || format!("end what is left in {}", namespace.display());
    if is_own(namespace).map_err(|e| Fault::new(what(), e))? {
        let next = "see who put that there, and remove the file (ip netns delete)";
        return Err(Fault::new(what(), "it is the network of the box itself").next(next).permanent());
    }
    let begun = Instant::now();
    loop {
        let left = inhabitants(namespace).map_err(|e| Fault::new(what(), e))?;
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() >= KILLED {
            return Err(Fault::new(what(), "its processes do not end, though they were killed"));
        }
        for process in left {
            match pidfd_send_signal(&process, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(Fault::new(what(), io::Error::from(e))),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a network namespace is the agent's own, or that of the first process.
fn is_own(namespace: &Path) -> io::Result<bool> {
    let asked = fs::metadata(namespace)?;
    let is =
        |own: &str| fs::metadata(own).is_ok_and(|own| (own.dev(), own.ino()) == (asked.dev(), asked.ino()));
    Ok(is("/proc/self/ns/net") || is("/proc/1/ns/net"))
}

/// The processes in a network namespace, held open.
fn inhabitants(namespace: &Path) -> io::Result<Vec<OwnedFd>> {
    let asked = fs::metadata(namespace)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        let own = path.join("ns/net");
        let is_there =
            || fs::metadata(&own).is_ok_and(|net| (net.dev(), net.ino()) == (asked.dev(), asked.ino()));
        if !is_there() {
            continue;
        }
        // Its number may be another's by now: who holds it open is asked once more.
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) if is_there() => found.push(process),
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    /// A process that names the folder. What ends it is waited for, as the first process of a system does.
    fn stands_in(place: &Path, script: &str) {
        let mut child = Command::new("sh")
            .args(["-c", script, "sh", &directory(place)])
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        tokio::spawn(async move { child.wait().await });
    }

    async fn runs(place: &Path) {
        while of(place).unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_machine_is_found_by_its_folder_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("one.more"));
        assert!(of(&one).unwrap().is_none());
        stands_in(&one, "trap 'kill $!' TERM; sleep 1000 & wait");
        stands_in(&other, "trap 'kill $!' TERM; sleep 1000 & wait");
        runs(&one).await;
        runs(&other).await;
        assert_eq!(running(dir.path()).unwrap().len(), 2);
        end(&one, Duration::from_secs(60)).await.unwrap();
        assert!(of(&one).unwrap().is_none() && of(&other).unwrap().is_some());
        end(&other, Duration::from_secs(60)).await.unwrap();
        end(&other, Duration::from_secs(60)).await.unwrap();
        assert_eq!(running(dir.path()).unwrap().len(), 0);
    }

    /// Asked of what is to be cleared: to try that itself would end this test, and all else, where it is wrong.
    #[test]
    fn the_network_of_the_box_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("shoal-vm-1");
        std::os::unix::fs::symlink("/proc/self/ns/net", &link).unwrap();
        assert!(is_own(&link).unwrap() && is_own(Path::new("/proc/self/ns/net")).unwrap());
        let other = dir.path().join("shoal-vm-2");
        fs::write(&other, "").unwrap();
        assert!(!is_own(&other).unwrap() && is_own(&dir.path().join("none")).is_err());
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("deaf");
        fs::create_dir(&place).unwrap();
        stands_in(&place, "trap '' TERM; : >\"${1#--directory=}.deaf\"; while :; do sleep 1; done");
        while !place.join("root.deaf").exists() {
            tokio::task::yield_now().await;
        }
        end(&place, Duration::from_millis(200)).await.unwrap();
        assert!(of(&place).unwrap().is_none());
    }
}
