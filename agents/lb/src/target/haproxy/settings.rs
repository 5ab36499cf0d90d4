//! `[agent.haproxy]` in the node's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::Fault;

use crate::item::Word;

/// How and where HAProxy is given its pools.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaproxySettings {
    /// Shoal's own folder, which HAProxy reads with `-f` after its own configuration. A file in it for each pool.
    pub directory: PathBuf,
    /// The socket of the process that works, of level admin.
    #[serde(default = "HaproxySettings::stats")]
    pub stats: PathBuf,
    /// The socket of its master, for reloads.
    #[serde(default = "HaproxySettings::master")]
    pub master: PathBuf,
    /// Accepts or refuses a candidate; `{pools}` becomes `-f` and a file, for each pool.
    #[serde(default = "HaproxySettings::check")]
    pub check: Vec<String>,
    /// How long, in seconds, an answer, the check or a reload may take.
    #[serde(default = "HaproxySettings::within")]
    pub within: u64,
    /// Whether servers are changed at run time. `false`: by the file and a reload alone.
    #[serde(default = "HaproxySettings::yes")]
    pub runtime: bool,
    /// Who signs the certificates of servers that are reached over TLS: files of certificates, by the names that pools give in `tls`.
    #[serde(default)]
    pub authorities: BTreeMap<Word, PathBuf>,
    /// Whether HAProxy is asked and told. `false`: files are checked and put in place, and that is all.
    #[serde(default = "HaproxySettings::yes")]
    pub tell: bool,
}

impl HaproxySettings {
    fn stats() -> PathBuf {
        "/run/haproxy/admin.sock".into()
    }

    fn master() -> PathBuf {
        "/run/haproxy-master.sock".into()
    }

    fn check() -> Vec<String> {
        ["haproxy", "-c", "-q", "-f", "/etc/haproxy/haproxy.cfg", "{pools}"].map(str::to_owned).into()
    }

    fn within() -> u64 {
        30
    }

    fn yes() -> bool {
        true
    }

    /// How long anything may take.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.within)
    }

    pub(super) fn verify(&self) -> Result<(), Fault> {
        let bad = |why: &str| Err(Fault::new("read [agent.haproxy] of the configuration", why).permanent());
        if ![&self.directory, &self.stats, &self.master].iter().all(|path| path.is_absolute()) {
            return bad("directory, stats and master must be paths that begin with /");
        }
        // As words of a configuration.
        let word = |c: char| c.is_ascii_graphic() && !"\"'\\#$%".contains(c);
        let is_word = |path: &PathBuf| path.to_str().is_some_and(|path| path.chars().all(word));
        if !self.authorities.values().all(|path| path.is_absolute() && is_word(path)) {
            return bad("authorities must be paths that begin with / and have no blanks and quotes");
        }
        if self.within == 0 {
            return bad("within = 0 leaves no time; write at least 1");
        }
        if self.check.is_empty() {
            return bad("check is empty, and one bad line keeps HAProxy from starting; leave check out");
        }
        Ok(())
    }
}
