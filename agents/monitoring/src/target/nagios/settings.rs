//! `[agent.nagios]` in the node's configuration, and what is read of the server's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::Fault;

use crate::name::Name;

/// How and where Nagios is given its hosts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NagiosSettings {
    /// Shoal's own folder. The server's configuration names `current` in it as a `cfg_dir`.
    pub directory: PathBuf,
    /// The server's main configuration file.
    #[serde(default = "NagiosSettings::config")]
    pub config: PathBuf,
    /// Accepts or refuses a candidate; `{config}` is a main configuration file that reads it.
    #[serde(default = "NagiosSettings::check")]
    pub check: Vec<String>,
    /// The ways in which contacts that tags define are told, by name.
    #[serde(default = "NagiosSettings::notify")]
    pub notify: BTreeMap<Name, WaySettings>,
    /// How long, in seconds, the check may take, and the server to read what is new.
    #[serde(default = "NagiosSettings::within")]
    pub within: u64,
    /// Whether the server is told to read what is new, and of downtimes. `false`: files are checked and put in place, and that is all.
    #[serde(default = "NagiosSettings::tell")]
    pub tell: bool,
}

/// A way in which somebody is told: commands of the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaySettings {
    /// The command that tells of a host.
    pub host: Name,
    /// The command that tells of a service.
    pub service: Name,
}

impl NagiosSettings {
    /// What Debian's Nagios has, and every example.
    fn notify() -> BTreeMap<Name, WaySettings> {
        let name = |text: &str| text.parse::<Name>();
        let mail = || {
            let (host, service) = (name("notify-host-by-email")?, name("notify-service-by-email")?);
            Ok::<_, String>((name("mail")?, WaySettings { host, service }))
        };
        // They are names.
        mail().into_iter().collect()
    }

    fn config() -> PathBuf {
        "/etc/nagios4/nagios.cfg".into()
    }

    fn check() -> Vec<String> {
        ["nagios4", "-v", "{config}"].map(str::to_owned).into()
    }

    fn within() -> u64 {
        30
    }

    fn tell() -> bool {
        true
    }

    pub(super) fn verify(&self) -> Result<(), Fault> {
        let bad = |why: &str| Err(Fault::new("read [agent.nagios] of the configuration", why).permanent());
        if !self.directory.is_absolute() || !self.config.is_absolute() {
            return bad("directory and config must be paths that begin with /");
        }
        if self.within == 0 {
            return bad("within = 0 leaves no time; write at least 1");
        }
        if self.check.is_empty() {
            return bad(
                "check is empty, and one bad definition ends a server that reads it; leave check out",
            );
        }
        Ok(())
    }
}

/// What Shoal needs to know of the server's main configuration.
#[derive(Clone, Debug)]
pub(in crate::target) struct MainConfig {
    /// Its lines, comments as empty ones: so what the checker says of a line is right of the original, too. Most of what distributions
    /// deliver is comments.
    lines: Vec<String>,
    folder: PathBuf,
    /// Where it takes commands from outside.
    pub(super) commands: PathBuf,
    /// Where it says what it knows of hosts and services.
    pub(super) status: PathBuf,
    /// Where it says which objects it has read.
    pub(super) cache: PathBuf,
    /// How many seconds its unit of time has.
    pub(super) unit: u32,
    /// How often it says what it knows.
    pub(super) says: Duration,
}

