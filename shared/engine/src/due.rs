//! What is done because its time has come, and changes nothing of what is wanted.

use std::sync::Arc;

use serde_json::Value;

use crate::agent::Agent;
use crate::decide::{Context, Wanted};
use crate::item::{Decision, Item, Planned, Trouble};
use crate::target::Why;

impl<A: Agent> Context<'_, A> {
    /// Whether what is there was made as it is wanted.
    pub(crate) fn stands(&self, item: &Item<A>, wanted: &Wanted<A>) -> bool {
        let last = item.entry.as_ref().and_then(|entry| entry.last.as_ref());
        let both = last.zip(wanted.item.as_ref());
        item.sight.have().is_some() && both.is_some_and(|(last, want)| self.agent.stands(last, want))
    }

    /// Does it, unless a person holds the item as it is.
    pub(crate) fn run(
        &self,
        item: &Item<A>,
        wanted: &Wanted<A>,
        verb: &'static str,
        memo: Value,
        have: Option<Arc<A::Have>>,
    ) -> Decision<A> {
        let planned = Box::new(Planned {
            verb,
            memo,
            from: have,
            to: wanted.item.clone(),
            sources: item.sources.clone(),
            revision: wanted.revision,
            because: Why::Due,
            last: wanted.item.clone(),
        });
        match self.paused(item) {
            Some(why) => {
                let trouble = Trouble::Held(format!("paused: {why}"));
                Decision::Stay { trouble, planned: Some(planned), memo: None, until: None }
            }
            None => Decision::Act(planned),
        }
    }
}
