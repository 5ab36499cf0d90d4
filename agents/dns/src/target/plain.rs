//! What only Route 53 can serve is not told to other targets, and is a fault of the item that asks for it.

use std::sync::Arc;

use shoal_agent::{Batch, Edit, Fault, Line, Outcome};

use crate::Dns;
use crate::record::{Key, Node};
use crate::route::Routing;

/// A batch of which some cannot be served.
pub(super) struct Split {
    /// What can be.
    pub(super) plain: Batch<Dns>,
    /// What is said of the rest.
    pub(super) refused: Vec<(Key, Outcome)>,
}

/// The batch without the names that ask for what only Route 53 has, and what is said of those; nothing, where there are none. They stay
/// as they are: a whole zone is written with what is there of them.
pub(super) fn split(batch: &Batch<Dns>) -> Option<Split> {
    let asks = |edit: &&Edit<Dns>| edit.to.as_ref().and_then(asked).is_some();
    let wanted = |line: &Line<Dns>| matches!(line, Line::Want(node) if asked(node).is_some());
    if !batch.changes.iter().any(|edit| asks(&edit)) && !batch.after.iter().any(|(_, line)| wanted(line)) {
        return None;
    }
    let mut refused = Vec::new();
    let mut changes = Vec::with_capacity(batch.changes.len());
    for edit in &batch.changes {
        match edit.to.as_ref().and_then(asked) {
            Some(routing) => refused.push((edit.key.clone(), Outcome::Failed(fault(&edit.key, routing)))),
            None => changes.push(copy(edit)),
        }
    }
    let after =
        batch.after.iter().filter_map(|(key, line)| Some((key.clone(), kept(batch, key, line)?))).collect();
    Some(Split { plain: Batch { changes, after, revision: batch.revision }, refused })
}

/// What stands in a whole zone for a name.
fn kept(batch: &Batch<Dns>, key: &Key, line: &Line<Dns>) -> Option<Line<Dns>> {
    match line {
        Line::Want(node) if asked(node).is_some() => {
            let at = batch.changes.binary_search_by(|edit| edit.key.cmp(key)).ok();
            let from = at.and_then(|at| batch.changes[at].from.clone());
            from.map(|have| Line::Keep(Arc::new(have)))
        }
        Line::Want(node) => Some(Line::Want(node.clone())),
        Line::Keep(have) => Some(Line::Keep(have.clone())),
    }
}

fn asked(node: &Node) -> Option<&Routing> {
    node.sets.iter().find_map(|set| set.routing.as_deref())
}

fn copy(edit: &Edit<Dns>) -> Edit<Dns> {
    Edit {
        key: edit.key.clone(),
        verb: edit.verb,
        from: edit.from.clone(),
        to: edit.to.clone(),
        memo: edit.memo.clone(),
        token: edit.token.clone(),
        because: edit.because.clone(),
    }
}

fn fault(key: &Key, routing: &Routing) -> Fault {
    Fault::new(format!("serve {}", key.name()), format!("it has {routing}, which this target does not have"))
        .next("serve the zone with [agent.route53], or take it out of the record")
        .permanent()
}
