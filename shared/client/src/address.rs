//! Where a server is: `http://HOST:PORT`, `unix:/PATH`, or several of them with commas between.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use reqwest::Url;

/// What is not the address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Not an address.
    #[error(
        "{0:?} is not the address of a server: write http://HOST:PORT or unix:/PATH, and a comma between several"
    )]
    Unreadable(String),
    /// It asks for TLS.
    #[error(
        "{0}: this program speaks no TLS yet, and servers listen on loopback and Unix sockets only; write \
         http://127.0.0.1:PORT or unix:/PATH, and come from other machines through an SSH tunnel"
    )]
    Tls(String),
    /// It says who is asking. The text is left out: it may hold a password.
    #[error(
        "the address of the server {0} has a user or a password in it, which servers do not ask for: leave them out"
    )]
    User(String),
    /// No client for it could be set up.
    #[error("cannot set up a client for {0}: {1}")]
    Unusable(String, String),
}

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// As people wrote it.
    shown: String,
    /// What paths are appended to; without a slash at its end.
    base: String,
    /// The socket that is connected to instead of the host.
    pub(crate) socket: Option<PathBuf>,
}

impl Address {
    /// One address, or several with commas between.
    pub(crate) fn all(text: &str) -> Result<Vec<Self>, BadAddress> {
        text.split(',').map(|one| one.trim().parse()).collect()
    }

    /// The URL of a path of the API, such as `/store/head`.
    pub(crate) fn url(&self, path: &str) -> Option<Url> {
        Url::parse(&format!("{}/api/v2{path}", self.base)).ok()
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
        let unreadable = || BadAddress::Unreadable(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
                return Err(unreadable());
            }
            // The name in the URL is what the server hears as its own.
            return Ok(Self {
                shown: text.to_owned(),
                base: "http://localhost".to_owned(),
                socket: Some(path.into()),
            });
        }
        if !text.contains("://") {
            return Err(unreadable());
        }
        let url = Url::parse(text).map_err(|_| unreadable())?;
        let host = url.host_str().filter(|host| !host.is_empty());
        match (url.scheme(), host) {
            (_, Some(host)) if !url.username().is_empty() || url.password().is_some() => {
                Err(BadAddress::User(host.to_owned()))
            }
            ("https", Some(_)) => Err(BadAddress::Tls(text.to_owned())),
            ("http", Some(_)) if url.query().is_none() && url.fragment().is_none() => {
                let shown = text.trim_end_matches('/').to_owned();
                Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), shown, socket: None })
            }
            _ => Err(unreadable()),
        }
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
            ("unix:/run/shoal/hostdb.sock", "http://localhost/api/v2/store/head"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.url("/store/head").unwrap().as_str(), url);
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
        let both = Address::all("http://a:1, unix:/b").unwrap();
        assert_eq!((both.len(), both[1].socket.as_deref()), (2, Some("/b".as_ref())));
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
        ] {
            let error = Address::all(bad).unwrap_err();
            assert!(matches!(error, BadAddress::Unreadable(_)), "{bad}: {error}");
            assert!(error.to_string().contains("http://HOST:PORT or unix:/PATH"), "{error}");
        }
        assert!(Address::all("https://hostdb.example").unwrap_err().to_string().contains("no TLS yet"));
        for secret in ["http://ann:hunter2@a:1", "https://ann:hunter2@a:1"] {
            let said = Address::all(secret).unwrap_err().to_string();
            assert!(said.contains("password") && !said.contains("hunter2"), "{said}");
        }
    }
}
