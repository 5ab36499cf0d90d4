//! The program with a database and a configuration in a scratch directory, and the zone files there.

#[path = "../../../../tests/agents/scratch.rs"]
mod program;

use std::fs;

pub(crate) use program::{Daemon, Scratch};
use serde_json::json;
use shoal_core::{Document, Edit, Expect, Key};
use shoal_store::Store;

const AGENT: &str = "dns";
const PROGRAM: &str = env!("CARGO_BIN_EXE_shoal-dns");
const FOLDERS: &[&str] = &["zones"];

/// Zone files that nobody checks or loads.
pub(crate) const FILES: &str =
    "[agent.bind]\ndirectory = 'DIR/zones'\nfile = '{zone}'\ncheck = []\nreload = []\n";

impl Scratch {
    /// Lets Shoal have what stands in the way of these names; answers all that did.
    pub(crate) async fn adopt(&self, zone: &str, names: &[&str]) -> Vec<String> {
        let reports = self.store().await.reports().await.unwrap();
        let clashes = reports.iter().find_map(|report| Some(&report.units.get(zone)?.clashes)).unwrap();
        let named = clashes.iter().filter(|clash| names.contains(&&*clash.key));
        let adopt: serde_json::Map<_, _> =
            named.map(|clash| (clash.key.clone(), json!(clash.digest))).collect();
        let key = Key::approval(&AGENT.parse().unwrap(), Some(zone)).unwrap();
        let value = Document::from(json!({ "adopt": adopt }));
        let all = clashes.iter().map(|clash| clash.key.clone()).collect();
        self.commit(vec![Edit::Write { key, value, expect: Expect::Any }]).await;
        all
    }

    pub(crate) fn zone(&self, name: &str) -> String {
        fs::read_to_string(self.path().join("zones").join(name)).unwrap_or_default()
    }
}
