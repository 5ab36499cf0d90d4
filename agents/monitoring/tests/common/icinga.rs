//! A real Icinga 2 in a scratch directory, ended when dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::until;

/// The server's own configuration, and its library: what tags may name.
const CONFIG: &str = r#"
const NodeName = "localhost"
const ZoneName = "localhost"
object Endpoint NodeName {}
object Zone ZoneName { endpoints = [ NodeName ] }
include <itl>
object CheckerComponent "checker" {}
object ApiListener "api" { bind_host = "127.0.0.1"; bind_port = @PORT@ }
object ApiUser "shoal" { password = "let me in"; permissions = [ "actions/*", "objects/query/Downtime", "variables" ] }
object ApiUser "test" { password = "test"; permissions = [ "*" ] }
object CheckCommand "check_ping" { command = [ "/bin/true", "$address$", "$arg1$", "$arg2$" ] }
object CheckCommand "check_echo" { command = [ "/bin/echo", "args", "$arg1$", "$arg2$" ] }
object CheckCommand "check_procs" { import "check_echo" }
object CheckCommand "check_load" { import "check_echo" }
object CheckCommand "check_http" { import "check_echo" }
object TimePeriod "always" { ranges = { monday = "00:00-24:00" } }
object User "ann" {}
object UserGroup "ops" {}
object NotificationCommand "notify" { command = [ "/bin/true" ] }
object Host "monitor.example.com" { check_command = "dummy" }
"#;

/// How people are told, and where Shoal's files are: as in the manual.
const MANUAL: &str = r#"
apply Notification "shoal" to Host {
  command = "notify"
  users = host.vars.notification.mail.users
  user_groups = host.vars.notification.mail.groups
  assign where host.vars.notification.mail
}
apply Notification "shoal" to Service {
  command = "notify"
  users = service.vars.notification.mail.users
  user_groups = service.vars.notification.mail.groups
  assign where service.vars.notification.mail
}
if (!globals.contains("ShoalCurrent")) { const ShoalCurrent = "@DIR@/shoal/current" }
include ShoalCurrent + "/*.conf"
"#;

/// An Icinga, running or not.
pub(crate) struct Icinga {
    dir: TempDir,
    child: Option<Child>,
    port: u16,
}

/// The program itself: what is in the path is a script that gives up root.
pub(crate) fn program() -> Option<PathBuf> {
    let lib = fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut all = lib.map(|path| path.join("icinga2/sbin/icinga2"));
    all.find(|path| path.exists())
}

impl Icinga {
    /// Its configuration and keys, with the folder of Shoal's in it; it does not run yet.
    pub(crate) fn new() -> Self {
        let port = super::free();
        let icinga = Self { dir: TempDir::new().unwrap(), child: None, port };
        for folder in ["lib/certs", "lib/ca", "lib/api/packages", "log", "cache", "run", "spool/tmp", "shoal"]
        {
            fs::create_dir_all(icinga.path(folder)).unwrap();
        }
        let path = |name: &str| icinga.path(name).display().to_string();
        let (key, csr, cert) =
            (path("lib/certs/localhost.key"), path("csr"), path("lib/certs/localhost.crt"));
        icinga.run(&["pki", "new-ca"]);
        icinga.run(&["pki", "new-cert", "--cn", "localhost", "--key", &key, "--csr", &csr]);
        icinga.run(&["pki", "sign-csr", "--csr", &csr, "--cert", &cert]);
        fs::copy(icinga.path("lib/ca/ca.crt"), icinga.path("lib/certs/ca.crt")).unwrap();
        fs::write(icinga.path("password"), "let me in\n").unwrap();
        icinga.configure(MANUAL);
        icinga
    }

