//! `[agent.icinga2]` in the node's configuration.

use std::path::PathBuf;

use serde::Deserialize;
use shoal_agent::Fault;

/// How and where Icinga 2 is given its hosts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcingaSettings {
    /// Shoal's own folder. The server's configuration includes what `current` in it holds.
    pub directory: PathBuf,
    /// Accepts or refuses a candidate; `{candidate}` is its folder.
    #[serde(default = "IcingaSettings::check")]
    pub check: Vec<String>,
    /// How long, in seconds, the check may take, and the server to read what is new.
    #[serde(default = "IcingaSettings::within")]
    pub within: u64,
    /// Whether the server is told to read what is new, and of downtimes. `false`: files are checked and put in place, and that is all.
    #[serde(default = "IcingaSettings::tell")]
    pub tell: bool,
    /// Where the server's API answers.
    #[serde(default = "IcingaSettings::url")]
    pub url: String,
    /// The certificate of the authority that signed the API's.
    #[serde(default = "IcingaSettings::ca")]
    pub ca: PathBuf,
    /// The user of the API.
    #[serde(default = "IcingaSettings::user")]
    pub user: String,
    /// A file with the password of that user alone.
    #[serde(default = "IcingaSettings::password_file")]
    pub password_file: PathBuf,
}

impl IcingaSettings {
    fn check() -> Vec<String> {
        let command =
            ["icinga2", "daemon", "-C", "-c", "/etc/icinga2/icinga2.conf", "-D", "ShoalCurrent={candidate}"];
        command.map(str::to_owned).into()
    }

    fn within() -> u64 {
        60
    }

    fn tell() -> bool {
        true
    }

    fn url() -> String {
        "https://localhost:5665".to_owned()
    }

    fn ca() -> PathBuf {
        "/var/lib/icinga2/certs/ca.crt".into()
    }

    fn user() -> String {
        "shoal".to_owned()
    }

    fn password_file() -> PathBuf {
        "/etc/shoal/icinga2.password".into()
    }

    pub(super) fn verify(&self) -> Result<(), Fault> {
        let bad = |why: &str| Err(Fault::new("read [agent.icinga2] of the configuration", why).permanent());
        if !self.directory.is_absolute() {
            return bad("directory must be a path that begins with /");
        }
        if self.within == 0 {
            return bad("within = 0 leaves no time; write at least 1");
        }
        if !self.check.iter().any(|arg| arg.contains("{candidate}")) {
            return bad("check has no {candidate}, so it would look at something else; leave check out");
        }
        if self.tell && !self.url.starts_with("https://") {
            return bad("url must begin with https://: a password goes there");
        }
        Ok(())
    }
}
