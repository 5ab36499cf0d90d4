//! A real Nagios in a scratch directory, ended when dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::until;

/// The server's own library: what tags may name.
const LIBRARY: &str = "
define command {
 command_name check_ping
 command_line /bin/true $HOSTADDRESS$ $ARG1$ $ARG2$
}
define command {
 command_name check_echo
 command_line /bin/echo args $ARG1$ $ARG2$ $ARG3$
}
define command {
 command_name check_procs
 command_line /bin/true $ARG1$ $ARG2$
}
define command {
 command_name check_load
 command_line /bin/true $ARG1$ $ARG2$
}
define command {
 command_name check_http
 command_line /bin/true $ARG1$ $ARG2$
}
define command {
 command_name notify
 command_line /bin/true
}
define timeperiod {
 timeperiod_name always
 alias always
 sunday 00:00-24:00
 monday 00:00-24:00
 tuesday 00:00-24:00
 wednesday 00:00-24:00
 thursday 00:00-24:00
 friday 00:00-24:00
 saturday 00:00-24:00
}
define contact {
 contact_name ann
 host_notification_period always
 service_notification_period always
 host_notification_commands notify
 service_notification_commands notify
}
define contactgroup {
 contactgroup_name ops
 alias ops
 members ann
}
define host {
 host_name monitor.example.com
 address 127.0.0.1
 max_check_attempts 3
 contact_groups ops
}
define service {
 host_name monitor.example.com
 service_description self
 check_command check_ping
 max_check_attempts 3
 contact_groups ops
}
";

/// A Nagios, running or not.
pub(crate) struct Nagios {
    dir: TempDir,
    child: Option<Child>,
}

impl Nagios {
    /// Its configuration, with the folder of Shoal's in it; it does not run yet.
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let at = dir.path().display().to_string();
        for folder in ["var/spool", "rw", "shoal"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let user = |flag: &str| {
            let said = Command::new("id").args([flag, "-n"]).output().unwrap();
            String::from_utf8(said.stdout).unwrap().trim().to_owned()
        };
        let config = format!(
            "cfg_file=library.cfg\ncfg_dir={at}/shoal/current\nlog_file={at}/var/nagios.log\n\
             object_cache_file={at}/var/objects.cache\nprecached_object_file={at}/var/objects.precache\n\
             status_file={at}/var/status.dat\nstate_retention_file={at}/var/retention.dat\n\
             temp_file={at}/var/nagios.tmp\ntemp_path={at}/var\ncheck_result_path={at}/var/spool\n\
             command_file={at}/rw/nagios.cmd\nquery_socket={at}/rw/nagios.qh\nlock_file={at}/nagios.lock\n\
             nagios_user={}\nnagios_group={}\ncheck_external_commands=1\nretain_state_information=1\nstatus_update_interval=1\n\
             check_for_updates=0\nbare_update_check=1\nuse_syslog=0\n\
             illegal_macro_output_chars=`~$&|'\"<>\n",
            user("-u"),
            user("-g"),
        );
        fs::write(dir.path().join("nagios.cfg"), config).unwrap();
        fs::write(dir.path().join("library.cfg"), LIBRARY).unwrap();
        Self { dir, child: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it, and waits until it says what it knows.
    pub(crate) fn start(&mut self) {
        let log = fs::File::create(self.path("out")).unwrap();
        let child = Command::new("/usr/sbin/nagios4")
            .arg(self.path("nagios.cfg"))
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        until("Nagios runs", || {
            assert!(self.child.as_mut().unwrap().try_wait().unwrap().is_none(), "{}", self.said());
            self.path("var/status.dat").exists()
        });
    }

    /// Waits until it has said how things are at a time that is later than now, by more than what a command of Shoal's may take to show.
    pub(crate) fn goes_on(&self) {
        let later = std::time::SystemTime::now() + std::time::Duration::from_millis(2_100);
        let said = || fs::metadata(self.path("var/status.dat")).and_then(|status| status.modified());
        until("a later status", || said().is_ok_and(|at| at > later));
    }

    /// Whether its own checker accepts what it would read now.
    pub(crate) fn accepts(&self) -> Result<(), String> {
        let done = Command::new("/usr/sbin/nagios4").arg("-v").arg(self.path("nagios.cfg")).output().unwrap();
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stdout).into_owned()) }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    /// What the configuration of the agent says of it.
    pub(crate) fn table(&self) -> String {
        let at = self.dir.path().display();
        format!(
            "[agent.nagios]\ndirectory = '{at}/shoal'\nconfig = '{at}/nagios.cfg'\n\
             check = ['/usr/sbin/nagios4', '-v', '{{config}}']\n"
        )
    }

