//! What the tests against real servers share: the servers, and the program with a database and a configuration.

#![allow(dead_code, unused_imports, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod alertmanager;
mod icinga;
mod nagios;
mod prometheus;
mod scratch;

use std::time::{Duration, Instant};

pub(crate) use alertmanager::Alertmanager;
pub(crate) use icinga::Icinga;
pub(crate) use nagios::Nagios;
pub(crate) use prometheus::Prometheus;
pub(crate) use scratch::{Daemon, Scratch};

/// Whether Nagios is here; says so if not.
pub(crate) fn here(test: &str) -> bool {
    has(test, "nagios4")
}

/// Whether Icinga 2 is here; says so if not.
pub(crate) fn icinga_here(test: &str) -> bool {
    let found = icinga::program().is_some();
    if !found {
        println!("SKIPPED: {test}: icinga2 is not installed");
    }
    found
}

/// Whether a program is here; says so if not.
pub(crate) fn has(test: &str, program: &str) -> bool {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/bin"]
        .iter()
        .any(|dir| std::path::Path::new(dir).join(program).exists());
    if !found {
        println!("SKIPPED: {test}: {program} is not installed");
    }
    found
}

/// Waits until something is so; at most half a minute.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "it did not come true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
