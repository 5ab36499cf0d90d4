//! The folders of machines: each bears its mark from the moment that it is there until it is gone.
//!
//! In a machine's folder: `machine.json`, the mark; `upper` and `work`, its layer over the base tree; `root`, where both are mounted
//! together, for the machine alone; `disks`; `report`, into which it writes that it is up; and `console.log`. Only root can look inside:
//! in a layer are programs that make root of whoever runs them. One that was taken over has no layer, and its whole system in `root`.
//!
//! What the machine wrote is never followed and never waited for: a link or a pipe in its place is no report.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use shoal_agent::{Fault, HostId, HostName, Seen, files};
use shoal_machine::Volume;

use super::disks::Disks;
use super::{Order, short};

/// The mark.
const MARK: &str = "machine.json";
/// In the folder of all: which one it is. It is made with it, so that where a disk is not mounted, none or another is there.
const ID: &str = ".id";
/// What a machine writes when it is up, in `report`.
const UP: &str = "up";
/// A machine's layer, and where its system is.
const UPPER: &str = "upper";
const ROOT: &str = "root";
/// Folders that are not finished yet, or not gone yet, begin so. No host's name does.
pub(super) const NEW: &str = ".new-";
pub(super) const GONE: &str = ".gone-";
/// So much of a report is read, in octets.
const REPORT: u64 = 256;

/// Tells the box that the machine is up: the only thing of ours in it. The token is the order's, and the box compares it.
const UNIT: &str = "[Unit]
Description=Report to the box that this machine is up
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /etc/shoal-report >/run/shoal-report/new && mv /run/shoal-report/new /run/shoal-report/up'
";

/// Where the machines of this box are, and disks that outlive them.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    machines: PathBuf,
    disks: Disks,
}

/// What is in it.
#[derive(Default)]
pub(super) struct Found {
    pub(super) ours: Vec<Order>,
    pub(super) foreign: Vec<String>,
    pub(super) unseen: Vec<String>,
}

fn fault(what: &str, path: &Path, why: impl ToString) -> Fault {
    Fault::new(format!("{what} {}", path.display()), why)
}

impl Folder {
    pub(super) fn new(state: &Path) -> Self {
        Self { machines: state.join("machines"), disks: Disks::new(state) }
    }

    pub(super) fn machines(&self) -> &Path {
        &self.machines
    }

    pub(super) fn is_there(&self) -> bool {
        self.machines.is_dir()
    }

    /// The folder of a machine. A host's name was parsed: it is no path.
    pub(super) fn of(&self, host: &HostName) -> PathBuf {
        self.machines.join(host.as_str())
    }

    /// Which folder this is; `None`: it is not there, or nobody began with it.
    pub(super) fn id(&self) -> Result<Option<String>, String> {
        match files::read(&self.machines.join(ID)) {
            Seen::There(id) | Seen::Ours(id) => Ok(Some(id.trim_end().to_owned())),
            Seen::Nothing => Ok(None),
            Seen::Unknown(why) => Err(why),
        }
    }

