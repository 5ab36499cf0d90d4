//! A real BIND on free loopback ports in a scratch directory, gone when dropped.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shoal_dns::target::ZoneFileSettings;
use tempfile::TempDir;

/// The secret of the key `k`.
pub(crate) const SECRET: &str = "c2hvYWwtdGVzdC1rZXktMDEyMzQ1Njc4OQ==";

pub(crate) struct Named {
    child: Child,
    dir: TempDir,
    pub(crate) address: SocketAddr,
    rndc: PathBuf,
}

impl Named {
    /// Starts it with these zones configured; their files may be missing.
    pub(crate) fn start(zones: &[&str]) -> Self {
        Self::start_with(zones, "")
    }

    /// The same with more options.
    pub(crate) fn start_with(zones: &[&str], options: &str) -> Self {
        Self::start_as(zones, "type primary;", options)
    }

    /// Starts it with zones of this kind.
    fn start_as(zones: &[&str], kind: &str, options: &str) -> Self {
        // Another test may take a free port between our look and named's bind: then named ends, and we try again.
        for _ in 0..5 {
            if let Some(named) = Self::try_start(free(), zones, kind, options) {
                return named;
            }
        }
        panic!("named does not start");
    }

    /// Starts it on this port as a secondary of a server at `primary`, with the key [`SECRET`].
    pub(crate) fn secondary(port: u16, zone: &str, primary: SocketAddr) -> Self {
        let kind = format!(
            "type secondary; primaries {{ {} port {} key k; }}; allow-transfer {{ any; }};",
            primary.ip(),
            primary.port()
        );
        let options = "request-ixfr yes; min-refresh-time 1; max-refresh-time 600;";
        Self::try_start(port, &[zone], &kind, options).expect("named does not start")
    }

    fn try_start(port: u16, zones: &[&str], kind: &str, options: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let path = dir.path();
        fs::create_dir(path.join("zones")).unwrap();
        let control = free();
        let key = format!("key k {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n");
        let mut conf = format!(
            "{key}options {{ directory \"{0}\"; pid-file none; session-keyfile none; listen-on port {port} {{ 127.0.0.1; }};
             listen-on-v6 {{ none; }}; recursion no; notify no; allow-new-zones yes; empty-zones-enable no; {options}
             managed-keys-directory \"{0}\"; lock-file none; }};
             controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ k; }}; }};\n",
            path.display()
        );
        for zone in zones {
            let file = path.join("zones").join(format!("{zone}.zone"));
            conf += &format!("zone \"{zone}\" {{ {kind} file \"{}\"; }};\n", file.display());
        }
        fs::write(path.join("named.conf"), conf).unwrap();
        let rndc = path.join("rndc.conf");
        let options = "options { default-key k; default-server 127.0.0.1;";
        fs::write(&rndc, format!("{key}{options} default-port {control}; }};\n")).unwrap();
        let log = fs::File::create(path.join("log")).unwrap();
        let child = Command::new("named")
            .args(["-g", "-n", "1", "-c"])
            .arg(path.join("named.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let address = ([127, 0, 0, 1], port).into();
        let mut named = Self { child, dir, address, rndc };
        named.wait().then_some(named)
    }

    /// Waits until it is ready; `false` if it ended, or goes on without a port that another one has.
    fn wait(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.log().contains(" running") && self.rndc(&["status"]) {
                return !self.log().contains("address in use");
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("named is not ready: {}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn rndc(&self, args: &[&str]) -> bool {
        let run = Command::new("rndc").arg("-c").arg(&self.rndc).args(args).output().unwrap();
        run.status.success()
    }

    /// The directory of zone files.
    pub(crate) fn zones(&self) -> PathBuf {
        self.dir.path().join("zones")
    }

    pub(crate) fn file(&self, zone: &str) -> PathBuf {
        self.zones().join(format!("{zone}.zone"))
    }

    /// Settings for a target in front of it.
    pub(crate) fn settings(&self) -> ZoneFileSettings {
        let mut settings = ZoneFileSettings::files(self.zones());
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        settings.check = words("named-checkzone -i local -k fail {zone} {file}");
        settings.reload = words(&format!("rndc -c {} reload {{zone}}", self.rndc.display()));
        settings.server = Some(self.address);
        settings.within = 30;
        settings
    }

    /// The same as configuration.
    pub(crate) fn config(&self, add: &[String], remove: &[String]) -> String {
        let (add, remove) = (add.to_vec(), remove.to_vec());
        super::primary::config(&ZoneFileSettings { add, remove, ..self.settings() })
    }

    /// The command that makes it know a zone.
    pub(crate) fn addzone(&self) -> Vec<String> {
        let config = format!("{{ type primary; file \"{}/{{zone}}.zone\"; }};", self.zones().display());
        let conf = self.rndc.display().to_string();
        ["rndc", "-c", &conf, "addzone", "{zone}", &config].map(str::to_owned).to_vec()
    }

    /// The command that makes it forget a zone that it was told of.
    pub(crate) fn delzone(&self) -> Vec<String> {
        let conf = self.rndc.display().to_string();
        ["rndc", "-c", &conf, "delzone", "{zone}"].map(str::to_owned).to_vec()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free for UDP and TCP, and that no client and no other test is given.
pub(crate) fn free() -> u16 {
    super::ports::free().unwrap()
}

/// Every file in a directory, for seeing what is left behind.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        // Whose the directory is, `owner.rs` looks at.
        .filter(|name| name != ".shoal-database")
        .collect();
    names.sort();
    names
}
