//! What the database last said of each node, in files that only their owner can read and write.
//!
//! One file a node, replaced whole. Its first line says of which database, namespace and node it is, when it was, and what the rest must
//! hash to, so that an answer of another database, a torn file or one that somebody edited is none. The name of the file is the node's, which
//! is checked to be a host name: it holds no `/` and is not `..`.

use std::fs::{self, DirBuilder};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The largest answer that is kept and read.
const MAX: u64 = 4 << 20;
/// Where root keeps it.
const SYSTEM: &str = "/var/cache/shoal/enc";

/// The folder.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// What an answer is of.
pub(super) struct Of<'a> {
    pub(super) store: &'a str,
    pub(super) namespace: &'a str,
    pub(super) node: &'a str,
}

/// The first line of a file, behind `# `.
#[derive(Serialize, Deserialize)]
struct Head {
    store: String,
    namespace: String,
    node: String,
    at: Timestamp,
    sha256: String,
}

impl Cache {
    /// The folder, which is made where it is not there. It has to be its user's own, and writable for nobody else: what stands in
    /// it decides what runs on nodes.
    pub(super) fn open(dir: Option<&Path>) -> Result<Self, String> {
        let dir = dir.map_or_else(usual, |dir| Ok(dir.to_owned()))?;
        let failed = |error: std::io::Error| format!("the folder {} cannot be used: {error}", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        let found = fs::symlink_metadata(&dir).map_err(failed)?;
        let refused = |why: &str| Err(format!("the folder {} is not used: {why}", dir.display()));
        if !found.is_dir() {
            return refused("it is a link; name the folder itself");
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return refused("it belongs to another user");
        }
        if found.mode() & 0o022 != 0 {
            return refused("others may write into it (chmod go-w)");
        }
        Ok(Self { dir })
    }

    /// Keeps an answer.
    pub(super) fn keep(&self, of: &Of<'_>, yaml: &str, now: Timestamp) -> Result<(), String> {
        let failed =
            |error: std::io::Error| format!("{} cannot be written: {error}", self.file(of).display());
        if yaml.len() as u64 > MAX {
            return Err(format!("it has more than {MAX} octets"));
        }
        let head = Head {
            store: of.store.to_owned(),
            namespace: of.namespace.to_owned(),
            node: of.node.to_owned(),
            at: now,
            sha256: digest(yaml),
        };
        let head = serde_json::to_string(&head).map_err(|e| e.to_string())?;
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.dir).map_err(failed)?;
        file.write_all(format!("# {head}\n{yaml}").as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(self.file(of)).map_err(|e| failed(e.error))?;
        Ok(())
    }

    /// Keeps nothing of it any more.
    pub(super) fn forget(&self, of: &Of<'_>) {
        let _ = fs::remove_file(self.file(of));
    }

    /// What was kept, and how long ago; or why there is nothing to be used.
    pub(super) fn find(
        &self,
        of: &Of<'_>,
        now: Timestamp,
        most: Duration,
    ) -> Result<(String, Duration), String> {
        let path = self.file(of);
        let nothing = |why: &str| format!("nothing can be used of what was kept ({}: {why})", path.display());
        let mut text = String::new();
        match fs::File::open(&path) {
            Ok(file) => file.take(2 * MAX).read_to_string(&mut text).map_err(|e| nothing(&e.to_string()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("nothing was ever kept of it (in {})", self.dir.display()));
            }
            Err(e) => return Err(nothing(&e.to_string())),
        };
        let parts = text.strip_prefix("# ").and_then(|text| text.split_once('\n'));
        let (head, yaml) = parts.ok_or_else(|| nothing("it has no first line"))?;
        let head: Head = serde_json::from_str(head).map_err(|_| nothing("its first line is another"))?;
        if (head.store.as_str(), head.namespace.as_str(), head.node.as_str())
            != (of.store, of.namespace, of.node)
        {
            return Err(nothing("it is of another database, namespace or node"));
        }
        if head.sha256 != digest(yaml) {
            return Err(nothing("it is not as it was written"));
        }
        // A clock that was set back does not make it younger.
        let age = now.duration_since(head.at).unsigned_abs();
        if age > most {
            return Err(nothing(&format!(
                "it is {} old, and at most {} is allowed",
                super::shown(age),
                super::shown(most)
            )));
        }
        Ok((yaml.to_owned(), age))
    }

    fn file(&self, of: &Of<'_>) -> PathBuf {
        self.dir.join(of.node)
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Where it is if nobody says.
fn usual() -> Result<PathBuf, String> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(SYSTEM));
    }
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("shoal/enc")).ok_or_else(|| {
        "there is no folder to keep it in (no HOME): name one with --cache or SHOAL_ENC_CACHE".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const OF: Of<'static> = Of { store: "sqlite:a.db", namespace: "puppet", node: "web1.example.com" };
    const HOUR: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn what_is_kept_is_found_with_its_age() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("a/b");
        let cache = Cache::open(Some(&inside)).unwrap();
        assert_eq!(fs::metadata(&inside).unwrap().mode() & 0o777, 0o700);
        assert!(cache.find(&OF, at(0), HOUR).unwrap_err().contains("nothing was ever kept"));
        cache.keep(&OF, "---\nclasses: {}\n", at(0)).unwrap();
        cache.keep(&OF, "---\nclasses: {a: {}}\n", at(10)).unwrap();
        let (yaml, age) = cache.find(&OF, at(70), HOUR).unwrap();
        assert_eq!((yaml.as_str(), age.as_secs()), ("---\nclasses: {a: {}}\n", 60));
        assert_eq!(fs::metadata(inside.join(OF.node)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 1, "no candidate is left");
        // Too old, and as far in the future.
        for now in [at(10 + 3601), at(10 - 3601)] {
            assert!(cache.find(&OF, now, HOUR).unwrap_err().contains("1 h 0 min old"), "{now}");
        }
        cache.forget(&Of { node: "web2.example.com", ..OF });
        for other in [Of { store: "sqlite:b.db", ..OF }, Of { namespace: "p", ..OF }] {
            assert!(cache.find(&other, at(70), HOUR).unwrap_err().contains("of another database"));
        }
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&dir.path().join("own"))).unwrap();
        cache.keep(&OF, "---\n", at(0)).unwrap();
        cache.forget(&OF);
        assert!(cache.find(&OF, at(0), HOUR).unwrap_err().contains("nothing was ever kept"));
    }

    #[test]
    fn what_was_torn_or_edited_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        cache.keep(&OF, "---\nclasses: {a: {}}\n", at(0)).unwrap();
        let file = dir.path().join(OF.node);
        let whole = fs::read_to_string(&file).unwrap();
        for bad in ["", "---\n", "# {}\n---\n", &whole[..whole.len() - 3], &whole.replace("{a:", "{b:")] {
            fs::write(&file, bad).unwrap();
            assert!(cache.find(&OF, at(0), HOUR).unwrap_err().contains("nothing can be used"), "{bad:?}");
        }
    }

    #[test]
    fn a_folder_that_others_write_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (own, link) = (dir.path().join("own"), dir.path().join("link"));
        Cache::open(Some(&own)).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(Cache::open(Some(&own)).unwrap_err().contains("chmod go-w"));
        fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&own, &link).unwrap();
        assert!(Cache::open(Some(&link)).unwrap_err().contains("it is a link"));
        fs::write(dir.path().join("file"), "x").unwrap();
        assert!(Cache::open(Some(&dir.path().join("file"))).unwrap_err().contains("cannot be used"));
    }
}
