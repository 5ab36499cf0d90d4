//! How a client shows who it is, and whom it believes: an authority, a certificate with its key, a token. All of them are
//! files, named on the command line, in the environment or in the node's configuration; the secrets themselves are never
//! an argument and never part of an address, where other users and logs would see them.
//!
//! The files are looked at again while they are in use: a token that is rotated and a certificate that is renewed are
//! taken over without a restart. One that cannot be read then leaves the last good one in use, and is logged.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use clap::Args;
use http::HeaderValue;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use crate::address::Address;
use crate::exposed::{exposed, warn_if_exposed};
use crate::tls::{self, BadFile};

/// The largest file that is read as a token.
const MAX_TOKEN: usize = 8 << 10;
/// Under which these options stand in a help.
const HEADING: &str = "To be let in by a server";
/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// The files that a client needs to be let in. What is not said is not used; without an authority those of the system are
/// believed.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The authority that signed the servers' certificates, as a PEM file [default: the system's authorities]
    #[arg(id = "access_ca", long = "ca", global = true, help_heading = HEADING, value_name = "FILE", env = "SHOAL_CA")]
    pub ca: Option<PathBuf>,
    /// The certificate to show to servers, as a PEM file
    #[arg(id = "access_cert", long = "cert", global = true, help_heading = HEADING, value_name = "FILE", env = "SHOAL_CERT")]
    pub cert: Option<PathBuf>,
    /// The key of that certificate, as a PEM file
    #[arg(id = "access_key", long = "key", global = true, help_heading = HEADING, value_name = "FILE", env = "SHOAL_KEY")]
    pub key: Option<PathBuf>,
    /// The file with the token to show to servers; read again when it changes
    #[arg(
        id = "access_token",
        long = "token-file",
        global = true,
        help_heading = HEADING,
        value_name = "FILE",
        env = "SHOAL_TOKEN_FILE"
    )]
    pub token_file: Option<PathBuf>,
    /// The file with the password of the user that an address of etcd names; read again when it changes
    #[arg(
        id = "access_password",
        long = "password-file",
        global = true,
        help_heading = HEADING,
        value_name = "FILE",
        env = "SHOAL_PASSWORD_FILE"
    )]
    pub password_file: Option<PathBuf>,
}

impl Access {
    /// What is said here, and where nothing is, what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        // One half of a pair and another's half do not go together.
        let (cert, key) = match (&self.cert, &self.key) {
            (None, None) => (other.cert, other.key),
            _ => (self.cert, self.key),
        };
        Self {
            ca: self.ca.or(other.ca),
            cert,
            key,
            token_file: self.token_file.or(other.token_file),
            password_file: self.password_file.or(other.password_file),
        }
    }

    /// What to say of those files with secrets that every user of this machine can read. Programs that have a log need not ask: it is
    /// said there.
    #[must_use]
    pub fn exposed(&self) -> Vec<String> {
        let of = |path: &Option<PathBuf>, what| path.as_deref().and_then(|path| exposed(path, what));
        let all = [
            of(&self.token_file, "the token"),
            of(&self.key, "the private key"),
            of(&self.password_file, "the password"),
        ];
        all.into_iter().flatten().collect()
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key, &self.token_file].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// Why a client cannot show who it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAccess {
    /// A file of TLS.
    #[error(transparent)]
    File(#[from] BadFile),
    /// A certificate without its key, or the other way round.
    #[error(
        "a certificate and its key go together: give both --cert FILE and --key FILE (`cert` and `key` in a configuration)"
    )]
    Half,
    /// The system has no authorities.
    #[error(
        "this system has no certificates of authorities to believe ({0}): name the one of the servers with --ca FILE"
    )]
    NoAuthorities(String),
    /// The token's file does not hold one.
    #[error("{} holds no token: {why}", .path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
        /// What it holds instead; never quoted.
        why: String,
    },
    /// Everybody on the way could read it.
    #[error(
        "the token in {} is not sent to {address}, because everybody on the way could read it: write https://, or use a \
         loopback address or a Unix socket", .path.display()
    )]
    Readable {
        /// The token's file.
        path: PathBuf,
        /// Where it would go.
        address: String,
    },
}

