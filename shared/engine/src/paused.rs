//! The one change of an item of which a person holds a host as it is: the mark that says so.
//!
//! It is made of what stands as it was last made, and of nothing else; whatever the sources want is compared as if it bore the
//! mark, and waits. So a pause can be seen where people look, and holds all the same.

use std::sync::Arc;

use crate::agent::Agent;
use crate::decide::{Context, Wanted};
use crate::item::Item;
use crate::ledger::{SourceId, Stage};

impl<A: Agent> Context<'_, A> {
    /// What is wanted of an item of which a person holds a host as it is: the mark that says so, of what stands; and once it bears
    /// it, what the sources want, marked.
    pub(crate) fn marked(&self, item: &Item<A>, wanted: Wanted<A>) -> Wanted<A> {
        let last = item.entry.as_ref().and_then(|entry| entry.last.as_ref());
        let (Some(want), Some(last)) = (&wanted.item, last) else { return wanted };
        if !self.is_host_paused(item) {
            return wanted;
        }
        let of = match self.mark(item) {
            Some(marked) => Some(marked),
            None if self.agent.paused(last).is_none_or(|marked| marked == **last) => self.agent.paused(want),
            // It is not as it was last made: it stays so, and what is wanted is shown.
            None => None,
        };
        let item = of.map_or_else(|| wanted.item.clone(), |marked| Some(Arc::new(marked)));
        Wanted { item, ..wanted }
    }

    /// The mark that an item lacks while a host of it is paused, if it may have it: it stands as it was last made.
    fn mark(&self, item: &Item<A>) -> Option<A::Item> {
        let entry = item.entry.as_ref().filter(|entry| entry.stage == Stage::Made)?;
        let last = entry.last.as_ref()?;
        let marked = self.agent.paused(last).filter(|marked| *marked != **last)?;
        // It may bear the mark already: whoever made it was stopped before that was written down.
        let stands = item.sight.have().is_some_and(|have| **have == **last || **have == marked);
        // Half of the mark may be there: what was begun is brought to its end.
        let begun = entry.changing && item.want.as_deref() == Some(&marked);
        (stands || begun).then_some(marked)
    }

    /// Whether a person holds a host that feeds the item.
    pub(crate) fn is_host_paused(&self, item: &Item<A>) -> bool {
        let mut hosts = item.sources.iter().filter_map(|SourceId(_, host)| host.as_ref());
        hosts.any(|host| self.fleet.host_pause(host).is_some())
    }

    /// Whether this change does no more than to mark an item whose host, and nothing else of it, is paused.
    pub(crate) fn only_marks(&self, item: &Item<A>, to: Option<&A::Item>) -> bool {
        let whole = || self.fleet.agent_pause(self.agent.namespace()).is_some();
        let tag = |SourceId(tag, _): &SourceId| self.fleet.pause(tag, None).is_some();
        let entry = item.entry.iter().flat_map(|entry| &entry.from);
        self.mark(item).is_some_and(|marked| to == Some(&marked))
            && !whole()
            && !item.sources.iter().chain(entry).any(tag)
    }
}
