//! The HTTP store: a database behind a server (`shoal-hostdb`), as a store like the others.
//!
//! [`HttpStore`] speaks `/api/v2/store` with one server or several on the same database, over TCP or a Unix socket, and
//! passes the conformance suite that every store passes.
//!
//! Guarantees:
//!
//! * **Nothing is done twice.** Reading, claiming, releasing, reporting and writing the ledger say the same when they are
//!   said again, so a lost answer is asked for again. A commit is sent again only with its idempotency key, by which the
//!   database knows it; without one, a lost answer is [`StoreError::Unavailable`](shoal_store::StoreError::Unavailable),
//!   and the caller looks before writing again.
//! * **Watches have no gaps and no repeats.** A watch that breaks is taken up after the last whole message, at this server
//!   or another. A position that the server does not know, or of another life of the database, is a reset.
//! * **Everything ends.** Connecting, answers, silence and the size of answers are bounded ([`Options`]).
//! * **A dead server is an error that helps**: what was attempted, at which address, why it failed, what to do next.
//!
//! How long a server may be gone: while none has ever answered, every address is tried once, and that is the error, so
//! that a mistyped address is told at once. After the first contact a failure is tried again for [`Options::patience`],
//! at growing intervals that differ by chance between clients, so that a restarted server meets no stampede.
//!
//! Caveats: several addresses must be servers of one database; this is not checked before a write. There is no TLS: servers
//! listen on loopback and Unix sockets only. Dropping a future closes its connection; what it asked for may still be done.

mod address;
mod answer;
mod events;
mod link;
mod store;
mod watch;

pub use address::BadAddress;
pub use link::Options;
pub use store::HttpStore;
