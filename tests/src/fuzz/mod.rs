//! What fuzzing tries: one function a target, which takes any octets and panics where a promise is broken.
//!
//! `tests/fuzz` has a target of cargo-fuzz for each of them, and the seeds. On the compiler of every day `tests/tests/fuzz.rs`
//! replays the seeds and what is made from them by chance.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken promise is a panic here"
)]

mod api;
mod documents;
mod selectors;
mod zones;

use std::time::{Duration, Instant};

pub use api::api;
pub use documents::documents;
pub use selectors::selectors;
pub use zones::zones;

/// One target: its name, which is that of its seeds' folder, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 4] =
    [("documents", documents), ("selectors", selectors), ("zones", zones), ("api", api)];

/// The longest input that is tried: what is refused for its size alone teaches nothing.
pub const MOST: usize = 64 << 10;

/// What one input of [`MOST`] octets may take, on a slow machine under load. What is not linear takes minutes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does it, in time.
fn in_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    assert!(began.elapsed() < PATIENCE, "{what} took {:?}", began.elapsed());
    done
}
