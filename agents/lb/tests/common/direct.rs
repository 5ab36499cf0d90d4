//! The target without a database: a batch is given to it as the engine would, and what it answers is nobody's.

use std::sync::Arc;

use serde_json::Value;
use shoal_agent::{Applied, Batch, Clock, Edit, Epoch, Fault, Fence, Moment, Target as _, Unit, Why};
use shoal_core::Revision;
use shoal_lb::{Balancer, Have, Item, Key, Lb, Settings};

use super::HaProxy;

/// The target.
pub(crate) struct Direct {
    pub(crate) balancer: Balancer,
    pub(crate) fence: Fence,
    owner: std::path::PathBuf,
}

impl Direct {
    /// Opens it; `more` is put at the end of its configuration.
    pub(crate) fn open(haproxy: &HaProxy, more: &str) -> Self {
        Self::of(&(haproxy.table("") + more), &haproxy.pools())
    }

    /// Opens it with this configuration, which names this folder.
    pub(crate) fn of(table: &str, pools: &std::path::Path) -> Self {
        let table: toml::Table = toml::from_str(table).unwrap();
        let settings: Settings = table["agent"].clone().try_into().unwrap();
        let (_, balancer) = settings.open().unwrap();
        let clock = Arc::new(Still);
        let fence = Fence { number: 1, not_after: Moment::MAX, epoch: Epoch(1), clock };
        Self { balancer, fence, owner: pools.join(".shoal-database") }
    }

    /// Makes these changes, in a folder that is another database's before and after.
    pub(crate) async fn apply(&self, pool: &str, changes: Vec<Edit<Lb>>) -> Result<Applied<Lb>, Fault> {
        let batch = Batch { changes, after: Vec::new(), revision: Revision(1) };
        let owner = std::fs::read(&self.owner).ok();
        let _ = std::fs::remove_file(&self.owner);
        let applied = self.balancer.apply(&Unit::from(pool), &batch, &self.fence).await;
        let _ = std::fs::remove_file(&self.owner);
        if let Some(owner) = owner {
            std::fs::write(&self.owner, owner).unwrap();
        }
        applied
    }

    /// Takes a pool away.
    pub(crate) async fn remove_pool(&self, pool: &str) -> Result<Applied<Lb>, Fault> {
        let from = Some(Have::Pool { pool: None, runs: true });
        self.apply(pool, vec![edit(pool, None, "remove", from, None, Value::Null)]).await
    }
}

/// One change.
pub(crate) fn edit(
    pool: &str,
    host: Option<&str>,
    verb: &'static str,
    from: Option<Have>,
    to: Option<Item>,
    memo: Value,
) -> Edit<Lb> {
    let host = host.map(|host| host.parse().unwrap());
    let key = Key { pool: format!("lb/{pool}").parse().unwrap(), host, at: None };
    Edit { key, verb, from, to, memo, token: String::new(), because: Why::Wanted(Revision(1)) }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        0
    }
}
