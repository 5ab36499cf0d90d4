//! What is shown to etcd, and whom it must have its certificate from: files that the node's configuration names. They are looked at
//! again while they are in use: a certificate that is renewed and a password that is changed are taken over without a
//! restart. What cannot be read then leaves the last good ones in use, and is logged. No text that is made here quotes a file.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use shoal_store::{Result, StoreError};

use crate::address::Address;

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file that is read.
const MOST: u64 = 1 << 20;
/// How long a connection may take to be made, and a handshake.
const CONNECT: Duration = Duration::from_secs(3);

/// The files that are needed to be let in. What is not said is not used; without an authority those of the system are believed.
/// Only the password is looked at where the address says no TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Papers {
    /// The authority that signed the members' certificates, as a PEM file.
    pub ca: Option<PathBuf>,
    /// The certificate to show, as a PEM file. Its common name is the user, where etcd has `--client-cert-auth` and no
    /// password is shown.
    pub cert: Option<PathBuf>,
    /// The key of that certificate, as a PEM file.
    pub key: Option<PathBuf>,
    /// The file with the password of the user that the address names.
    pub password_file: Option<PathBuf>,
}

impl Papers {
    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key, &self.password_file].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// The files in use, and what was last read from them.
pub(crate) struct Shown {
    papers: Papers,
    tls: bool,
    user: Option<String>,
    state: Mutex<State>,
}

struct State {
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
    read: Read,
}

/// What a client is made with.
struct Read {
    options: ConnectOptions,
    /// The same without a password.
    unnamed: ConnectOptions,
}

/// What changes when a file is written anew or replaced.
type Stamp = (SystemTime, u64, u64);

impl Shown {
    /// Reads the files.
    pub(crate) fn new(address: &Address, papers: &Papers) -> Result<Self> {
        if let (Some(user), Some(open)) = (&address.user, address.readable()) {
            return Err(StoreError::Invalid(format!(
                "the password of {user} is not sent to {open}, because everybody on the way could read it: write etcds://, or use \
                 a loopback address"
            )));
        }
        let (tls, user) = (address.tls, address.user.clone());
        // Before they are read: what changes meanwhile is read again.
        let stamps = papers.files().map(stamp).collect();
        let read = read(papers, tls, user.as_deref())?;
        let state = Mutex::new(State { stamps, looked: Instant::now(), read });
        Ok(Self { papers: papers.clone(), tls, user, state })
    }

    /// Whether a password is shown.
    pub(crate) fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// What was last read.
    pub(crate) fn options(&self) -> ConnectOptions {
        self.state().read.options.clone()
    }

    /// The same without a password.
    pub(crate) fn unnamed(&self) -> ConnectOptions {
        self.state().read.unnamed.clone()
    }

    /// Whether the files say something else by now. Looks no more often than every [`LOOK`], unless it is `urgent`: etcd has just
    /// refused what was shown.
    pub(crate) fn renewed(&self, urgent: bool) -> bool {
        let mut state = self.state();
        if self.papers == Papers::default() || !urgent && state.looked.elapsed() < LOOK {
            return false;
        }
        state.looked = Instant::now();
        // A few words about small files; what waits for them would wait for the request, too.
        let stamps: Vec<_> = self.papers.files().map(stamp).collect();
        if stamps == state.stamps {
            return false;
        }
        state.stamps = stamps;
        match read(&self.papers, self.tls, self.user.as_deref()) {
            Ok(read) => {
                tracing::info!("read the password and the certificates for etcd anew");
                state.read = read;
                true
            }
            Err(error) => {
                tracing::warn!("what was read before stays in use: {error}");
                false
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = path.metadata().ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

fn read(papers: &Papers, tls: bool, user: Option<&str>) -> Result<Read> {
    let mut unnamed = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        // A member that was cut off says nothing: it is left after these, and where it has no leader at once.
        .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
        .with_require_leader(true);
    if tls {
        unnamed = unnamed.with_tls(tls_options(papers)?);
    }
    let mut options = unnamed.clone();
    if let Some(user) = user {
        let Some(path) = &papers.password_file else {
            return Err(StoreError::Invalid(format!(
                "the address of etcd names the user {user}, and no file has the password: give --password-file FILE \
                 (`password_file` in a configuration)"
            )));
        };
        options = options.with_user(user, password(path)?);
    }
    Ok(Read { options, unnamed })
}

fn tls_options(papers: &Papers) -> Result<TlsOptions> {
    let tls = TlsOptions::new().timeout(CONNECT);
    let tls = match &papers.ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(pem(path, "CERTIFICATE")?)),
        None => tls.with_native_roots(),
    };
    match (&papers.cert, &papers.key) {
        (None, None) => Ok(tls),
        (Some(cert), Some(key)) => {
            Ok(tls.identity(Identity::from_pem(pem(cert, "CERTIFICATE")?, pem(key, "PRIVATE KEY")?)))
        }
        _ => Err(StoreError::Invalid(
            "a certificate and its key go together: give both --cert FILE and --key FILE (`cert` and `key` in a \
             configuration)"
                .to_owned(),
        )),
    }
}

/// A file that holds a section of this name.
fn pem(path: &Path, section: &str) -> Result<Vec<u8>> {
    let octets = whole(path)?;
    let end = format!("{section}-----");
    let holds = octets.windows(end.len()).any(|part| part == end.as_bytes());
    match holds {
        true => Ok(octets),
        false => Err(StoreError::Invalid(format!(
            "{} holds nothing in PEM form that begins with -----BEGIN {section}-----",
            path.display()
        ))),
    }
}

fn password(path: &Path) -> Result<String> {
    let no = |why: &str| StoreError::Invalid(format!("{} holds no password: {why}", path.display()));
    let text = String::from_utf8(whole(path)?).map_err(|_| no("it is not UTF-8"))?;
    // Editors end a line; spaces may belong to a password.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(no("it is empty"));
    }
    if line.contains('\n') {
        return Err(no("it has several lines; write the password into it, and nothing else"));
    }
    Ok(line.to_owned())
}

fn whole(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let no = |why: &dyn std::fmt::Display| {
        StoreError::Invalid(format!("cannot read {}, which is for etcd: {why}", path.display()))
    };
    let mut octets = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| no(&e))?;
    file.take(MOST + 1).read_to_end(&mut octets).map_err(|e| no(&e))?;
    if octets.len() as u64 > MOST {
        return Err(no(&"it is too large"));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &str, papers: &Papers) -> Result<Shown> {
        Shown::new(&Address::parse(address).unwrap(), papers)
    }