impl MainConfig {
    pub(super) fn read(path: &Path, tell: bool) -> Result<Self, Fault> {
        let what = || format!("read the configuration of Nagios, {}", path.display());
        let text = fs::read_to_string(path).map_err(|e| {
            Fault::new(what(), e)
                .next("name the file that Nagios is started with as config in [agent.nagios]")
        })?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let said = |line: &str| if line.starts_with('#') { String::new() } else { line.to_owned() };
        let lines: Vec<String> = text.lines().map(said).collect();
        let value = |name: &str| {
            lines
                .iter()
                .rev()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, v)| v.trim())
        };
        let place = |name: &str| {
            let found = value(name).map(|value| folder.join(value));
            found.ok_or_else(|| Fault::new(what(), format!("it does not say {name}")).permanent())
        };
        let needed = [
            ("check_external_commands", "Shoal cannot have it read what is new"),
            ("retain_state_information", "it forgets every downtime when it reads what is new"),
        ];
        if let Some((name, so)) = needed.into_iter().find(|(name, _)| tell && value(name) != Some("1")) {
            return Err(Fault::new(what(), format!("{name} is not 1, so {so}"))
                .next(format!("write {name}=1 there, and start Nagios anew"))
                .permanent());
        }
        let unit =
            value("interval_length").map_or(Some(60), |text| text.parse().ok().filter(|unit| *unit > 0));
        let unit =
            unit.ok_or_else(|| Fault::new(what(), "interval_length is no number of seconds").permanent())?;
        // The server's own default.
        let says = value("status_update_interval").and_then(|text| text.parse().ok()).unwrap_or(60);
        Ok(Self {
            says: Duration::from_secs(says),
            commands: place("command_file")?,
            status: place("status_file")?,
            cache: place("object_cache_file")?,
            unit,
            folder,
            lines,
        })
    }

    /// Whether it reads Shoal's file of secrets, `file`.
    pub(super) fn reads_secrets(&self, file: &Path, config: &Path) -> Result<(), Fault> {
        let reads = |line: &String| {
            let (key, value) = line.split_once('=')?;
            Some(key.trim() == "resource_file" && self.folder.join(value.trim()) == file)
        };
        if self.lines.iter().any(|line| reads(line) == Some(true)) {
            return Ok(());
        }
        let line = format!("resource_file={}", file.display());
        Err(Fault::new("give Nagios a secret", format!("{} has no line {line}", config.display()))
            .next("add that line, and start Nagios anew"))
    }

    /// The same configuration with `candidate` in place of `current`, to stand in another folder.
    ///
    /// # Errors
    /// It does not read `current`.
    pub(super) fn with(&self, current: &Path, candidate: &Path) -> Result<String, Fault> {
        const PATHS: [&str; 3] = ["cfg_file", "cfg_dir", "resource_file"];
        let (mut text, mut found) = (String::new(), false);
        for line in &self.lines {
            match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some((key, value)) if PATHS.contains(&key) => {
                    let path = self.folder.join(value);
                    // As paths compare, a slash at the end makes no difference.
                    let ours = path.strip_prefix(current).ok();
                    found |= key == "cfg_dir" && path == current;
                    let path = ours.map_or(path.clone(), |below| candidate.join(below));
                    let path = path.to_string_lossy();
                    text += &format!("{key}={}\n", path.strip_suffix('/').unwrap_or(&path));
                }
                _ => {
                    text += line;
                    text.push('\n');
                }
            }
        }
        if found {
            return Ok(text);
        }
        let line = format!("cfg_dir={}", current.display());
        Err(Fault::new(
            "have Nagios read what Shoal writes",
            format!("its main configuration has no line {line}"),
        )
        .next("add that line, and start Nagios anew")
        .permanent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_stands_in_for_what_is_read_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nagios.cfg");
        let text = "# cfg_dir=/shoal/current\ncommand_file=/v/cmd\nstatus_file=/v/status\nobject_cache_file=var/cache\n\
                    check_external_commands=1\nretain_state_information=1\ninterval_length=30\ncfg_dir=/shoal/current/\ncfg_file=own.cfg\n";
        fs::write(&path, text).unwrap();
        let config = MainConfig::read(&path, true).unwrap();
        assert_eq!((config.unit, config.cache.clone()), (30, dir.path().join("var/cache")));
        let made = config.with(Path::new("/shoal/current"), Path::new("/shoal/next")).unwrap();
        let own = format!("cfg_dir=/shoal/next\ncfg_file={}\n", dir.path().join("own.cfg").display());
        // A comment is left out, and its line stays.
        assert!(made.starts_with("\ncommand_file=") && made.ends_with(&own), "{made}");
        assert_eq!(made.lines().count(), text.lines().count());
        let why = config.with(Path::new("/other"), Path::new("/next")).unwrap_err().to_string();
        assert!(why.contains("no line cfg_dir=/other"), "{why}");
        fs::write(&path, text.replace("commands=1", "commands=0")).unwrap();
        assert!(
            MainConfig::read(&path, true)
                .unwrap_err()
                .to_string()
                .contains("write check_external_commands=1")
        );
    }
}
