//! nginx: upstreams of `http` and of `stream`, by files and reloads.

mod render;
mod running;
mod settings;
mod status;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use shoal_agent::{Change, Fault, HostName, Observed, Seen, TagName, files};
use tokio::sync::Mutex;

use render::{Block, Language, digest};
pub use settings::NginxSettings;

use super::coalesce::Reloads;
use super::facts::{self, Report};
use super::file::{self, Kept, Line, Said};
use super::index::Index;
use crate::agent::Lb;
use crate::item::{Have, Key, Standing};
use crate::spec::Protocol;

/// nginx.
#[derive(Debug)]
pub(super) struct Nginx {
    settings: NginxSettings,
    reloads: Reloads,
    index: Index,
    /// One file at a time is put in place and checked: all files together have to be right.
    placing: Mutex<()>,
}

/// The files of one pool: at most one, but for the moment in which its protocol changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Texts {
    http: Option<String>,
    stream: Option<String>,
}

impl Texts {
    fn of(block: Block, text: String) -> Self {
        match block {
            Block::Http => Self { http: Some(text), stream: None },
            Block::Stream => Self { http: None, stream: Some(text) },
        }
    }

    fn get(&self, block: Block) -> Option<&String> {
        match block {
            Block::Http => self.http.as_ref(),
            Block::Stream => self.stream.as_ref(),
        }
    }

    fn get_mut(&mut self, block: Block) -> &mut Option<String> {
        match block {
            Block::Http => &mut self.http,
            Block::Stream => &mut self.stream,
        }
    }

    /// The text that counts.
    fn one(&self) -> Option<&String> {
        self.http.as_ref().or(self.stream.as_ref())
    }
}

/// What nginx runs with.
#[derive(Debug)]
struct Live {
    master: u32,
    /// The status file, if nginx runs with what it says.
    status: Option<String>,
}

impl Live {
    /// Whether nginx has read this text of a pool.
    fn runs(&self, name: &str, text: &str) -> bool {
        self.status.as_ref().is_some_and(|status| status::of(status, name) == Some(&digest(text)))
    }
}

impl Nginx {
    pub(super) fn open(settings: NginxSettings) -> Result<Self, Fault> {
        settings.verify()?;
        Ok(Self { settings, reloads: Reloads::default(), index: Index::default(), placing: Mutex::default() })
    }

    pub(super) fn location(&self) -> String {
        format!("nginx with the pools of {}", self.settings.directory.display())
    }

    pub(super) fn start(&self) -> Result<(), Fault> {
        let directory = &self.settings.directory;
        if directory.is_dir() {
            return Ok(());
        }
        Err(Fault::new(format!("open the folder of pools {}", directory.display()), "it is not there").next(
            "make it, let this agent write in it, and have nginx include its files (see docs/agents/lb.md)",
        ))
    }

    fn path(&self, name: &str, block: Block) -> PathBuf {
        self.settings.directory.join(format!("{name}{}", block.ending()))
    }

    /// Hidden, so that nginx does not read it: what stood there before a candidate took its place.
    fn last_good(&self, name: &str) -> PathBuf {
        self.settings.directory.join(format!(".{name}.before"))
    }

    /// Hidden, too: with what nginx was last made to run. Somebody may remove the file of a pool, and not all who are in it are to be made
    /// anew: who is paused, or of whom something is not known, stays as he was.
    fn remembered(&self, name: &str) -> PathBuf {
        self.settings.directory.join(format!(".{name}.runs"))
    }

    /// What nginx runs with of a pool whose file is gone, though nobody here took it away; `None`: it does not, or nobody knows.
    async fn lost(&self, name: &str) -> Result<Option<Said>, Fault> {
        let path = self.remembered(name);
        let text = match files::read(&path) {
            Seen::There(text) | Seen::Ours(text) => text,
            Seen::Nothing => return Ok(None),
            Seen::Unknown(why) => return Err(Fault::new(format!("read {}", path.display()), why)),
        };
        let Some(texts) = serde_json::from_str::<Texts>(&text).ok() else { return Ok(None) };
        let live = self.live().await?;
        let runs = |text: &String| live.as_ref().is_none_or(|live| live.runs(name, text));
        if texts.one().is_some_and(runs) { self.said(name, &texts) } else { Ok(None) }
    }

    /// Where the status stands.
    fn block(&self) -> Block {
        if self.settings.http { Block::Http } else { Block::Stream }
    }

    /// The files of all pools.
    fn files(&self) -> Result<Vec<(String, PathBuf)>, Fault> {
        let mut all = Vec::new();
        for block in Block::ALL {
            all.extend(facts::files(&self.settings.directory, block.ending())?);
        }
        Ok(all)
    }

    /// What is to be told of hosts.
    fn facts(&self, name: &str, report: &Report) -> Result<Vec<Change>, Fault> {
        if report.hosts.is_empty() {
            return Ok(Vec::new());
        }
        Ok(facts::of(name, report, &self.index.all(&Language, &self.files()?)))
    }

    fn texts(&self, name: &str) -> Result<Texts, Fault> {
        // A folder that is not mounted is not an empty one.
        self.start()?;
        let mut texts = Texts::default();
        for block in Block::ALL {
            let path = self.path(name, block);
            *texts.get_mut(block) = match files::read(&path) {
                Seen::There(text) | Seen::Ours(text) => Some(text),
                Seen::Nothing => None,
                Seen::Unknown(why) => return Err(Fault::new(format!("read {}", path.display()), why)),
            };
        }
        Ok(texts)
    }

