//! HAProxy: servers are changed at run time, the files are kept in step, and what cannot be changed at run time is reloaded.

mod live;
mod reload;
mod render;
mod settings;
mod socket;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::path::PathBuf;

use shoal_agent::{Fault, HostName, Observed, Seen, TagName, command, files};
use tokio::sync::Mutex;

use live::{Backend, Running};
use reload::Reload;
use render::Language;
pub use settings::HaproxySettings;
use socket::Socket;

use super::file::{self, Kept, Line, Said};
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
    reload: Reload,
    /// One file at a time is checked and put in place: all files together have to be right.
    placing: Mutex<()>,
}

impl Haproxy {
    pub(super) fn open(settings: HaproxySettings) -> Result<Self, Fault> {
        settings.verify()?;
        let stats = Socket::new(settings.stats.clone(), settings.limit());
        let master = Socket::new(settings.master.clone(), settings.limit());
        let reload = Reload::new(settings.limit());
        Ok(Self { settings, stats, master, reload, placing: Mutex::default() })
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
        let path = self.path(name);
        let fault = |why: String| Fault::new(format!("read {}", path.display()), why);
        // A folder that is not mounted is not an empty one.
        self.start()?;
        match files::read(&path) {
            Seen::There(text) | Seen::Ours(text) => {
                file::read(&Language, name, &text).map(Some).map_err(fault)
            }
            Seen::Nothing => Ok(None),
            Seen::Unknown(why) => Err(fault(why)),
        }
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

    /// Looks at a pool with all its servers.
    pub(super) async fn observe(&self, tag: &TagName) -> Result<Observed<Lb>, Fault> {
        let name = tag.key();
        let said = self.said(name)?;
        let live = self.live(name).await?;
        let drains =
            |said: &Said| said.servers.values().any(|l| matches!(l, Line::Made(kept) if kept.draining));
        let left = match (&said, &live) {
            (Some(said), Some(_)) if drains(said) => live::left_behind(&self.master, name).await?,
            _ => BTreeMap::new(),
        };
        let mut seen = BTreeMap::new();
        if let Some(have) = pool(said.as_ref(), live.as_ref()) {
            seen.insert(Key { pool: tag.clone(), host: None }, Seen::There(have));
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
            let key = Key { pool: tag.clone(), host: Some(host.clone()) };
            seen.insert(key, Seen::There(Have::Server(standing)));
        }
        Ok(Observed { seen, complete: true })
    }

    /// Puts the text of a pool in place (`None`: away), if HAProxy takes all files together.
    async fn place(&self, name: &str, text: Option<&str>) -> Result<(), Fault> {
        let _one = self.placing.lock().await;
        let directory = &self.settings.directory;
        // Hidden, so that HAProxy does not read it: a start of its own may come at any moment.
        let candidate = directory.join(format!(".{name}.candidate"));
        let mut pools = super::facts::files(directory, ENDING)?;
        pools.retain(|pool| pool != name);
        if let Some(text) = text {
            files::put(&candidate, Some(text))?;
            pools.push(name.to_owned());
        }
        pools.sort_unstable();
        let path = |pool: &String| if pool == name { candidate.clone() } else { self.path(pool) };
        let all = pools.iter().flat_map(|pool| ["-f".to_owned(), path(pool).display().to_string()]);
        let all: Vec<String> = all.collect();
        let check = self.settings.check.iter();
        let check: Vec<String> =
            check.flat_map(|word| if word == "{pools}" { all.clone() } else { vec![word.clone()] }).collect();
        let checked = command::run(&check, &[], self.settings.limit()).await;
        let placed = checked
            .map_err(|why| Fault::new(format!("have the pool {name} checked"), why))
            .and_then(|()| match text {
                Some(text) => files::put(&self.path(name), Some(text)),
                None => files::put(&self.path(name), None),
            });
        if text.is_some() {
            files::put(&candidate, None)?;
        }
        placed
    }
}

fn pool(said: Option<&Said>, live: Option<&Backend>) -> Option<Have> {
    match (said, live) {
        (Some(said), live) => {
            let form = render::form(&said.pool);
            let runs = live.is_none_or(|live| live.there && live.form.as_ref() == Some(&form));
            Some(Have::Pool { pool: said.whole.then(|| said.pool.clone()), runs })
        }
        (None, Some(live)) if live.there => Some(Have::Pool { pool: None, runs: true }),
        (None, _) => None,
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
        Some(Server { address, port, weight, drain: 0 })
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
        reports: true,
        serves: asked.is_some_and(|running| running.serves),
        connections: asked.map_or(0, |running| running.connections),
        spare: None,
    }
}
