//! The HTTP store against real servers: the suite that every store passes, and what only connections can do wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set its world up has failed"
)]

mod dead;
mod harness;
mod lost;
mod many;
mod papers;
mod proxy;
mod watches;

/// The suite, over TCP, in front of a store in memory.
mod memory {
    use shoal_store::MemoryStore;
    use shoal_store::conformance::Made;

    use crate::harness::Server;

    async fn store() -> Made {
        let server = Server::unchecked(MemoryStore::new(), "127.0.0.1:0").await;
        Made::new(server.store(), server)
    }

    shoal_store::conformance!(store);
}

/// The suite, by TLS, with an authority of each test's own, in front of a store in memory.
mod tls {
    use shoal_store::MemoryStore;
    use shoal_store::conformance::Made;

    use crate::harness::Server;

    async fn store() -> Made {
        let dir = tempfile::tempdir().unwrap();
        let (server, access) = Server::unchecked_by_tls(MemoryStore::new(), dir.path()).await;
        assert!(server.at.starts_with("https://"), "{}", server.at);
        Made::new(server.store_with(access), (server, dir))
    }

    shoal_store::conformance!(store);
}

/// The suite, over a Unix socket, in front of SQLite.
mod sqlite {
    use shoal_store::conformance::Made;
    use shoal_store_sqlite::SqliteStore;

    use crate::harness::Server;

    async fn store() -> Made {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("shoal.db")).await.unwrap();
        let server = Server::unchecked(store, &format!("unix:{}/s", dir.path().display())).await;
        Made::new(server.store(), (server, dir))
    }

    shoal_store::conformance!(store);
}
