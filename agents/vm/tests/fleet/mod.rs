//! A box with machines that are only written down, and a database, in virtual time: the real agent and the real target, and a provider that
//! can be stopped between any two of its effects.
#![allow(dead_code, reason = "each user takes some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

pub(crate) mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use jiff::Timestamp;
use room::{ROOM, Room};
use shoal_agent::{
    Applied, Base, Batch, Fault, Fence, HostId, HostName, Nature, Observed, Scope, Target, Unit,
};
use shoal_engine::Verdict;
use shoal_engine::model::Place;
use shoal_machine::{Machine, Volume};
use shoal_store::{MemoryStore, Store};
use shoal_vm::target::{Doing, Listed, Made as MadeBy, Order, Provider};
use shoal_vm::{Attempt, Given, Have, Key, Machines, Stage, Vm};

/// What the provider has.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) machines: BTreeMap<HostId, (Order, Stage)>,
    /// Names that are somebody else's.
    pub(crate) foreign: BTreeSet<String>,
    /// Machines that somebody else made, and that could be taken over, by name.
    pub(crate) strange: BTreeMap<String, Stage>,
    /// How often a machine was made of each order.
    pub(crate) creations: BTreeMap<HostId, usize>,
    /// Nothing can be seen.
    pub(crate) blind: bool,
    /// What is there is not seen yet.
    pub(crate) hidden: bool,
    /// What the provider takes away by itself, and why.
    pub(crate) leaving: BTreeMap<HostId, String>,
    /// So many ways to make a machine have no room, of three that there are.
    pub(crate) full: u32,
    /// The attempts that were made.
    pub(crate) attempts: Vec<Attempt>,
    /// No machine reports in.
    pub(crate) silent: bool,
    /// Disks that outlive machines, with the ids of the hosts that had them last.
    pub(crate) disks: BTreeMap<String, HostId>,
    /// How often it is asked in vain whether a machine has stopped that was told to.
    pub(crate) slow: u32,
    /// How often it was, of each.
    pub(crate) asked: BTreeMap<HostId, u32>,
}

#[derive(Clone, Default)]
pub(crate) struct Written(Arc<Mutex<Made>>);

impl Written {
    pub(crate) fn made(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap()
    }

    pub(crate) fn stage(&self, id: &str) -> Option<Stage> {
        self.made().machines.get(&HostId(id.to_owned())).map(|(_, stage)| *stage)
    }
}

