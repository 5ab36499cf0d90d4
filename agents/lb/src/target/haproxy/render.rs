//! HAProxy's language.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::item::{Pool, Server};
use crate::spec::{Balance, Protocol};
use crate::target::file::{Dialect, Kept};

/// HAProxy's language.
#[derive(Clone, Copy, Debug)]
pub(super) struct Language;

/// The variable of the process in which HAProxy says with which form of the pool it runs.
pub(super) fn variable(name: &str) -> String {
    format!("proc.shoal_{}", short(name.as_bytes()))
}

/// Names the form of a pool.
pub(super) fn form(pool: &Pool) -> String {
    short(&serde_json::to_vec(pool).unwrap_or_default())
}

fn short(octets: &[u8]) -> String {
    Sha256::digest(octets)[..8].iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// What follows a server's address, also where it is added at run time.
pub(super) fn options(pool: &Pool, weight: u16) -> String {
    let mut text = format!("weight {weight} pool-purge-delay 1s");
    if let Some(check) = &pool.check {
        let (interval, rise, fall) = (check.interval, check.rise, check.fall);
        let _ = write!(text, " check inter {interval}s rise {rise} fall {fall}");
        if pool.slow_start > 0 {
            let _ = write!(text, " slowstart {}s", pool.slow_start);
        }
    }
    text
}

/// `192.0.2.1:80`, as HAProxy reads it.
pub(super) fn socket(server: &Server) -> String {
    server.socket().to_string()
}

impl Dialect for Language {
    const LINE: &'static str = "    server ";

    fn head(&self, name: &str, pool: &Pool) -> String {
        let (variable, form) = (variable(name), form(pool));
        let mode = if pool.protocol == Protocol::Http { "http" } else { "tcp" };
        let balance = match pool.balance {
            Balance::RoundRobin => "roundrobin",
            Balance::LeastConnections => "leastconn",
            Balance::Random => "random",
            Balance::Source => "source",
            Balance::Uri => "uri",
        };
        let mut text = format!(
            "global\n    set-var {variable} str(\"{form}\")\nbackend {name}\n    mode {mode}\n    balance {balance}\n    hash-type consistent\n"
        );
        if let Some(path) = pool.check.as_ref().and_then(|check| check.path.as_ref()) {
            let _ = writeln!(text, "    option httpchk GET {}", path.as_str());
        }
        text
    }

    fn server(&self, pool: &Pool, kept: &Kept) -> String {
        // Also after a restart: it gets no new work.
        let weight = if kept.draining { 0 } else { kept.server.weight };
        let (line, host) = (Self::LINE, &kept.host);
        format!("{line}{host} {} {}", socket(&kept.server), options(pool, weight))
    }

    fn tail(&self, name: &str, pool: &Pool, _: bool) -> String {
        if pool.frontends.is_empty() {
            return String::new();
        }
        let mode = if pool.protocol == Protocol::Http { "http" } else { "tcp" };
        let mut text = format!("frontend {name}:front\n    mode {mode}\n");
        for socket in &pool.frontends {
            let _ = writeln!(text, "    bind {socket}");
        }
        let _ = writeln!(text, "    default_backend {name}");
        text
    }
}
