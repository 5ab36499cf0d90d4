//! The monitoring agent: host and service checks from tags.
//!
//! A tag `monitoring/<name>` says how its members are checked. The pure half ([`Monitoring`]) turns tags and hosts into one
//! item a host and server; the [`target`] half makes the servers check them: Nagios, Icinga and Prometheus. `docs/agents/monitoring.md` is the manual.
//!
//! Nothing that stands in the database becomes a command: see [`Word`].

mod agent;
mod define;
mod item;
mod merge;
mod name;
mod offer;
mod rules;
mod spec;
pub mod target;

pub use agent::{Commands, Monitoring};
pub use define::{Contact, Day, Definition, Hours, Kind, Period};
pub use item::{Call, Have, Host, Item, Key, Rule, Scrape, Service, Subject, Timing};
pub use name::{Label, Name, Word};
pub use spec::{
    CheckSpec, ContactGroupSpec, ContactSpec, DefineSpec, PeriodSpec, RuleSpec, Scalar, Scheme, ScrapeSpec,
    Spec,
};
pub use target::{Server, Servers, Settings, text};
