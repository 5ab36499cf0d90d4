//! A server of a pool: which host it is, and what its options say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;
use shoal_core::{HostName, HostRecord, Kind};

use super::Server;
use crate::import::ansible::{ImportError, Pools, Rows, renamed_by};

/// The hosts that servers may be.
pub(super) struct Hosts {
    by_name: BTreeMap<HostName, Host>,
    by_address: BTreeMap<IpAddr, Vec<HostName>>,
}

/// A host that a server may be.
pub(super) struct Host {
    pub(super) name: HostName,
    document: Value,
}

impl Host {
    /// Whether the host says of itself that it is a backup.
    pub(super) fn backs_up(&self) -> bool {
        self.document["lb"]["backup"].as_bool().unwrap_or(false)
    }

    /// A number that the host says otherwise than its pools.
    pub(super) fn said(&self, field: &str) -> Option<u64> {
        self.document["lb"][field].as_u64()
    }
}

impl Hosts {
    pub(super) fn of(rows: &Rows) -> Result<Self, ImportError> {
        let (mut by_name, mut by_address) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        for (key, row) in rows {
            let (Kind::Host(name), Some(value)) = (key.kind(), &row.value) else { continue };
            let record: HostRecord = value.to().map_err(|why| ImportError::Row { key: key.clone(), why })?;
            let document = record.document.value();
            for field in ["address", "address6"] {
                if let Some(address) = document[field].as_str().and_then(|text| text.parse().ok()) {
                    by_address.entry(address).or_default().push(name.clone());
                }
            }
            by_name.insert(name.clone(), Host { name, document });
        }
        Ok(Self { by_name, by_address })
    }

    /// The host that a server is: where it sends requests counts, and not what it is called.
    pub(super) fn find(&self, server: &Server, pools: &Pools) -> Result<&Host, String> {
        let named = |name: &str| renamed_by(name, &pools.rename, pools.domain.as_deref());
        if let Ok(address) = server.address.parse::<IpAddr>() {
            let all = self.by_address.get(&address).map_or(&[][..], Vec::as_slice);
            let called = named(&server.name);
            let one = match all {
                [one] => Some(one),
                several => several.iter().find(|host| host.as_str() == called),
            };
            return one.and_then(|name| self.by_name.get(name)).ok_or_else(|| match all.len() {
                0 => format!("no host has the address {address}"),
                n => format!("{n} hosts have the address {address}, and none of them is called {called}"),
            });
        }
        let name = named(&server.address);
        let host = name.parse::<HostName>().map_err(|why| why.to_string())?;
        self.by_name.get(&host).ok_or_else(|| format!("there is no host {host}"))
    }
}

/// What a server's options say.
pub(super) struct Options {
    pub(super) weight: u64,
    pub(super) check: bool,
    pub(super) backup: bool,
    /// Who signs its certificate, if it is reached over TLS.
    pub(super) tls: Option<String>,
    /// How it is checked: interval in seconds, rise, fall; and its slow start in seconds.
    pub(super) how: (u64, u64, u64, u64),
}

impl Options {
    /// Reads them; what a pool does not say is noted.
    pub(super) fn read(server: &Server, pools: &Pools, note: &mut impl FnMut(String)) -> Self {
        let tls = tls(&server.options, pools);
        let mut options = Self { weight: 1, check: false, backup: false, tls, how: (2, 2, 3, 0) };
        let mut words = server.options.iter().map(String::as_str);
        let mut other = Vec::new();
        while let Some(word) = words.next() {
            let (at, time) = match word {
                "check" => {
                    options.check = true;
                    continue;
                }
                "backup" => {
                    options.backup = true;
                    continue;
                }
                "ssl" if options.tls.is_some() => continue,
                "verify" | "ca-file" if options.tls.is_some() => {
                    words.next();
                    continue;
                }
                "weight" => (&mut options.weight, false),
                "inter" => (&mut options.how.0, true),
                "rise" => (&mut options.how.1, false),
                "fall" => (&mut options.how.2, false),
                "slowstart" => (&mut options.how.3, true),
                _ => {
                    other.push(word);
                    continue;
                }
            };
            let said = words.next().unwrap_or_default();
            match if time { seconds(said) } else { said.parse().ok() } {
                Some(number) => *at = number,
                None => note(format!(
                    "server {}: {word} {said:?} cannot be read; as if it were not there",
                    server.name
                )),
            }
        }
        if !other.is_empty() {
            note(format!(
                "server {}: `{}` is left out: a pool does not say it",
                server.name,
                other.join(" ")
            ));
        }
        options
    }
}

/// Who signs the certificate of a server with these options, as the mapping calls it; nothing where it is not told, or not asked for.
fn tls(options: &[String], pools: &Pools) -> Option<String> {
    let after = |word: &str| options.iter().skip_while(|option| *option != word).nth(1).map(String::as_str);
    let asked = options.iter().any(|option| option == "ssl") && after("verify") == Some("required");
    pools.tls.get(after("ca-file").filter(|_| asked)?).cloned()
}

/// A time of HAProxy's, in seconds, rounded up: a number of milliseconds, or with a unit.
fn seconds(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "us" => number.div_ceil(1_000_000),
        "" | "ms" => number.div_ceil(1000),
        "s" => number,
        "m" => number.checked_mul(60)?,
        "h" => number.checked_mul(3600)?,
        "d" => number.checked_mul(86_400)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_whole_seconds() {
        let read = ["15s", "500", "1500ms", "2m", "3w", ""].map(super::seconds);
        assert_eq!(read, [Some(15), Some(1), Some(2), Some(120), None, None]);
    }
}
