//! Disks that outlive their machines: folders beside those of machines, one for each slot of a group, with the id of the host that has it.
//!
//! `<state>/disks/<group>.<slot>/<disk>`. The folder of a slot is made beside and takes its place in one step, with the id in it, and goes
//! the same way. Whoever takes the slot over is the same host, and finds what is there; where that was deleted, it gets another id, and placement
//! says whose they were. What bears no id, or another one, is left as it is;
//! so is what a machine uses, whichever it is.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use shoal_agent::{Fault, HostId, Seen, files};
use shoal_machine::{Disk, Volume, Word};

use super::Order;
use super::folder::{GONE, NEW, is_folder, is_free, open_folder, remove};

/// In the folder of a slot: the id of its host. No disk is called so.
const ID: &str = ".id";

/// Where they are.
#[derive(Clone, Debug)]
pub(super) struct Disks(PathBuf);

fn fault(what: &str, path: &Path, why: impl ToString) -> Fault {
    Fault::new(format!("{what} {}", path.display()), why)
}

impl Disks {
    pub(super) fn new(state: &Path) -> Self {
        Self(state.join("disks"))
    }

    /// Where a machine's disk is: `place` is the machine's folder.
    pub(super) fn of(&self, place: &Path, name: &Word, disk: &Disk) -> PathBuf {
        match &disk.volume {
            Some(volume) => self.volume(volume).join(name.as_str()),
            None => place.join("disks").join(name.as_str()),
        }
    }

    fn volume(&self, volume: &Volume) -> PathBuf {
        self.0.join(volume.to_string())
    }

    /// Removes what was cut off. What cannot be removed is nobody's any more, and holds nobody up.
    pub(super) fn clear(&self) -> Result<(), Fault> {
        if !self.0.is_dir() {
            return Ok(());
        }
        for name in files::names::<String>(&self.0)? {
            if (name.starts_with(NEW) || name.starts_with(GONE))
                && let Err(fault) = remove(&self.0.join(name))
            {
                tracing::warn!("{fault}");
            }
        }
        Ok(())
    }

    /// Makes the disks of an order that are not there; those that are stay as they are. `ours`: all machines.
    pub(super) fn open(&self, order: &Order, ours: &[Order]) -> Result<(), Fault> {
        for volume in order.machine.volumes() {
            let place = self.volume(volume);
            self.unused(volume, &order.id, ours)?;
            match self.whose(volume)? {
                Some(id) if id == order.id.0 => {}
                Some(id) => {
                    let why = format!("they are of the host of id {id}, which {} is not", order.host);
                    let next = "if nobody needs them, remove the folder";
                    return Err(fault("give out the disks in", &place, why).next(next));
                }
                None => self.make(volume, &order.id)?,
            }
            let own = order.machine.disks.iter().filter(|(_, disk)| disk.volume.as_ref() == Some(volume));
            for (name, _) in own {
                let path = place.join(name.as_str());
                if !is_folder(&path) {
                    open_folder(&path).map_err(|e| fault("make", &path, e))?;
                }
            }
        }
        Ok(())
    }

    /// Makes this host's what one of those had last: they had the slot before, and are gone. What anybody else had stays theirs.
    pub(super) fn inherit(
        &self,
        id: &HostId,
        before: &[HostId],
        volume: &Volume,
        ours: &[Order],
    ) -> Result<(), Fault> {
        let Some(own) = self.whose(volume)?.filter(|own| before.iter().any(|one| one.0 == *own)) else {
            return Ok(());
        };
        if own == id.0 {
            return Ok(());
        }
        // Not even a machine of its own.
        self.unused(volume, &HostId(String::new()), ours)?;
        files::put(&self.volume(volume).join(ID), Some(&id.0))
    }

