//! What makes machines: the small trait between the agent and systemd-nspawn, or whatever else.
//!
//! A provider names everything after the id of a machine's host and marks what it makes with it, in one step with making it: so a look
//! tells what is Shoal's without the ledger, and what was begun and cut off is found again and brought to its end. It is told what to do
//! once more where nobody knows what became of it, and then does what is left to do. It never touches what does not bear such a mark.

use std::collections::BTreeSet;
use std::future::ready;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_agent::{Fault, HostId, HostName};
use shoal_machine::{Machine, Volume};

use crate::item::{Attempt, Have};

/// What a provider does, and what comes of it.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// A machine that is to be made. It is kept as the mark of what was made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The id of its host.
    pub id: HostId,
    /// Its host's name, and what it calls itself.
    pub host: HostName,
    /// The same for every attempt at this creation. The machine reports in with it.
    pub token: String,
    /// What it is made of.
    pub machine: Machine,
}

/// What a provider has.
#[derive(Debug, Default)]
pub struct Listed {
    /// What Shoal made, by the ids of their hosts.
    pub ours: Vec<(HostId, Have)>,
    /// What bears no mark of Shoal's: by name, for people.
    pub foreign: Vec<String>,
    /// What could not be seen, and why: then what is not listed may be there all the same.
    pub unseen: Vec<String>,
}

/// What came of one way to make a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is there.
    There,
    /// There is certainly no machine of this attempt, because nothing has room for it or it is gone already; another way may have.
    Refused {
        /// Why.
        why: String,
        /// This was the last way: all are tried from the first one on again, after a while.
        last: bool,
    },
}

/// What makes machines of one kind on one box, or in the zones of one account.
pub trait Provider: Send + Sync + 'static {
    /// What documents call it.
    fn name(&self) -> &'static str;

    /// Where its machines are, in a few words that stay the same for as long as they do.
    fn location(&self) -> String;

    /// Opens what it needs, and brings to its end what was cut off and nobody waits for. Not called for a plan.
    fn start(&self) -> Doing<'_, ()>;

    /// What there is: all, or of these at least. Changes nothing.
    fn list<'a>(&'a self, of: Option<&'a BTreeSet<HostId>>) -> Doing<'a, Listed>;

    /// How long what was made may be there before a [look](Self::list) of another process shows it: for so long nobody takes what was asked
    /// for, and is not seen, for gone. By default it is seen at once.
    fn unseen(&self) -> Duration {
        Duration::ZERO
    }

    /// Makes a machine and does not start it; where a machine with this id is there, it is well.
    ///
    /// A fault that is permanent: somebody else's is in its place, or the order makes no sense here.
    fn create<'a>(&'a self, order: &'a Order) -> Doing<'a, ()>;

    /// The same by one of several ways, where a provider has them: which one follows from the attempt alone. That one is refused has to
    /// be certain, because the next one makes another machine.
    fn make<'a>(&'a self, order: &'a Order, _: Attempt) -> Doing<'a, Made> {
        Box::pin(async move { self.create(order).await.map(|()| Made::There) })
    }

    /// What bears no mark of Shoal's, has this name, and could be taken over: [`Have::unmarked`]. Changes nothing. By default nothing could.
    fn found<'a>(&'a self, host: &'a HostName) -> Doing<'a, Option<Have>> {
        let _ = host;
        Box::pin(ready(Ok(None)))
    }

    /// Makes a machine that [`found`](Self::found) showed one of ours, as it is, running or not: it gets the order as its mark, in one step.
    /// A person said so. Where it bears that mark already, it is well. By default this is refused.
    fn adopt<'a>(&'a self, order: &'a Order) -> Doing<'a, ()> {
        let what = format!("take over {}", order.host);
        let why = format!("by {} no machine is taken over that Shoal did not make", self.name());
        Box::pin(ready(Err(Fault::new(what, why).permanent())))
    }

    /// Starts a machine of ours; where it runs, it is well. It need not be up when this returns.
    fn boot<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()>;

    /// Tells a machine of ours to stop, in an orderly way while that takes no longer than the provider allows. Answers at once whether it
    /// has stopped, or is not there; until it has, it is asked again every second, and nobody else waits for it. `to`: what it is to be
    /// [corrected](Self::correct) to then, so that one that need not stop for that goes on; `None`: it is to be destroyed. By default there
    /// is nothing to wait for: whatever needs it stopped stops it.
    fn stop<'a>(&'a self, id: &'a HostId, to: Option<&'a Machine>) -> Doing<'a, bool> {
        let _ = (id, to);
        Box::pin(ready(Ok(true)))
    }

    /// Gives a machine of ours these networks and this size. It has [stopped](Self::stop), or is stopped for that, and is not started.
    fn correct<'a>(&'a self, id: &'a HostId, machine: &'a Machine) -> Doing<'a, ()>;

    /// Whether disks that outlive their machines ([`Disk::volume`](shoal_machine::Disk::volume)) are kept: [`create`](Self::create) finds those
    /// of before, and [`destroy`](Self::destroy) leaves them. By default not, and a machine that has one is not made.
    fn keeps_disks(&self) -> bool {
        false
    }

    /// Makes the disks of a slot this host's, if one of those had them last: they had the slot before, and their machines are gone. Where there
    /// are none, or they are this host's, it is well; where they are somebody else's, it leaves them so. Nobody is given what a machine uses.
    fn inherit<'a>(&'a self, id: &'a HostId, before: &'a [HostId], volume: &'a Volume) -> Doing<'a, ()> {
        let _ = (id, before, volume);
        Box::pin(ready(Ok(())))
    }

    /// Removes the disks of a slot that is given up, if this host had it last and no machine uses them; where there are none, it is well.
    fn discard<'a>(&'a self, id: &'a HostId, volume: &'a Volume) -> Doing<'a, ()> {
        let _ = (id, volume);
        Box::pin(ready(Ok(())))
    }

    /// Removes all of a machine of ours but disks that outlive it. It has [stopped](Self::stop), or is stopped for that; where it is not there,
    /// it is well.
    fn destroy<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()>;
}
