//! The certificate that a client showed: whom it names, and whether it is still good.
//!
//! It was verified in the handshake. A connection is kept for hours, so each request asks again ([`Certificate::stands`]): it has
//! ended by then, or its authority may be believed no longer. That costs two comparisons; the chain is verified again only after other authorities were
//! taken over.
//!
//! # Whom it names
//!
//! 1. The agent of a URI `urn:shoal:agent:NAMESPACE` among its alternative names: whoever signs that says so explicitly.
//! 2. Else the user of the first DNS name there.
//! 3. Else the user of the common name of its subject.
//!
//! A text that can be no user's name ([`is_name`]) names nobody, and the next is not tried: `@web`, `*`, `anonymous` and `agent dns` mean something
//! else in rules. Which user is an agent, and what anybody may, the rows say.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use shoal_core::Namespace;
use shoal_core::access::is_name;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::tls::{self, Tls};

/// What a URI that names an agent begins with.
const AGENT: &str = "urn:shoal:agent:";
/// The most of a name that is repeated, in characters.
const SHOWN: usize = 80;

/// The certificate that a client showed.
pub(crate) struct Certificate {
    /// Whom it names; else why nobody.
    pub(crate) named: Result<Named, String>,
    /// When it ends, or one of those that lead to its authority.
    pub(crate) until: Timestamp,
    chain: Vec<CertificateDer<'static>>,
    tls: Tls,
    /// The authorities that last vouched for it.
    vouched: AtomicU64,
}

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// The agent of a namespace, by a URI that says so.
    Agent(Namespace),
    /// A user.
    User(String),
}

impl Certificate {
    /// What a handshake verified, the client's own certificate first, by authorities that are of `generation` or newer.
    ///
    /// # Errors
    /// It cannot be understood.
    pub(crate) fn of(chain: &[CertificateDer<'_>], tls: &Tls, generation: u64) -> Result<Self, String> {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let own = chain.first().ok_or("there is none")?;
        let mut until = tls::expiry(own)?;
        for more in &chain[1..] {
            until = until.min(tls::expiry(more)?);
        }
        Ok(Self { named: named(own), until, tls: tls.clone(), vouched: AtomicU64::new(generation), chain })
    }

    /// Whether it is still good.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn stands(&self, now: Timestamp) -> Result<(), String> {
        if self.until <= now {
            return Err(format!("its certificate expired at {}", self.until));
        }
        // Before they are asked: those who vouch are of this number or newer.
        let generation = self.tls.generation();
        if self.vouched.load(Ordering::Acquire) != generation {
            self.tls.vouches(&self.chain, now).map_err(|why| {
                format!(
                    "no authority of clients that is believed here by now vouches for its certificate: {why}"
                )
            })?;
            self.vouched.store(generation, Ordering::Release);
        }
        Ok(())
    }

    /// Waits until other authorities are believed than those that last vouched for it.
    pub(crate) async fn changes(&self) {
        self.tls.past(self.vouched.load(Ordering::Acquire)).await;
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("named", &self.named)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.named {
            Ok(Named::Agent(namespace)) => write!(f, "the certificate of the agent {namespace}"),
            // It comes from outside: quoted, it cannot break a line of the log.
            Ok(Named::User(name)) => write!(f, "the certificate of {name:?}"),
            Err(_) => f.write_str("a certificate of nobody"),
        }
    }
}

/// Whom a certificate names; else why nobody.
fn named(certificate: &CertificateDer<'_>) -> Result<Named, String> {
    let odd = |error: x509_cert::der::Error| format!("its certificate cannot be understood: {error}");
    let certificate = x509_cert::Certificate::from_der(certificate).map_err(odd)?;
    let certificate = certificate.tbs_certificate();
    let names = certificate.get_extension::<SubjectAltName>().map_err(odd)?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let agents = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => uri.as_str().strip_prefix(AGENT),
        _ => None,
    });
    let agents: Vec<&str> = agents.collect();
    match agents.as_slice() {
        [] => {}
        [one] => {
            let bad =
                |_| format!("its certificate names no agent: write {AGENT}NAMESPACE, not {}", shown(one));
            return one.parse().map(Named::Agent).map_err(bad);
        }
        _ => return Err("its certificate names more than one agent: one has one certificate".to_owned()),
    }
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        _ => None,
    });
    let common = || certificate.subject().common_name().ok().flatten().map(|name| name.value().into_owned());
    let name = dns.or_else(common).ok_or(
        "its certificate names nobody: it has no DNS name among its alternative names, and its subject no common name",
    )?;
    if is_name(&name) {
        return Ok(Named::User(name));
    }
    Err(format!("its certificate is called {}, which is no name of a user", shown(&name)))
}

/// A text from outside, quoted, and not all of a long one.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(SHOWN).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_client::certificates::{Authority, Wish};

    #[test]
    fn a_certificate_names_who_shows_it() {
        let (authority, dir) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
        let long = "x".repeat(300);
        let of = |common, names: &[&str], uris: &[&str]| {
            let pair = authority.issue(&Wish { common, names, uris, ..Wish::default() }).unwrap();
            let (cert, _) = pair.write(dir.path(), "client").unwrap();
            named(&shoal_client::tls::certificates(&cert).unwrap()[0])
        };
        let user = |name: &str| Ok(Named::User(name.to_owned()));
        assert_eq!(of(Some("ann"), &[], &[]), user("ann"));
        assert_eq!(of(Some("Jürgen"), &[], &[]), user("Jürgen"));
        assert_eq!(of(Some("ann"), &["192.0.2.1", "a.example", "b.example"], &[]), user("a.example"));
        assert_eq!(of(Some("ann"), &["192.0.2.1"], &["https://a.example/"]), user("ann"));
        let agent = Ok(Named::Agent("dns".parse().unwrap()));
        assert_eq!(of(Some("ann"), &["a.example"], &["https://a.example/", "urn:shoal:agent:dns"]), agent);
        for (common, names, uris) in [
            (Some("@web"), &[][..], &[][..]),
            (Some("*"), &[], &[]),
            (Some("anonymous"), &[], &[]),
            (Some("agent dns"), &[], &[]),
            (Some("a\nb"), &[], &[]),
            (Some("a/b"), &[], &[]),
            (Some(" "), &[], &[]),
            (Some(long.as_str()), &[], &[]),
            // What is odd is not passed over for what may mean somebody else.
            (Some("ann"), &["*.example"], &[]),
            (Some("ann"), &["a.example"], &["urn:shoal:agent:@web"]),
            (Some("ann"), &["a.example"], &["urn:shoal:agent:"]),
            (Some("ann"), &[], &["urn:shoal:agent:dns", "urn:shoal:agent:dns"]),
            (None, &["192.0.2.1"], &[]),
        ] {
            let why = of(common, names, uris).unwrap_err();
            assert!(why.starts_with("its certificate") && why.len() < 250, "{why}");
            assert!(!why.contains('\n'), "it would break a line of the log: {why}");
        }
        assert!(named(&CertificateDer::from(b"nonsense".to_vec())).is_err());
    }
}
