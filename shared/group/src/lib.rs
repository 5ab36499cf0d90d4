//! Groups of machines: how many of what, under which names, and what is to be done next.
//!
//! A tag `vm/<group>` that says `group` is one ([`Spec`]). Each member has a *slot*: a number, from which its name follows, and with which
//! numbers and addresses of [ranges](Ranges) go. [`Groups::read`] finds all of it in the database, and [`decide`] says what is to be done: whom to make, whom to
//! drain, whom to forget, and when to call a person. Pure: the time, and what a metric measured, are arguments. The placement agent commits it.
//!
//! **Assumed**: whoever makes machines says `retired` of none that may still live.

mod commit;
mod decide;
mod holder;
mod member;
mod metric;
mod ranges;
mod read;
mod schedule;
mod size;
mod spec;
mod state;
mod victims;

pub use commit::{Written, written, written_of};
pub use decide::{Act, At, Decision, Step, Wait, decide};
pub use holder::Holder;
pub use metric::{Metric, Of, Pace};
pub use ranges::{Held, Holdings, Ids, Net, Pool, RANGES, Range, Ranges};
pub use read::{Group, Groups, Member};
pub use schedule::Entry;
pub use size::Size;
pub use spec::{
    ANY, Addresses, Budget, Draw, GROUP, Layout, Level, MOST, MOST_WITH_DISKS, Pick, Replace, Rule, SlotDisk,
    Slots, Span, Spec,
};
pub use state::{Slot, State};
