//! What the files of all pools say of hosts, kept from one look to the next: a change of one pool reads no file that nobody changed.
//!
//! A file is told by its number, its size and the moment of its last change, which nobody can set. What was changed a moment before it was
//! read may be changed once more within that moment, so it is read again until it has rested.
//!
//! A file that cannot be read, or that says nothing that can be understood, is odd. It is its own pool's fault; of others it only says
//! that nobody knows whether the hosts that it names serve there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use shoal_agent::HostName;

use super::file::{self, Dialect, Line};

/// How old the last change of a file is that is not read again: longer than any file system's idea of a moment.
const RESTED: Duration = Duration::from_secs(2);

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Index {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    files: BTreeMap<PathBuf, (Stamp, Arc<Text>)>,
    /// How many files were read, for tests.
    read: u64,
}

/// Tells a file, and what was written in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    octets: u64,
    changed: (i64, i64),
}

/// What one file says.
#[derive(Debug)]
pub(super) struct Text {
    /// Its name, in the dialects that give it one; nothing where it cannot be read.
    pub(super) digest: Option<String>,
    /// Its servers, and whether each of them drains.
    pub(super) servers: Result<BTreeMap<HostName, bool>, Odd>,
    /// All of it is as Shoal made it.
    pub(super) as_made: bool,
}

/// A file of which nobody knows what it says.
#[derive(Debug)]
pub(super) struct Odd {
    pub(super) why: String,
    /// What stands there, where that can be read.
    pub(super) text: Option<String>,
}

impl Odd {
    /// Whether it may say something of a host.
    pub(super) fn may_name(&self, host: &HostName) -> bool {
        self.text.as_ref().is_none_or(|text| text.contains(host.as_str()))
    }
}

/// How a host stands in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Serving,
    Draining,
    /// Nobody knows, because the pool's file is odd.
    Unknown,
}

