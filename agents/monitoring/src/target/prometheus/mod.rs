//! Prometheus: files of targets that it watches (`file_sd_configs`), and files of alert rules.
//!
//! The hosts stand in 64 files, by their names, and each tag with rules has one. A change writes the files that it touches, each whole or not at all. Prometheus reads targets by
//! itself; rules are checked by `promtool` first, and then it is told to read them. What is wanted is what stands in the files, so what is there is known from them alone.
//!
//! **Stopped anywhere**, the next look tells the truth: it reads the files, and asks the server whether it read its rules since they were written.
//!
//! **Silences** of hosts that drain or are paused stand in Alertmanager ([`silences`]) and are changed before the files: a host whose silence could not be
//! changed stays as it was, and is tried again.
//!
//! **Secrets** that scrapes are authorised with stand in files of their own ([`credentials`]), which are written before a target names one.
//!
//! **Fencing**: a file checks no number, and Alertmanager neither. No file is replaced, and no silence made or ended, after the claim's end.

mod credentials;
mod endpoint;
mod rules;
mod silences;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shoal_agent::secrets::Secrets;
use shoal_agent::{Applied, Batch, Fault, Fence, HostName, Observed, Outcome, Scope, Seen, owner};

use credentials::Credentials;
use endpoint::Endpoint;
use rules::Rules;
pub use rules::RulesSettings;
pub use silences::AlertmanagerSettings;
use silences::Silences;
use targets::Targets;
pub(super) use targets::render as text;

use crate::agent::Monitoring;
use crate::item::{Have, Item, Key, Subject};

/// `[agent.prometheus]` in the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrometheusSettings {
    /// Shoal's own folder. Prometheus reads `shoal-*.json` in it.
    pub directory: PathBuf,
    /// Where the targets are answered over HTTP, too; nowhere.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Alert rules; without it, none are written.
    #[serde(default)]
    pub rules: Option<RulesSettings>,
    /// Where hosts that drain or are paused are silenced; nowhere.
    #[serde(default)]
    pub alertmanager: Option<AlertmanagerSettings>,
}

/// A Prometheus server.
#[derive(Debug)]
pub(super) struct Prometheus {
    targets: Targets,
    endpoint: Option<Endpoint>,
    rules: Option<Rules>,
    silences: Option<Silences>,
}

impl Prometheus {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub(super) fn open(settings: PrometheusSettings, secrets: Secrets) -> Result<Self, Fault> {
        let PrometheusSettings { directory, listen, rules, alertmanager } = settings;
        let relative =
            !directory.is_absolute() || rules.as_ref().is_some_and(|rules| !rules.directory.is_absolute());
        if relative || rules.as_ref().is_some_and(|rules| rules.directory == directory) {
            let why =
                "each directory must be a path that begins with /, and those of targets and rules are two";
            return Err(Fault::new("read [agent.prometheus] of the configuration", why).permanent());
        }
        Ok(Self {
            targets: Targets { credentials: Credentials::new(&directory, secrets), directory },
            endpoint: listen.map(Endpoint::new),
            rules: rules.map(Rules::open).transpose()?,
            silences: alertmanager.map(Silences::open).transpose()?,
        })
    }

    pub(super) fn location(&self) -> String {
        format!("files for Prometheus in {}", self.targets.directory.display())
    }

    pub(super) async fn start(&self) -> Result<(), Fault> {
        match &self.endpoint {
            Some(endpoint) => endpoint.start(self.targets.clone()).await,
            None => Ok(()),
        }
    }

    pub(super) async fn stop(&self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.stop().await;
        }
    }

    pub(super) async fn look(&self, scope: Scope<'_, Key>) -> Result<Observed<Monitoring>, Fault> {
        let mut seen = BTreeMap::new();
        self.targets.look(scope, &mut seen)?;
        if let Some(silences) = &self.silences {
            look_at(silences, &mut seen).await;
        }
        if let Some(rules) = &self.rules {
            rules.look(&mut seen).await?;
        }
        Ok(Observed { seen, complete: true })
    }

    pub(super) async fn change(
        &self,
        batch: &Batch<Monitoring>,
        fence: &Fence,
    ) -> Result<Applied<Monitoring>, Fault> {
        fence.check()?;
        let folders = [Some(&self.targets.directory), self.rules.as_ref().map(Rules::directory)];
        for folder in folders.into_iter().flatten() {
            claim(folder, fence)?;
        }
        let (mut each, stays) = self.silence(batch, fence).await;
        each.extend(self.targets.change(batch, &stays, fence));
        each.extend(self.targets.authorize(batch, fence));
        each.extend(Rules::change(self.rules.as_ref(), batch, fence).await);
        Ok(Applied { each, facts: Vec::new() })
    }
}

impl Prometheus {
    /// Silences hosts, or ends that. Answers what became of those for which it failed: the hosts that stay as they are.
    async fn silence<'b>(
        &self,
        batch: &'b Batch<Monitoring>,
        fence: &Fence,
    ) -> (Vec<(Key, Outcome)>, BTreeSet<&'b HostName>) {
        let (mut begin, mut end) = (BTreeSet::new(), BTreeSet::new());
        let Some(silences) = &self.silences else { return (Vec::new(), begin) };
        for edit in &batch.changes {
            let Subject::Host(host) = &edit.key.subject else { continue };
            if edit.to.as_ref().is_some_and(Item::rests) {
                begin.insert(host);
            } else if edit.from.as_ref().is_some_and(|have| have.downtime == Some(true) || have.item.rests())
            {
                end.insert(host);
            }
        }
        if begin.is_empty() && end.is_empty() {
            return (Vec::new(), begin);
        }
        let failed = match silences.set(&begin, &end, fence).await {
            Ok(failed) => failed,
            Err(fault) => begin.iter().chain(&end).map(|host| (*host, fault.clone())).collect(),
        };
        let mut each = Vec::new();
        let mut stays = BTreeSet::new();
        for edit in &batch.changes {
            let Subject::Host(host) = &edit.key.subject else { continue };
            let Some(fault) = failed.get(host) else { continue };
            // One that leaves, leaves: nothing fires of it any more, and its silence ends by itself.
            if edit.to.is_some() {
                each.push((edit.key.clone(), Outcome::Failed(fault.clone())));
                stays.insert(host);
            }
        }
        (each, stays)
    }
}

/// Adds of each host whether it is silenced. Where that is not known, hosts that are to be silenced are not as they should be.
async fn look_at(silences: &Silences, seen: &mut BTreeMap<Key, Seen<Have>>) {
    let all = silences.all().await;
    if let Err(fault) = &all {
        tracing::warn!("{fault}");
    }
    for (key, seen) in seen {
        let (Subject::Host(host), Seen::Ours(have)) = (&key.subject, seen) else { continue };
        let rests = have.item.rests();
        match &all {
            Ok(all) => have.downtime = Some(silences::has(all, host, rests)),
            Err(_) => have.odd |= rests,
        }
    }
}

fn claim(folder: &Path, fence: &Fence) -> Result<(), Fault> {
    let kind = owner::Kind {
        what: "folder for Prometheus",
        files: "files for Prometheus",
        page: "docs/agents/monitoring.md, One folder, one database",
    };
    owner::claim(folder, fence.epoch, &kind)
}

/// Prometheus is somebody else, whatever the umask.
fn open_to_readers(path: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .map_err(|e| Fault::new(format!("let Prometheus read {}", path.display()), e))
}
