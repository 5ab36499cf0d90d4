//! From a store's URL to the store.

use std::path::PathBuf;
use std::sync::Arc;

use shoal_client::{Access, BadAddress, HttpStore, Options};
use shoal_store::{MemoryStore, Store, StoreError};
use shoal_store_sqlite::SqliteStore;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a store's URL.
    #[error(
        "{0:?} is not a store: write sqlite:PATH (such as sqlite:/var/lib/shoal/shoal.db), https://HOST:PORT, \
         http://HOST:PORT or unix:/PATH of a server, etcd://HOST:PORT where that is built in, or memory: to try things out"
    )]
    Unknown(String),
    /// Not the address of a server.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// A store that this program was built without.
    #[error(
        "{0}: this program was built without etcd; build it with `cargo build --features etcd` (which needs protoc: \
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
/// `access` says. With the cargo feature `etcd` also
/// `etcd://HOST:PORT[,HOST:PORT…][/NAME]`.
///
/// A file or a database in etcd is made where there is none.
///
/// # Errors
/// Not a URL of a store, a store that is not there yet, or what the store says.
pub async fn open_store(url: &str, access: &Access) -> Result<Arc<dyn Store>, OpenError> {
    open(url, access, true).await
}

/// [`open_store`], but that no database is made in etcd where there is none: a mistyped address is told, not filled.
///
/// # Errors
/// As there.
pub async fn open_existing(url: &str, access: &Access) -> Result<Arc<dyn Store>, OpenError> {
    open(url, access, false).await
}

async fn open(url: &str, access: &Access, make: bool) -> Result<Arc<dyn Store>, OpenError> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| OpenError::Unknown(url.to_owned()))?;
    match (scheme, rest) {
        ("memory", "") => Ok(Arc::new(MemoryStore::new())),
        ("sqlite", path) if !path.is_empty() => open_sqlite(url, path.into()).await,
        ("http" | "https" | "unix", _) => {
            let options = Options { access: access.clone(), ..Options::default() };
            Ok(Arc::new(HttpStore::with(url, options)?))
        }
        ("etcd", _) => open_etcd(url, make).await,
        _ => Err(OpenError::Unknown(url.to_owned())),
    }
}

async fn open_sqlite(url: &str, path: PathBuf) -> Result<Arc<dyn Store>, OpenError> {
    match SqliteStore::open(path).await {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(OpenError::Store { url: url.to_owned(), error }),
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
async fn open_etcd(url: &str, make: bool) -> Result<Arc<dyn Store>, OpenError> {
    use shoal_store_etcd::{EtcdStore, Missing};
    let missing = if make { Missing::Make } else { Missing::Refuse };
    match EtcdStore::open_with(url, missing).await {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(OpenError::Store { url: url.to_owned(), error }),
    }
}

#[cfg(not(feature = "etcd"))]
async fn open_etcd(url: &str, _make: bool) -> Result<Arc<dyn Store>, OpenError> {
    Err(OpenError::Without(url.to_owned()))
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
        let etcd = why("etcd://h1,,h2").await;
        assert!(
            etcd.contains(if cfg!(feature = "etcd") { "cannot open" } else { "--features etcd" }),
            "{etcd}"
        );
    }
}
