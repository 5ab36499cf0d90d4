//! From a store's URL to the store.

use std::path::PathBuf;
use std::sync::Arc;

use shoal_client::{Access, BadAddress, HttpStore, Options};
use shoal_core::Epoch;
use shoal_store::{Draft, Head, MemoryStore, Store, StoreError, without_password};
use shoal_store_sqlite::{Options as FileOptions, SqliteDraft, SqliteStore};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a store's URL.
    #[error(
        "{0:?} is not a store: write sqlite:PATH (such as sqlite:/var/lib/shoal/shoal.db), https://HOST:PORT, \
         http://HOST:PORT or unix:/PATH of a server, etcds://HOST:PORT or etcd://HOST:PORT, or memory: to try things out"
    )]
    Unknown(String),
    /// Not the address of a server.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// A store that this program was built without.
    #[error(
        "{0}: this program was built without etcd (--no-default-features); build it with `cargo build --features etcd` (which needs protoc: \
         apt install protobuf-compiler libprotobuf-dev), or write sqlite:PATH, or https://HOST:PORT, \
         http://HOST:PORT or unix:/PATH of a server"
    )]
    Without(String),
    /// The store refused.
    #[error("cannot open {url}")]
    Store {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        error: StoreError,
    },
}

/// Opens the store of this URL: `sqlite:PATH`, `memory:`, or the addresses of servers of one database with commas between,
/// each `https://HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`. A server is connected to when it is first asked, and is shown what
/// `access` says. With the cargo feature `etcd`, on by default, also
/// `etcds://[USER@]HOST:PORT[,HOST:PORT…][/NAME]`, and `etcd:` without TLS.
///
/// A file or a database in etcd is made where there is none.
///
/// # Errors
/// Not a URL of a store, a store that is not there yet, or what the store says.
pub async fn open_store(url: &str, access: &Access) -> Result<Arc<dyn Store>, OpenError> {
    open(url, access, How { make: true, ..How::default() }).await
}

/// [`open_store`], but that no database is made in etcd where there is none: a mistyped address is told, not filled.
///
/// # Errors
/// As there.
pub async fn open_existing(url: &str, access: &Access) -> Result<Arc<dyn Store>, OpenError> {
    open(url, access, How::default()).await
}

/// [`open_existing`], for who asks a little and ends. A file that was closed in order is not checked whole for that, but before it is
/// written ([`brief`](shoal_store_sqlite::Options::brief())).
///
/// # Errors
/// As there, and that there is no such file.
pub async fn open_brief(url: &str, access: &Access) -> Result<Arc<dyn Store>, OpenError> {
    open(url, access, How { brief: true, ..How::default() }).await
}

/// [`open_brief`], for who takes what a server knows, which may be older than what was acknowledged. Other stores answer as ever.
///
/// # Errors
/// As there.
pub async fn open_stale(url: &str, access: &Access) -> Result<Arc<dyn Store>, OpenError> {
    open(url, access, How { brief: true, stale: true, ..How::default() }).await
}

/// How a store is opened.
#[derive(Clone, Copy, Default)]
struct How {
    /// Whether a database is made in etcd where there is none.
    make: bool,
    /// Whether a server may answer with what it knew.
    stale: bool,
    /// Whether it is asked a little, and then no more.
    brief: bool,
}

async fn open(url: &str, access: &Access, how: How) -> Result<Arc<dyn Store>, OpenError> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| unknown(url))?;
    match (scheme, rest) {
        ("memory", "") => Ok(Arc::new(MemoryStore::new())),
        ("sqlite", path) if !path.is_empty() => open_sqlite(url, path.into(), how.brief).await,
        ("http" | "https" | "unix", _) => {
            let options = Options { access: access.clone(), stale: how.stale, ..Options::default() };
            Ok(Arc::new(HttpStore::with(url, options)?))
        }
        ("etcd" | "etcds", _) => open_etcd(url, access, how.make).await,
        _ => Err(unknown(url)),
    }
}

fn unknown(url: &str) -> OpenError {
    OpenError::Unknown(without_password(url))
}

async fn open_sqlite(url: &str, path: PathBuf, brief: bool) -> Result<Arc<dyn Store>, OpenError> {
    let options = if brief { FileOptions::brief() } else { FileOptions::default() };
    match SqliteStore::open_with(path, options).await {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(OpenError::Store { url: url.to_owned(), error }),
    }
}

/// Opens the place of this URL for a copy of the database of this epoch: `sqlite:PATH`, or with the cargo feature `etcd`
/// `etcd://HOST:PORT[,HOST:PORT…][/NAME]` or `etcds://…`, where nothing is yet or the unfinished copy of that database.
///
/// # Errors
/// Not such a URL ([`OpenError::Unknown`] also for servers and memory), or what the store says.
pub async fn open_draft(url: &str, of: Epoch, access: &Access) -> Result<Box<dyn Draft>, OpenError> {
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => match SqliteDraft::open(path, of).await {
            Ok(draft) => Ok(Box::new(draft)),
            Err(error) => Err(OpenError::Store { url: url.to_owned(), error }),
        },
        Some(("etcd" | "etcds", _)) => draft_in_etcd(url, of, access).await,
        _ => Err(unknown(url)),
    }
}

