//! From the database and back: hosts that are `requested` become `placed`, and groups have hosts requested.
//!
//! [`Standing::read`] makes a fleet of what stands in the database; [`Placement`] chooses for those that wait and says what is to be
//! committed. [`shoal_agent::chooser`] commits it.
//!
//! What a box has given out stands in one fact about it, `facts/placement/<box>`. Choices are committed on condition that no fact of
//! placement was written meanwhile, and that the boxes and the machines are as they were read. So of two that chose at once one is refused,
//! reads again and chooses anew. Nothing is held by a lock or a lease.
//!
//! **Assumed**: `size` and rules of a machine are not edited after it was placed; what was promised it is what counts. What a machine
//! is a member of does not change in the very moment in which it is chosen for.

mod boxes;
mod decide;
mod groups;
mod measure;
mod read;
mod whatif;
mod write;

pub use decide::{Placement, Settings};
pub use read::{BOX, Gone, NAMESPACE, Promised, SIZE, Standing};
pub use whatif::answered;
