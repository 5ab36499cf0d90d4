//! Machines by libvirt: real ones, with a kernel of their own, on this box or wherever the URI leads.
//!
//! A machine is a domain with Shoal's mark in its metadata, which is defined before anything else is made for it, and undefined after all
//! else is gone: so whatever there is of a machine, its mark is there too. Its UUID, and the names of its volumes, follow from its host's
//! id: two attempts meet. What begins without its volumes gets them when it is started; once it had all of them, none is made anew.
//!
//! How it reports in: it has a small disk, on which its token stands, and copies that to where this looks for it. That needs no network, no
//! agent on the box at that moment, and is read through libvirt, from afar too. Where an image cannot, it is up when it runs, or when
//! libvirt knows an address of it.
//!
//! libvirt's calls block, so they are made elsewhere (`daemon`); each effect is one of them, and nothing is remembered between two but
//! which machines were told to stop (`ending`).

mod daemon;
mod domain;
mod ending;
mod look;
mod seed;
mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_agent::{Fault, HostId};
use shoal_machine::{Machine, Word};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::sys;

use super::provider::{Doing, Listed, Order, Provider};
use daemon::{Daemon, fault};
use domain::{Mark, Plan};
use ending::Ending;
use look::{Found, find};
use storage::Base;

/// `[agent.libvirt]` of the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where libvirt is.
    #[serde(default = "uri")]
    pub uri: String,
    /// What runs the machines, as libvirt calls it: `kvm`, or `qemu`, which emulates.
    #[serde(default = "kind", rename = "type")]
    pub kind: String,
    /// The storage pool that their volumes are in. It is there already.
    #[serde(default = "pool")]
    pub pool: String,
    /// What machines begin as, by the names that documents have for it.
    #[serde(default)]
    pub images: BTreeMap<Word, Image>,
    /// The networks, by the names that documents have for them.
    #[serde(default)]
    pub networks: BTreeMap<Word, Link>,
    /// How long a machine may take to stop before it is killed.
    #[serde(default = "stop", deserialize_with = "super::nspawn::duration")]
    pub stop: Duration,
}

/// What a machine begins as.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// A volume with a system: machines have layers over it, and it is only read. None: it boots from the kernel alone.
    #[serde(default)]
    pub volume: Option<String>,
    /// The storage pool that the volume is in; by default the one that machines' volumes are in.
    #[serde(default)]
    pub pool: Option<String>,
    /// A kernel to boot, as the box of the URI has it, instead of what the volume boots.
    #[serde(default)]
    pub kernel: Option<PathBuf>,
    /// What the kernel begins with.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// What the kernel is told.
    #[serde(default)]
    pub command_line: Option<String>,
    /// Whether a machine gets a seed for cloud-init.
    #[serde(default = "yes")]
    pub seed: bool,
    /// How a machine reports in.
    #[serde(default)]
    pub report: Report,
}

/// How a machine says that it is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// It copies its token on a disk that it has for that.
    #[default]
    Disk,
    /// It cannot: it is up when it runs and libvirt knows an address of it.
    Address,
    /// It cannot: it is up when it runs.
    Status,
}

/// A network that machines can be in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// A bridge of the box of the URI.
    Bridge(String),
    /// A network of libvirt's.
    Network(String),
}

impl Link {
    fn name(&self) -> &String {
        match self {
            Self::Bridge(name) | Self::Network(name) => name,
        }
    }
}

fn uri() -> String {
    "qemu:///system".to_owned()
}

fn kind() -> String {
    "kvm".to_owned()
}

fn pool() -> String {
    "default".to_owned()
}

fn stop() -> Duration {
    Duration::from_secs(60)
}

fn yes() -> bool {
    true
}

/// Machines by libvirt.
#[derive(Debug)]
pub struct Libvirt {
    settings: Settings,
    daemon: Daemon,
    /// Machines that were told to stop. Forgotten with the agent: the next one tells them again.
    ending: Mutex<BTreeMap<HostId, Ending>>,
    #[cfg(test)]
    left: std::sync::atomic::AtomicUsize,
}

