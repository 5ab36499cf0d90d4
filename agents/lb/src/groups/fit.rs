//! What a target group is, and where that differs from what its pool says.

use serde::Serialize;

use super::{Asked, Checks};
use crate::item::Path;
use crate::spec::{Balance, Protocol};

/// What a target group is, as far as a pool may say something of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// `HTTP`, `HTTPS`, `TCP`, `TLS`, `UDP`, `TCP_UDP`, ….
    pub protocol: String,
    /// How targets are checked; `None`: they are not.
    pub check: Option<Checked>,
    /// Its attributes that say how work is shared: `round_robin`, ….
    pub algorithm: String,
    /// Whether one client's address stays with one target.
    pub by_source: bool,
    /// Seconds.
    pub slow_start: u32,
    /// The deregistration delay: for how many seconds a target drains.
    pub delay: u32,
    /// Whether the target keeps the least number itself, and which one it was told. It is told by a change.
    #[serde(skip)]
    pub keeps: Option<Option<u32>>,
}

/// How a group checks its targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// What is asked for over HTTP; `None`: a connection is enough.
    pub path: Option<String>,
    /// Seconds.
    pub interval: u32,
    /// Good checks until it serves.
    pub rise: u32,
    /// Bad checks until it does not.
    pub fall: u32,
}

impl Group {
    /// A group that is as a pool asks, and as AWS makes one where that says nothing.
    pub(crate) fn of(asked: &Asked) -> Self {
        let check = |check: &Checks| Checked {
            path: check.path.as_ref().map(|path| path.as_str().to_owned()),
            interval: check.interval.unwrap_or(30),
            rise: check.rise.unwrap_or(5),
            fall: check.fall.unwrap_or(2),
        };
        let protocol = match asked.protocol {
            Protocol::Http => "HTTP",
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        Self {
            protocol: protocol.to_owned(),
            check: asked.check.as_ref().map(check),
            algorithm: algorithm(asked.balance).unwrap_or("round_robin").to_owned(),
            by_source: asked.balance == Balance::Source,
            slow_start: asked.slow_start,
            delay: asked.drain.unwrap_or(300),
            keeps: None,
        }
    }

    /// What its pool asks otherwise, in words. What a pool leaves unsaid, it leaves to the group.
    #[must_use]
    pub fn differs(&self, asked: &Asked) -> Vec<String> {
        let mut all = Vec::new();
        let fits: &[&str] = match asked.protocol {
            Protocol::Http => &["HTTP", "HTTPS"],
            Protocol::Tcp => &["TCP", "TLS", "TCP_UDP"],
            // Of QUIC each target needs an id of its own.
            Protocol::Udp => &["UDP", "TCP_UDP"],
        };
        if !fits.contains(&self.protocol.as_str()) {
            all.push(format!("protocol is {}", self.protocol));
        }
        match asked.balance {
            // What is meant where nothing is said.
            Balance::RoundRobin => {}
            Balance::Uri => all.push("balance: no group shares work by the path".to_owned()),
            Balance::Source if !self.by_source => {
                all.push("balance: stickiness by source_ip is off".to_owned());
            }
            balance => all.extend(
                algorithm(balance)
                    .filter(|one| *one != self.algorithm)
                    .map(|_| format!("balance: load_balancing.algorithm.type is {}", self.algorithm)),
            ),
        }
        if let Some(asked) = &asked.check {
            all.extend(self.checked(asked));
        }
        if asked.slow_start != 0 && asked.slow_start != self.slow_start {
            all.push(format!("slow_start.duration_seconds is {}", self.slow_start));
        }
        if let Some(drain) = asked.drain.filter(|drain| self.delay < *drain) {
            all.push(format!(
                "deregistration_delay.timeout_seconds is {}, and connections may go on for {drain} s by drain",
                self.delay
            ));
        }
        if asked.frontends {
            all.push("frontends: listeners are no business of a group".to_owned());
        }
        if asked.tls {
            all.push("tls: no group checks the certificates of its targets".to_owned());
        }
        all
    }

    fn checked(&self, asked: &Checks) -> Vec<String> {
        let Some(have) = &self.check else { return vec!["check: health checks are off".to_owned()] };
        let mut all = Vec::new();
        let path = asked.path.as_ref().map(Path::as_str);
        if path.is_some() && path != have.path.as_deref() {
            all.push(format!("check.path is {}", have.path.as_deref().unwrap_or("none")));
        }
        let numbers = [
            ("interval", asked.interval, have.interval),
            ("rise", asked.rise, have.rise),
            ("fall", asked.fall, have.fall),
        ];
        let differ = numbers.into_iter().filter(|(_, asked, have)| asked.is_some_and(|asked| asked != *have));
        all.extend(differ.map(|(name, _, have)| format!("check.{name} is {have}")));
        all
    }
}

fn algorithm(balance: Balance) -> Option<&'static str> {
    match balance {
        Balance::LeastConnections => Some("least_outstanding_requests"),
        Balance::Random => Some("weighted_random"),
        Balance::RoundRobin | Balance::Source | Balance::Uri => None,
    }
}
