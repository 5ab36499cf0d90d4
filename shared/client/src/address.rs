//! Where a server is: `https://HOST:PORT`, `http://HOST:PORT`, `unix:/PATH`, or several of them with commas between.
//! Every program of Shoal reads the addresses of servers here and nowhere else.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;
use rustls::pki_types::ServerName;
use url::{Host, Url};

use crate::access::BadAccess;

/// What is not the address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Not an address. What may be a password is left out of the text.
    #[error(
        "{0:?} is not the address of a server: write https://HOST:PORT, http://HOST:PORT or unix:/PATH, and a comma \
         between several"
    )]
    Unreadable(String),
    /// It says who is asking. The text is left out: it may hold a password.
    #[error(
        "the address of the server {0} has a user or a password in it, where others see them: leave them out; a token is \
         given with --token-file FILE"
    )]
    User(String),
    /// What is to be shown to it cannot be.
    #[error(transparent)]
    Access(#[from] BadAccess),
}

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// As people wrote it.
    shown: String,
    /// What paths are appended to; without a slash at its end.
    base: String,
    /// How it is reached.
    pub(crate) way: Way,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A Unix socket, whatever host stands in the URL.
    Socket(PathBuf),
    /// Plain, to this machine.
    Loopback,
    /// Plain, to anywhere: readable on the way.
    Plain,
    /// TLS, with whom.
    Tls(ServerName<'static>),
}

impl Address {
    /// One address, or several with commas between.
    pub(crate) fn all(text: &str) -> Result<Vec<Self>, BadAddress> {
        text.split(',').map(|one| one.trim().parse()).collect()
    }

    /// The URL of a path of the API, such as `/store/head`, with these words of a query.
    pub(crate) fn url(&self, path: &str, query: &[(&'static str, String)]) -> Option<Uri> {
        let mut url = Url::parse(&format!("{}/api/v2{path}", self.base)).ok()?;
        // Without a pair it would still leave a question mark.
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url.as_str().parse().ok()
    }

    /// Whether others on the way can read what is sent there.
    pub(crate) fn is_readable(&self) -> bool {
        self.way == Way::Plain
    }

    /// Whether TLS is spoken with it.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.way, Way::Tls(_))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let unreadable = || BadAddress::Unreadable(without_secrets(text));
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
                return Err(unreadable());
            }
            // The name in the URL is what the server hears as its own.
            return Ok(Self {
                shown: text.to_owned(),
                base: "http://localhost".to_owned(),
                way: Way::Socket(path.into()),
            });
        }
        if !text.contains("://") {
            return Err(unreadable());
        }
        let url = Url::parse(text).map_err(|_| unreadable())?;
        let host = url.host().filter(|host| *host != Host::Domain("")).ok_or_else(unreadable)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadAddress::User(host.to_string()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(unreadable());
        }
        let way = match url.scheme() {
            "https" => Way::Tls(name(&host).ok_or_else(unreadable)?),
            "http" if is_loopback(&host) => Way::Loopback,
            "http" => Way::Plain,
            _ => return Err(unreadable()),
        };
        let shown = text.trim_end_matches('/').to_owned();
        Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), shown, way })
    }
}

