//! Certificates for tests, made when they run: an authority, and what it signs. Only with the cargo feature of this name.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};

/// An authority of a test's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

/// A certificate to be.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The common name of its subject.
    pub common: Option<&'a str>,
    /// Names and addresses that it is for.
    pub names: &'a [&'a str],
    /// Identifiers that it names besides.
    pub uris: &'a [&'a str],
    /// How far from now it ends; `Err`: how long ago it did.
    pub ends: Result<Duration, Duration>,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self { common: None, names: &[], uris: &[], ends: Ok(Duration::from_secs(3600)) }
    }
}

/// A certificate and its key, in PEM form.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Pair {
    /// Writes both into files of this folder, which it names `NAME.pem` and `NAME.key`.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> std::io::Result<(PathBuf, PathBuf)> {
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, &self.cert)?;
        std::fs::write(&key, &self.key)?;
        Ok((cert, key))
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// What makes certificates refuses.
    pub fn new() -> Result<Self, Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of two authorities of one name, one is taken for the other.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name = named(&format!("authority {number} of a test"));
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate for servers and clients.
    ///
    /// # Errors
    /// What makes certificates refuses, a name for example.
    pub fn issue(&self, wish: &Wish<'_>) -> Result<Pair, Error> {
        let mut params =
            CertificateParams::new(wish.names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        for uri in wish.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        params.distinguished_name = wish.common.map(named).unwrap_or_default();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        params.not_before = (now - 30 * day).into();
        params.not_after = match wish.ends {
            Ok(ahead) => now + ahead,
            Err(ago) => now - ago,
        }
        .into();
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { cert, key: key.serialize_pem() })
    }

    /// One for servers of these names.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn server(&self, names: &[&str]) -> Result<Pair, Error> {
        self.issue(&Wish { names, ..Wish::default() })
    }

    /// One for a client that is called so.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn client(&self, common: &str) -> Result<Pair, Error> {
        self.issue(&Wish { common: Some(common), ..Wish::default() })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