    /// Writes its configuration, with this at the end, in which `@DIR@` is its folder.
    pub(crate) fn configure(&self, more: &str) {
        let text = format!("{CONFIG}{more}")
            .replace("@PORT@", &self.port.to_string())
            .replace("@DIR@", &self.dir.path().display().to_string());
        fs::write(self.path("icinga2.conf"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What keeps it in its folder.
    fn places(&self) -> Vec<String> {
        let said = |flag: &str| {
            let said = Command::new("id").args([flag, "-n"]).output().unwrap();
            String::from_utf8(said.stdout).unwrap().trim().to_owned()
        };
        let at = |name: &str| self.path(name).display().to_string();
        let places = [
            ("RunAsUser", said("-u")),
            ("RunAsGroup", said("-g")),
            ("DataDir", at("lib")),
            ("LogDir", at("log")),
            ("CacheDir", at("cache")),
            ("InitRunDir", at("run")),
            ("SpoolDir", at("spool")),
            ("PidPath", at("run/pid")),
            ("Concurrency", "2".to_owned()),
        ];
        places
            .iter()
            .flat_map(|(name, value)| ["-D".to_owned(), format!("Configuration.{name}={value}")])
            .collect()
    }

    fn run(&self, args: &[&str]) {
        let done = Command::new(program().unwrap()).args(args).args(self.places()).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stdout));
    }

    /// Whether its own checker accepts what it would read now.
    pub(crate) fn accepts(&self) -> Result<(), String> {
        let mut command = Command::new(program().unwrap());
        command.args(["daemon", "-C", "-c"]).arg(self.path("icinga2.conf")).args(self.places());
        let done = command.output().unwrap();
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stdout).into_owned()) }
    }

    pub(crate) fn start(&mut self) {
        let mut command = Command::new(program().unwrap());
        command.arg("daemon").arg("-c").arg(self.path("icinga2.conf")).args(self.places());
        let log = fs::File::create(self.path("out")).unwrap();
        self.child = Some(command.stdout(log).stderr(Stdio::null()).spawn().unwrap());
        until("Icinga answers", || self.ask("/v1/status/IcingaApplication", &Value::Null).is_some());
    }

    /// The process that checks, not the one that watches over it.
    pub(crate) fn signal(&self, name: &str) {
        let of = self.child.as_ref().unwrap().id().to_string();
        let said = Command::new("pgrep").args(["-P", &of]).output().unwrap();
        let below = String::from_utf8(said.stdout).unwrap();
        for pid in below.lines().chain([of.as_str()]) {
            let _ = Command::new("kill").args([name, pid]).status();
        }
    }

    /// What the configuration of the agent says of it.
    pub(crate) fn table(&self) -> String {
        let at = self.dir.path().display();
        let mut check: Vec<String> =
            [&program().unwrap().display().to_string(), "daemon", "-C", "-c", &format!("{at}/icinga2.conf")]
                .map(str::to_owned)
                .into();
        check.extend(["-D".to_owned(), "ShoalCurrent={candidate}".to_owned()]);
        check.extend(self.places());
        format!(
            "[agent.icinga2]\ndirectory = '{at}/shoal'\nurl = 'https://localhost:{}'\nca = '{at}/lib/ca/ca.crt'\n\
             password_file = '{at}/password'\ncheck = {check:?}\n",
            self.port
        )
    }

    /// Asks its API, as somebody who may do everything.
    pub(crate) fn ask(&self, path: &str, body: &Value) -> Option<Vec<Value>> {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--max-time",
            "10",
            "-u",
            "test:test",
            "-H",
            "Accept: application/json",
            "--cacert",
        ]);
        command.arg(self.path("lib/ca/ca.crt"));
        if !body.is_null() {
            command.args(["-X", "POST", "-d", &body.to_string()]);
        }
        let said = command.arg(format!("https://localhost:{}{path}", self.port)).output().unwrap();
        let mut answer: Value = serde_json::from_slice(&said.stdout).ok()?;
        match answer["results"].take() {
            Value::Array(results) => Some(results),
            // There are none of the kind.
            _ if answer["error"] == 404 => Some(Vec::new()),
            _ => None,
        }
    }

    /// All objects of a kind that it knows, by name, with their attributes.
    pub(crate) fn objects(&self, kind: &str) -> BTreeMap<String, Value> {
        let found = self.ask(&format!("/v1/objects/{kind}"), &Value::Null).unwrap_or_default();
        let one = |mut object: Value| (object["name"].as_str().unwrap().to_owned(), object["attrs"].take());
        found.into_iter().map(one).collect()
    }

    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        self.objects("hosts").into_keys().collect()
    }

    /// `host!service` of all that it checks.
    pub(crate) fn services(&self) -> BTreeSet<String> {
        self.objects("services").into_keys().collect()
    }

    /// The comments of the downtimes of each host and service.
    pub(crate) fn downtimes(&self) -> BTreeSet<String> {
        let of = |downtime: Value| {
            let text = |field: &str| downtime[field].as_str().unwrap_or_default().to_owned();
            format!("{}!{} {}", text("host_name"), text("service_name"), text("comment"))
        };
        self.objects("downtimes").into_values().map(of).collect()
    }

    /// Gives a host a downtime, as an operator would.
    pub(crate) fn give_downtime(&self, host: &str) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let body = json!({"type": "Host", "filter": format!("host.name == \"{host}\""), "author": "ann", "comment": "mine",
            "start_time": now, "end_time": now + 3600, "fixed": true});
        let done = self.ask("/v1/actions/schedule-downtime", &body).unwrap();
        assert_eq!((done.len(), &done[0]["code"]), (1, &json!(200)), "{done:?}");
    }

    /// Every file that `current` leads to, with its text.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, String> {
        fn all(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
            for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    all(&path, found);
                } else {
                    let text = fs::read_to_string(&path).unwrap();
                    found.insert(path, text);
                }
            }
        }
        let mut found = BTreeMap::new();
        all(&self.path("shoal/current"), &mut found);
        found
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

impl Drop for Icinga {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.signal("-CONT");
        }
        self.stop();
    }
}
