//! Whether what nobody wants any more may go: what the database says of why is asked of the agent ([`Agent::lets_go`]).

use shoal_core::{Host, HostId};

use crate::agent::{Agent, Holder, Look};
use crate::decide::{Context, Wanted};
use crate::fleet::Fleet;
use crate::item::Item;
use crate::ledger::SourceId;
use crate::target::Why;

/// The hosts as they stand. Whoever reads of them here is asked again anyway when they change.
struct Hosts<'a> {
    fleet: &'a Fleet,
    /// Whether all hosts were read. With `--host` perhaps only one was.
    all: bool,
}

impl Look for Hosts<'_> {
    fn host(&self, name: &str) -> Option<&Host> {
        self.fleet.host(name)
    }

    fn holder(&self, id: &HostId) -> Holder<'_> {
        match self.fleet.holder(id) {
            Holder::Nobody if !self.all => Holder::Unknown,
            holder => holder,
        }
    }
}

impl<A: Agent> Context<'_, A> {
    /// Why what is there and nobody wants any more stays all the same: the agent does not let it go for the reason that there is. Where
    /// there is no reason at all, that is said when it is to go.
    pub(crate) fn kept(
        &self,
        key: &A::Key,
        item: &Item<A>,
        wanted: &Wanted<A>,
        there: bool,
    ) -> Option<String> {
        if wanted.item.is_some() || !there {
            return None;
        }
        // A host that went along with its tag went all the same.
        let because = self.hosts_gone(item).map_or_else(|| self.because(item, wanted).ok(), Some)?;
        let hosts = Hosts { fleet: self.fleet, all: self.options.host.is_none() };
        self.agent.lets_go(key, &because, &hosts).err()
    }

    /// What became of the hosts that it is from, where none of them is there: that one was renamed, before that another was deleted.
    fn hosts_gone(&self, item: &Item<A>) -> Option<Why> {
        let from = item.entry.iter().flat_map(|entry| &entry.from);
        let gone = from.map(|SourceId(_, host)| host.as_ref().and_then(|name| self.fleet.host_gone(name)));
        let gone: Vec<Why> = gone.collect::<Option<_>>()?;
        let renamed = gone.iter().position(|why| matches!(why, Why::HostRenamed(..)));
        gone.into_iter().nth(renamed.unwrap_or(0))
    }
}