    /// Makes the folder of all, and removes what was cut off. Answers which folder it is.
    pub(super) fn begin(&self) -> Result<String, Fault> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&self.machines);
        make.map_err(|e| fault("make", &self.machines, e))?;
        for name in self.names()? {
            if name.starts_with(NEW) || name.starts_with(GONE) {
                remove(&self.machines.join(name))?;
            }
        }
        self.disks.clear()?;
        let path = self.machines.join(ID);
        if let Some(id) = self.id().map_err(|e| fault("read", &path, e))? {
            return Ok(id);
        }
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|e| fault("make", &path, e))?;
        files::put(&path, Some(&id))?;
        Ok(id.trim_end().to_owned())
    }

    fn names(&self) -> Result<Vec<String>, Fault> {
        files::names(&self.machines)
    }

    /// All machines.
    pub(super) fn all(&self) -> Result<Found, Fault> {
        let mut found = Found::default();
        for name in self.names()?.into_iter().filter(|name| !name.starts_with('.')) {
            if !self.machines.join(&name).is_dir() {
                found.foreign.push(name);
                continue;
            }
            match self.mark(&name) {
                Ok(Some(order)) => found.ours.push(order),
                Ok(None) => found.foreign.push(name),
                Err(why) => found.unseen.push(why),
            }
        }
        Ok(found)
    }

    /// The mark under this name; `None`: what is there bears none.
    fn mark(&self, name: &str) -> Result<Option<Order>, String> {
        let path = self.machines.join(name).join(MARK);
        match files::read(&path) {
            Seen::Nothing => Ok(None),
            Seen::Unknown(why) => Err(why),
            Seen::There(text) | Seen::Ours(text) => {
                let order: Order =
                    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
                if order.host.as_str() == name {
                    Ok(Some(order))
                } else {
                    Err(format!("{} is the mark of {}", path.display(), order.host))
                }
            }
        }
    }

    /// The machine of this id. Where some mark cannot be read, nobody knows that there is none.
    pub(super) fn find(&self, id: &HostId) -> Result<Option<Order>, Fault> {
        let found = self.all()?;
        match (found.ours.into_iter().find(|order| order.id == *id), found.unseen.first()) {
            (None, Some(why)) => Err(Fault::new(format!("find the machine of {id}"), why)),
            (order, _) => Ok(order),
        }
    }

    /// Makes the folder of a machine; one that is there is left as it is.
    pub(super) fn make(&self, order: &Order) -> Result<(), Fault> {
        if self.find(&order.id)?.is_some() {
            return Ok(());
        }
        self.disks.open(order, &self.all()?.ours)?;
        let (new, place) = (self.machines.join(format!("{NEW}{}", short(&order.id))), self.of(&order.host));
        remove(&new)?;
        fill(&new, order).map_err(|e| fault("make", &new, e))?;
        let mark = serde_json::to_string_pretty(order).map_err(|e| fault("make", &new, e))?;
        files::put(&new.join(MARK), Some(&mark))?;
        match renameat_with(CWD, &new, CWD, &place, RenameFlags::NOREPLACE) {
            Ok(()) => {
                let synced = File::open(&self.machines).and_then(|folder| folder.sync_all());
                synced.map_err(|e| fault("make", &place, e))
            }
            Err(rustix::io::Errno::EXIST) => {
                remove(&new)?;
                // A host was deleted, and written anew as another one, before its machine was gone: that one goes, and then this is made.
                if let Ok(Some(other)) = self.mark(order.host.as_str()) {
                    let why = format!(
                        "the machine of the host {} that had this name before is there still",
                        other.id
                    );
                    return Err(fault("make", &place, why));
                }
                let why = "something of that name is there already, and Shoal did not make it for this host";
                let next = "remove it, give the host another name, or, if it is a machine, let Shoal have it with shoal adopt";
                Err(fault("make", &place, why).next(next).permanent())
            }
            Err(e) => Err(fault("make", &place, e)),
        }
    }

    /// Whether what is there under this name bears no mark and could be taken over: a folder with a whole system in `root`, and no layer.
    /// Links are neither.
    pub(super) fn could_be_ours(&self, host: &HostName) -> Result<bool, Fault> {
        let (place, root) = (self.of(host), self.of(host).join(ROOT));
        if !is_folder(&place) || !is_folder(&root) || !is_folder(&root.join("usr")) || is_layered(&place) {
            return Ok(false);
        }
        self.mark(host.as_str()).map(|mark| mark.is_none()).map_err(|why| fault("look at", &place, why))
    }

    /// Takes over what is there under the host's name; where the host has a machine here, that is left as it is. The mark comes last: until
    /// then nothing of it is ours, and nothing that it holds has changed.
    pub(super) fn adopt(&self, order: &Order) -> Result<(), Fault> {
        if self.find(&order.id)?.is_some() {
            return Ok(());
        }
        let place = self.of(&order.host);
        let bad = |why: io::Error| fault("take over", &place, why);
        if !self.could_be_ours(&order.host)? {
            let why = "there is no folder without a mark, with a whole system in `root`";
            return Err(fault("take over", &place, why).permanent());
        }
        self.disks.open(order, &self.all()?.ours)?;
        fs::set_permissions(&place, Permissions::from_mode(0o700)).map_err(bad)?;
        let disks = order.machine.disks.keys().map(|disk| Path::new("disks").join(disk.as_str()));
        for path in ["disks", "report"].map(PathBuf::from).into_iter().chain(disks) {
            let path = place.join(path);
            if !is_folder(&path) {
                open_folder(&path).map_err(bad)?;
            }
        }
        self.write(order)
    }

    /// Gives this host the disks of a slot that one of those had last who had the slot before.
    pub(super) fn inherit(&self, id: &HostId, before: &[HostId], volume: &Volume) -> Result<(), Fault> {
        self.disks.inherit(id, before, volume, &self.known("give on", volume)?)
    }

    /// Removes the disks of a slot that this host had last.
    pub(super) fn discard(&self, id: &HostId, volume: &Volume) -> Result<(), Fault> {
        self.disks.discard(id, volume, &self.known("remove", volume)?)
    }

    /// All machines: one that cannot be seen may use the disks of a slot.
    fn known(&self, what: &str, volume: &Volume) -> Result<Vec<Order>, Fault> {
        let found = self.all()?;
        match found.unseen.first() {
            Some(why) => Err(Fault::new(format!("{what} the disks of {volume}"), why)),
            None => Ok(found.ours),
        }
    }

    /// Where disks are that outlive machines.
    pub(super) fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Writes the mark anew.
    pub(super) fn write(&self, order: &Order) -> Result<(), Fault> {
        let path = self.of(&order.host).join(MARK);
        let mark = serde_json::to_string_pretty(order).map_err(|e| fault("write", &path, e))?;
        files::put(&path, Some(&mark))
    }

    /// Takes the machine's name away from its folder: from then on there is no such machine. Answers what is left to be removed.
    pub(super) fn unmark(&self, order: &Order) -> Result<PathBuf, Fault> {
        let (place, gone) = (self.of(&order.host), self.machines.join(format!("{GONE}{}", short(&order.id))));
        remove(&gone)?;
        fs::rename(&place, &gone).map_err(|e| fault("remove", &place, e))?;
        Ok(gone)
    }
}

