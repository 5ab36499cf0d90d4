//! The bounds of one server. Every queue, body, page and wait of this crate has one of them.

use std::time::Duration;

/// What a server takes at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; one more is answered with 503 and closed.
    pub connections: usize,
    /// Handshakes of TLS at once; with one more, the oldest is cut.
    pub handshakes: usize,
    /// Watches at once; one more is answered with 503.
    pub watchers: usize,
    /// Writes under way at once; one more is answered with 503.
    pub writes: usize,
    /// Octets of one document's body.
    pub document: usize,
    /// Octets of a body with many documents (`/commits`, `/store/…`).
    pub body: usize,
    /// Bodies larger than [`Limits::document`] that are read at once.
    pub large_bodies: usize,
    /// Octets of answers of more than 1 MiB each that are on their way at once, as they are before they are compressed.
    pub answers: usize,
    /// Octets of a large answer that its client reads in a second, at least; else it is cut.
    pub pace: usize,
    /// How long such an answer may be read more slowly than that.
    pub slow_reading: Duration,
    /// Rows of one page when none are asked for.
    pub page: usize,
    /// The most rows of one page.
    pub max_page: usize,
    /// How long a handshake of TLS may take.
    pub handshake_timeout: Duration,
    /// How long a client may take for the head of a request, and a kept connection may be idle.
    pub header_timeout: Duration,
    /// How long a request may take, its body included; a watch may stay.
    pub request_timeout: Duration,
    /// How long a client may take to read anything of what is sent to it.
    pub write_timeout: Duration,
    /// How often a watch without news says that it lives.
    pub heartbeat: Duration,
    /// How long requests under way may take to finish when the server stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshakes: 256,
            watchers: 512,
            writes: 256,
            document: 2 << 20,
            body: 64 << 20,
            large_bodies: 4,
            answers: 256 << 20,
            pace: 64 << 10,
            slow_reading: Duration::from_secs(30),
            page: 100,
            max_page: shoal_store::MAX_PAGE,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            grace: Duration::from_secs(10),
        }
    }
}