    /// What stood there before a change that was not brought to its end.
    fn interrupted(&self, name: &str) -> Result<Option<Texts>, Fault> {
        let path = self.last_good(name);
        match files::read(&path) {
            // One that is no such text was not written to its end: then nothing was changed after it.
            Seen::There(text) | Seen::Ours(text) => Ok(serde_json::from_str(&text).ok()),
            Seen::Nothing => Ok(None),
            Seen::Unknown(why) => Err(Fault::new(format!("read {}", path.display()), why)),
        }
    }

    /// What the pool's file says; nothing if there is none.
    fn said(&self, name: &str, texts: &Texts) -> Result<Option<Said>, Fault> {
        let Some(text) = texts.one() else { return Ok(None) };
        let mut said = file::read(&Language, name, text)
            .map_err(|why| Fault::new(format!("read the file of the pool {name}"), why))?;
        // In the right block, and nowhere else.
        said.whole &= *texts == Texts::of(Block::of(said.pool.protocol), text.clone());
        Ok(Some(said))
    }

    /// What nginx runs with; `None`, where it is not asked.
    async fn live(&self) -> Result<Option<Live>, Fault> {
        if !self.settings.tell {
            return Ok(None);
        }
        let master = running::master(&self.settings.pid)?;
        let text = std::fs::read_to_string(self.path(status::NAME, self.block())).ok();
        let answer = running::answer(self.settings.status, self.block(), self.settings.limit()).await?;
        let status =
            text.filter(|text| answer.as_deref().is_some_and(|answer| status::name(text) == Some(answer)));
        Ok(Some(Live { master, status }))
    }

    /// Looks at a pool with all its servers.
    pub(super) async fn observe(&self, tag: &TagName) -> Result<Observed<Lb>, Fault> {
        let name = tag.key();
        let texts = self.texts(name)?;
        let key = Key { pool: tag.clone(), host: None, at: None };
        let Some(said) = self.said(name, &texts)? else {
            // It went, and nobody wrote down what became of its servers.
            let went = self.interrupted(name)?.is_some_and(|before| before != Texts::default());
            let have = went.then_some((key, Seen::There(Have::Pool { pool: None, runs: false })));
            return Ok(Observed { seen: have.into_iter().collect(), complete: true });
        };
        let live = self.live().await?;
        // What was not brought to its end is not known to be good, nor to be what nginx runs with.
        let ended = !self.last_good(name).exists();
        let text = texts.one().map_or("", String::as_str);
        let runs = ended && live.as_ref().is_none_or(|live| live.runs(name, text));
        let pool = said.whole.then(|| said.pool.clone());
        let mut seen = BTreeMap::new();
        seen.insert(key, Seen::There(Have::Pool { pool, runs }));
        let open = self.count(&said, live.as_ref())?;
        let spare = live.as_ref().map(|_| at_work(&said).saturating_sub(said.pool.least));
        for (host, line) in &said.servers {
            let key = Key { pool: tag.clone(), host: Some(host.clone()), at: None };
            let connections = kept(line).and_then(|kept| open.get(&kept.server.socket())).copied();
            let standing = Standing {
                connections: connections.unwrap_or(0),
                spare,
                serves: serves(&said, host),
                ..standing(line, runs)
            };
            seen.insert(key, Seen::There(Have::Server(standing)));
        }
        Ok(Observed { seen, complete: true })
    }

    /// The open connections of those that drain.
    fn count(&self, said: &Said, live: Option<&Live>) -> Result<BTreeMap<SocketAddr, u64>, Fault> {
        let drains = said.servers.values().filter_map(kept).filter(|kept| kept.draining);
        let to: BTreeSet<SocketAddr> = drains.map(|kept| kept.server.socket()).collect();
        match live {
            Some(live) if !to.is_empty() => {
                running::connections(live.master, said.pool.protocol == Protocol::Udp, &to)
            }
            _ => Ok(BTreeMap::new()),
        }
    }
}

fn kept(line: &Line) -> Option<&Kept> {
    match line {
        Line::Made(kept) => Some(kept),
        Line::Odd(_) => None,
    }
}

/// Whether it is given work. Whether it answers, nginx tells nobody.
fn works(line: &Line) -> bool {
    kept(line).is_none_or(|kept| !kept.draining && kept.server.weight > 0)
}

fn backs_up(line: &Line) -> bool {
    kept(line).is_some_and(|kept| kept.server.backup)
}

/// How many are at work: backups only where nobody else is.
fn at_work(said: &Said) -> u32 {
    let count = |backup| said.servers.values().filter(|line| works(line) && backs_up(line) == backup).count();
    u32::try_from(Some(count(false)).filter(|n| *n > 0).unwrap_or_else(|| count(true))).unwrap_or(u32::MAX)
}

/// Whether it is one of those.
fn serves(said: &Said, host: &HostName) -> bool {
    let others = || said.servers.values().any(|line| works(line) && !backs_up(line));
    said.servers.get(host).is_some_and(|line| works(line) && !(backs_up(line) && others()))
}

fn standing(line: &Line, runs: bool) -> Standing {
    let kept = kept(line);
    Standing {
        server: kept.map(|kept| kept.server.clone()),
        kept: true,
        runs,
        known: true,
        // Where nginx has not read that yet, it is drained again.
        draining: kept.is_some_and(|kept| kept.draining) && runs,
        backup: None,
        reports: true,
        serves: works(line),
        connections: 0,
        spare: None,
    }
}
