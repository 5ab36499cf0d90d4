//! Which store a URL means.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_client::HttpStore;
use shoal_engine::Fault;
use shoal_store::{MemoryStore, Store};
use shoal_store_sqlite::SqliteStore;

use crate::exit::Failure;

type Opening = futures::future::BoxFuture<'static, Result<Arc<dyn Store>, Fault>>;
type Opener = Arc<dyn Fn(String) -> Opening + Send + Sync>;

/// Schemes that are known, and how to open each.
#[derive(Clone)]
pub(crate) struct Stores(BTreeMap<String, Opener>);

impl Stores {
    /// `sqlite:PATH`, `http://HOST:PORT` and `unix:/PATH` of a server, and `memory:` for trying things out.
    pub(crate) fn new() -> Self {
        let mut stores = Self(BTreeMap::new());
        stores.add("sqlite", |path| async move {
            let what = format!("open the database {path}");
            let store = SqliteStore::open(&path).await.map_err(|e| Fault::new(what, e))?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        });
        for scheme in ["http", "https", "unix"] {
            stores.add(scheme, move |rest| async move {
                let store = HttpStore::new(&format!("{scheme}:{rest}"));
                store
                    .map(|store| Arc::new(store) as Arc<dyn Store>)
                    .map_err(|e| Fault::new("open the host database", e))
            });
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
        self.0.insert(scheme.to_owned(), Arc::new(move |rest| Box::pin(open(rest))));
    }

    pub(crate) async fn open(&self, url: &str) -> Result<Arc<dyn Store>, Failure> {
        let known = || self.0.keys().map(|scheme| format!("{scheme}:")).collect::<Vec<_>>().join(", ");
        let opener = url.split_once(':').and_then(|(scheme, rest)| Some((self.0.get(scheme)?, rest)));
        let Some((opener, rest)) = opener else {
            return Err(Failure::Usage(format!(
                "the store {url:?} is of no known kind; known are {}",
                known()
            )));
        };
        opener(rest.to_owned()).await.map_err(Failure::from)
    }
}
