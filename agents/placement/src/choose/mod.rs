//! Choosing, as a function of data: which box, which zone, and why.
//!
//! A [`Fleet`] is rooms and the machines in them. [`Fleet::place`] finds room for one more, [`Fleet::plan`] for many at once,
//! [`Fleet::explain`] weighs all rooms for one. Filters say where a machine may be, points where it is best.
//!
//! **Guaranteed**: no room is given more than its capacity times its overcommitment, in any resource; rules of newcomers and of what stands
//! are both kept; equal input gives an equal answer, on every machine; with `survive`, there is at any time a list of moves
//! that fits for every box that may die. **Assumed**: what stands where is known and true; who commits a choice makes it conditional on that.
//! What stands is accepted as it stands, be it against the rules: it is reported, not moved.

mod amount;
mod ask;
mod decide;
mod fleet;
mod hash;
mod model;
mod pack;
mod plan;
mod pool;
mod reason;
mod rules;
mod score;
mod spare;
mod tree;
mod whatif;

pub use amount::{KINDS, LARGEST, Named, Percent};
pub use decide::{Decision, Fault, Refusal};
pub use fleet::{Fleet, Invalid};
pub use model::{Fit, Layout, Level, Pick, Policy, Request, Room, Rule, State};
pub use plan::{Plan, lower_bound};
pub use reason::{Explanation, Reason};
pub use score::Points;
pub use whatif::{Evacuation, Gain, Move, Step};
