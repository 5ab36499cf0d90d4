//! HAProxy: servers are changed at run time, the files are kept in step, and what cannot be changed at run time is reloaded.

mod good;
mod live;
mod look;
mod reload;
mod render;
mod settings;
mod socket;
mod together;
mod words;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::path::PathBuf;

use shoal_agent::{Fault, HostName, Observed, Scope, Seen, TagName};
use tokio::sync::Mutex;

use live::{Backend, Running};
use render::Language;
pub use settings::HaproxySettings;
use socket::Socket;

use super::coalesce::Reloads;
use super::file::{self, Kept, Line, Said};
use super::index::Index;
use crate::agent::Lb;
use crate::item::{Have, Key, Pool, Server, Standing};

/// What the files of pools end with: HAProxy reads no others of a folder.
const ENDING: &str = ".cfg";

/// HAProxy.
#[derive(Debug)]
pub(super) struct Haproxy {
    settings: HaproxySettings,
    stats: Socket,
    master: Socket,
    reloads: Reloads,
    index: Index,
    language: Language,
    /// One file at a time is checked and put in place: all files together have to be right.
    placing: Mutex<()>,
}

impl Haproxy {
    pub(super) fn open(settings: HaproxySettings) -> Result<Self, Fault> {
        settings.verify()?;
        let stats = Socket::new(settings.stats.clone(), settings.limit());
        let master = Socket::new(settings.master.clone(), settings.limit());
        let language = Language { authorities: settings.authorities.clone() };
        let (reloads, index, placing) = Default::default();
        Ok(Self { settings, stats, master, reloads, index, language, placing })
    }

    pub(super) fn location(&self) -> String {
        format!("HAProxy with the pools of {}", self.settings.directory.display())
    }

