//! What a machine is: what its host and its tag say of it, where it is placed, and why it may go.
//!
//! The words that the agents for machines have in common: who chooses a room ([`place`]), and who makes the machine ([`Spec`],
//! [`Machine`], [`Reason`]). Pure: it reads documents and facts that it is given, and nothing else. `docs/agents/vm.md` is the manual.

mod machine;
mod name;
pub mod place;
mod reason;
mod spec;
mod volume;

pub use machine::{Address, Care, Disk, Invalid, MAX_USER_DATA, Machine, Network};
pub use name::{BadWord, MAX_WORD, Word};
pub use reason::{DESTROY, Life, Reason, Wish, may_become};
pub use spec::{DiskSpec, Drift, NAMESPACE, NetworkSpec, Spec};
pub use volume::Volume;
