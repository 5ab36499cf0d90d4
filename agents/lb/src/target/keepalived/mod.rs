//! keepalived: the virtual addresses of one machine, in one file.

mod dump;
mod render;
mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};
use shoal_agent::{
    Applied, Batch, Edit, Fault, Fence, Observed, Outcome, Seen, TagName, Unit, command, files, owner,
};
use tokio::time::{Instant, sleep};

use render::Said;
pub use settings::{CheckSettings, KeepalivedSettings};

use crate::agent::Lb;
use crate::item::{Address, Have, Item, Key, node_unit};

const KIND: owner::Kind<'static> = owner::Kind {
    what: "folder of virtual addresses",
    files: "virtual addresses",
    page: "docs/agents/lb.md",
};
/// How often keepalived is asked whether it runs with its new configuration.
const POLL: Duration = Duration::from_millis(100);

/// keepalived.
#[derive(Debug)]
pub(super) struct Keepalived {
    settings: KeepalivedSettings,
}

impl Keepalived {
    pub(super) fn open(settings: KeepalivedSettings) -> Result<Self, Fault> {
        settings.verify()?;
        Ok(Self { settings })
    }

    pub(super) fn node(&self) -> &shoal_agent::HostName {
        &self.settings.node
    }

    pub(super) fn location(&self) -> String {
        format!("keepalived with {}", self.file().display())
    }

    pub(super) fn start(&self) -> Result<(), Fault> {
        let directory = &self.settings.directory;
        if directory.is_dir() {
            return Ok(());
        }
        Err(Fault::new(format!("open the folder of virtual addresses {}", directory.display()), "it is not there")
            .next("make it, let this agent write in it, and have keepalived include its files (see docs/agents/lb.md)"))
    }

    fn file(&self) -> PathBuf {
        self.settings.directory.join("addresses.conf")
    }

    /// Says, hidden from keepalived, what it was last made to read.
    fn told(&self) -> PathBuf {
        self.settings.directory.join(".told")
    }

    /// With which text that was.
    fn remembered(&self) -> PathBuf {
        self.settings.directory.join(".runs")
    }

    /// What keepalived runs with where somebody removed the file; nothing, where nobody knows.
    fn lost(&self) -> Result<Option<String>, Fault> {
        let path = self.remembered();
        match files::read(&path) {
            Seen::There(text) | Seen::Ours(text) => {
                Ok(Some(text).filter(|text| self.runs(text).unwrap_or(false)))
            }
            Seen::Nothing => Ok(None),
            Seen::Unknown(why) => Err(Fault::new(format!("read {}", path.display()), why)),
        }
    }

    /// What stood in the file before a candidate took its place.
    fn last_good(&self) -> PathBuf {
        self.settings.directory.join(".before")
    }

    fn text(&self) -> Result<Option<String>, Fault> {
        self.start()?;
        let path = self.file();
        match files::read(&path) {
            Seen::There(text) | Seen::Ours(text) => Ok(Some(text)),
            Seen::Nothing => Ok(None),
            Seen::Unknown(why) => Err(Fault::new(format!("read {}", path.display()), why)),
        }
    }

    fn said(&self, text: Option<&str>) -> Result<Said, Fault> {
        let Some(text) = text else { return Ok(Said { whole: true, ..Said::default() }) };
        let fault = |why| Fault::new(format!("read {}", self.file().display()), why);
        render::read(&self.settings, text).map_err(fault)
    }

