//! `etcd://h1:2379,h2:2379/name`: where etcd listens, and which database of it is meant.

use shoal_store::{Result, StoreError};

/// The port that etcd listens on for clients.
const PORT: u16 = 2379;
/// The database of an address that names none.
const NAME: &str = "shoal";

/// Where etcd listens, and which database of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Each `host:port`.
    pub(crate) hosts: Vec<String>,
    /// The first part of all keys.
    pub(crate) name: String,
}

impl Address {
    /// Reads an address, with or without `etcd:` in front.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| {
            StoreError::Invalid(format!(
                "{text} is no address of etcd: {why}; write etcd://HOST:PORT[,HOST:PORT…][/NAME]"
            ))
        };
        let rest = text.strip_prefix("etcd:").unwrap_or(text);
        let rest = rest.strip_prefix("//").ok_or_else(|| bad("two slashes are missing".into()))?;
        let (hosts, name) = rest.split_once('/').unwrap_or((rest, ""));
        let name = if name.is_empty() { NAME } else { name };
        // One part only: no database may stand inside another.
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err(bad(format!("the name {name:?} may have letters, digits, dots, dashes")));
        }
        let hosts = hosts.split(',').map(|host| with_port(host).map_err(&bad)).collect::<Result<_>>()?;
        Ok(Self { hosts, name: name.to_owned() })
    }
}

fn with_port(host: &str) -> Result<String, String> {
    if host.contains('@') {
        return Err("passwords are not supported yet".into());
    }
    // Of an IPv6 address only what follows the bracket can be a port.
    let (name, port) = match host.rfind(']') {
        Some(end) => (&host[..=end], host[end + 1..].strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(format!("{host:?} is no host"));
    }
    match port.map(str::parse::<u16>) {
        None => Ok(format!("{name}:{PORT}")),
        Some(Ok(port)) => Ok(format!("{name}:{port}")),
        Some(Err(_)) => Err(format!("{host:?} has no port that is a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let read = |text| Address::parse(text).map(|a| (a.hosts.join(" "), a.name));
        assert_eq!(read("etcd://h1,h2:99"), Ok(("h1:2379 h2:99".into(), "shoal".into())));
        assert_eq!(read("//[::1]:7/blue"), Ok(("[::1]:7".into(), "blue".into())));
        assert_eq!(read("//[::1]"), Ok(("[::1]:2379".into(), "shoal".into())));
        for bad in ["etcd:h1", "etcd://", "etcd://h1,,h2", "etcd://u:p@h1", "etcd://h1:x", "etcd://h1/a/b"] {
            let why = read(bad).unwrap_err().to_string();
            assert!(why.contains(bad) && why.contains("write etcd://"), "{why}");
        }
    }
}