    /// Removes what a slot has that is given up, if this host had it last.
    pub(super) fn discard(&self, id: &HostId, volume: &Volume, ours: &[Order]) -> Result<(), Fault> {
        let place = self.volume(volume);
        // Nothing of this host's: none, or somebody else's.
        if !self.0.is_dir() || self.whose(volume)?.is_none_or(|own| own != id.0) {
            return Ok(());
        }
        // Not even its own machine.
        self.unused(volume, &HostId(String::new()), ours)?;
        let gone = self.0.join(format!("{GONE}{volume}"));
        remove(&gone)?;
        // A mount would go along, and whoever mounted it would look for it in vain.
        is_free(&place)?;
        fs::rename(&place, &gone).map_err(|e| fault("remove", &place, e))?;
        remove(&gone)
    }

    /// That no machine but this one's uses them.
    fn unused(&self, volume: &Volume, but: &HostId, ours: &[Order]) -> Result<(), Fault> {
        let uses = |order: &&Order| order.id != *but && order.machine.volumes().contains(volume);
        match ours.iter().find(uses) {
            None => Ok(()),
            Some(other) => {
                let why = format!("the machine of {} uses them", other.host);
                Err(fault("use the disks in", &self.volume(volume), why))
            }
        }
    }

    /// The id of the host that has a slot's disks; `None`: there are none.
    fn whose(&self, volume: &Volume) -> Result<Option<String>, Fault> {
        let place = self.volume(volume);
        match fs::symlink_metadata(&place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fault("look at", &place, e)),
            Ok(meta) if !meta.is_dir() => {
                return Err(fault("use the disks in", &place, "it is no folder").permanent());
            }
            Ok(_) => {}
        }
        match files::read(&place.join(ID)) {
            Seen::There(id) | Seen::Ours(id) => Ok(Some(id.trim_end().to_owned())),
            Seen::Nothing => {
                let why = "there is such a folder, and Shoal did not make it";
                Err(fault("use the disks in", &place, why).next("remove it").permanent())
            }
            Seen::Unknown(why) => Err(fault("look at", &place, why)),
        }
    }

    fn make(&self, volume: &Volume, id: &HostId) -> Result<(), Fault> {
        let (new, place) = (self.0.join(format!("{NEW}{volume}")), self.volume(volume));
        let bad = |e: io::Error| fault("make", &place, e);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(bad)?;
        remove(&new)?;
        DirBuilder::new().mode(0o700).create(&new).map_err(bad)?;
        files::put(&new.join(ID), Some(&id.0))?;
        renameat_with(CWD, &new, CWD, &place, RenameFlags::NOREPLACE).map_err(|e| bad(e.into()))?;
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use serde_json::json;

    use super::*;

    fn order(id: &str, host: &str) -> Order {
        let data = json!({"size": 1, "at": "/data", "volume": "kafka.3"});
        let order = json!({
            "id": id, "host": host, "token": "secret",
            "machine": {"image": "debian-12", "size": {}, "disks": {"data": data, "scratch": {"size": 1, "at": "/tmp"}}},
        });
        serde_json::from_value(order).unwrap()
    }

    #[test]
    fn they_outlive_the_machine_and_go_with_the_slot() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::new(dir.path());
        let (one, volume) = (order("1", "kafka-3.example.com"), "kafka.3".parse().unwrap());
        let id = HostId("1".to_owned());
        disks.clear().unwrap();
        disks.discard(&id, &volume, &[]).unwrap();
        disks.open(&one, &[]).unwrap();
        let place = dir.path().join("machines/kafka-3.example.com");
        let path = |name: &str| {
            let (name, disk) = one.machine.disks.iter().find(|(own, _)| own.as_str() == name).unwrap();
            disks.of(&place, name, disk)
        };
        assert_eq!(path("scratch"), place.join("disks/scratch"));
        assert_eq!(path("data"), dir.path().join("disks/kafka.3/data"));
        fs::write(path("data").join("precious"), "x").unwrap();
        // A successor has the same; a kill half way leaves nothing.
        fs::create_dir(dir.path().join("disks/.new-kafka.4")).unwrap();
        disks.clear().unwrap();
        disks.open(&one, std::slice::from_ref(&one)).unwrap();
        assert_eq!(fs::read_to_string(path("data").join("precious")).unwrap(), "x");
        // Nobody else has, and nothing goes that a machine uses.
        let fault = disks.open(&order("2", "other.example.com"), &[]).unwrap_err();
        assert!(fault.to_string().contains("of the host of id 1"), "{fault}");
        let fault = disks.open(&order("2", "other.example.com"), std::slice::from_ref(&one)).unwrap_err();
        assert!(fault.to_string().contains("the machine of kafka-3.example.com uses them"), "{fault}");
        disks.discard(&id, &volume, std::slice::from_ref(&one)).unwrap_err();
        let other = HostId("2".to_owned());
        disks.discard(&other, &volume, &[]).unwrap();
        assert!(path("data").join("precious").exists());
        // But who has the slot after one that is gone.
        let before = [HostId("0".to_owned()), id.clone()];
        disks.inherit(&other, &before[..1], &volume, &[]).unwrap();
        assert!(disks.open(&order("2", "other.example.com"), &[]).is_err(), "they were somebody else's");
        disks.inherit(&other, &before, &volume, std::slice::from_ref(&one)).unwrap_err();
        for _ in 0..2 {
            disks.inherit(&other, &before, &volume, &[]).unwrap();
            disks.open(&order("2", "other.example.com"), &[]).unwrap();
        }
        disks.open(&one, &[]).unwrap_err();
        disks.discard(&id, &volume, &[]).unwrap();
        assert_eq!(fs::read_to_string(path("data").join("precious")).unwrap(), "x");
        disks.discard(&other, &volume, &[]).unwrap();
        disks.discard(&other, &volume, &[]).unwrap();
        assert_eq!(files::names::<String>(&dir.path().join("disks")).unwrap(), Vec::<String>::new());
    }

    /// Mounted as long as it is there.
    struct Mount(PathBuf);

    impl Mount {
        fn new(at: &Path) -> Option<Self> {
            let mut mount = Command::new("mount");
            let mount = mount.args(["-t", "tmpfs", "-o", "size=1M", "none"]).arg(at).stderr(Stdio::null());
            mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
        }
    }

    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "it says that it is skipped")]
    fn what_is_mounted_is_neither_moved_nor_in_anybodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let state = fs::canonicalize(dir.path()).unwrap();
        let disks = Disks::new(&state);
        let (one, volume) = (order("1", "kafka-3.example.com"), "kafka.3".parse().unwrap());
        let id = HostId("1".to_owned());
        disks.open(&one, &[]).unwrap();
        let data = state.join("disks/kafka.3/data");
        let Some(mount) = Mount::new(&data) else {
            println!("SKIPPED: what_is_mounted_is_neither_moved_nor_in_anybodys_way: nothing can be mounted");
            return;
        };
        fs::write(data.join("precious"), "x").unwrap();
        let fault = disks.discard(&id, &volume, &[]).unwrap_err();
        assert!(fault.to_string().contains(&data.display().to_string()), "{fault}");
        assert_eq!(fs::read_to_string(data.join("precious")).unwrap(), "x");
        drop(mount);
        disks.discard(&id, &volume, &[]).unwrap();
        let left = state.join("disks/.gone-kafka.4");
        fs::create_dir(&left).unwrap();
        let mount = Mount::new(&left).unwrap();
        disks.clear().unwrap();
        assert!(left.is_dir());
        drop(mount);
        disks.clear().unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn what_shoal_did_not_make_is_not_given_out_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::new(dir.path());
        let theirs = dir.path().join("disks/kafka.3");
        fs::create_dir_all(theirs.join("data")).unwrap();
        assert!(disks.open(&order("1", "kafka-3.example.com"), &[]).unwrap_err().permanent);
        disks.discard(&HostId("1".to_owned()), &"kafka.3".parse().unwrap(), &[]).unwrap_err();
        assert!(theirs.join("data").is_dir());
    }
}
