//! The DNS agent: zones from tags.
//!
//! A tag `dns/<zone>` is a zone, and its members contribute names and addresses to it. The pure half ([`Dns`]) turns tags and
//! hosts into one item a name; the [`target`] half makes a server answer for them: BIND, NSD or Knot through zone files, any server
//! that takes updates, Route 53, or the built-in server. `docs/agents/dns.md` is the manual.

#[cfg(test)]
extern crate self as shoal_dns;

mod agent;
#[cfg(test)]
mod fleet;
mod merge;
mod name;
mod offer;
mod pattern;
mod rdata;
mod record;
mod reverse;
mod route;
mod spec;
pub mod target;
#[doc(hidden)]
pub mod trial;

pub use agent::Dns;
pub use name::Zone;
pub use rdata::{Rtype, TypeName};
pub use record::{Have, Key, Node, RecordSet};
pub use route::{Alias, Failover, Location, Policy, Route, Routing};
pub use spec::{Data, MemberRecord, Override, PartialRecord, Soa, Spec, StaticRecord};
