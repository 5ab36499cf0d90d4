//! The host database server: the store over HTTP.
//!
//! `/api/v2` reads and writes hosts, tags and all the rest, tells watchers about commits, and answers questions
//! about history, membership and effective documents. The server holds no reconcile logic and no state of its
//! own: it keeps a [view](shoal_core::View) of the store beside it, and any number of servers may run on one
//! database.
//!
//! Guarantees:
//!
//! * Reads are linearizable, unless they say `stale`: what was acknowledged before one came, by whatever server, is in its answer.
//! * A write that was answered with success is in the database for good; one that was refused left nothing.
//! * Every error is a problem document ([RFC 9457]) that says what was attempted, on what, why it failed and
//!   what to do next.
//! * Bodies, pages, connections, watches, writes under way and times are bounded ([`Limits`]).
//! * What others on the way could read is not said: plain HTTP is for loopback and Unix sockets, TLS for everybody else
//!   ([`Listen`], [`Tls`]), unless whoever runs it says otherwise.
//!
//! [`run`] is the program; [`Server`] is the same as a part of another program or test.
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457

mod access;
mod api;
mod app;
mod args;
mod certificate;
mod connection;
pub mod credentials;
mod db;
mod etag;
mod guard;
mod handshake;
mod health;
mod held;
pub mod history;
pub mod inventory;
mod latest;
mod limits;
mod listen;
mod metrics;
mod open;
mod peer;
mod problem;
pub mod reading;
mod recent;
mod request;
mod server;
mod spec;
mod squeeze;
mod tls;
mod v1;
mod watch;

pub use args::{AccessMode, ClientCert, DEFAULT_STORE, ServeArgs, command, main, run};
pub use limits::Limits;
pub use listen::{Listen, ListenError, Listener};
pub use open::{OpenError, open_brief, open_draft, open_existing, open_stale, open_store, renew};
pub use server::{Server, ServerError};
pub use shoal_client::Access;
pub use tls::{Tls, TlsError, TlsFiles};
