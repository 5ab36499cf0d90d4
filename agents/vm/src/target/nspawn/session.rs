//! Starting a machine so that it outlives who started it.
//!
//! A first shell, in a mount namespace of its own, puts itself into the machine's control group, mounts the machine's layer, and becomes
//! systemd-nspawn. Where systemd is the first process of the box that is a unit of its own, with the machine's size as its limits; else it
//! is a session of its own. Nothing of the database is read as a command: the script is fixed, and takes paths and numbers.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use shoal_agent::{Fault, HostId};
use tokio::process::Command;

use super::disks::Disks;
use super::{Order, network, processes, short};

/// How long it may take until it is on its way.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where control groups are, by the versions that there are.
const GROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// Base tree (empty: the machine has a system of its own), folder, control group (empty: somebody else made one), octets of memory (empty: no
/// limit), and what it becomes.
const SCRIPT: &str = r#"set -eu
lower=$1 folder=$2 group=$3 memory=$4
shift 4
if [ -n "$group" ]; then
    for place in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        [ -e "$place/cgroup.procs" ] || continue
        mkdir -p "$place/$group"
        echo 0 >"$place/$group/cgroup.procs"
        if [ -n "$memory" ] && [ -e "$place/$group/memory.max" ]; then echo "$memory" >"$place/$group/memory.max"; fi
    done
fi
[ -z "$lower" ] || mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
exec "$@"
"#;

fn group(id: &HostId) -> String {
    format!("shoal-vm-{}", short(id))
}

/// Whether systemd is the first process of this box.
fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Starts a machine that does not run, on a layer over its image, or without one in a system of its own. Its network is there. Returns
/// when it is on its way.
pub(super) async fn start(
    order: &Order,
    image: Option<&Path>,
    place: &Path,
    disks: &Disks,
) -> Result<(), Fault> {
    let what = || format!("start {}", order.host);
    let console = File::create(place.join("console.log")).map_err(|e| Fault::new(what(), e))?;
    let other = console.try_clone().map_err(|e| Fault::new(what(), e))?;
    let unit = is_systemd();
    let mut command = Command::new(if unit { "systemd-run" } else { "setsid" });
    match unit {
        true => command.args(unit_arguments(order)),
        false => command.arg("--fork"),
    };
    let memory = order.machine.memory().filter(|_| !unit).map(|octets| octets.to_string());
    let group = if unit { String::new() } else { group(&order.id) };
    command
        .args(["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", SCRIPT, "shoal-vm"])
        .arg(image.unwrap_or(Path::new("")))
        .arg(place)
        .args([group, memory.unwrap_or_default()])
        .args(nspawn(order, place, disks))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(other);
    let mut child = command.spawn().map_err(|e| Fault::new(what(), e))?;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    match status {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            Err(Fault::new(what(), format!("it ended with {status}")).next("see its console.log"))
        }
        Ok(Err(e)) => Err(Fault::new(what(), e)),
        Err(_) => Err(Fault::new(what(), "it is not on its way in time")),
    }
}

fn unit_arguments(order: &Order) -> Vec<String> {
    let mut all = vec![
        "--quiet".to_owned(),
        "--collect".to_owned(),
        format!("--unit={}", group(&order.id)),
        format!("--description=Machine {} of Shoal", order.host),
        "--slice=machine.slice".to_owned(),
        "--service-type=exec".to_owned(),
        "--property=Delegate=yes".to_owned(),
        "--property=KillMode=mixed".to_owned(),
    ];
    all.extend(order.machine.memory().map(|octets| format!("--property=MemoryMax={octets}")));
    all.extend(order.machine.cpu().map(|cpus| format!("--property=CPUQuota={}%", cpus.saturating_mul(100))));
    all.push("--".to_owned());
    all
}

/// What a machine is started as.
fn nspawn(order: &Order, place: &Path, disks: &Disks) -> Vec<String> {
    let mut all: Vec<String> = [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--keep-unit",
        "--register=no",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
    ]
    .map(str::to_owned)
    .into();
    all.push(format!("--machine={}", group(&order.id)));
    all.push(format!("--network-namespace-path={}", network::path(&order.id)));
    all.push(format!("--bind={}:/run/shoal-report", place.join("report").display()));
    for (name, disk) in &order.machine.disks {
        all.push(format!("--bind={}:{}", disks.of(place, name, disk).display(), disk.at));
    }
    all.push(processes::directory(place));
    all
}

/// Removes the control groups of a machine that does not run. What cannot be removed is empty, and is in nobody's way.
pub(super) fn ungroup(id: &HostId) {
    fn empty(folder: &Path) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            empty(&entry.path());
        }
        if let Err(error) = fs::remove_dir(folder) {
            tracing::debug!("{} stays: {error}", folder.display());
        }
    }
    for place in GROUPS.map(|place| Path::new(place).join(group(id))) {
        if place.is_dir() {
            empty(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_documents_say_is_an_argument_and_nothing_else() {
        let order: Order = serde_json::from_value(json!({
            "id": "$(reboot)", "host": "web1.example.com", "token": "; reboot",
            "machine": {"image": "debian-12", "size": {"cpu": 2, "memory": 1024}, "disks": {"data": {"size": 1, "at": "/srv/$(x)"}, "log": {"size": 1, "at": "/log", "volume": "a.1"}}},
        }))
        .unwrap();
        let all =
            nspawn(&order, Path::new("/state/machines/web1.example.com"), &Disks::new(Path::new("/state")));
        assert!(all.contains(&"--bind=/state/disks/a.1/log:/log".to_owned()), "{all:?}");
        assert!(
            all.contains(&"--bind=/state/machines/web1.example.com/disks/data:/srv/$(x)".to_owned()),
            "{all:?}"
        );
        assert_eq!(all.last().unwrap(), "--directory=/state/machines/web1.example.com/root");
        assert!(!all.concat().contains("reboot"), "{all:?}");
        let unit = unit_arguments(&order);
        assert!(
            unit.contains(&"--property=CPUQuota=200%".to_owned())
                && unit.contains(&"--property=MemoryMax=1024".to_owned())
        );
    }
}
