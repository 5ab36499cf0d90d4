//! The suite that every store passes, on a real etcd.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

mod suite {
    use shoal_store::MemoryStore;
    use shoal_store::conformance::Made;

    async fn store() -> Made {
        let test = std::thread::current().name().unwrap_or("suite").to_owned();
        if !crate::support::installed(&test) {
            // The case has to run on something: what it says of this one was known before.
            return Made::new(MemoryStore::new(), ());
        }
        Made::new(crate::support::new_store().await, ())
    }
    shoal_store::conformance!(store);
}
