//! The load-balancer agent: pools of servers from tags.
//!
//! A tag `lb/<pool>` is a pool; its active members serve. The pure half ([`Lb`]) turns it into one item for the pool and one for
//! each server, and says when a server that leaves has drained. The [`target`] half makes HAProxy do it.
//! `docs/agents/lb.md` is the manual.
//!
//! Nothing that stands in the database becomes a directive of a configuration: numbers, addresses, and one checked [`Path`].

mod agent;
mod item;
mod leave;
mod spec;
pub mod target;

pub use agent::Lb;
pub use item::{Check, Have, Item, Key, Path, Pool, Server, Standing};
pub use spec::{Balance, CheckSpec, Overrides, Protocol, Spec};
pub use target::{Balancer, Settings};
