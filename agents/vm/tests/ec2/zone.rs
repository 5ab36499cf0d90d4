//! An availability zone in what answers as AWS does, with the real agent, the real target and the real provider; the database and the
//! clock are a model, so that the agent can be killed within any of its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_agent::{
    Applied, Base, Batch, Fault, Fence, HostName, Millis, Nature, Observed, Scope, Target, Unit,
};
use shoal_engine::Verdict;
use shoal_engine::model::Place;
use shoal_store::MemoryStore;
use shoal_vm::target::ec2::{Ec2, Ec2Settings};
use shoal_vm::{Key, Machines, Vm};
use tokio::runtime::Runtime;

use super::moto::Moto;
use super::room::{ROOM, Room, name};

/// How long an instance may be there before a look shows it, in milliseconds: what the provider says.
pub(crate) const UNSEEN: Millis = 600_000;

/// Whose account it is.
const ACCOUNT: &str = "123456789012";

/// One instance, as anybody sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) spot: bool,
    /// All that is said of it.
    pub(crate) text: String,
}

/// A call of somebody else's.
pub(crate) fn call(moto: &Moto, action: &str, more: &[(&str, &str)]) -> (u16, String) {
    let mut body = format!("Action={action}&Version=2016-11-15");
    for (name, value) in more {
        let value: String = value.bytes().map(|octet| format!("%{octet:02X}")).collect();
        body += &format!("&{name}={value}");
    }
    moto.call("ec2", ACCOUNT, "POST", "/", &body)
}

/// What stands between these two for the first time.
pub(crate) fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    let rest = text.split_once(open).map_or("", |(_, rest)| rest);
    rest.split_once(close).map_or("", |(text, _)| text)
}

/// All that were ever launched, the oldest first.
pub(crate) fn instances(moto: &Moto) -> Vec<Instance> {
    let (status, said) = call(moto, "DescribeInstances", &[]);
    assert_eq!(status, 200, "{said}");
    let one = |text: &str| {
        let text = text.split_once("</instancesSet>").map_or(text, |(text, _)| text);
        Instance {
            id: between(text, "<instanceId>", "</instanceId>").to_owned(),
            state: between(between(text, "<instanceState>", "</instanceState>"), "<name>", "</name>")
                .to_owned(),
            kind: between(text, "<instanceType>", "</instanceType>").to_owned(),
            name: between(text, "<key>Name</key><value>", "</value>").to_owned(),
            address: between(text, "<privateIpAddress>", "</privateIpAddress>").to_owned(),
            spot: text.contains("<instanceLifecycle>spot</instanceLifecycle>"),
            text: text.to_owned(),
        }
    };
    said.split("<instancesSet>").skip(1).map(one).collect()
}

/// Those of one host that may live.
pub(crate) fn living(moto: &Moto, n: usize) -> Vec<Instance> {
    let mut all = instances(moto);
    all.retain(|one| one.name == name(n) && one.state != "terminated");
    all
}

/// A subnet of the zone.
pub(crate) fn subnet(moto: &Moto) -> String {
    let only = [("Filter.1.Name", "availability-zone"), ("Filter.1.Value.1", "eu-west-1a")];
    let (_, said) = call(moto, "DescribeSubnets", &only);
    between(&said, "<subnetId>", "</subnetId>").to_owned()
}

/// When the process is to die: within the call of this number, counted from 0 and over all that it makes.
#[derive(Clone, Copy, Debug)]
struct Kill {
    call: u64,
}

/// The real target in the model world.
pub(crate) struct There {
    target: Machines,
    moto: Arc<Moto>,
    runtime: Arc<Runtime>,
    settings: String,
    kill: Option<Kill>,
}

fn made(moto: &Moto) -> u64 {
    let calls = moto.state()["calls"].clone();
    calls.as_object().into_iter().flat_map(|calls| calls.values()).filter_map(Value::as_u64).sum()
}

impl Place<Vm> for There {
    fn nature(&self) -> Nature {
        self.target.nature()
    }

    fn observe(&mut self, unit: &Unit, keys: Option<&[Key]>) -> Result<Observed<Vm>, Fault> {
        self.runtime.block_on(self.target.observe(unit, keys.map_or(Scope::All, Scope::Keys)))
    }