impl Text {
    fn read<D: Dialect>(dialect: &D, name: &str, path: &Path) -> Self {
        let odd =
            |why: String, text, digest| Self { digest, servers: Err(Odd { why, text }), as_made: false };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => return odd(e.to_string(), None, None),
        };
        let digest = dialect.digest(&text);
        let said = match file::read(dialect, name, &text) {
            Ok(said) => said,
            Err(why) => return odd(why, Some(text), digest),
        };
        let made = said.servers.values().all(|line| matches!(line, Line::Made(_)));
        let drains = |line: Line| matches!(line, Line::Made(kept) if kept.draining);
        let servers = said.servers.into_iter().map(|(host, line)| (host, drains(line))).collect();
        Self { digest, servers: Ok(servers), as_made: said.whole && made }
    }

    /// What the pool's load balancer says, where its file says nothing.
    pub(super) fn of_servers(servers: BTreeMap<HostName, bool>) -> Self {
        Self { digest: None, servers: Ok(servers), as_made: false }
    }

    /// How these hosts stand in it; those that are not in it are left out. Costs the smaller of the two.
    pub(super) fn roles<'h>(&self, hosts: &'h BTreeSet<HostName>) -> Vec<(&'h HostName, Role)> {
        let role = |drains: &bool| if *drains { Role::Draining } else { Role::Serving };
        match &self.servers {
            Ok(servers) if servers.len() < hosts.len() => {
                servers.iter().filter_map(|(host, drains)| Some((hosts.get(host)?, role(drains)))).collect()
            }
            Ok(servers) => hosts.iter().filter_map(|host| Some((host, role(servers.get(host)?)))).collect(),
            Err(odd) => {
                hosts.iter().filter(|host| odd.may_name(host)).map(|host| (host, Role::Unknown)).collect()
            }
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let data = std::fs::metadata(path)?;
        Ok(Self {
            file: (data.dev(), data.ino()),
            octets: data.len(),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }

    /// Whether nothing can be written any more that has this stamp.
    fn rests(&self, now: SystemTime) -> bool {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or(0));
        since >= changed + RESTED + Duration::from_secs(1)
    }
}

impl Index {
    /// What a pool's file says; `None`: it has none.
    pub(super) fn look<D: Dialect>(&self, dialect: &D, name: &str, path: &Path) -> Option<Arc<Text>> {
        // Before it is read: what is written meanwhile has another.
        let stamp = match Stamp::of(path) {
            Ok(stamp) => Some(stamp),
            Err(e) if e.kind() == ErrorKind::NotFound => return None,
            Err(_) => None,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(stamp), Some((before, text))) = (&stamp, known.files.get(path))
            && stamp == before
        {
            return Some(text.clone());
        }
        let now = SystemTime::now();
        known.read += 1;
        let text = Arc::new(Text::read(dialect, name, path));
        match stamp.filter(|stamp| stamp.rests(now)) {
            Some(stamp) => drop(known.files.insert(path.to_owned(), (stamp, text.clone()))),
            None => drop(known.files.remove(path)),
        }
        Some(text)
    }

    /// What these files say, which are those of all pools: of others nothing is kept.
    pub(super) fn all<D: Dialect>(
        &self,
        dialect: &D,
        files: &[(String, PathBuf)],
    ) -> Vec<(String, Arc<Text>)> {
        let look = |(name, path): &(String, PathBuf)| Some((name.clone(), self.look(dialect, name, path)?));
        let all = files.iter().filter_map(look).collect();
        let paths: BTreeSet<&PathBuf> = files.iter().map(|(_, path)| path).collect();
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .files
            .retain(|path, _| paths.contains(path));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Pool, Server};
    use crate::target::file::{Kept, Said};

    struct Plain;

    impl Dialect for Plain {
        const LINE: &'static str = "server ";

        fn head(&self, name: &str, _: &Pool) -> String {
            format!("pool {name}\n")
        }

        fn server(&self, _: &Pool, kept: &Kept) -> String {
            format!("server {}", kept.host)
        }

        fn tail(&self, _: &str, _: &Pool, _: bool) -> String {
            String::new()
        }
    }

    fn text(name: &str, hosts: &[&str]) -> String {
        let pool = serde_json::json!({"protocol": "http", "balance": "round_robin", "slow_start": 0, "least": 1, "frontends": []});
        let server =
            Server { address: [192, 0, 2, 1].into(), port: 80, weight: 100, backup: false, drain: 60 };
        let line = |host: &&str| {
            let host: HostName = host.parse().unwrap();
            let kept = Kept {
                host: host.clone(),
                server: server.clone(),
                draining: host.as_str() == "d.example.com",
            };
            (host, Line::Made(kept))
        };
        let said = Said {
            pool: serde_json::from_value(pool).unwrap(),
            whole: true,
            servers: hosts.iter().map(line).collect(),
        };
        file::text(&Plain, name, &said)
    }

    fn read(index: &Index) -> u64 {
        index.known.lock().unwrap().read
    }

    #[test]
    fn a_change_of_one_pool_reads_its_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> =
            (0..50).map(|n| (format!("p{n}"), dir.path().join(format!("p{n}.cfg")))).collect();
        for (name, path) in &files {
            std::fs::write(path, text(name, &["a.example.com", "d.example.com"])).unwrap();
        }
        let index = Index::default();
        index.all(&Plain, &files);
        assert_eq!(read(&index), 50);
        // They were written a moment ago, and may be written again without another stamp.
        index.all(&Plain, &files);
        assert_eq!(read(&index), 100);
        std::thread::sleep(RESTED + Duration::from_secs(2));
        index.all(&Plain, &files);
        assert_eq!(read(&index), 150);
        shoal_agent::files::put(&files[7].1, Some(&text("p7", &["b.example.com"]))).unwrap();
        let all = index.all(&Plain, &files);
        assert_eq!(read(&index), 151);
        let b = BTreeSet::from(["b.example.com".parse().unwrap()]);
        let with_b: Vec<_> = all.iter().filter(|(_, text)| !text.roles(&b).is_empty()).collect();
        assert!(with_b.len() == 1 && with_b[0].0 == "p7");
        std::fs::remove_file(&files[8].1).unwrap();
        assert_eq!((index.all(&Plain, &files).len(), read(&index)), (49, 152));
        index.all(&Plain, &files[..2]);
        assert_eq!(index.known.lock().unwrap().files.len(), 2);
    }

    #[test]
    fn an_odd_file_says_only_that_nobody_knows() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let index = Index::default();
        std::fs::write(path("good"), text("good", &["a.example.com", "d.example.com"])).unwrap();
        let broken = text("broken", &["a.example.com"]).replacen("Shoal", "I", 1);
        std::fs::write(path("broken"), broken).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        let hosts: BTreeSet<HostName> =
            ["a.example.com", "b.example.com", "d.example.com"].map(|host| host.parse().unwrap()).into();
        let said = |name: &str| {
            let text = index.look(&Plain, name, &path(name))?;
            let roles = text.roles(&hosts);
            Some(roles.into_iter().map(|(host, role)| (host.to_string(), role)).collect::<Vec<_>>())
        };
        let (a, b, d) = ("a.example.com".to_owned(), "b.example.com".to_owned(), "d.example.com".to_owned());
        assert_eq!(said("good").unwrap(), [(a.clone(), Role::Serving), (d.clone(), Role::Draining)]);
        assert_eq!(said("broken").unwrap(), [(a.clone(), Role::Unknown)]);
        assert_eq!(said("folder").unwrap(), [a, b, d].map(|host| (host, Role::Unknown)));
        assert_eq!(said("none"), None);
    }
}