/// Whether it is a folder, and no link to one.
pub(super) fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Whether a machine is a layer over a base tree. One that was taken over has a system of its own, which reports nothing.
pub(super) fn is_layered(place: &Path) -> bool {
    fs::symlink_metadata(place.join(UPPER)).is_ok()
}

/// What a machine begins with, over its base tree.
fn fill(new: &Path, order: &Order) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(new)?;
    let upper = new.join(UPPER);
    for folder in [UPPER, "work", ROOT, "disks", "report"] {
        open_folder(&new.join(folder))?;
    }
    for disk in order.machine.disks.keys() {
        open_folder(&new.join("disks").join(disk.as_str()))?;
    }
    let wants = "etc/systemd/system/multi-user.target.wants";
    open_folders(&upper, wants)?;
    write(&upper.join("etc/hostname"), &format!("{}\n", order.host), 0o644)?;
    // Each makes one of its own at its first start.
    write(&upper.join("etc/machine-id"), "", 0o444)?;
    write(&upper.join("etc/shoal-report"), &order.token, 0o400)?;
    write(&upper.join("etc/systemd/system/shoal-report.service"), UNIT, 0o644)?;
    symlink("/etc/systemd/system/shoal-report.service", upper.join(wants).join("shoal-report.service"))?;
    if let Some(data) = &order.machine.user_data {
        let seed = "var/lib/cloud/seed/nocloud";
        open_folders(&upper, seed)?;
        write(&upper.join(seed).join("user-data"), data, 0o600)?;
        let meta = format!("instance-id: {}\nlocal-hostname: {}\n", order.id, order.host);
        write(&upper.join(seed).join("meta-data"), &meta, 0o600)?;
    }
    Ok(())
}

