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
//! Who is asking ([`Access`]) is shown by a client certificate (`https:` only) or a token, which is never sent where others
//! could read it. Both are read again when their files change. A server that refuses who asks, or what, and one that is not who
//! it should be, are [`StoreError::Denied`](shoal_store::StoreError::Denied): said at once, not tried again as if nobody
//! had answered.
//!
//! Caveats: several addresses must be servers of one database; this is not checked before a write. Dropping a future
//! closes its connection; what it asked for may still be done. Certificates are not checked for having been revoked.

mod access;
mod address;
mod answer;
#[cfg(feature = "certificates")]
pub mod certificates;
mod connect;
mod events;
mod exposed;
mod link;
mod store;
pub mod tls;
mod watch;

pub use access::{Access, BadAccess};
pub use address::BadAddress;
pub use exposed::{exposed, warn_if_exposed};
pub use link::Options;
pub use store::HttpStore;