/// What was read from the files.
#[derive(Clone)]
pub(crate) struct Papers {
    /// For `https:`.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The header `Authorization`.
    pub(crate) token: Option<HeaderValue>,
}

/// The files in use, and when they were last looked at.
pub(crate) struct Credentials {
    pub(crate) access: Access,
    https: bool,
    state: Mutex<State>,
}

struct State {
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
    papers: Papers,
}

/// What changes when a file is written anew or replaced.
type Stamp = (SystemTime, u64, u64);

impl Credentials {
    /// Reads the files.
    pub(crate) fn new(access: Access, addresses: &[Address]) -> Result<Self, BadAccess> {
        if let Some(path) = &access.token_file
            && let Some(open) = addresses.iter().find(|address| address.is_readable())
        {
            return Err(BadAccess::Readable { path: path.clone(), address: open.to_string() });
        }
        let https = addresses.iter().any(Address::is_tls);
        // Before they are read: what changes meanwhile is read again.
        let stamps = access.files().map(stamp).collect();
        let papers = read(&access, https)?;
        let state = Mutex::new(State { stamps, looked: Instant::now(), papers });
        Ok(Self { access, https, state })
    }

    /// What was last read.
    pub(crate) fn papers(&self) -> Papers {
        self.state().papers.clone()
    }