impl Libvirt {
    /// By these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: Settings) -> Result<Self, String> {
        settings.kind.parse::<Word>().map_err(|e| format!("`type`: {e}"))?;
        let texts = [&settings.uri, &settings.pool].into_iter();
        let links = settings.networks.values().map(Link::name);
        let images = settings.images.values();
        let more = images.clone().flat_map(|one| [&one.volume, &one.pool, &one.command_line]).flatten();
        let paths = images.clone().flat_map(|one| [&one.kernel, &one.initrd]).flatten();
        // C's texts end there, and XML has no way to write them.
        if let Some(bad) =
            texts.chain(links).chain(more).find(|text| text.is_empty() || text.contains(char::is_control))
        {
            return Err(format!("{bad:?} is no name"));
        }
        if let Some(bad) = paths.into_iter().find(|path| {
            !path.is_absolute() || path.to_str().is_none_or(|text| text.contains(char::is_control))
        }) {
            return Err(format!("{} is no absolute path", bad.display()));
        }
        for (name, image) in &settings.images {
            if image.volume.is_none() && image.kernel.is_none() {
                return Err(format!("the image {name} has neither a volume nor a kernel"));
            }
            if image.kernel.is_none() && (image.initrd.is_some() || image.command_line.is_some()) {
                return Err(format!("the image {name} has no kernel to give `initrd` and `command_line` to"));
            }
        }
        let daemon = Daemon::new(&settings.uri);
        Ok(Self {
            settings,
            daemon,
            ending: Mutex::default(),
            #[cfg(test)]
            left: usize::MAX.into(),
        })
    }

    /// What a machine is made as. `made`: as this mark says; else it is to be made.
    fn plan(&self, mark: Mark) -> Result<Plan, Fault> {
        let machine = &mark.order.machine;
        let name = &machine.image;
        let image = self.settings.images.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.settings.images.keys().map(Word::as_str).collect();
            let why = format!("the configuration names none; it has {}", names.join(", "));
            Fault::new(format!("find the image {name}"), why).permanent()
        })?;
        let link = |name: &Word| {
            self.settings.networks.get(name).cloned().ok_or_else(|| {
                Fault::new(format!("find the network {name}"), "the configuration names none").permanent()
            })
        };
        let links = machine.networks.iter().map(|network| link(&network.name)).collect::<Result<_, _>>()?;
        let pool = image.pool.clone().unwrap_or_else(|| self.settings.pool.clone());
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        Ok(Plan {
            kind: self.settings.kind.clone(),
            base: image.volume.clone().map(|volume| Base { pool, volume }),
            kernel: text(&image.kernel),
            initrd: text(&image.initrd),
            command_line: image.command_line.clone(),
            has_seed: image.seed,
            links,
            mark,
        })
    }

    /// What changes something: between two of these the agent may be killed.
    async fn effect<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering::SeqCst;
            let one_less = |left: usize| left.checked_sub(1);
            if self.left.fetch_update(SeqCst, SeqCst, one_less).is_err() {
                return Err(Fault::new(what, "cut off"));
            }
        }
        self.daemon.call(what, work).await
    }

    async fn found(&self, id: &HostId) -> Result<Found, Fault> {
        let id = id.clone();
        self.daemon.call(&format!("find the machine of {id}"), move |to| find(to, &id)).await
    }

    async fn known(&self, id: &HostId) -> Result<(Mark, bool), Fault> {
        match self.found(id).await? {
            Found::Ours { mark, runs } => Ok((*mark, runs)),
            Found::Nothing => Err(Fault::new(format!("find the machine of {id}"), "it is not there")),
            Found::Foreign => Err(foreign(format!("find the machine of {id}"))),
        }
    }

    async fn created(&self, order: &Order) -> Result<(), Fault> {
        let report = self.settings.images.get(&order.machine.image).map(|image| image.report);
        let mark = Mark {
            order: order.clone(),
            pool: self.settings.pool.clone(),
            report: report.unwrap_or_default(),
            made: false,
        };
        let plan = self.plan(mark)?;
        let what = format!("make {}", order.host);
        let mark = match self.found(&order.id).await? {
            Found::Ours { mark, .. } => *mark,
            Found::Foreign => return Err(foreign(what)),
            Found::Nothing => {
                // Somebody undefined the machine that they were of: this one begins with nothing.
                self.emptied(&what, &plan.mark.pool, &order.id, None).await?;
                let text = plan.document().map_err(|e| Fault::new(&what, e).permanent())?;
                let (host, id) = (order.host.to_string(), order.id.clone());
                self.effect(&what, move |to| define(to, &text, &host, &id)).await?;
                plan.mark
            }
        };
        self.completed(mark).await
    }

    /// Gives a machine what it does not have yet. One that had all of it is left as it is.
    async fn completed(&self, mark: Mark) -> Result<(), Fault> {
        if mark.made {
            return Ok(());
        }
        let (id, host) = (mark.order.id.clone(), mark.order.host.clone());
        let plan = self.plan(mark)?;
        for (volume, _) in plan.volumes() {
            let at = plan.mark.pool.clone();
            self.effect(&format!("make {}", volume.name), move |to| storage::make(to, &at, &volume)).await?;
        }
        self.seeded(&plan).await?;
        let what = format!("mark {host} as made");
        let mark = Mark { made: true, ..plan.mark };
        let element = domain::element(&mark).map_err(|e| Fault::new(&what, e).permanent())?;
        self.effect(&what, move |to| finish(to, &id, &element)).await
    }

    /// Writes what a machine finds when it starts.
    async fn seeded(&self, plan: &Plan) -> Result<(), Fault> {
        if !plan.has_seed {
            return Ok(());
        }
        let what = format!("write the seed of {}", plan.mark.order.host);
        let octets = seed::seed(&plan.mark.order).map_err(|e| Fault::new(&what, e).permanent())?;
        let (at, name) = (plan.mark.pool.clone(), plan.named("seed"));
        self.effect(&what, move |to| storage::write(to, &at, &name, &octets)).await
    }

    async fn booted(&self, id: &HostId) -> Result<(), Fault> {
        let (mark, runs) = self.known(id).await?;
        if runs {
            return Ok(());
        }
        self.forget(id);
        let what = format!("start {}", mark.order.host);
        self.completed(mark.clone()).await?;
        let one = id.clone();
        let sleeps = self.daemon.call(&what, move |to| sleeps(to, &one)).await?;
        if mark.report == Report::Disk && !sleeps {
            // What it reported before is not what it reports after this start.
            let octets = seed::unreported(&mark.order.token);
            let (at, name) = (mark.pool, look::report_of(id));
            self.effect(&what, move |to| storage::write(to, &at, &name, &octets)).await?;
        }
        let id = id.clone();
        self.effect(&what, move |to| start(to, &id)).await
    }

    async fn corrected(&self, id: &HostId, machine: &Machine) -> Result<(), Fault> {
        let (mut mark, _) = self.known(id).await?;
        self.keeps_its_disks(id, &mark).await?;
        (mark.order.machine.networks, mark.order.machine.size) =
            (machine.networks.clone(), machine.size.clone());
        let plan = self.plan(mark)?;
        let host = plan.mark.order.host.to_string();
        self.ended(id).await?;
        let what = format!("correct {host}");
        if plan.base.is_some() && plan.mark.made {
            let (at, name, size) = (plan.mark.pool.clone(), plan.named("root"), plan.root_size());
            self.effect(&what, move |to| storage::grow(to, &at, &name, size)).await?;
        }
        if plan.mark.made {
            self.seeded(&plan).await?;
        }
        // The mark last: cut off before, it is seen to differ still.
        let text = plan.document().map_err(|e| Fault::new(&what, e).permanent())?;
        let one = id.clone();
        self.effect(&what, move |to| define(to, &text, &host, &one)).await?;
        if !plan.mark.made {
            return Ok(());
        }
        let element = domain::element(&plan.mark).map_err(|e| Fault::new(&what, e).permanent())?;
        let one = id.clone();
        self.effect(&what, move |to| finish(to, &one, &element)).await
    }

    /// Removes all volumes that Shoal made of a machine with these disks.
    async fn emptied(
        &self,
        what: &str,
        pool: &str,
        id: &HostId,
        disks: Option<BTreeSet<Word>>,
    ) -> Result<(), Fault> {
        let (at, begin) = (pool.to_owned(), storage::prefix(domain::uuid(id)));
        let names = self.daemon.call(what, move |to| storage::parts(to, &at, &begin, disks.as_ref()));
        let names = names.await?;
        for name in names {
            let at = pool.to_owned();
            self.effect(what, move |to| storage::remove(to, &at, &name)).await?;
        }
        Ok(())
    }

    async fn destroyed(&self, id: &HostId) -> Result<(), Fault> {
        let mark = match self.found(id).await? {
            Found::Ours { mark, .. } => mark,
            Found::Nothing => return Ok(()),
            Found::Foreign => return Err(foreign(format!("destroy the machine of {id}"))),
        };
        let host = mark.order.host.to_string();
        self.ended(id).await?;
        let what = format!("remove {host}");
        let disks = mark.order.machine.disks.keys().cloned().collect();
        self.emptied(&what, &mark.pool, id, Some(disks)).await?;
        let id = id.clone();
        self.effect(&what, move |to| undefine(to, &id)).await
    }
}

