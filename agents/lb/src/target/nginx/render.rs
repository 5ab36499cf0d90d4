//! nginx's language, of `http` and of `stream`.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::item::Pool;
use crate::spec::{Balance, Protocol};
use crate::target::file::{Dialect, Kept};

/// nginx's language.
#[derive(Clone, Copy, Debug)]
pub(super) struct Language;

/// Which block of nginx's configuration a file belongs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Http,
    Stream,
}

impl Block {
    pub(super) const ALL: [Self; 2] = [Self::Http, Self::Stream];

    pub(super) fn of(protocol: Protocol) -> Self {
        if protocol == Protocol::Http { Self::Http } else { Self::Stream }
    }

    /// What its files end with.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Http => ".http",
            Self::Stream => ".stream",
        }
    }
}

/// Names a text.
pub(super) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..12].iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

impl Dialect for Language {
    const LINE: &'static str = "    server ";

    fn digest(&self, text: &str) -> Option<String> {
        Some(digest(text))
    }

    fn head(&self, name: &str, pool: &Pool) -> String {
        let balance = match pool.balance {
            Balance::RoundRobin => "",
            Balance::LeastConnections => "    least_conn;\n",
            Balance::Random => "    random;\n",
            Balance::Source => "    hash $remote_addr consistent;\n",
            Balance::Uri => "    hash $uri consistent;\n",
        };
        format!("upstream {name} {{\n{balance}")
    }

    fn server(&self, pool: &Pool, kept: &Kept) -> String {
        let mut text = format!("{}{}", Self::LINE, kept.server.socket());
        let weight = kept.server.weight;
        if weight > 1 {
            let _ = write!(text, " weight={weight}");
        }
        // nginx looks at no server by itself: it stops to ask one where requests failed, for as long as these would have.
        match &pool.check {
            Some(check) => {
                let seconds = u64::from(check.interval) * u64::from(check.rise.max(check.fall));
                let _ = write!(text, " max_fails={} fail_timeout={seconds}s", check.fall);
            }
            None => text.push_str(" max_fails=0"),
        }
        // With the others it refuses its whole configuration.
        if kept.server.backup && matches!(pool.balance, Balance::RoundRobin | Balance::LeastConnections) {
            text.push_str(" backup");
        }
        // It has no weight 0, which means the same.
        if kept.draining || weight == 0 {
            text.push_str(" down");
        }
        text + ";"
    }

    fn tail(&self, name: &str, pool: &Pool, empty: bool) -> String {
        // Without any server, or with backups alone, nginx refuses its whole configuration. To this one nothing is ever sent.
        let mut text = if empty { "    server  127.0.0.1:1 down;\n}\n" } else { "}\n" }.to_owned();
        if pool.frontends.is_empty() {
            return text;
        }
        text.push_str("server {\n");
        for socket in &pool.frontends {
            // Said to be the default, so that two pools with one address are refused: else nginx would take one of them, and only warn.
            let kind = match pool.protocol {
                Protocol::Http => " default_server",
                Protocol::Tcp => "",
                Protocol::Udp => " udp",
            };
            let _ = writeln!(text, "    listen {socket}{kind};");
        }
        let _ = match pool.protocol {
            Protocol::Http => writeln!(
                text,
                "    location / {{\n        proxy_set_header Host $http_host;\n        proxy_pass http://{name};\n    }}"
            ),
            Protocol::Tcp | Protocol::Udp => writeln!(text, "    proxy_pass {name};"),
        };
        text + "}\n"
    }
}