    /// What the running server knows, by its own files: kind, and name to fields.
    fn objects(&self, file: &str, kind: &str) -> Vec<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        let start = [format!("define {kind} {{"), format!("{kind} {{")];
        let mut found = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if !start.iter().any(|start| line.trim() == start) {
                continue;
            }
            let fields = lines.by_ref().map(str::trim).take_while(|line| *line != "}");
            let pair = |line: &str| {
                line.split_once(['\t', '=']).map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
            };
            found.push(fields.filter_map(pair).collect());
        }
        found
    }

    /// The names of the hosts that the running server checks.
    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        self.objects("var/status.dat", "hoststatus")
            .into_iter()
            .map(|mut host| host.remove("host_name").unwrap())
            .collect()
    }

    /// `host/service` of all that it checks.
    pub(crate) fn services(&self) -> BTreeSet<String> {
        let name = |service: BTreeMap<String, String>| {
            format!("{}/{}", service["host_name"], service["service_description"])
        };
        self.objects("var/status.dat", "servicestatus").into_iter().map(name).collect()
    }

    /// What it has read of a host; nothing if it does not know it.
    pub(crate) fn host(&self, name: &str) -> BTreeMap<String, String> {
        self.objects("var/objects.cache", "host")
            .into_iter()
            .find(|host| host["host_name"] == name)
            .unwrap_or_default()
    }

    /// What it has read of a service.
    pub(crate) fn service(&self, host: &str, name: &str) -> BTreeMap<String, String> {
        let all = self.objects("var/objects.cache", "service");
        all.into_iter()
            .find(|s| s["host_name"] == host && s["service_description"] == name)
            .unwrap_or_default()
    }

    /// What it has read of this kind.
    pub(crate) fn all(&self, kind: &str) -> Vec<BTreeMap<String, String>> {
        self.objects("var/objects.cache", kind)
    }

    /// The hosts and services that have a downtime.
    pub(crate) fn downtimes(&self) -> BTreeSet<String> {
        let host = self.objects("var/status.dat", "hostdowntime").into_iter().map(|d| d["host_name"].clone());
        let service = self.objects("var/status.dat", "servicedowntime").into_iter();
        host.chain(service.map(|d| format!("{}/{}", d["host_name"], d["service_description"]))).collect()
    }

    /// What the last check of a service said.
    pub(crate) fn output(&self, host: &str, name: &str) -> String {
        let all = self.objects("var/status.dat", "servicestatus");
        let found = all.into_iter().find(|s| s["host_name"] == host && s["service_description"] == name);
        found.map(|service| service["plugin_output"].clone()).unwrap_or_default()
    }

    /// Tells it something, as an operator would.
    pub(crate) fn tell(&self, command: &str) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        fs::write(self.path("rw/nagios.cmd"), format!("[{now}] {command}\n")).unwrap();
    }

    /// Every file of Shoal's folder that `current` leads to, with its inode and text.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, (u64, String)> {
        use std::os::unix::fs::MetadataExt;
        let mut found = BTreeMap::new();
        let Ok(sets) = fs::read_dir(self.path("shoal/current")) else { return found };
        for set in sets.map(|entry| entry.unwrap().path()) {
            let files: Vec<PathBuf> = match fs::read_dir(&set) {
                Ok(files) => files.map(|file| file.unwrap().path()).collect(),
                Err(_) => vec![set],
            };
            for file in files {
                let inode = fs::metadata(&file).unwrap().ino();
                found.insert(
                    file.strip_prefix(self.path("shoal/current")).unwrap().to_owned(),
                    (inode, fs::read_to_string(&file).unwrap()),
                );
            }
        }
        found
    }
}

impl Drop for Nagios {
    fn drop(&mut self) {
        self.stop();
    }
}
