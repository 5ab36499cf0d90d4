//! Free loopback ports.

#[path = "../agents/ports.rs"]
mod locked;

/// A port that is free for TCP and UDP on 127.0.0.1, and that no other test of this user is given while this process lives. Somebody
/// else may take it before it is used: whoever starts a server on it checks afterwards that its own process still lives.
///
/// # Errors
/// None of a hundred was free, or there can be no locks in the folder for temporary files.
pub fn free() -> std::io::Result<u16> {
    locked::free()
}