fn foreign(what: String) -> Fault {
    let why = "a machine of that UUID or that name is there, and Shoal did not make it for this host";
    Fault::new(what, why).next("remove it, or give the host another name").permanent()
}

/// The domain of this id where it is ours; `None`: it is not there.
fn ours(to: &Connect, id: &HostId) -> Result<Option<Domain>, Fault> {
    match find(to, id)? {
        Found::Nothing => Ok(None),
        Found::Foreign => Err(foreign(format!("find the machine of {id}"))),
        Found::Ours { .. } => look::lookup(to, id),
    }
}

fn there(to: &Connect, id: &HostId) -> Result<Domain, Fault> {
    ours(to, id)?.ok_or_else(|| Fault::new(format!("find the machine of {id}"), "it is not there any more"))
}

/// Defines a machine, or defines one of ours anew.
fn define(to: &Connect, text: &str, host: &str, id: &HostId) -> Result<(), Fault> {
    let what = || format!("define {host}");
    ours(to, id)?;
    let Err(e) = Domain::define_xml(to, text) else { return Ok(()) };
    // Of this name, and with another UUID.
    let Ok(other) = Domain::lookup_by_name(to, host) else { return Err(fault(what(), &e)) };
    match look::mark_of(&other) {
        Ok(Some(mark)) if mark.order.id != *id => {
            let why =
                format!("the machine of the host {} that had this name before is there still", mark.order.id);
            Err(Fault::new(what(), why))
        }
        Ok(Some(_)) => Err(fault(what(), &e)),
        Ok(None) => Err(foreign(what())),
        Err(why) => Err(Fault::new(what(), why)),
    }
}