    /// What the files say now, if that is something else. Looks no more often than every [`LOOK`], unless it is `urgent`:
    /// a server has just refused what was shown.
    pub(crate) fn renewed(&self, urgent: bool) -> Option<Papers> {
        let mut state = self.state();
        if self.access == Access::default() || !urgent && state.looked.elapsed() < LOOK {
            return None;
        }
        state.looked = Instant::now();
        // A few words about small files; what waits for them would wait for the request, too.
        let stamps: Vec<_> = self.access.files().map(stamp).collect();
        if stamps == state.stamps {
            return None;
        }
        state.stamps = stamps;
        match read(&self.access, self.https) {
            Ok(papers) => {
                tracing::info!("read the token and the certificates anew");
                state.papers = papers.clone();
                Some(papers)
            }
            Err(error) => {
                tracing::warn!("what was read before stays in use: {error}");
                None
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = path.metadata().ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

fn read(access: &Access, https: bool) -> Result<Papers, BadAccess> {
    let token = access.token_file.as_deref().map(token).transpose()?;
    let tls = if https { Some(Arc::new(config(access)?)) } else { None };
    Ok(Papers { tls, token })
}

fn config(access: &Access) -> Result<ClientConfig, BadAccess> {
    let roots = match &access.ca {
        Some(path) => tls::authorities(path)?,
        None => system()?,
    };
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| BadAccess::NoAuthorities(e.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&access.cert, &access.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let made = builder.with_client_auth_cert(tls::certificates(cert)?, tls::key(key)?);
            let apart = |e: rustls::Error| BadFile::Apart {
                cert: cert.clone(),
                key: key.clone(),
                why: tls::apart(&e),
            };
            made.map_err(apart)?
        }
        _ => return Err(BadAccess::Half),
    };
    config.alpn_protocols = vec![tls::PROTOCOL.to_vec()];
    Ok(config)
}

fn system() -> Result<RootCertStore, BadAccess> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system has some that nobody can read; they are believed by nobody.
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
    Err(BadAccess::NoAuthorities(why))
}

fn token(path: &Path) -> Result<HeaderValue, BadAccess> {
    use std::io::Read as _;
    let unreadable = |e: std::io::Error| BadFile::Unreadable { path: path.to_owned(), why: e.to_string() };
    warn_if_exposed(path, "the token");
    let mut octets = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_TOKEN as u64 + 1).read_to_end(&mut octets).map_err(unreadable)?;
    let no = |why: &str| BadAccess::NoToken { path: path.to_owned(), why: why.to_owned() };
    if octets.len() > MAX_TOKEN {
        return Err(no("it is too long"));
    }
    let token = octets.trim_ascii();
    if token.is_empty() {
        return Err(no("it is empty"));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(no("it is not one word; write the token into it, and nothing else"));
    }
    let mut header =
        HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| no("it is not one word"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<Address> {
        Address::all(text).unwrap()
    }

    #[test]
    fn a_token_goes_only_where_nobody_reads_it_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        let access = Access { token_file: Some(path), ..Access::default() };
        for good in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "unix:/s"] {
            let credentials = Credentials::new(access.clone(), &addresses(good)).unwrap();
            assert_eq!(credentials.papers().token.unwrap(), "Bearer hunter2", "{good}");
        }
        for bad in ["http://hostdb.example", "http://192.0.2.1:1", "unix:/s,http://10.0.0.1:1"] {
            let error = Credentials::new(access.clone(), &addresses(bad)).err().unwrap();
            let said = error.to_string();
            assert!(matches!(error, BadAccess::Readable { .. }) && said.contains("https://"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_is_no_token_is_said_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let access = Access { token_file: Some(path.clone()), ..Access::default() };
        let why = || Credentials::new(access.clone(), &addresses("unix:/s")).err().unwrap().to_string();
        assert!(why().contains("No such file"), "{}", why());
        for (text, says) in [
            ("", "empty"),
            (" \n", "empty"),
            ("hunter2 hunter2", "one word"),
            ("hunter2\nhunter2\n", "one word"),
            ("hünter2", "one word"),
            (&"hunter2".repeat(2000), "too long"),
        ] {
            std::fs::write(&path, text).unwrap();
            let said = why();
            assert!(said.contains(says) && said.contains("token") && !said.contains("nter2"), "{said}");
        }
        std::fs::write(&path, "hunter2").unwrap();
        let credentials = Credentials::new(access.clone(), &addresses("unix:/s")).unwrap();
        assert!(!format!("{:?}", credentials.papers().token).contains("hunter2"), "it is marked as a secret");
    }

    #[test]
    fn a_rotated_token_is_taken_over_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let access = Access { token_file: Some(path.clone()), ..Access::default() };
        let credentials = Credentials::new(access, &addresses("unix:/s")).unwrap();
        assert!(credentials.renewed(true).is_none(), "nothing changed");
        std::fs::write(&path, "three").unwrap();
        assert!(credentials.renewed(false).is_none(), "it was looked at just now");
        assert_eq!(credentials.renewed(true).unwrap().token.unwrap(), "Bearer three");
        for bad in ["", "two words"] {
            std::fs::write(&path, bad).unwrap();
            assert!(credentials.renewed(true).is_none());
            assert_eq!(credentials.papers().token.unwrap(), "Bearer three");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(credentials.renewed(true).is_none());
        std::fs::write(&path, "four").unwrap();
        assert_eq!(credentials.renewed(true).unwrap().token.unwrap(), "Bearer four");
    }

    #[test]
    fn what_is_said_first_counts_and_pairs_stay_together() {
        let path = |name: &str| Some(PathBuf::from(name));
        let line = Access { ca: path("a"), cert: path("b"), ..Access::default() };
        let file = Access {
            ca: path("1"),
            cert: path("2"),
            key: path("3"),
            token_file: path("4"),
            password_file: path("5"),
        };
        let both = line.clone().or(file.clone());
        assert_eq!((both.ca, both.cert, both.key, both.token_file), (path("a"), path("b"), None, path("4")));
        assert_eq!(both.password_file, path("5"));
        assert_eq!(Access::default().or(file.clone()), file);
        let half = Credentials::new(line, &addresses("https://a")).err().unwrap();
        assert!(matches!(half, BadAccess::File(_) | BadAccess::Half), "{half}");
    }
}
