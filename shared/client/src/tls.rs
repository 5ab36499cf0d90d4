//! TLS, as both ends of Shoal speak it: one crypto provider, certificates and keys out of PEM files, and what is wrong
//! with the other end in words that help.
//!
//! No text that is made here quotes a file: it may be the one with the key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::exposed::warn_if_exposed;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, RootCertStore};

/// What both ends say that they speak (ALPN).
pub const PROTOCOL: &[u8] = b"http/1.1";

/// A file from which TLS cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// The system does not give it out.
    #[error("cannot read {}: {why}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Nothing of what it is for is in it.
    #[error("{} holds no {what} in PEM form (-----BEGIN {begin}-----)", .path.display())]
    Lacks {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// How that begins.
        begin: &'static str,
    },
    /// It is damaged, or only a part of it is there.
    #[error("{} is no whole PEM file: {why}", .path.display())]
    Broken {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// They do not go together.
    #[error("the certificate in {} and the key in {} do not go together: {why}", .cert.display(), .key.display())]
    Apart {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What is wrong with them.
        why: String,
    },
}

impl BadFile {
    fn of(error: pem::Error, path: &Path, what: &'static str, begin: &'static str) -> Self {
        let path = path.to_owned();
        match error {
            pem::Error::Io(error) => Self::Unreadable { path, why: error.to_string() },
            pem::Error::NoItemsFound => Self::Lacks { path, what, begin },
            pem::Error::Base64Decode(_) => {
                Self::Broken { path, why: "what should be base 64 is not".to_owned() }
            }
            _ => Self::Broken { path, why: "a section does not begin or end as it should".to_owned() },
        }
    }
}

/// The one crypto provider of Shoal's programs.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of a file, in its order.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let bad = |error| BadFile::of(error, path, "certificate", "CERTIFICATE");
    let all =
        CertificateDer::pem_file_iter(path).map_err(bad)?.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if all.is_empty() { Err(bad(pem::Error::NoItemsFound)) } else { Ok(all) }
}

/// The first private key of a file. One under a passphrase is none. A file that others can read is warned of in the log, once.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, BadFile> {
    warn_if_exposed(path, "the private key");
    PrivateKeyDer::from_pem_file(path).map_err(|error| BadFile::of(error, path, "private key", "PRIVATE KEY"))
}

/// The certificates of a file as authorities.
///
/// # Errors
/// It cannot be read, holds none, or one that cannot be an authority.
pub fn authorities(path: &Path) -> Result<RootCertStore, BadFile> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| BadFile::Broken { path: path.to_owned(), why: error.to_string() })?;
    }
    Ok(roots)
}

/// What is wrong with the other end, as a sentence about it: "its certificate expired at …".
#[must_use]
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(wrong) => certificate(wrong),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::NoCertificatesPresented => "it showed no certificate, and here one is demanded".to_owned(),
        Error::InvalidMessage(_) => "what it speaks is no TLS".to_owned(),
        Error::PeerIncompatible(why) => format!("it speaks no TLS that is spoken here ({why:?})"),
        other => format!("TLS with it failed: {other}"),
    }
}

fn certificate(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate expired at {}, and the clock here says {}: renew it (or mend the clock)",
            stamp(*not_after),
            stamp(*time)
        ),
        CertificateError::Expired => "its certificate expired: renew it".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate is valid from {} on, and the clock here says {}: see which clock is wrong",
            stamp(*not_before),
            stamp(*time)
        ),
        CertificateError::UnknownIssuer => {
            "its certificate is signed by no authority that is trusted here".to_owned()
        }
        CertificateError::BadSignature => {
            "its certificate is signed by another authority than the one of that name that is trusted here"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is not for {}, but for {}",
            expected.to_str(),
            if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") }
        ),
        CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
            "its certificate is not made for this end of a connection (its extended key usage)".to_owned()
        }
        other => webpki(&other.to_string())
            .map_or_else(|| format!("its certificate is not good: {other}"), str::to_owned),
    }
}

