//! What etcd and the way to it say, as what a user can act on; and what helps against it by itself.

use etcd_client::Error;
use shoal_store::StoreError;

/// What gRPC calls it.
const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;
const INVALID: i32 = 3;
const DEADLINE: i32 = 4;
const PERMISSION_DENIED: i32 = 7;
const EXHAUSTED: i32 = 8;
const FAILED: i32 = 9;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// Where something went wrong, as far as errors have to say it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// `etcd at h1:2379,h2:2379`.
    pub(crate) name: std::sync::Arc<str>,
    /// The name of the database, which all its keys begin with.
    pub(crate) database: String,
    pub(crate) tls: bool,
    /// Whether a password is shown.
    pub(crate) user: bool,
    /// Whether there is more than one address.
    pub(crate) several: bool,
}

/// What helps against an error by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Nothing does.
    Nothing,
    /// To ask another member.
    Elsewhere,
    /// To show the password again.
    Anew,
}

/// What helps against this error.
pub(crate) fn cure(place: &Place, error: &Error) -> Cure {
    let Error::GRpcStatus(status) = error else {
        return match error {
            Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_) => Cure::Elsewhere,
            _ => Cure::Nothing,
        };
    };
    match i32::from(status.code()) {
        UNAUTHENTICATED | INVALID if place.user && is_stale(status.message()) => Cure::Anew,
        CANCELLED | UNKNOWN | DEADLINE | INTERNAL | UNAVAILABLE => Cure::Elsewhere,
        _ => Cure::Nothing,
    }
}

/// Whether etcd does not know any more, or not yet, who asks: it was restarted, users were changed, or are asked for only now.
fn is_stale(said: &str) -> bool {
    ["invalid auth token", "revision of auth store is old", "user name is empty"]
        .iter()
        .any(|words| said.contains(words))
}

/// Whether a password was shown to an etcd that asks for none.
pub(crate) fn is_open(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// What went wrong at `place` while `attempted` was done.
pub(crate) fn fault(place: &Place, attempted: &str, error: &Error) -> StoreError {
    let (code, said) = match error {
        Error::GRpcStatus(status) => (i32::from(status.code()), deepest(status, status.message())),
        Error::TransportError(error) => (0, deepest(error, &error.to_string())),
        other => (0, other.to_string()),
    };
    let why = format!("{attempted}: {said}");
    let name = place.name.to_string();
    if let Some(next) = refusal(place, code, &said) {
        return StoreError::Denied { place: name, why: format!("{why}; {next}") };
    }
    let too_large = ["too large", "too many operations", "larger than max"];
    match code {
        EXHAUSTED if said.contains("space exceeded") => StoreError::Full {
            place: name,
            why: format!(
                "{why}; compact and defragment it, disarm its alarm (etcdctl alarm disarm), or raise its \
                 --quota-backend-bytes: docs/etcd.md has the steps"
            ),
        },
        INVALID | EXHAUSTED if too_large.iter().any(|words| said.contains(words)) => {
            StoreError::Invalid(format!(
                "{name}: {why}: it allows less than by default; see its --max-request-bytes (at least 1.5 MiB) and \
                 --max-txn-ops (at least 128)"
            ))
        }
        _ => match tls(&said) {
            // Of several, another one may be as it should be.
            Some(next) if !place.several => StoreError::Denied { place: name, why: format!("{why}; {next}") },
            Some(next) => StoreError::Unavailable { place: name, why: format!("{why}; {next}") },
            None => StoreError::Unavailable { place: name, why: format!("{why}; {}", reach(place)) },
        },
    }
}

/// Nobody answered in time.
pub(crate) fn silent(place: &Place, attempted: &str, seconds: u64) -> StoreError {
    StoreError::Unavailable {
        place: place.name.to_string(),
        why: format!("{attempted}: no answer for {seconds} s; {}", reach(place)),
    }
}

/// Etcd ended a watch, and said why.
pub(crate) fn cancelled(place: &Place, why: &str) -> StoreError {
    let attempted = format!("listening for commits: {why}");
    let name = place.name.to_string();
    match refusal(place, PERMISSION_DENIED, why).filter(|_| why.contains("permission denied")) {
        Some(next) => StoreError::Denied { place: name, why: format!("{attempted}; {next}") },
        None => StoreError::Unavailable { place: name, why: attempted },
    }
}

/// Whether the snapshot that was read from is gone: reading again from a newer one helps.
pub(crate) fn is_compacted(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { why, .. } if why.contains("has been compacted"))
}

fn reach(place: &Place) -> &'static str {
    match place.tls {
        true => "see that etcd runs there by TLS, has a quorum and can be reached, then try again",
        false => {
            "see that etcd runs there, has a quorum and can be reached, then try again; where it wants TLS, write etcds://"
        }
    }
}