    pub(super) fn start(&self) -> Result<(), Fault> {
        let directory = &self.settings.directory;
        if directory.is_dir() {
            return Ok(());
        }
        Err(Fault::new(format!("open the folder of pools {}", directory.display()), "it is not there")
            .next("make it, let this agent write in it, and start HAProxy with -f and its name (see docs/agents/lb.md)"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.directory.join(format!("{name}{ENDING}"))
    }

    /// What the pool's file says; nothing if there is none.
    fn said(&self, name: &str) -> Result<Option<Said>, Fault> {
        // A folder that is not mounted is not an empty one.
        self.start()?;
        self.stands(name)?.map(|text| self.read(name, &text)).transpose()
    }

    /// What the text of the pool's file says.
    fn read(&self, name: &str, text: &str) -> Result<Said, Fault> {
        let fault = |why: String| Fault::new(format!("read {}", self.path(name).display()), why);
        file::read(&self.language, name, text).map_err(fault)
    }

    /// What the pool was made from, by its file; nothing if there is none. Costs the same whatever servers it has.
    fn pool(&self, name: &str) -> Result<Option<Pool>, Fault> {
        let path = self.path(name);
        let fault = |why: String| Fault::new(format!("read {}", path.display()), why);
        self.start()?;
        match std::fs::File::open(&path) {
            Ok(file) => {
                let lines = std::io::BufReader::new(file).lines().map_while(Result::ok);
                file::pool(lines).map(Some).map_err(fault)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(fault(e.to_string())),
        }
    }

    async fn live(&self, name: &str) -> Result<Option<Backend>, Fault> {
        if !self.settings.tell {
            return Ok(None);
        }
        live::backend(&self.stats, name, &render::variable(name)).await.map(Some)
    }

    /// Looks at a pool with all its servers, where those that were asked for are not simply missing.
    pub(super) async fn observe(&self, tag: &TagName, scope: Scope<'_, Key>) -> Result<Observed<Lb>, Fault> {
        let name = tag.key();
        self.start()?;
        let text = self.stands(name)?;
        if let (Scope::Keys(keys), Some(text)) = (scope, &text)
            && self.lacks(name, text, keys).await?
        {
            return Ok(Observed { seen: BTreeMap::new(), complete: true });
        }
        let said = text.map(|text| self.read(name, &text)).transpose()?;
        let live = self.live(name).await?;
        let drains =
            |said: &Said| said.servers.values().any(|l| matches!(l, Line::Made(kept) if kept.draining));
        let left = match (&said, &live) {
            (Some(said), Some(_)) if drains(said) => live::left_behind(&self.master, name).await?,
            _ => BTreeMap::new(),
        };
        let mut seen = BTreeMap::new();
        let unsettled = self.unsettled(name)?;
        if let Some(have) = pool(said.as_ref(), live.as_ref(), unsettled.as_deref()) {
            seen.insert(Key { pool: tag.clone(), host: None, at: None }, Seen::There(have));
        }
        let spare =
            live.as_ref().zip(said.as_ref()).map(|(live, said)| live.at_work.saturating_sub(said.pool.least));
        let kept = said.iter().flat_map(|said| said.servers.keys());
        let running = live.iter().flat_map(|live| live.servers.keys());
        let hosts: BTreeSet<&HostName> = kept.chain(running).collect();
        for host in hosts {
            let line = said.as_ref().and_then(|said| said.servers.get(host));
            let running = live.as_ref().map(|live| live.servers.get(host));
            let mut standing = standing(line, running);
            standing.connections += left.get(host).copied().unwrap_or(0);
            standing.spare = spare;
            let key = Key { pool: tag.clone(), host: Some(host.clone()), at: None };
            seen.insert(key, Seen::There(Have::Server(standing)));
        }
        Ok(Observed { seen, complete: true })
    }
}

/// `unsettled`: what stood there before a reload of which nobody knows what became, or before the pool went, which nobody wrote down.
fn pool(said: Option<&Said>, live: Option<&Backend>, unsettled: Option<&str>) -> Option<Have> {
    match (said, live) {
        (Some(said), live) => {
            let form = render::form(&said.pool);
            let runs = live.is_none_or(|live| live.there && live.form.as_ref() == Some(&form));
            Some(Have::Pool {
                pool: said.whole.then(|| said.pool.clone()),
                runs: runs && unsettled.is_none(),
            })
        }
        (None, Some(live)) if live.there => Some(Have::Pool { pool: None, runs: true }),
        // One that never had a file is only about to be made.
        (None, _) => {
            unsettled.filter(|text| !text.is_empty()).map(|_| Have::Pool { pool: None, runs: false })
        }
    }
}

/// `running`: `None` where HAProxy is not asked, `Some(None)` where it does not have it.
fn standing(line: Option<&Line>, running: Option<Option<&Running>>) -> Standing {
    let kept = match line {
        Some(Line::Made(kept)) => Some(kept),
        _ => None,
    };
    let draining = kept.is_some_and(|kept| kept.draining);
    let (known, runs) = match (running, kept) {
        (None, _) => (true, true),
        (Some(None), _) => (false, false),
        (Some(Some(running)), Some(Kept { draining: true, .. })) => {
            (true, running.withdrawn || running.weight == 0)
        }
        (Some(Some(running)), Some(kept)) => (true, running.is(&kept.server)),
        (Some(Some(running)), None) => (true, !running.withdrawn),
    };
    let asked = running.flatten();
    let as_it_runs = |running: &Running| {
        let (address, port, weight) = (running.address?, running.port, running.weight);
        Some(Server { address, port, weight, backup: running.backup, drain: 0 })
    };
    let server = match line {
        Some(_) => kept.map(|kept| kept.server.clone()),
        None => asked.and_then(as_it_runs),
    };
    Standing {
        server,
        kept: line.is_some(),
        runs,
        known,
        // Made ready again behind Shoal's back, it is drained again.
        draining: draining && (runs || !known),
        backup: asked.map(|running| running.backup),
        reports: true,
        serves: asked.is_some_and(|running| running.serves),
        connections: asked.map_or(0, |running| running.connections),
        spare: None,
    }
}

#[cfg(test)]
mod tests;