/// A text that is no address, as it may be shown: without what stands before an `@`, where a port belongs and is none, and in a query. Each
/// of them may be a password, or a part of one that has a comma in it. A socket's path has none.
fn without_secrets(text: &str) -> String {
    if text.starts_with("unix:") {
        return text.to_owned();
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("…@", rest));
    let (rest, query) = rest.find(['?', '#']).map_or((rest, ""), |at| (&rest[..at], "…"));
    let (place, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    // An address of IPv6 has colons of its own.
    let after = place.rfind(']').map_or(0, |at| at + 1);
    let port = place[after..].find(':').map(|at| after + at + 1);
    let place = match port {
        Some(at) if !place[at..].chars().all(|c| c.is_ascii_digit()) => format!("{}…", &place[..at]),
        _ => place.to_owned(),
    };
    let scheme = if text.contains("://") { format!("{scheme}://") } else { String::new() };
    format!("{scheme}{user}{place}{path}{query}")
}

/// What a certificate is to be for.
fn name(host: &Host<&str>) -> Option<ServerName<'static>> {
    match host {
        Host::Domain(name) => ServerName::try_from((*name).to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::from(std::net::IpAddr::V4(*address))),
        Host::Ipv6(address) => Some(ServerName::from(std::net::IpAddr::V6(*address))),
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_or_sockets() {
        for (text, url) in [
            ("http://127.0.0.1:8053", "http://127.0.0.1:8053/api/v2/store/head"),
            ("http://[::1]:8053/", "http://[::1]:8053/api/v2/store/head"),
            ("http://hostdb/shoal/", "http://hostdb/shoal/api/v2/store/head"),
            ("https://hostdb.example", "https://hostdb.example/api/v2/store/head"),
            ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443/api/v2/store/head"),
            ("unix:/run/shoal/hostdb.sock", "http://localhost/api/v2/store/head"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.url("/store/head", &[]).unwrap().to_string(), url);
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
        let both = Address::all("http://a:1, unix:/b").unwrap();
        assert_eq!((both.len(), &both[1].way), (2, &Way::Socket("/b".into())));
        let query = both[0].url("/search", &[("where", "a == 'ü&'".to_owned())]).unwrap();
        assert_eq!(query.to_string(), "http://a:1/api/v2/search?where=a+%3D%3D+%27%C3%BC%26%27");
    }

    #[test]
    fn it_is_known_who_can_read_on_the_way() {
        let way = |text: &str| text.parse::<Address>().unwrap().way;
        for near in ["http://127.0.0.1:1", "http://127.9.9.9", "http://localhost:1", "http://[::1]"] {
            assert_eq!(way(near), Way::Loopback, "{near}");
        }
        // Whoever owns the name decides where it leads.
        for far in ["http://a", "http://localhost.example", "http://192.0.2.1", "http://[2001:db8::1]"] {
            assert_eq!(way(far), Way::Plain, "{far}");
        }
        assert_eq!(way("https://a.example:1"), Way::Tls("a.example".try_into().unwrap()));
        assert_eq!(way("https://192.0.2.1"), Way::Tls("192.0.2.1".try_into().unwrap()));
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write() {
        for bad in [
            "",
            "http://",
            "http:x",
            "ftp://a",
            "127.0.0.1:80",
            "unix:x",
            "unix:/x/",
            "http://a/?q",
            "http://a,",
            "https://",
            "https://a/#b",
        ] {
            let error = Address::all(bad).unwrap_err();
            assert!(matches!(error, BadAddress::Unreadable(_)), "{bad}: {error}");
            assert!(
                error.to_string().contains("https://HOST:PORT, http://HOST:PORT or unix:/PATH"),
                "{error}"
            );
        }
        for secret in ["http://ann:hunter2@a:1", "https://ann:hunter2@a:1"] {
            let said = Address::all(secret).unwrap_err().to_string();
            assert!(said.contains("password") && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_shown_without_what_may_be_a_password() {
        for (bad, shown) in [
            ("http://ann:hunter2@a:b", "http://…@a:…"),
            ("http://ann:hunter2@", "http://…@"),
            ("http://ann:hunt/er2@a b", "http://…@a b"),
            ("http://ann:hunt?er2@a b", "http://…@a b"),
            ("http://ann:hunt@er2@a b/c", "http://…@a b/c"),
            ("ftp://ann:hunter2", "ftp://ann:…"),
            ("http://ann:hunter2", "http://ann:…"),
            ("http://ann:hunter2,er2@a:1", "http://ann:…"),
            ("ann:hunter2@a:1", "…@a:1"),
            ("http://a/?token=hunter2", "http://a/…"),
            ("https://a/b#hunter2", "https://a/b…"),
            ("http://[::1]:hunter2/x", "http://[::1]:…/x"),
            // What has none is shown as it is.
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("ftp://[::1]:80/x", "ftp://[::1]:80/x"),
            ("unix:x", "unix:x"),
        ] {
            let error = Address::all(bad).unwrap_err();
            assert_eq!(error, BadAddress::Unreadable(shown.to_owned()), "{bad}");
            assert!(!error.to_string().contains("er2"), "{error}");
        }
    }
}