/// Begins another life of the database in etcd at this URL, which is to be done when etcd was restored from a snapshot: another epoch, fencing
/// numbers that were never given out, and no leased claim of before.
///
/// # Errors
/// Not such a URL ([`OpenError::Unknown`] also for files, servers and memory), no database there, or what the store says.
pub async fn renew(url: &str, access: &Access) -> Result<Head, OpenError> {
    match url.split_once(':') {
        Some(("etcd" | "etcds", _)) => renew_in_etcd(url, access).await,
        _ => Err(unknown(url)),
    }
}

/// What to say of a database's file that everybody on the machine may read or write.
pub(crate) fn readable_by_all(url: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = url.strip_prefix("sqlite:")?;
    let all = |rest: &&str| {
        std::fs::metadata(format!("{path}{rest}")).is_ok_and(|found| found.permissions().mode() & 0o007 != 0)
    };
    let open: Vec<String> =
        ["", "-wal", "-shm"].into_iter().filter(all).map(|rest| format!("{path}{rest}")).collect();
    (!open.is_empty()).then(|| {
        let files = open.join(" ");
        format!("every user of this machine may read the hashes of passwords and all else in the database: chmod o= {files}")
    })
}

#[cfg(feature = "etcd")]
async fn renew_in_etcd(url: &str, access: &Access) -> Result<Head, OpenError> {
    use shoal_store_etcd::{EtcdStore, Missing};
    let done = async {
        let store = EtcdStore::open_showing(url, Missing::Refuse, &papers(access)).await?;
        store.new_epoch().await?;
        store.head().await
    };
    done.await.map_err(|error| OpenError::Store { url: without_password(url), error })
}

#[cfg(feature = "etcd")]
async fn open_etcd(url: &str, access: &Access, make: bool) -> Result<Arc<dyn Store>, OpenError> {
    use shoal_store_etcd::{EtcdStore, Missing};
    for said in access.exposed() {
        tracing::warn!("{said}");
    }
    let missing = if make { Missing::Make } else { Missing::Refuse };
    match EtcdStore::open_showing(url, missing, &papers(access)).await {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(OpenError::Store { url: without_password(url), error }),
    }
}

/// What is shown to etcd.
#[cfg(feature = "etcd")]
fn papers(access: &Access) -> shoal_store_etcd::Papers {
    let Access { ca, cert, key, password_file, .. } = access.clone();
    shoal_store_etcd::Papers { ca, cert, key, password_file }
}

#[cfg(not(feature = "etcd"))]
async fn open_etcd(url: &str, _: &Access, _make: bool) -> Result<Arc<dyn Store>, OpenError> {
    Err(OpenError::Without(without_password(url)))
}

#[cfg(not(feature = "etcd"))]
async fn renew_in_etcd(url: &str, _: &Access) -> Result<Head, OpenError> {
    Err(OpenError::Without(without_password(url)))
}

#[cfg(feature = "etcd")]
async fn draft_in_etcd(url: &str, of: Epoch, access: &Access) -> Result<Box<dyn Draft>, OpenError> {
    use shoal_store_etcd::EtcdDraft;
    match EtcdDraft::open_showing(url, of, &papers(access)).await {
        Ok(draft) => Ok(Box::new(draft)),
        Err(error) => Err(OpenError::Store { url: without_password(url), error }),
    }
}

#[cfg(not(feature = "etcd"))]
async fn draft_in_etcd(url: &str, _of: Epoch, _: &Access) -> Result<Box<dyn Draft>, OpenError> {
    Err(OpenError::Without(without_password(url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_everybody_reads_is_told() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shoal.db");
        std::fs::write(&path, "").unwrap();
        let said = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            readable_by_all(&format!("sqlite:{}", path.display()))
        };
        assert_eq!((said(0o640), said(0o660)), (None, None));
        assert!(said(0o644).unwrap().ends_with(&format!("chmod o= {}", path.display())));
    }

    #[tokio::test]
    async fn urls_say_what_they_are() {
        let access = Access::default();
        open_store("memory:", &access).await.unwrap();
        let why = async |url| open_store(url, &access).await.map(|_| ()).unwrap_err().to_string();
        assert!(why("shoal.db").await.contains("sqlite:PATH"));
        assert!(why("sqlite:").await.contains("sqlite:PATH"));
        assert!(why("nonsense:x").await.contains("https://HOST:PORT"));
        open_store("http://127.0.0.1:1,unix:/nowhere", &access).await.unwrap();
        assert!(why("http://127.0.0.1:1,x").await.contains("\"x\""));
        for url in ["etcd://h1,,h2", "etcds://h1,,h2"] {
            let etcd = why(url).await;
            let expected = if cfg!(feature = "etcd") { "cannot open" } else { "--features etcd" };
            assert!(etcd.contains(expected), "{etcd}");
        }
        // Also in a program without etcd, and of what is no store at all.
        for url in ["etcd://shoal:hunter2@h1", "etcds://shoal:hunter2@h1/x", "ectd://shoal:hunter2@h1"] {
            let draft = open_draft(url, Epoch(7), &access).await.map(|_| ()).unwrap_err().to_string();
            for told in [why(url).await, draft] {
                assert!(told.contains("://shoal:…@h1"), "{told}");
                assert!(!told.contains("hunter2"), "{told}");
            }
        }
    }
}
