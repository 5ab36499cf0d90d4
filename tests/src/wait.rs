//! Waiting for a condition, within bounds.

use std::time::{Duration, Instant};

use anyhow::bail;

/// How long a test waits for what other processes do. Generous: two cores may run several tests at once.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until the answer is `Ok`, at most `patience`.
///
/// # Errors
/// The last answer, when time is over.
pub fn until<T, E: std::fmt::Display>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(why) if began.elapsed() > patience => bail!("{what}: still not after {patience:?}: {why}"),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