/// A folder that everybody may pass, whatever the mask: in a machine it stands in for that of the base tree.
pub(super) fn open_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn open_folders(under: &Path, path: &str) -> io::Result<()> {
    let mut folder = under.to_owned();
    for part in path.split('/') {
        folder.push(part);
        if !folder.is_dir() {
            open_folder(&folder)?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Whether the machine has reported in since it was started.
pub(super) fn has_reported(place: &Path, token: &str) -> bool {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(place.join("report").join(UP))
    else {
        return false;
    };
    let mut said = String::new();
    file.metadata().is_ok_and(|meta| meta.is_file())
        && file.take(REPORT).read_to_string(&mut said).is_ok()
        && said.trim_end() == token
}

/// What it reported before is not what it reports after the next start.
pub(super) fn forget_report(place: &Path) -> Result<(), Fault> {
    let path = place.join("report").join(UP);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fault("remove", &path, e)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it, and nothing that is mounted there.
pub(super) fn remove(folder: &Path) -> Result<(), Fault> {
    is_free(folder)?;
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fault("remove", folder, e)),
        _ => Ok(()),
    }
}

/// That nothing is mounted at or below a folder that is to go.
pub(super) fn is_free(folder: &Path) -> Result<(), Fault> {
    match mounted(folder).map_err(|e| fault("remove", folder, e))? {
        None => Ok(()),
        Some(mount) => {
            let why = format!("something is mounted there: {mount}");
            Err(fault("remove", folder, why).next(format!("see what it is, and umount {mount}")))
        }
    }
}

/// What is mounted at or below a folder.
fn mounted(folder: &Path) -> io::Result<Option<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let place = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    Ok(mounts.lines().filter_map(place).find(|place| Path::new(place).starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(id: &str, host: &str) -> Order {
        let disks = json!({"data": {"size": 1, "at": "/data"}});
        let order = json!({
            "id": id, "host": host, "token": "secret",
            "machine": {"image": "debian-12", "size": {"cpu": 1}, "disks": disks, "user_data": "#cloud-config\n"},
        });
        serde_json::from_value(order).unwrap()
    }

    #[test]
    fn a_machine_has_its_mark_or_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        folder.begin().unwrap();
        let one = order("1", "web1.example.com");
        folder.make(&one).unwrap();
        folder.make(&order("1", "renamed.example.com")).unwrap();
        assert_eq!(
            folder.all().unwrap().ours,
            std::slice::from_ref(&one),
            "it is there, whatever its host is called by now"
        );
        let fault = folder.make(&order("2", "web1.example.com")).unwrap_err();
        assert!(!fault.permanent && fault.to_string().contains("the host 1 "), "{fault}");
        let place = folder.of(&one.host);
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
        let seed = place.join("upper/var/lib/cloud/seed/nocloud/user-data");
        assert_eq!(fs::read_to_string(seed).unwrap(), "#cloud-config\n");
        // Cut off half way: a folder without a mark under a name that is nobody's.
        fs::create_dir_all(folder.machines().join(".new-x/upper")).unwrap();
        let gone = folder.unmark(&one).unwrap();
        assert!(folder.find(&one.id).unwrap().is_none() && gone.is_dir());
        let id = folder.begin().unwrap();
        assert_eq!(folder.names().unwrap(), [ID]);
        assert_eq!((folder.begin().unwrap(), folder.id().unwrap()), (id.clone(), Some(id)));
    }

    #[test]
    fn what_is_not_ours_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        folder.begin().unwrap();
        let foreign = folder.machines().join("web1.example.com");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("precious"), "x").unwrap();
        let fault = folder.make(&order("1", "web1.example.com")).unwrap_err();
        assert!(fault.permanent && fault.to_string().contains("did not make"), "{fault}");
        assert_eq!(folder.all().unwrap().foreign, ["web1.example.com"]);
        assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
        // A mark that nobody can read: what it marks may be any machine.
        fs::create_dir(folder.machines().join("web2.example.com")).unwrap();
        fs::write(folder.machines().join("web2.example.com/machine.json"), "{").unwrap();
        assert_eq!(folder.all().unwrap().unseen.len(), 1);
        folder.find(&HostId("7".to_owned())).unwrap_err();
        folder.make(&order("7", "web7.example.com")).unwrap_err();
    }

    #[test]
    fn what_somebody_made_becomes_ours_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        folder.begin().unwrap();
        let one = order("1", "web1.example.com");
        let place = folder.of(&one.host);
        folder.adopt(&one).unwrap_err();
        fs::create_dir_all(place.join("root/etc")).unwrap();
        assert!(!folder.could_be_ours(&one.host).unwrap(), "there is no system in it");
        fs::write(place.join("root/etc/precious"), "x").unwrap();
        fs::create_dir(place.join("root/usr")).unwrap();
        // Half of a layer is no machine, and a link leads elsewhere.
        fs::create_dir(place.join(UPPER)).unwrap();
        assert!(folder.adopt(&one).unwrap_err().permanent);
        fs::remove_dir(place.join(UPPER)).unwrap();
        symlink(&place, folder.machines().join("web2.example.com")).unwrap();
        folder.adopt(&order("2", "web2.example.com")).unwrap_err();
        fs::remove_file(folder.machines().join("web2.example.com")).unwrap();
        assert!(folder.all().unwrap().ours.is_empty());
        assert!(folder.could_be_ours(&one.host).unwrap());
        // Cut off before the mark, it is begun again; after it, it is done.
        fs::create_dir(place.join("report")).unwrap();
        folder.adopt(&one).unwrap();
        folder.adopt(&one).unwrap();
        assert_eq!(folder.all().unwrap().ours, std::slice::from_ref(&one));
        assert!(!is_layered(&place) && !folder.could_be_ours(&one.host).unwrap());
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(place.join("disks/data").is_dir());
        assert_eq!(fs::read_to_string(place.join("root/etc/precious")).unwrap(), "x");
        // Another host's word about it is none.
        assert!(folder.adopt(&order("3", "web1.example.com")).unwrap_err().permanent);
        remove(&folder.unmark(&one).unwrap()).unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn only_a_file_with_the_token_is_a_report() {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report");
        fs::create_dir(&report).unwrap();
        assert!(!has_reported(dir.path(), "secret"));
        fs::write(report.join(UP), "secret\n").unwrap();
        assert!(has_reported(dir.path(), "secret") && !has_reported(dir.path(), "other"));
        forget_report(dir.path()).unwrap();
        forget_report(dir.path()).unwrap();
        assert!(!has_reported(dir.path(), "secret"));
        fs::write(dir.path().join("elsewhere"), "secret").unwrap();
        symlink(dir.path().join("elsewhere"), report.join(UP)).unwrap();
        assert!(!has_reported(dir.path(), "secret"), "a link is not followed");
        forget_report(dir.path()).unwrap();
        let pipe = report.join(UP);
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(!has_reported(dir.path(), "secret"), "a pipe is not waited for");
    }
}
