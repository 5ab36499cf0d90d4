//! Bringing in what another system knows.
//!
//! An importer turns a foreign file into changes of the host database, by a mapping that people write. It
//! remembers in the database what it wrote, so that it can tell its own fields and members from those of people,
//! and leaves the latter alone.

pub mod ansible;
pub mod haproxy;
pub mod rows;
pub mod zone;