    /// The process, and what tells it from one that has the number later.
    fn process(&self) -> Result<(u32, String), Fault> {
        let path = &self.settings.pid;
        let fault = |why: String| {
            Fault::new("find keepalived", why)
                .next("see that it runs, and that `pid` in [agent.keepalived] is where it says so")
        };
        let text = fs::read_to_string(path).map_err(|e| fault(format!("{}: {e}", path.display())))?;
        let pid =
            text.trim().parse().map_err(|_| fault(format!("{} holds no process id", path.display())))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        let stat =
            stat.map_err(|_| fault(format!("{} names process {pid}, which is not there", path.display())))?;
        // After the name, which may hold anything: the state is the third field, when it began the 22nd.
        let began = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19));
        if !stat.contains("(keepalived)") {
            return Err(fault(format!("{} names process {pid}, which is no keepalived", path.display())));
        }
        Ok((pid, began.unwrap_or_default().to_owned()))
    }

    /// Whether keepalived has no processes below it: then nobody there has an address. Where the kernel does not say: no.
    fn is_alone(&self) -> bool {
        let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        self.process().is_ok_and(|(pid, _)| children(pid).is_ok_and(|all| all.trim().is_empty()))
    }

    /// What is remembered when keepalived has read this text.
    fn mark(&self, text: &str) -> Result<String, Fault> {
        let (pid, began) = self.process()?;
        let digest: String =
            Sha256::digest(text.as_bytes())[..12].iter().map(|octet| format!("{octet:02x}")).collect();
        Ok(format!("{pid} {began} {digest}\n"))
    }

    /// Whether keepalived runs with this text. Of one that was started since, nobody knows what it read.
    fn runs(&self, text: &str) -> Result<bool, Fault> {
        if !self.settings.tell {
            return Ok(true);
        }
        let told = fs::read_to_string(self.told()).unwrap_or_default();
        Ok(!self.last_good().exists() && told == self.mark(text)?)
    }

    fn mine(&self, unit: &Unit) -> Result<(), Fault> {
        if *unit == node_unit(self.node()) {
            return Ok(());
        }
        let why = format!("this instance works on the virtual addresses of {} alone", self.node());
        Err(Fault::new(format!("work on {unit}"), why).permanent())
    }

    /// Looks at all virtual addresses of this machine.
    pub(super) fn observe(&self, unit: &Unit) -> Result<Observed<Lb>, Fault> {
        self.mine(unit)?;
        let text = self.text()?;
        let said = self.said(text.as_deref())?;
        let runs = text.as_deref().map_or(Ok(true), |text| self.runs(text))?;
        let one = |(tag, address): (TagName, Address)| {
            let address = said.whole.then_some(address);
            let key = Key { pool: tag, host: Some(self.node().clone()), at: None };
            (key, Seen::There(Have::Address { address, runs }))
        };
        Ok(Observed { seen: said.addresses.into_iter().map(one).collect(), complete: true })
    }

    /// Makes changes: one file, one check, one reload.
    pub(super) async fn apply(
        &self,
        unit: &Unit,
        batch: &Batch<Lb>,
        fence: &Fence,
    ) -> Result<Applied<Lb>, Fault> {
        self.mine(unit)?;
        fence.check()?;
        owner::claim(&self.settings.directory, fence.epoch, &KIND)?;
        let stands = match self.text()? {
            // Not all that it runs with are to be made anew: who is paused, or not known, stays.
            None => self.lost()?,
            stands => stands,
        };
        let mut addresses = self.said(stands.as_deref())?.addresses;
        let mut each = BTreeMap::new();
        for edit in batch.changes.iter().filter(|edit| edit.to.is_none()) {
            addresses.remove(&edit.key.pool);
        }
        for edit in &batch.changes {
            let Some(Item::Address(address)) = &edit.to else { continue };
            match self.fits(&addresses, &edit.key.pool, address) {
                Ok(()) => drop(addresses.insert(edit.key.pool.clone(), address.clone())),
                Err(why) => {
                    let fault = Fault::new(format!("{} {}", edit.verb, edit.key), why).permanent();
                    each.insert(edit.key.clone(), Outcome::Failed(fault));
                }
            }
        }
        let text = render::text(&self.settings, &addresses)
            .map_err(|(tag, why)| Fault::new(format!("write the virtual address {tag}"), why).permanent())?;
        self.put(&text, &addresses, fence).await?;
        let outcome = |edit: &Edit<Lb>| (edit.key.clone(), each.remove(&edit.key).unwrap_or(Outcome::Done));
        Ok(Applied { each: batch.changes.iter().map(outcome).collect(), facts: Vec::new() })
    }

    /// Whether an address can stand beside the others on this machine.
    fn fits(
        &self,
        addresses: &BTreeMap<TagName, Address>,
        tag: &TagName,
        address: &Address,
    ) -> Result<(), String> {
        let one = BTreeMap::from([(tag.clone(), address.clone())]);
        render::text(&self.settings, &one).map_err(|(_, why)| why)?;
        let place = |address: &Address| {
            let family = address.addresses.first().map(|one| one.address.is_ipv4());
            render::interface(&self.settings, address).map(|interface| (interface, address.router, family))
        };
        let place_of_it = place(address)?;
        let others = addresses.iter().filter(|(other, _)| *other != tag);
        match others.into_iter().find(|(_, other)| place(other).as_ref() == Ok(&place_of_it)) {
            None => Ok(()),
            Some((other, _)) => Err(format!(
                "{other} has the router {} on {} already: no two of a network may have one",
                address.router, place_of_it.0
            )),
        }
    }

    /// Puts the text in place, checked, and has keepalived run with it; else what stood there stands there again, and keepalived
    /// reads that.
    async fn put(
        &self,
        text: &str,
        addresses: &BTreeMap<TagName, Address>,
        fence: &Fence,
    ) -> Result<(), Fault> {
        let (path, kept) = (self.file(), self.last_good());
        let stands = self.text()?;
        if !kept.exists() && stands.as_deref() == Some(text) && self.runs(text)? {
            return Ok(());
        }
        let before = match fs::read_to_string(&kept) {
            // Of a change that was not brought to its end: what stands there may be what keepalived does not take.
            Ok(before) => before,
            Err(_) => stands.unwrap_or_default(),
        };
        let back = || match before.as_str() {
            "" => files::put(&path, None),
            before => files::put(&path, Some(before)),
        };
        files::put(&kept, Some(&before))?;
        files::put(&path, Some(text))?;
        if let Err(why) = command::run(&self.settings.check, &[], self.settings.limit()).await {
            back()?;
            files::put(&kept, None)?;
            return Err(Fault::new("have the virtual addresses checked", why));
        }
        let mut read = Ok(());
        if self.settings.tell {
            fence.check()?;
            read = self.reload(addresses).await;
            match &read {
                Ok(()) => files::put(&self.told(), Some(&self.mark(text)?))?,
                Err(_) => {
                    back()?;
                    // It may have read a part of what it does not take.
                    let _ = self.signal(&self.settings.reload).await;
                }
            }
        }
        if read.is_ok() {
            files::put(&self.remembered(), Some(text))?;
        }
        files::put(&kept, None)?;
        read
    }

    async fn signal(&self, signal: &[String]) -> Result<(), Fault> {
        let pid = self.process()?.0.to_string();
        command::run(signal, &[("{pid}", &pid)], self.settings.limit())
            .await
            .map_err(|why| Fault::new("signal keepalived", why))
    }

    /// Has keepalived read its configuration, and waits until it says that it runs with these addresses.
    async fn reload(&self, addresses: &BTreeMap<TagName, Address>) -> Result<(), Fault> {
        let want =
            render::wanted(&self.settings, addresses).map_err(|why| Fault::new("reload keepalived", why))?;
        self.signal(&self.settings.reload).await?;
        let end = Instant::now() + self.settings.limit();
        loop {
            // What stands there already says what was.
            let _ = fs::remove_file(&self.settings.data);
            self.signal(&self.settings.dump).await?;
            sleep(POLL).await;
            let read = dump::read(&self.settings.data);
            let data = read.as_deref().unwrap_or_default();
            let running = render::running(data);
            // Without any address it may have no process that could write; one that is there and says nothing may have them still.
            let said = read.is_ok() && (!data.is_empty() || want.is_empty() && self.is_alone());
            if said && render::is_as_wanted(&running, &want) {
                return Ok(());
            }
            if Instant::now() >= end {
                let names = running.keys().cloned().collect::<Vec<_>>().join(", ");
                let why = match (&read, data) {
                    (Err(why), _) => format!("{}: {why}", self.settings.data.display()),
                    (_, "") => format!("it wrote nothing into {}", self.settings.data.display()),
                    _ => format!("it does not run with what it was given: it has [{names}]"),
                };
                return Err(Fault::new("reload keepalived", why).next("look into its log"));
            }
        }
    }
}