/// Who is refused, and what helps; `None`: it is no refusal, or showing the password again may help.
fn refusal(place: &Place, code: i32, said: &str) -> Option<String> {
    if !matches!(code, INVALID | PERMISSION_DENIED | FAILED | UNAUTHENTICATED) {
        return None;
    }
    if code == PERMISSION_DENIED {
        return Some(format!(
            "its user needs a role that may read and write all keys of this database: etcdctl role grant-permission ROLE \
             readwrite --prefix {}/",
            place.database
        ));
    }
    if is_stale(said) {
        return (!place.user).then(|| {
            "it asks who this is: write USER@ before the first host and name the file of the password with --password-file, or \
             show a certificate by etcds://, --cert and --key"
                .to_owned()
        });
    }
    if ["authentication failed", "user name not found", "without password"]
        .iter()
        .any(|words| said.contains(words))
    {
        return Some(
            "it does not know this user, or by another password: see the user in the address and the file that \
             --password-file names, or the common name of the certificate"
                .to_owned(),
        );
    }
    None
}

/// What is wrong with TLS, and what helps.
fn tls(said: &str) -> Option<&'static str> {
    let known = [
        (
            "invalid peer certificate",
            "its certificate is not believed: name the authority that signed it with --ca, and the host as the certificate does",
        ),
        (
            "received fatal alert",
            "it does not believe this end: show a certificate of an authority that it trusts with --cert and --key",
        ),
        ("received corrupt message", "what it speaks is no TLS: write etcd://"),
        ("no native certs found", "this system has no authorities to believe: name one with --ca"),
        ("parsing TLS", "see the files that --ca, --cert and --key name"),
        (
            "keys may not be consistent",
            "the certificate and the key do not go together: see --cert and --key",
        ),
    ];
    known.iter().find(|(words, _)| said.contains(words)).map(|(_, next)| *next)
}

/// What an error says, and what is beneath it all, which alone says why.
fn deepest(error: &dyn std::error::Error, said: &str) -> String {
    let mut cause = error.source();
    let mut why = String::new();
    while let Some(deeper) = cause {
        why = deeper.to_string();
        cause = deeper.source();
    }
    match why.is_empty() || said.contains(&why) {
        true => said.to_owned(),
        false => format!("{said}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            name: "etcd at h1:2379".into(),
            database: "blue".into(),
            tls: true,
            user: false,
            several: false,
        }
    }

    #[test]
    fn a_refusal_says_what_helps() {
        let place = place();
        let user = Place { user: true, ..place.clone() };
        let denied = refusal(&place, PERMISSION_DENIED, "etcdserver: permission denied").unwrap();
        assert!(denied.contains("--prefix blue/"), "{denied}");
        assert!(refusal(&place, INVALID, "etcdserver: user name is empty").unwrap().contains("USER@"));
        // It is shown again, and that is the end of it.
        assert_eq!(refusal(&user, INVALID, "etcdserver: user name is empty"), None);
        assert_eq!(refusal(&user, UNAUTHENTICATED, "etcdserver: invalid auth token"), None);
        let wrong = "etcdserver: authentication failed, invalid user ID or password";
        assert!(refusal(&user, INVALID, wrong).unwrap().contains("--password-file"));
        assert_eq!(refusal(&place, INVALID, "etcdserver: key is not provided"), None);
    }

    #[test]
    fn a_watch_that_may_not_be_is_a_refusal_and_another_end_is_none() {
        let denied =
            cancelled(&place(), "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
        assert!(matches!(&denied, StoreError::Denied { .. }), "{denied}");
        let ended = cancelled(&place(), "etcdserver: no leader");
        assert!(ended.is_transient() && ended.to_string().contains("no leader"), "{ended}");
    }

    #[derive(Debug)]
    struct Above(std::io::Error);
    impl std::fmt::Display for Above {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("transport error")
        }
    }
    impl std::error::Error for Above {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn what_is_wrong_beneath_is_said() {
        let above = Above(std::io::Error::other("Connection refused"));
        assert_eq!(deepest(&above, "transport error"), "transport error: Connection refused");
        assert_eq!(deepest(&above, "Connection refused, twice"), "Connection refused, twice");
        assert_eq!(deepest(&above.0, "it"), "it");
    }

    #[test]
    fn another_member_may_have_a_better_certificate() {
        let error = Error::IoError(std::io::Error::other("invalid peer certificate: UnknownIssuer"));
        let said = fault(&place(), "opening", &error);
        assert!(matches!(&said, StoreError::Denied { .. }) && said.to_string().contains("--ca"), "{said}");
        let several = Place { several: true, ..place() };
        let said = fault(&several, "opening", &error);
        assert!(said.is_transient() && said.to_string().contains("--ca"), "{said}");
        assert_eq!(cure(&several, &error), Cure::Elsewhere);
        assert_eq!(tls("tcp connect error: Connection refused"), None);
    }
}