/// What the library that checks certificates has only its own words for.
fn webpki(words: &str) -> Option<&'static str> {
    let known = [
        (
            "UnsupportedCertVersion",
            "its certificate is of version 1, which says neither names nor purposes: make one of version 3, as docs/access.md shows (`openssl x509 \
             -req` makes them with -extfile)",
        ),
        (
            "CaUsedAsEndEntity",
            "its certificate is an authority's own: show one that the authority signed (without CA:TRUE)",
        ),
        ("EndEntityUsedAsCa", "its certificate is signed by one that is no authority's (it has no CA:TRUE)"),
    ];
    known.iter().find(|(word, _)| words.contains(word)).map(|(_, said)| *said)
}

/// Why a certificate and a key do not go together, in words.
#[must_use]
pub fn apart(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => {
            "the key belongs to another certificate (a renewal writes both; the certificate of this end stands first in its file)".to_owned()
        }
        other => webpki(&other.to_string()).map_or_else(|| other.to_string(), str::to_owned),
    }
}

/// What the other end thinks of this one's certificate, or of all of it.
fn alerted(alert: AlertDescription) -> String {
    let says = match alert {
        AlertDescription::CertificateRequired => return "it demands a certificate".to_owned(),
        AlertDescription::CertificateExpired => "has expired: renew it",
        AlertDescription::UnknownCA => "is signed by no authority that it trusts",
        AlertDescription::CertificateRevoked => "was revoked",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => "is not good",
        other => return format!("it broke the connection off ({other:?})"),
    };
    format!("it says that the certificate of this end {says}")
}

/// Whether the other end says that this end's certificate, or the lack of one, is why.
pub(crate) fn is_about_us(error: &Error) -> bool {
    matches!(
        error,
        Error::AlertReceived(
            AlertDescription::CertificateRequired
                | AlertDescription::CertificateExpired
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateRevoked
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied
        )
    )
}

/// A time as people read it, in UTC.
fn stamp(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let stamp = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    stamp.map_or_else(|| format!("{} s after 1970", time.as_secs()), |stamp| stamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_wrong_is_said_with_what_helps() {
        let cert = |wrong| explain(&Error::InvalidCertificate(wrong));
        let expired = cert(CertificateError::ExpiredContext { time: at(86_400), not_after: at(0) });
        assert!(expired.contains("expired at 1970-01-01T00:00:00Z"), "{expired}");
        assert!(expired.contains("1970-01-02T00:00:00Z") && expired.contains("renew it"), "{expired}");
        let name = cert(CertificateError::NotValidForNameContext {
            expected: "b.example".try_into().unwrap(),
            presented: vec!["a.example".to_owned()],
        });
        assert_eq!(name, "its certificate is not for b.example, but for a.example");
        for (alert, says) in [
            (AlertDescription::CertificateRequired, "demands a certificate"),
            (AlertDescription::CertificateExpired, "of this end has expired"),
            (AlertDescription::UnknownCA, "no authority that it trusts"),
        ] {
            let error = Error::AlertReceived(alert);
            assert!(explain(&error).contains(says) && is_about_us(&error), "{}", explain(&error));
        }
        assert!(!is_about_us(&Error::AlertReceived(AlertDescription::InternalError)));
    }

    #[test]
    fn files_that_are_not_what_they_should_be_are_named_and_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let said = key(&path).unwrap_err().to_string();
        assert!(said.contains("key.pem") && said.contains("No such file"), "{said}");
        for (text, says) in [
            ("hunter2", "holds no private key"),
            ("", "holds no private key"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2", "no whole PEM"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2?\n-----END PRIVATE KEY-----\n", "base 64"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = key(&path).unwrap_err();
            let (said, shown) = (error.to_string(), format!("{error:?}"));
            assert!(said.contains(says) && said.contains("key.pem"), "{said}");
            assert!(!said.contains("hunter2") && !shown.contains("hunter2"), "{said} {shown}");
            assert!(certificates(&path).is_err() && authorities(&path).is_err());
        }
    }
}
