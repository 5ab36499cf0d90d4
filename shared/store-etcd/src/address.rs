//! `etcds://shoal@h1:2379,h2:2379/name?quota=8GiB`: where etcd listens, whether by TLS, as whom, and which database of it is meant.

use shoal_store::{Result, StoreError, without_password};

/// The port that etcd listens on for clients.
const PORT: u16 = 2379;
/// The database of an address that names none.
const NAME: &str = "shoal";
/// How an address is written.
const FORM: &str = "etcd://HOST:PORT[,HOST:PORT…][/NAME], etcds:// for TLS, USER@ before the first host";

/// Where etcd listens, and which database of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Each `host:port`.
    pub(crate) hosts: Vec<String>,
    /// Whether by TLS.
    pub(crate) tls: bool,
    /// Whose password is shown.
    pub(crate) user: Option<String>,
    /// The first part of all keys.
    pub(crate) name: String,
    /// How many octets etcd's own database may have, where that is said.
    pub(crate) quota: Option<u64>,
}

impl Address {
    /// Reads an address, with or without `etcd:` in front.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| {
            StoreError::Invalid(format!(
                "{} is no address of etcd: {why}; write {FORM}",
                without_password(text)
            ))
        };
        let (tls, rest) = match text.strip_prefix("etcds:") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("etcd:").unwrap_or(text)),
        };
        let rest = rest.strip_prefix("//").ok_or_else(|| bad("two slashes are missing".into()))?;
        let (rest, options) = rest.split_once('?').map_or((rest, None), |(rest, o)| (rest, Some(o)));
        let (hosts, name) = rest.split_once('/').unwrap_or((rest, ""));
        let name = if name.is_empty() { NAME } else { name };
        // One part only: no database may stand inside another.
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err(bad(format!("the name {name:?} may have letters, digits, dots, dashes")));
        }
        let (user, hosts) = hosts.rsplit_once('@').map_or((None, hosts), |(user, hosts)| (Some(user), hosts));
        let user = user.map(|user| known(user).map_err(&bad)).transpose()?;
        let hosts = hosts.split(',').map(|host| with_port(host).map_err(&bad)).collect::<Result<_>>()?;
        let quota = options.map(|options| quota(options).map_err(&bad)).transpose()?;
        Ok(Self { hosts, tls, user, name: name.to_owned(), quota })
    }

    /// The first host to which what is sent could be read on the way.
    pub(crate) fn readable(&self) -> Option<&str> {
        let own = |host: &str| ["127.", "localhost:", "[::1]:"].iter().any(|start| host.starts_with(start));
        self.hosts.iter().map(String::as_str).find(|host| !self.tls && !own(host))
    }
}

fn known(user: &str) -> Result<String, String> {
    if user.contains(':') {
        return Err("a password does not belong here, where logs and other users see it: write it into a file of its own, and \
             name that with --password-file (`password_file` in a configuration)"
            .into());
    }
    if user.is_empty() || !user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(format!("the user {user:?} may have letters, digits, dots, dashes"));
    }
    Ok(user.to_owned())
}

fn with_port(host: &str) -> Result<String, String> {
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

/// What stands behind the question mark.
fn quota(options: &str) -> Result<u64, String> {
    let bad = || {
        format!(
            "{options:?} is no option: there is quota=SIZE, etcd's --quota-backend-bytes, such as quota=8GiB"
        )
    };
    let size = options.strip_prefix("quota=").ok_or_else(bad)?;
    let (digits, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
    let octets: u64 = match unit {
        "" => 1,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(bad()),
    };
    let all = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(octets));
    all.filter(|all| *all > 0).ok_or_else(bad)
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
        for bad in [
            "etcd:h1",
            "etcd://",
            "etcd://h1,,h2",
            "etcd://h1:x",
            "etcd://h1/a/b",
            "etcd://@h1",
            "etcd://a b@h1",
            "etcd://h1@h2@h3",
            "etcd://h1?quota",
            "etcd://h1?quota=",
            "etcd://h1?quota=0",
            "etcd://h1?quota=8GB",
            "etcd://h1?quota=99999999999GiB",
            "etcd://h1?size=8GiB",
        ] {
            let why = read(bad).unwrap_err().to_string();
            assert!(why.contains(bad) && why.contains("write etcd://"), "{why}");
        }
    }

    #[test]
    fn users_tls_and_room_are_read() {
        let address = Address::parse("etcds://shoal@h1,h2/blue?quota=8GiB").unwrap();
        let expected = Address {
            hosts: vec!["h1:2379".into(), "h2:2379".into()],
            tls: true,
            user: Some("shoal".into()),
            name: "blue".into(),
            quota: Some(8 << 30),
        };
        assert_eq!(address, expected);
        let quota = |text| Address::parse(text).unwrap().quota;
        assert_eq!(quota("etcd://h1?quota=512MiB"), Some(512 << 20));
        assert_eq!(quota("etcd://h1/?quota=7"), Some(7));
        assert_eq!(quota("etcd://h1"), None);
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        for bad in ["etcd://u:hunter2@h1", "etcds://u:hun@ter2@h1,h2/x", "//:hunter2@h1"] {
            let why = Address::parse(bad).unwrap_err().to_string();
            assert!(why.contains("--password-file") && !why.contains("ter2"), "{why}");
        }
    }

    #[test]
    fn what_others_could_read_is_known() {
        let readable = |text| Address::parse(text).unwrap().readable().map(str::to_owned);
        for own in ["etcd://127.0.0.1", "etcd://localhost,[::1]:7", "etcds://h1,h2"] {
            assert_eq!(readable(own), None, "{own}");
        }
        assert_eq!(readable("etcd://127.0.0.1,h2").as_deref(), Some("h2:2379"));
        assert_eq!(readable("etcd://localhost.example").as_deref(), Some("localhost.example:2379"));
    }
}
