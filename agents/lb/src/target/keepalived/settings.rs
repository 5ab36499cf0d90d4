//! `[agent.keepalived]` in the node's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::{Fault, HostName};

use crate::item::Word;

/// How and where keepalived is given the virtual addresses of this machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepalivedSettings {
    /// How the database calls this machine.
    pub node: HostName,
    /// Shoal's own folder, of which keepalived's own configuration includes `*.conf`.
    pub directory: PathBuf,
    /// The interface of addresses that name no network.
    pub interface: String,
    /// The interfaces of networks, by the names that tags give them.
    #[serde(default)]
    pub networks: BTreeMap<Word, String>,
    /// What has to be well for this machine to have an address, by the names that tags give them.
    #[serde(default)]
    pub checks: BTreeMap<Word, CheckSettings>,
    /// Accepts or refuses keepalived's whole configuration as it stands.
    #[serde(default = "KeepalivedSettings::check")]
    pub check: Vec<String>,
    /// Has keepalived read its configuration; `{pid}` is its process.
    #[serde(default = "KeepalivedSettings::reload")]
    pub reload: Vec<String>,
    /// Has keepalived write down what it runs with, into `data`.
    #[serde(default = "KeepalivedSettings::dump")]
    pub dump: Vec<String>,
    /// Where keepalived writes that.
    #[serde(default = "KeepalivedSettings::data")]
    pub data: PathBuf,
    /// Where keepalived writes its process id.
    #[serde(default = "KeepalivedSettings::pid")]
    pub pid: PathBuf,
    /// How long, in seconds, the check or a reload may take.
    #[serde(default = "KeepalivedSettings::within")]
    pub within: u64,
    /// Whether keepalived is told. `false`: the file is checked and put in place, and that is all.
    #[serde(default = "KeepalivedSettings::yes")]
    pub tell: bool,
}

/// What has to be well: a command, or a file that says so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSettings {
    /// Ends with 0 as long as all is well.
    #[serde(default)]
    pub command: Vec<String>,
    /// Who runs it.
    #[serde(default = "CheckSettings::user")]
    pub user: String,
    /// How often it runs, in seconds.
    #[serde(default = "CheckSettings::one")]
    pub interval: u32,
    /// How often in a row it has to fail.
    #[serde(default = "CheckSettings::one")]
    pub fall: u32,
    /// How often in a row it has to succeed again.
    #[serde(default = "CheckSettings::one")]
    pub rise: u32,
    /// Instead of a command: a file with a number, which is 0 as long as all is well. A change of it counts at once.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

impl CheckSettings {
    fn user() -> String {
        "nobody".to_owned()
    }

    fn one() -> u32 {
        1
    }
}

impl KeepalivedSettings {
    fn check() -> Vec<String> {
        ["keepalived", "-t", "-f", "/etc/keepalived/keepalived.conf"].map(str::to_owned).into()
    }

    fn reload() -> Vec<String> {
        ["kill", "-HUP", "{pid}"].map(str::to_owned).into()
    }

    fn dump() -> Vec<String> {
        ["kill", "-USR1", "{pid}"].map(str::to_owned).into()
    }

    fn data() -> PathBuf {
        "/tmp/keepalived.data".into()
    }

    fn pid() -> PathBuf {
        "/run/keepalived.pid".into()
    }

    fn within() -> u64 {
        10
    }

    fn yes() -> bool {
        true
    }

    /// How long anything may take.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.within)
    }

    pub(super) fn verify(&self) -> Result<(), Fault> {
        let bad =
            |why: String| Err(Fault::new("read [agent.keepalived] of the configuration", why).permanent());
        if ![&self.directory, &self.data, &self.pid].iter().all(|path| path.is_absolute()) {
            return bad("directory, data and pid must be paths that begin with /".to_owned());
        }
        if self.within == 0 || self.check.is_empty() || self.reload.is_empty() || self.dump.is_empty() {
            return bad("within is at least 1, and check, reload and dump name commands".to_owned());
        }
        for interface in std::iter::once(&self.interface).chain(self.networks.values()) {
            if !is_text(interface) || interface.contains(' ') {
                return bad(format!("{interface:?} is no interface"));
            }
        }
        for (name, check) in &self.checks {
            let name = name.as_str();
            if check.command.is_empty() == check.file.is_none() {
                return bad(format!("checks.{name} has to have either a command or a file"));
            }
            let file = check.file.as_ref().map(|file| file.display().to_string());
            let words = check.command.iter().chain([&check.user]).chain(file.as_ref());
            if let Some(word) = words.into_iter().find(|word| !is_text(word)) {
                return bad(format!(
                    "checks.{name}: keepalived takes {word:?} for something else; put it into a script"
                ));
            }
            if [check.interval, check.fall, check.rise].contains(&0) {
                return bad(format!("checks.{name}: interval, fall and rise are at least 1"));
            }
        }
        Ok(())
    }
}

/// Whether keepalived reads this as it stands, between quotes.
fn is_text(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| (c.is_ascii_graphic() || c == ' ') && !"\"'\\#!$~{}@".contains(c))
}
