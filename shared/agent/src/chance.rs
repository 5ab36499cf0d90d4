//! Randomness, for jitter and for telling instances apart. Nothing is decided by it.

use rand::TryRngCore;

/// A number that nobody can foresee. Without a source of randomness the time has to do.
pub(crate) fn number() -> u64 {
    rand::rngs::OsRng
        .try_next_u64()
        .unwrap_or_else(|_| jiff::Timestamp::now().as_nanosecond().unsigned_abs() as u64)
}

/// A number from 0 to below 1.
pub(crate) fn fraction() -> f64 {
    (number() >> 11) as f64 / (1u64 << 53) as f64
}
