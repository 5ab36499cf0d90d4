//! HAProxy's language.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use shoal_agent::{Fault, HostName};

use crate::item::{Pool, Server, Word};
use crate::spec::{Balance, Protocol};
use crate::target::file::{Dialect, Kept};

/// HAProxy's language.
#[derive(Clone, Debug)]
pub(super) struct Language {
    /// Files of certificates.
    pub(super) authorities: BTreeMap<Word, PathBuf>,
}

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

impl Language {
    /// Refuses a pool that says what this node does not know.
    pub(super) fn takes(&self, name: &str, pool: &Pool) -> Result<(), Fault> {
        let Some(tls) = pool.tls.as_ref().filter(|tls| !self.authorities.contains_key(*tls)) else {
            return Ok(());
        };
        let tls = tls.as_str();
        let why =
            format!("its servers' certificates are signed by {tls}, and this node does not say who that is");
        let next =
            format!("write authorities = {{ {tls} = \"/path/of/its/certificate.pem\" }} in [agent.haproxy]");
        Err(Fault::new(format!("give HAProxy the pool {name}"), why).next(next).permanent())
    }

    /// The file of who signs the certificates of a pool's servers.
    fn authority(&self, pool: &Pool) -> Option<String> {
        // Nothing is made with one that is not known; a file may say one that no longer is.
        let file =
            |tls| self.authorities.get(tls).map_or("/dev/null".into(), |path| path.display().to_string());
        pool.tls.as_ref().map(file)
    }

    /// What follows a server's address, also where it is added at run time.
    pub(super) fn options(&self, pool: &Pool, host: &HostName, server: &Server, weight: u16) -> String {
        let mut text = format!("weight {weight} pool-purge-delay 1s");
        if server.backup {
            text.push_str(" backup");
        }
        if let Some(file) = self.authority(pool) {
            // The check is told of it, too: of a server that is added at run time HAProxy does not conclude it.
            let _ = write!(
                text,
                " ssl check-ssl verify required ca-file {file} verifyhost {host} sni str({host}) check-sni {host}"
            );
        }
        checks(pool, &mut text);
        text
    }
}

fn checks(pool: &Pool, text: &mut String) {
    if let Some(check) = &pool.check {
        let (interval, rise, fall) = (check.interval, check.rise, check.fall);
        let _ = write!(text, " check inter {interval}s rise {rise} fall {fall}");
        if pool.slow_start > 0 {
            let _ = write!(text, " slowstart {}s", pool.slow_start);
        }
    }
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
        if let Some(file) = self.authority(pool) {
            // Read when HAProxy starts, also where there is no server yet: at run time it reads no file.
            let _ = writeln!(text, "    default-server ssl verify required ca-file {file}");
        }
        text
    }

    fn server(&self, pool: &Pool, kept: &Kept) -> String {
        // Also after a restart: it gets no new work.
        let weight = if kept.draining { 0 } else { kept.server.weight };
        let (line, host) = (Self::LINE, &kept.host);
        format!("{line}{host} {} {}", socket(&kept.server), self.options(pool, host, &kept.server, weight))
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
