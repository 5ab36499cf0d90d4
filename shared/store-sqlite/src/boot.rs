//! The clock that claims expire by: the time since the machine was booted, suspended or not, and which boot it
//! was.
//!
//! It does not jump when somebody sets the time, and all processes of the machine agree on it. A claim of an
//! earlier boot has ended, because its holder has.

use std::sync::LazyLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Which boot this is; empty where the kernel does not say, and then all boots are one.
pub(crate) fn id() -> &'static str {
    static ID: LazyLock<String> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        text.map(|t| t.trim().to_owned()).unwrap_or_default()
    });
    &ID
}

/// Milliseconds since boot.
pub(crate) fn now() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

/// `ttl` from now, in milliseconds since boot: rounded up, and one more because [`now`] rounds down. Who
/// holds the claim counts on all of its time.
pub(crate) fn after(ttl: Duration) -> i64 {
    let ms = ttl.as_nanos().div_ceil(1_000_000);
    now().saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)).saturating_add(1)
}