    fn refused(address: &str, papers: &Papers) -> String {
        shown(address, papers).err().unwrap().to_string()
    }

    #[test]
    fn a_password_goes_only_where_nobody_reads_it_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let papers = Papers { password_file: Some(path), ..Papers::default() };
        assert!(shown("etcd://shoal@127.0.0.1", &papers).unwrap().has_user());
        assert!(!shown("etcd://h1", &papers).unwrap().has_user());
        let why = refused("etcd://shoal@127.0.0.1,h2", &papers);
        assert!(why.contains("h2:2379") && why.contains("etcds://") && !why.contains("hunter2"), "{why}");
        let why = refused("etcd://shoal@127.0.0.1", &Papers::default());
        assert!(why.contains("--password-file"), "{why}");
    }

    #[test]
    fn what_is_no_password_is_said_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let papers = Papers { password_file: Some(path.clone()), ..Papers::default() };
        let why = || refused("etcd://shoal@127.0.0.1", &papers);
        assert!(why().contains("No such file"), "{}", why());
        for (text, says) in [("", "empty"), ("\n", "empty"), ("hunter2\nhunter2\n", "several lines")] {
            std::fs::write(&path, text).unwrap();
            let said = why();
            assert!(said.contains(says) && !said.contains("hunter2"), "{said}");
        }
        for (text, is) in [("a b \n", "a b "), ("x\r\n", "x"), ("y", "y")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(password(&path).unwrap(), is);
        }
    }

    #[test]
    fn files_of_tls_are_what_they_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let ca = file("ca.pem", "-----BEGIN CERTIFICATE-----\n");
        let key = file("key.pem", "-----BEGIN EC PRIVATE KEY-----\n");
        let none = file("none.pem", "nothing");
        let good = Papers { ca: ca.clone(), cert: ca.clone(), key, ..Papers::default() };
        shown("etcds://h1", &good).unwrap();
        for (papers, says) in [
            (Papers { ca: none.clone(), ..good.clone() }, "none.pem"),
            (Papers { key: ca, ..good.clone() }, "PRIVATE KEY"),
            (Papers { key: None, ..good }, "go together"),
        ] {
            let why = refused("etcds://h1", &papers);
            assert!(why.contains(says), "{why}");
        }
        // Without TLS nobody reads them.
        shown("etcd://h1", &Papers { ca: none, ..Papers::default() }).unwrap();
    }

    #[test]
    fn a_changed_password_is_taken_over_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "one").unwrap();
        let papers = Papers { password_file: Some(path.clone()), ..Papers::default() };
        let shown = shown("etcd://shoal@127.0.0.1", &papers).unwrap();
        assert!(!shown.renewed(true), "nothing changed");
        std::fs::write(&path, "three").unwrap();
        assert!(!shown.renewed(false), "it was looked at just now");
        assert!(shown.renewed(true));
        std::fs::write(&path, "").unwrap();
        assert!(!shown.renewed(true));
        std::fs::write(&path, "four!").unwrap();
        assert!(shown.renewed(true) && !shown.renewed(true));
    }
}