/// One place where the process may die.
async fn boundary() {
    let mut passed = false;
    std::future::poll_fn(|context| match std::mem::replace(&mut passed, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

impl Provider for Written {
    fn name(&self) -> &'static str {
        "written"
    }

    fn location(&self) -> String {
        "a test".to_owned()
    }

    fn start(&self) -> Doing<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn list<'a>(&'a self, _: Option<&'a BTreeSet<HostId>>) -> Doing<'a, Listed> {
        Box::pin(async {
            let made = self.made();
            if made.blind {
                return Err(Fault::new("look", "nothing can be seen"));
            }
            let have = |(id, (order, stage)): (&HostId, &(Order, Stage))| {
                let (host, machine) = (order.host.clone(), order.machine.clone());
                (
                    id.clone(),
                    Have {
                        host,
                        machine,
                        stage: *stage,
                        strayed: Vec::new(),
                        given: Given::default(),
                        leaving: made.leaving.get(id).cloned(),
                    },
                )
            };
            let ours = made.machines.iter().filter(|_| !made.hidden).map(have).collect();
            let foreign = made.foreign.iter().chain(made.strange.keys()).cloned().collect();
            Ok(Listed { ours, foreign, unseen: Vec::new() })
        })
    }

    fn create<'a>(&'a self, order: &'a Order) -> Doing<'a, ()> {
        Box::pin(async {
            boundary().await;
            let name = order.host.as_str();
            let taken = self.made().foreign.contains(name) || self.made().strange.contains_key(name);
            if taken {
                return Err(Fault::new("make", "somebody else's is there").permanent());
            }
            let other = |volume: &&Volume| {
                self.made().disks.get(&volume.to_string()).is_some_and(|of| *of != order.id)
            };
            if let Some(volume) = order.machine.volumes().into_iter().find(other) {
                return Err(Fault::new(format!("give out the disks of {volume}"), "they are another host's"));
            }
            if !self.made().machines.contains_key(&order.id) {
                *self.made().creations.entry(order.id.clone()).or_default() += 1;
                self.made().machines.insert(order.id.clone(), (order.clone(), Stage::Stopped));
                for volume in order.machine.volumes() {
                    self.made().disks.insert(volume.to_string(), order.id.clone());
                }
            }
            boundary().await;
            Ok(())
        })
    }

    fn found<'a>(&'a self, host: &'a HostName) -> Doing<'a, Option<Have>> {
        let stage = self.made().strange.get(host.as_str()).copied();
        Box::pin(std::future::ready(Ok(stage.and_then(|stage| Have::unmarked(host.clone(), stage)))))
    }

    fn adopt<'a>(&'a self, order: &'a Order) -> Doing<'a, ()> {
        Box::pin(async {
            boundary().await;
            let stage = self.made().strange.remove(order.host.as_str());
            match stage {
                Some(stage) => drop(self.made().machines.insert(order.id.clone(), (order.clone(), stage))),
                None if self.stage(&order.id.0).is_some() => {}
                None => return Err(Fault::new("take over", "it is not there").permanent()),
            }
            boundary().await;
            Ok(())
        })
    }

    fn make<'a>(&'a self, order: &'a Order, attempt: Attempt) -> Doing<'a, MadeBy> {
        Box::pin(async move {
            let full = {
                let mut made = self.made();
                made.attempts.push(attempt);
                attempt.way % 3 < made.full
            };
            if full {
                boundary().await;
                let why = format!("way {} has no room", attempt.way % 3);
                return Ok(MadeBy::Refused { why, last: attempt.way % 3 == 2 });
            }
            self.create(order).await.map(|()| MadeBy::There)
        })
    }

    fn boot<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()> {
        Box::pin(async {
            boundary().await;
            match self.made().machines.get_mut(id) {
                Some((_, stage)) if *stage == Stage::Stopped => *stage = Stage::Starting,
                Some(_) => {}
                None => return Err(Fault::new("start", "it is not there")),
            }
            boundary().await;
            Ok(())
        })
    }

    /// It has stopped one look before it says so: in between, anybody may see it.
    fn stop<'a>(&'a self, id: &'a HostId, _: Option<&'a Machine>) -> Doing<'a, bool> {
        Box::pin(async {
            boundary().await;
            let mut made = self.made();
            let slow = made.slow;
            let asked = made.asked.entry(id.clone()).or_default();
            *asked += 1;
            let (stopped, said) = (*asked >= slow, *asked > slow);
            if said {
                made.asked.remove(id);
            }
            if let Some((_, stage)) = made.machines.get_mut(id).filter(|_| stopped) {
                *stage = Stage::Stopped;
            }
            Ok(said)
        })
    }

    fn correct<'a>(&'a self, id: &'a HostId, machine: &'a Machine) -> Doing<'a, ()> {
        Box::pin(async {
            boundary().await;
            if let Some((order, stage)) = self.made().machines.get_mut(id) {
                (order.machine, *stage) = (machine.clone(), Stage::Stopped);
            }
            boundary().await;
            Ok(())
        })
    }

    fn keeps_disks(&self) -> bool {
        true
    }

    fn inherit<'a>(&'a self, id: &'a HostId, before: &'a [HostId], volume: &'a Volume) -> Doing<'a, ()> {
        Box::pin(async move {
            boundary().await;
            if let Some(of) = self.made().disks.get_mut(&volume.to_string()).filter(|of| before.contains(of))
            {
                *of = id.clone();
            }
            boundary().await;
            Ok(())
        })
    }

    fn discard<'a>(&'a self, id: &'a HostId, volume: &'a Volume) -> Doing<'a, ()> {
        Box::pin(async move {
            boundary().await;
            let uses = |(order, _): &(Order, Stage)| order.machine.volumes().contains(volume);
            if self.made().machines.values().any(uses) {
                return Err(Fault::new("remove disks", "a machine uses them"));
            }
            self.made().disks.retain(|name, of| *name != volume.to_string() || of != id);
            boundary().await;
            Ok(())
        })
    }

    fn destroy<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()> {
        Box::pin(async {
            boundary().await;
            self.made().machines.remove(id);
            boundary().await;
            Ok(())
        })
    }
}

