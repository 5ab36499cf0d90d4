//! From a store's URL to the store.

use std::path::PathBuf;
use std::sync::Arc;

use shoal_store::{MemoryStore, Store, StoreError};
use shoal_store_sqlite::SqliteStore;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a store's URL.
    #[error(
        "{0:?} is not a store: write sqlite:PATH (such as sqlite:/var/lib/shoal/shoal.db), or memory: to try things out"
    )]
    Unknown(String),
    /// A store that this program does not have yet.
    #[error(
        "{url}: this program cannot reach a store through {how} yet; open the file itself with sqlite:PATH on the machine of the server"
    )]
    NotYet {
        /// What was asked for.
        url: String,
        /// Through what.
        how: &'static str,
    },
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

/// Opens the store of this URL: `sqlite:PATH` or `memory:`.
///
/// # Errors
/// Not a URL of a store, a store that is not there yet, or what the store says.
pub async fn open_store(url: &str) -> Result<Arc<dyn Store>, OpenError> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| OpenError::Unknown(url.to_owned()))?;
    match (scheme, rest) {
        ("memory", "") => Ok(Arc::new(MemoryStore::new())),
        ("sqlite", path) if !path.is_empty() => open_sqlite(url, path.into()).await,
        ("http" | "https" | "unix", _) => Err(OpenError::NotYet { url: url.to_owned(), how: "a server" }),
        ("etcd", _) => Err(OpenError::NotYet { url: url.to_owned(), how: "etcd" }),
        _ => Err(OpenError::Unknown(url.to_owned())),
    }
}

async fn open_sqlite(url: &str, path: PathBuf) -> Result<Arc<dyn Store>, OpenError> {
    match SqliteStore::open(path).await {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(OpenError::Store { url: url.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_say_what_they_are() {
        open_store("memory:").await.unwrap();
        let why = async |url| open_store(url).await.map(|_| ()).unwrap_err().to_string();
        assert!(why("shoal.db").await.contains("sqlite:PATH"));
        assert!(why("sqlite:").await.contains("sqlite:PATH"));
        assert!(why("https://hostdb.example").await.contains("yet"));
        assert!(why("etcd://h1,h2").await.contains("etcd"));
    }
}