/// Marks a machine as made; it starts when its box does.
fn finish(to: &Connect, id: &HostId, element: &str) -> Result<(), Fault> {
    let domain = there(to, id)?;
    let failed = |e: virt::error::Error| fault(format!("mark the machine of {id} as made"), &e);
    domain.set_autostart(true).map_err(failed)?;
    let (kind, flags) = (look::ELEMENT, sys::VIR_DOMAIN_AFFECT_CONFIG);
    domain
        .set_metadata(kind, Some(element), Some(domain::SHORT), Some(domain::SPACE), flags)
        .map_err(failed)?;
    Ok(())
}

fn start(to: &Connect, id: &HostId) -> Result<(), Fault> {
    let domain = there(to, id)?;
    match domain.create() {
        Ok(_) => Ok(()),
        // Somebody was faster.
        Err(_) if domain.is_active().unwrap_or(false) => Ok(()),
        Err(e) => Err(fault(format!("start the machine of {id}"), &e)),
    }
}

/// Whether a machine goes on where it was saved when it is started: it does not report in again.
fn sleeps(to: &Connect, id: &HostId) -> Result<bool, Fault> {
    match there(to, id)?.has_managed_save(0) {
        Err(e) if e.code() != ErrorNumber::NoSupport => {
            Err(fault(format!("look whether the machine of {id} was saved"), &e))
        }
        // Not every driver can save one.
        saved => Ok(saved.unwrap_or(false)),
    }
}

fn shut_down(to: &Connect, id: &HostId) -> Result<(), Fault> {
    let Some(domain) = ours(to, id)? else { return Ok(()) };
    match domain.shutdown() {
        Err(e) if domain.is_active().unwrap_or(true) => {
            Err(fault(format!("shut the machine of {id} down"), &e))
        }
        _ => Ok(()),
    }
}

fn kill(to: &Connect, id: &HostId) -> Result<(), Fault> {
    let Some(domain) = ours(to, id)? else { return Ok(()) };
    match domain.destroy() {
        Err(e) if domain.is_active().unwrap_or(true) => Err(fault(format!("kill the machine of {id}"), &e)),
        _ => Ok(()),
    }
}

/// Removes what is left of a machine: its definition, and with it its mark.
fn undefine(to: &Connect, id: &HostId) -> Result<(), Fault> {
    let Some(domain) = ours(to, id)? else { return Ok(()) };
    // All that may have been kept for it. Where there can be no such thing (drivers differ), it cannot be asked for.
    let most = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    let all = most | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
    let done = match domain.undefine_flags(all) {
        Err(e) if e.code() == ErrorNumber::InvalidArg => domain.undefine_flags(most),
        done => done,
    };
    match done {
        Err(e) if e.code() != ErrorNumber::NoDomain => {
            Err(fault(format!("undefine the machine of {id}"), &e))
        }
        _ => Ok(()),
    }
}

impl Provider for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    fn location(&self) -> String {
        format!("machines at {} in the pool {}", self.daemon.uri(), self.settings.pool)
    }

    fn start(&self) -> Doing<'_, ()> {
        let pool = self.settings.pool.clone();
        Box::pin(async move {
            let what = format!("open the storage pool {pool}");
            self.daemon.call(&what, move |to| storage::pool(to, &pool).map(|_| ())).await
        })
    }

    fn list<'a>(&'a self, of: Option<&'a BTreeSet<HostId>>) -> Doing<'a, Listed> {
        Box::pin(self.listed(of))
    }

    fn create<'a>(&'a self, order: &'a Order) -> Doing<'a, ()> {
        Box::pin(self.created(order))
    }

    fn boot<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()> {
        Box::pin(self.booted(id))
    }

    fn stop<'a>(&'a self, id: &'a HostId, to: Option<&'a Machine>) -> Doing<'a, bool> {
        Box::pin(self.stops(id, to))
    }

    fn correct<'a>(&'a self, id: &'a HostId, machine: &'a Machine) -> Doing<'a, ()> {
        Box::pin(self.corrected(id, machine))
    }

    fn destroy<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()> {
        Box::pin(self.destroyed(id))
    }
}

#[cfg(test)]
mod tests;
