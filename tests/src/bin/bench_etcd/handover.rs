//! Units from one instance of an agent to another: when their holder is killed, and when it is told to stop.
//!
//! Two DNS agents share zones in files through one server on etcd. Time counts until the other one holds them all, by what etcd says, and until it
//! has made a change that was committed just after the fault.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shoal_core::{Change, Key, TagName};
use shoal_store::Store;
use shoal_store_etcd::EtcdStore;
use shoal_tests::binaries::binary;
use shoal_tests::crowd::commit;
use shoal_tests::figure::Figure;
use shoal_tests::process::{Process, tied};
use shoal_tests::server::Server;
use shoal_tests::shape;

use crate::Options;
use crate::etcd::Etcd;

const ZONES: usize = 20;
const KILLS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

struct World<'a> {
    dir: &'a Path,
    server: Server,
    store: EtcdStore,
    lease: u64,
    serial: u32,
}

pub(crate) async fn measure(etcd: &Etcd, dir: &Path, options: &Options) -> Result<()> {
    std::fs::create_dir(dir.join("zones")).context("a folder")?;
    let address = etcd.address("handover");
    let store = EtcdStore::open(&address).await?;
    let server = Server::start(dir, &address)?;
    let mut world = World { dir, server, store, lease: options.lease, serial: 0 };
    for zone in 0..ZONES {
        world.change(zone).await?;
    }
    let (mut first, _second) = (world.start("a")?, world.start("b")?);
    let (mut moved, mut made) = (Vec::new(), Vec::new());
    for _ in 0..KILLS {
        let zone = world.shared().await?;
        let began = Instant::now();
        first.kill();
        let (holds, done) = world.taken_over(zone, began).await?;
        moved.push(holds);
        made.push(done);
        first = world.start("a")?;
    }
    let zone = world.shared().await?;
    let began = Instant::now();
    first.signal("TERM")?;
    let stopped = world.taken_over(zone, began).await?;
    first.terminate(PATIENCE)?;
    let lease = options.lease as f64;
    Figure::median("handover_after_kill", "s", moved)
        .on("etcd")
        .beside("until a change is made", Figure::median("", "s", made).value)
        .beside("lease", lease)
        .goal(2.0 * lease)
        .print();
    Figure::median("handover_after_stop", "s", vec![stopped.0])
        .on("etcd")
        .beside("until a change is made", stopped.1)
        .beside("lease", lease)
        .goal(lease)
        .print();
    Ok(())
}

impl World<'_> {
    fn start(&self, name: &str) -> Result<Process> {
        let file = self.dir.join(format!("{name}.toml"));
        let config = format!(
            "name = '{name}'\nclaim = '{}s'\n[agent.bind]\ndirectory = '{}/zones'\nfile = '{{zone}}'\ncheck = []\nreload = []\n",
            self.lease,
            self.dir.display()
        );
        std::fs::write(&file, config).context("a configuration")?;
        let mut command = tied(binary("shoal-dns")?);
        command.args(["--store", &self.server.address(), "--config"]).arg(file);
        Process::start(name, self.dir, &mut command)
    }

    /// Gives a zone another address, and answers that.
    async fn change(&mut self, zone: usize) -> Result<String> {
        self.serial += 1;
        let address = format!("10.9.{}.{}", self.serial >> 8, self.serial & 255);
        let tag: TagName = format!("dns/z{zone}.example").parse()?;
        let records = json!([{"name": "ns1", "type": "A", "data": "192.0.2.53"},
            {"name": "www", "type": "A", "data": address}]);
        let document = json!({"soa": {"primary": "ns1"}, "static": records});
        let change = Change::put(Key::tag(&tag), shape::tag_record(&document));
        self.store.commit(commit(vec![change])).await?;
        Ok(address)
    }

    /// Who holds each zone, by the names of the instances.
    async fn holders(&self) -> Result<BTreeMap<String, String>> {
        let claims = self.store.claims("unit/dns/").await?;
        let holder = |holder: &str| holder.split('/').next().unwrap_or_default().to_owned();
        Ok(claims.iter().map(|claim| (claim.name.clone(), holder(&claim.holder))).collect())
    }

    /// Waits until both have a third of the zones at least and all are held, and answers one that the first has.
    async fn shared(&self) -> Result<usize> {
        let began = Instant::now();
        loop {
            let held = self.holders().await?;
            let of = |name: &str| held.values().filter(|holder| *holder == name).count();
            let (a, b) = (of("a"), of("b"));
            let has = |zone: &usize| held.get(&unit(*zone)).is_some_and(|holder| holder == "a");
            if let Some(zone) = (0..ZONES).find(has)
                && a.min(b) >= ZONES / 3
                && a + b == ZONES
                && self.written()
            {
                return Ok(zone);
            }
            ensure!(began.elapsed() < PATIENCE, "of {ZONES} zones one has {a}, the other {b}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether every zone has its file: else what is done first is not a hand-over.
    fn written(&self) -> bool {
        (0..ZONES).all(|zone| self.dir.join("zones").join(format!("z{zone}.example")).exists())
    }

    /// Changes the zone, which its holder of before does not any more; answers after how many seconds the other one holds all, and has made the
    /// change.
    async fn taken_over(&mut self, zone: usize, began: Instant) -> Result<(f64, f64)> {
        let address = self.change(zone).await?;
        let file = self.dir.join("zones").join(format!("z{zone}.example"));
        let (mut holds, mut made) = (None, None);
        loop {
            let held = self.holders().await?;
            if held.len() == ZONES && held.values().all(|holder| holder == "b") {
                holds.get_or_insert_with(|| began.elapsed().as_secs_f64());
            }
            if std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&address)) {
                made.get_or_insert_with(|| began.elapsed().as_secs_f64());
            }
            if let (Some(holds), Some(made)) = (holds, made) {
                return Ok((holds, made));
            }
            ensure!(began.elapsed() < PATIENCE, "after {PATIENCE:?} the zones are held so: {held:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What is claimed for a zone.
fn unit(zone: usize) -> String {
    format!("unit/dns/z{zone}.example")
}
