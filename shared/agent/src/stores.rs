//! Which store a URL means.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_client::{Access, HttpStore, Options as Http};
use shoal_engine::Fault;
use shoal_store::{MemoryStore, Store, without_password};
use shoal_store_sqlite::{Options, SqliteStore};

use crate::exit::Failure;

type Opening = futures::future::BoxFuture<'static, Result<Arc<dyn Store>, Fault>>;
type Opener = Arc<dyn Fn(String, Missing, Access) -> Opening + Send + Sync>;

/// What to do where there is no database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make one and say so: a daemon may be there before anything was written.
    Make,
    /// Say so: it is a mistyped path.
    Refuse,
}

/// Schemes that are known, and how to open each.
#[derive(Clone)]
pub(crate) struct Stores(BTreeMap<String, Opener>);

impl Stores {
    /// `sqlite:PATH`, `https://HOST:PORT`, `http://HOST:PORT` and `unix:/PATH` of a server, `etcd://HOST,HOST` and `etcds://HOST,HOST` unless
    /// this was built without, and `memory:` for trying things out.
    pub(crate) fn new() -> Self {
        let mut stores = Self(BTreeMap::new());
        stores.0.insert("sqlite".to_owned(), Arc::new(|path, missing, _| Box::pin(sqlite(path, missing))));
        for scheme in ["http", "https", "unix"] {
            let open = move |rest: String, _, access| -> Opening {
                Box::pin(async move { served(&format!("{scheme}:{rest}"), access) })
            };
            stores.0.insert(scheme.to_owned(), Arc::new(open));
        }
        #[cfg(feature = "etcd")]
        for scheme in ["etcd", "etcds"] {
            let open = move |rest: String, missing, access| -> Opening {
                Box::pin(async move { etcd(&format!("{scheme}:{rest}"), missing, access).await })
            };
            stores.0.insert(scheme.to_owned(), Arc::new(open));
        }
        stores.add("memory", |_| async { Ok(Arc::new(MemoryStore::new()) as Arc<dyn Store>) });
        stores
    }

    /// One more scheme. The opener gets what follows the colon.
    pub(crate) fn add<F, Fut>(&mut self, scheme: &str, open: F)
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Arc<dyn Store>, Fault>> + Send + 'static,
    {
        self.0.insert(scheme.to_owned(), Arc::new(move |rest, _, _| Box::pin(open(rest))));
    }

    /// The store of this URL; where it is behind a server, that is shown what `access` says.
    pub(crate) async fn open(
        &self,
        url: &str,
        missing: Missing,
        access: &Access,
    ) -> Result<Arc<dyn Store>, Failure> {
        let opener = url.split_once(':').and_then(|(scheme, rest)| Some((self.0.get(scheme)?, rest)));
        if let Some((opener, rest)) = opener {
            return opener(rest.to_owned(), missing, access.clone()).await.map_err(Failure::from);
        }
        let url = without_password(url);
        let known = self.0.keys().map(|scheme| format!("{scheme}:")).collect::<Vec<_>>().join(", ");
        Err(Failure::Usage(if ["etcd:", "etcds:"].iter().any(|scheme| url.starts_with(scheme)) {
            format!(
                "{url}: this program was built without etcd (--no-default-features); build it with `cargo build --features etcd` (which needs \
                 protoc: apt install protobuf-compiler libprotobuf-dev), or give another store; known are {known}"
            )
        } else {
            format!("the store {url:?} is of no known kind; known are {known}")
        }))
    }
}

fn served(addresses: &str, access: Access) -> Result<Arc<dyn Store>, Fault> {
    let store = HttpStore::with(addresses, Http { access, ..Http::default() });
    store.map(|store| Arc::new(store) as Arc<dyn Store>).map_err(|e| Fault::new("open the host database", e))
}

async fn sqlite(path: String, missing: Missing) -> Result<Arc<dyn Store>, Fault> {
    let refuse = missing == Missing::Refuse;
    let new = match std::path::Path::new(&path).metadata() {
        // Nothing was ever written to it, or somebody cut it to nothing.
        Ok(found) => found.is_file() && found.len() == 0,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if refuse && new && std::path::Path::new(&path).exists() {
        return Err(Fault::new(format!("open the database {path}"), "it is empty, not even a database").next(
            "mend --store, SHOAL_STORE or `store` in the configuration; if it was one, restore a backup (`shoal database \
             restore BACKUP --replace`)",
        ));
    }
    let options = if refuse { Options::existing() } else { Options::default() };
    let opened = SqliteStore::open_with(&path, options).await;
    let store = opened.map_err(|e| match new && refuse {
        true => Fault::new(format!("open the database {path}"), e).next(
            "mend --store, SHOAL_STORE or `store` in the configuration, or make one with `shoal apply`",
        ),
        false => Fault::new(format!("open the database {path}"), e),
    })?;
    if new {
        tracing::warn!(
            "there was no database at {path}, or an empty file: made an empty one; if that is not where it should be, mend --store"
        );
    }
    Ok(Arc::new(store))
}

#[cfg(feature = "etcd")]
async fn etcd(address: &str, missing: Missing, access: Access) -> Result<Arc<dyn Store>, Fault> {
    use shoal_store_etcd::{EtcdStore, Missing as There, Papers};
    for said in access.exposed() {
        tracing::warn!("{said}");
    }
    let missing = match missing {
        Missing::Make => There::Make,
        Missing::Refuse => There::Refuse,
    };
    let Access { ca, cert, key, password_file, .. } = access;
    let opened = EtcdStore::open_showing(address, missing, &Papers { ca, cert, key, password_file }).await;
    opened
        .map(|store| Arc::new(store) as Arc<dyn Store>)
        .map_err(|e| Fault::new(format!("open the database {}", without_password(address)), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_opened_is_called_what_it_is() {
        let stores = Stores::new();
        let access = Access::default();
        let why =
            async |url| stores.open(url, Missing::Refuse, &access).await.map(drop).unwrap_err().to_string();
        for address in ["etcd://h1,,h2", "etcds://h1,,h2"] {
            let etcd = why(address).await;
            let expected = if cfg!(feature = "etcd") { "open the database" } else { "build it with" };
            assert!(etcd.contains(expected), "{etcd}");
        }
        // Also in a program without etcd, and of what is no store at all.
        for address in ["etcd://shoal:hunter2@h1", "etcds://shoal:hunter2@h1/x", "ectd://shoal:hunter2@h1"] {
            let told = why(address).await;
            assert!(told.contains("://shoal:…@h1") && !told.contains("hunter2"), "{told}");
        }
        let unknown = why("shoal.db").await;
        assert!(unknown.contains("no known kind") && unknown.contains("sqlite:"), "{unknown}");
        assert!(
            unknown.contains("https:") && why("https:x").await.contains("https://HOST:PORT"),
            "{unknown}"
        );
    }
}