    fn apply(
        &mut self,
        unit: &Unit,
        batch: &Batch<Vm>,
        fence: &Fence,
        boundary: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Applied<Vm>, Fault> {
        let work = Box::pin(self.target.apply(unit, batch, fence));
        let Some(Kill { call }) = self.kill.filter(|kill| made(&self.moto) <= kill.call) else {
            return self.runtime.block_on(work);
        };
        let (over, moto) = (Arc::new(AtomicBool::new(false)), self.moto.clone());
        let done = self.runtime.block_on(async {
            let ended = over.clone();
            let watch = tokio::task::spawn_blocking(move || {
                while !ended.load(Ordering::Relaxed) && made(&moto) <= call {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let done = tokio::select! {
                biased;
                done = work => Some(done),
                _ = watch => None,
            };
            over.store(true, Ordering::Relaxed);
            done
        });
        if let Some(done) = done {
            return done;
        }
        // What it had asked for is done all the same, after its end.
        let end = Instant::now() + Duration::from_secs(30);
        while self.moto.state()["log"].as_array().map_or(0, Vec::len) < made(&self.moto) as usize {
            assert!(Instant::now() < end, "the call is never done");
            std::thread::sleep(Duration::from_millis(10));
        }
        while !boundary("a call of the provider") {}
        Err(Fault::new("go on", "the process died"))
    }
}

/// The zone, its database and its agent.
pub(crate) type Zone = Room<There>;

impl Zone {
    /// `more` settings of `[agent.ec2]`.
    pub(crate) fn new(moto: &Arc<Moto>, runtime: &Arc<Runtime>, more: &str) -> Self {
        let settings = format!(
            "zone = 'eu-west-1a'\nrate = 0\nwait = 1\nimages.debian-12 = {{ ami = 'ami-12345678' }}\n{more}\n\
             networks.lan = {{ subnet = '{}' }}\n\
             types = [{{ type = 't3.small', size = {{ cpu = 1 }} }}, {{ type = 't3.large', size = {{ cpu = 2 }} }}]\n",
            subnet(moto)
        );
        let store = Arc::new(MemoryStore::new());
        let target = target(moto, &settings, &store);
        let (moto, runtime) = (moto.clone(), runtime.clone());
        let mut zone = Self::on(store, There { target, moto, runtime, settings, kill: None });
        zone.sees_within(UNSEEN);
        zone
    }

    /// Has the process die within the call of this number from now; the call itself is done.
    pub(crate) fn kill_in(&mut self, call: u64) {
        let place = &mut self.world.place;
        place.moto.reset();
        place.moto.fault_with(&json!({"action": "*", "kind": "slow", "seconds": 0.5, "after": call}));
        place.kill = Some(Kill { call });
        self.world.light_fuse(1_000_000);
    }

    /// How many calls were made since then.
    pub(crate) fn calls(&self) -> u64 {
        made(&self.world.place.moto)
    }

    /// Time passes, as long as the process lives.
    pub(crate) fn pass(&mut self, seconds: usize) -> Verdict {
        let mut verdict = Verdict::Busy;
        for _ in 0..=seconds {
            verdict = self.world.run();
            while self.world.stopped_at().is_none() && self.hear() {
                verdict = self.world.run();
            }
            if self.world.stopped_at().is_some() {
                break;
            }
            self.world.advance(1_000);
            if self.world.stopped_at().is_some() {
                break;
            }
        }
        verdict
    }

    /// Time passes, here and there alike, until something is so; at most a minute and a half.
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(90);
        while !so(self) {
            assert!(Instant::now() < end, "not in time: {what}; {:?}", self.world.engine().troubles());
            self.pass(1);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The process dies, and another one takes over, with a target of its own; no call goes wrong any more.
    pub(crate) fn start_anew(&mut self) {
        let place = &mut self.world.place;
        place.moto.reset();
        place.kill = None;
        place.target = target(&place.moto, &place.settings, &self.store);
        self.restart();
    }
}

fn target(moto: &Moto, settings: &str, store: &Arc<MemoryStore>) -> Machines {
    let settings: Ec2Settings = toml::from_str(settings).unwrap();
    let aws = format!("endpoint = '{}'\nwithin = 5\nattempts = 3\n", moto.url());
    let room: HostName = ROOM.parse().unwrap();
    let ec2 = Ec2::open(settings, Some(toml::from_str(&aws).unwrap()), room.clone()).unwrap();
    Machines::new(room, vec![Box::new(ec2)], Base::on(store.clone()))
}
