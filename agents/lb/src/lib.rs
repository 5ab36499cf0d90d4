//! The load-balancer agent: pools of servers from tags.
//!
//! A tag `lb/<pool>` is a pool; its active members serve. The pure half ([`Lb`]) turns it into one item for the pool and one for
//! each server, and says when a server that leaves has drained. The [`target`] half makes HAProxy or nginx do it, or target groups of
//! AWS ([`groups`]). A tag `lb/address:<name>` is a virtual address, which its active members have between them, one at a time, by keepalived.
//! `docs/agents/lb.md` is the manual.
//!
//! Nothing that stands in the database becomes a directive of a configuration: numbers, addresses, and one checked [`Path`].

mod agent;
pub mod groups;
mod item;
mod leave;
mod spec;
pub mod target;

pub use agent::Lb;
pub use item::{Address, Check, Have, Item, Key, Path, Pool, Prefix, Server, Standing, Word, is_pool};
pub use spec::{Balance, CheckSpec, Overrides, Protocol, Spec, VirtualAddress};
pub use target::{Balancer, Settings};