/// The real target in the model world: dropped where the process dies.
pub(crate) struct There(Machines);

fn drive<T>(work: impl Future<Output = T>, dies: &mut dyn FnMut(&str) -> bool) -> Option<T> {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match work.as_mut().poll(&mut context) {
            Poll::Ready(done) => return Some(done),
            Poll::Pending if dies("between two effects") => return None,
            Poll::Pending => {}
        }
    }
}

fn now<T>(work: impl Future<Output = T>) -> T {
    drive(work, &mut |_| false).unwrap()
}

impl Place<Vm> for There {
    fn nature(&self) -> Nature {
        self.0.nature()
    }

    fn observe(&mut self, unit: &Unit, keys: Option<&[Key]>) -> Result<Observed<Vm>, Fault> {
        now(self.0.observe(unit, keys.map_or(Scope::All, Scope::Keys)))
    }

    fn apply(
        &mut self,
        unit: &Unit,
        batch: &Batch<Vm>,
        fence: &Fence,
        boundary: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Applied<Vm>, Fault> {
        let done = drive(self.0.apply(unit, batch, fence), boundary);
        done.unwrap_or_else(|| Err(Fault::new("go on", "the process died")))
    }
}

/// The box, and what makes its machines.
pub(crate) struct Fleet {
    room: Room<There>,
    pub(crate) provider: Written,
}

impl Deref for Fleet {
    type Target = Room<There>;

    fn deref(&self) -> &Self::Target {
        &self.room
    }
}

impl DerefMut for Fleet {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.room
    }
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let (provider, store) = (Written::default(), Arc::new(MemoryStore::new()));
        let base = Base::on(store.clone());
        let target = Machines::new(ROOM.parse().unwrap(), vec![Box::new(provider.clone())], base);
        Self { room: Room::on(store, There(target)), provider }
    }

    /// A person gives to Shoal what is in its way, by `shoal adopt`, which reads there how the agent says that it stands.
    pub(crate) fn adopt(&mut self) {
        let now = self.world.now();
        let mut status = self.world.engine().status(now, false);
        // The model's clock is not the command's: it is told as a word that stands.
        status.expires = None;
        let unit = format!("vm/{ROOM}");
        let line = ["adopt", unit.as_str(), "-m", "it is ours"];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let done = runtime.block_on(async {
            self.store.report(status).await.unwrap();
            let sink = Box::new(std::io::sink());
            shoal_cli::run(self.store.clone(), &line, Some("ann"), Timestamp::now, sink).await
        });
        assert_eq!(done, (0, None));
        assert!(self.learn("approvals/"), "nothing was said");
    }

    /// Time passes; what becomes due is done, machines that start come up, and what is written is heard.
    pub(crate) fn pass(&mut self, seconds: i64) -> Verdict {
        let mut verdict = Verdict::Busy;
        for _ in 0..=seconds {
            verdict = self.world.run();
            while self.hear() {
                verdict = self.world.run();
            }
            let mut made = self.provider.made();
            if !made.silent {
                for (_, stage) in made.machines.values_mut().filter(|(_, stage)| *stage == Stage::Starting) {
                    *stage = Stage::Up;
                }
            }
            drop(made);
            self.world.advance(1_000);
        }
        verdict
    }
}
