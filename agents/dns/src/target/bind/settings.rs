//! `[agent.bind]` in the node's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::Fault;

use crate::name::Zone;
use crate::target::SerialStyle;

/// How and where zone files are written, checked and loaded. In commands, `{zone}` is the zone's name and `{file}` the
/// path of the file; nothing goes through a shell.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindSettings {
    /// Where the zone files are. It must exist.
    pub directory: PathBuf,
    /// The name of a zone's file in it.
    #[serde(default = "file")]
    pub file: String,
    /// Accepts or refuses a candidate; nothing: only Shoal's own checks.
    #[serde(default = "check")]
    pub check: Vec<String>,
    /// Makes the server read the file again; nothing: somebody else does.
    #[serde(default = "reload")]
    pub reload: Vec<String>,
    /// Makes the server know a zone that `reload` failed for (`rndc addzone …`); nothing: a person does.
    #[serde(default)]
    pub add: Vec<String>,
    /// Makes the server forget a zone, before its file is removed (`rndc delzone {zone}`); nothing: a person does.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Where the server answers: it is asked for the serial after a reload, and on every look.
    #[serde(default)]
    pub server: Option<SocketAddr>,
    /// How long, in seconds, a command may take, and the server to serve a new serial.
    #[serde(default = "within")]
    pub within: u64,
    /// How serials are counted.
    #[serde(default)]
    pub serial: SerialStyle,
    /// How many records of one name and type, and how many types of one name, the server takes: its `max-records-per-type` and
    /// `max-types-per-name`. 0: any number.
    #[serde(default = "max_records")]
    pub max_records: usize,
    /// Zones whose file, made by somebody else, Shoal may take over.
    #[serde(default)]
    pub adopt: Vec<String>,
}

fn file() -> String {
    "{zone}.zone".to_owned()
}

fn check() -> Vec<String> {
    // Local: without questions to other people's name servers.
    ["named-checkzone", "-i", "local", "-k", "fail", "{zone}", "{file}"].map(str::to_owned).to_vec()
}

fn reload() -> Vec<String> {
    ["rndc", "reload", "{zone}"].map(str::to_owned).to_vec()
}

/// What BIND has since 9.18.28.
fn max_records() -> usize {
    100
}

fn within() -> u64 {
    30
}

impl BindSettings {
    /// Files in this directory, checked by Shoal alone, loaded by nobody.
    #[must_use]
    pub fn files(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            file: file(),
            check: Vec::new(),
            reload: Vec::new(),
            add: Vec::new(),
            remove: Vec::new(),
            server: None,
            within: within(),
            serial: SerialStyle::default(),
            max_records: max_records(),
            adopt: Vec::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        let bad = |why: String| Err(Fault::new("read [agent.bind] of the configuration", why).permanent());
        if self.file.contains('/') || self.file.starts_with('.') || !self.file.contains("{zone}") {
            return bad(format!(
                "file = {:?} must be a plain file name with {{zone}} in it, not hidden",
                self.file
            ));
        }
        if self.within == 0 {
            return bad("within = 0 leaves no time; write at least 1".to_owned());
        }
        match self.adopt.iter().find_map(|zone| Zone::parse(zone).err()) {
            Some(why) => bad(format!("adopt: {why}")),
            None => Ok(()),
        }
    }

    pub(super) fn within(&self) -> Duration {
        Duration::from_secs(self.within)
    }

    /// How long a look waits for the server's answer; after that nothing is known.
    pub(super) fn answer_within(&self) -> Duration {
        self.within().min(Duration::from_secs(1))
    }

    pub(super) fn adopts(&self, zone: &Zone) -> bool {
        self.adopt.iter().any(|name| Zone::parse(name).is_ok_and(|name| name == *zone))
    }
}
