//! `[agent.nginx]` in the node's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::Fault;

/// How and where nginx is given its pools.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NginxSettings {
    /// Shoal's own folder. nginx includes `*.http` of it in `http`, and `*.stream` in `stream`.
    pub directory: PathBuf,
    /// Whether nginx includes `*.http`.
    #[serde(default = "NginxSettings::yes")]
    pub http: bool,
    /// Whether nginx includes `*.stream`.
    #[serde(default)]
    pub stream: bool,
    /// Where the master writes its process id.
    #[serde(default = "NginxSettings::pid")]
    pub pid: PathBuf,
    /// Where nginx answers with which pools it runs: an address of this machine that nobody else uses.
    #[serde(default = "NginxSettings::status")]
    pub status: SocketAddr,
    /// Accepts or refuses nginx's whole configuration as it stands.
    #[serde(default = "NginxSettings::check")]
    pub check: Vec<String>,
    /// Has nginx read its configuration.
    #[serde(default = "NginxSettings::reload")]
    pub reload: Vec<String>,
    /// Its log of errors, read for why it goes on with what it had; where it cannot be read, that takes `within`.
    #[serde(default = "NginxSettings::log")]
    pub log: PathBuf,
    /// How long, in seconds, an answer, the check or a reload may take.
    #[serde(default = "NginxSettings::within")]
    pub within: u64,
    /// Whether nginx is asked and told. `false`: files are checked and put in place, and that is all.
    #[serde(default = "NginxSettings::yes")]
    pub tell: bool,
}

impl NginxSettings {
    fn yes() -> bool {
        true
    }

    fn pid() -> PathBuf {
        "/run/nginx.pid".into()
    }

    fn status() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9107))
    }

    fn check() -> Vec<String> {
        ["nginx", "-t", "-q"].map(str::to_owned).into()
    }

    fn reload() -> Vec<String> {
        ["nginx", "-s", "reload"].map(str::to_owned).into()
    }

    fn log() -> PathBuf {
        "/var/log/nginx/error.log".into()
    }

    fn within() -> u64 {
        30
    }

    /// How long anything may take.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.within)
    }

    pub(super) fn verify(&self) -> Result<(), Fault> {
        let bad = |why: &str| Err(Fault::new("read [agent.nginx] of the configuration", why).permanent());
        if ![&self.directory, &self.pid, &self.log].iter().all(|path| path.is_absolute()) {
            return bad("directory, pid and log must be paths that begin with /");
        }
        if self.within == 0 {
            return bad("within = 0 leaves no time; write at least 1");
        }
        if !self.http && !self.stream {
            return bad(
                "http and stream are both false, so nginx reads no pool; write true for what includes the folder",
            );
        }
        if self.check.is_empty() || self.reload.is_empty() {
            return bad("check and reload name commands; leave them out for nginx's own");
        }
        Ok(())
    }
}
