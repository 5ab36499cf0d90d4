//! What came of one request: an answer, a refusal that stands, or nothing that one could rely on.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::RETRY_AFTER;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use rustls::CertificateError;
use serde::Deserialize;
use shoal_store::StoreError;

use crate::address::Address;
use crate::connect::NoAnswer;
use crate::tls;

/// The largest problem that is read.
const MAX_PROBLEM: usize = 1 << 20;
/// The longest text that is quoted of an answer that is no problem.
const MAX_QUOTE: usize = 200;
/// The longest pause that a server can ask for.
const MAX_AFTER: Duration = Duration::from_secs(5);

/// The head of an answer, and its body as it comes.
pub(crate) type Response = http::Response<Incoming>;

/// The next octets of a body; `None` at its end.
pub(crate) async fn piece(response: &mut Response) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = response.body_mut().frame().await {
        // Anything else is what stands after a body.
        if let Ok(octets) = frame?.into_data() {
            return Ok(Some(octets));
        }
    }
    Ok(None)
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server understood and says no: asking again gives the same.
    Said(StoreError),
    /// This server does not do such things; another one may.
    Elsewhere(StoreError),
    /// Nobody answered, or could.
    Lost(Loss),
}

/// Nobody answered, or could.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) why: String,
    /// Whether it may have been done nevertheless.
    pub(crate) sent: bool,
    /// When the server wants to be asked again.
    pub(crate) after: Option<Duration>,
}

impl Loss {
    pub(crate) fn sent(why: impl Into<String>) -> Trouble {
        Trouble::Lost(Self { why: why.into(), sent: true, after: None })
    }
}

/// What a problem document says, as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) detail: String,
    pub(crate) store_error: Option<StoreError>,
}

impl Problem {
    fn is(&self, kind: &str) -> bool {
        self.kind.strip_prefix("urn:shoal:problem:") == Some(kind)
    }
}

/// A failure of the connection.
pub(crate) fn broken(error: &NoAnswer, at: &Address, what: &str) -> Trouble {
    let error = match error {
        NoAnswer::Broken(error) => error,
        NoAnswer::Abandoned => {
            let why = "the connection ended before it took the request".to_owned();
            return Trouble::Lost(Loss { why, sent: false, after: None });
        }
    };
    let unsent = error.is_connect();
    if let Some(error) = of_tls(error)
        // Who is not let in is not listened to, whatever was already said.
        && (unsent || tls::is_about_us(error))
    {
        return Trouble::Elsewhere(untrusted(error, at, what));
    }
    Trouble::Lost(Loss { why: root(error), sent: !unsent, after: None })
}

/// What TLS said, if it did.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An error of the system keeps what it is about to itself, and says only that one's source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(found) = inner.or_else(|| error.downcast_ref()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The error that one end is not believed to be who it says.
fn untrusted(error: &rustls::Error, at: &Address, what: &str) -> StoreError {
    let next = match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "; if it should be, name the authority that signed it with --ca FILE (SHOAL_CA, or `ca` in a configuration)"
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) => {
            "; write a name that it is for in the address, or have it issued for this one"
        }
        rustls::Error::InvalidMessage(_) => "; is its address http://HOST:PORT?",
        error if tls::is_about_us(error) => {
            "; see --cert FILE and --key FILE (SHOAL_CERT and SHOAL_KEY, or `cert` and `key` in a configuration)"
        }
        _ => "",
    };
    let why = format!("cannot {what}: {}{next}", tls::explain(error));
    StoreError::Denied { place: format!("the server {at}"), why }
}

/// The innermost reason: the outer ones say only that a request failed.
pub(crate) fn root(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The body, whole.
pub(crate) async fn body(
    response: &mut Response,
    most: usize,
    silence: Duration,
) -> Result<Vec<u8>, Trouble> {
    let announced = response.body().size_hint().exact().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    let mut body = Vec::with_capacity(announced.min(1 << 20));
    loop {
        match tokio::time::timeout(silence, piece(response)).await {
            Ok(Ok(Some(piece))) if body.len() + piece.len() > most => {
                return Err(Loss::sent(format!("its answer has more than {most} octets")));
            }
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
            Ok(Ok(None)) => return Ok(body),
            Ok(Err(error)) => return Err(Loss::sent(format!("its answer broke off: {}", root(&error)))),
            Err(_) => return Err(Loss::sent(format!("its answer stopped for {silence:?}"))),
        }
    }
}

/// What an answer that is no success means.
pub(crate) async fn refusal(mut response: Response, at: &Address, silence: Duration) -> Trouble {
    let status = response.status();
    let header = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
    let after = header.and_then(|v| v.parse().ok()).map(|s| Duration::from_secs(s).min(MAX_AFTER));
    let text = match body(&mut response, MAX_PROBLEM, silence).await {
        Ok(text) => text,
        Err(trouble) => return trouble,
    };
    let problem = serde_json::from_slice(&text).unwrap_or_else(|_| {
        let quote: String = String::from_utf8_lossy(&text).chars().take(MAX_QUOTE).collect();
        Problem { detail: format!("{status} {}", quote.trim()), ..Problem::default() }
    });
    meaning(problem, status, after, at)
}

/// What a problem means to who asked this server.
pub(crate) fn meaning(
    problem: Problem,
    status: StatusCode,
    after: Option<Duration>,
    at: &Address,
) -> Trouble {
    let lost = |why, sent| Trouble::Lost(Loss { why, sent, after });
    let read_only = |place: &str| Trouble::Elsewhere(StoreError::ReadOnly(place.to_owned()));
    let busy = problem.is("busy");
    match problem.store_error {
        Some(StoreError::Unavailable { place, why }) => lost(format!("{place} did not answer: {why}"), true),
        Some(StoreError::ReadOnly(place)) => read_only(&format!("{place}, behind the server {at},")),
        Some(error) => Trouble::Said(error),
        None if problem.kind == "urn:shoal:problem:read-only" => read_only(&format!("the server {at}")),
        // Turned away at the door: nothing was looked at.
        None if busy => lost(problem.detail, false),
        None if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            lost(problem.detail, true)
        }
        None if !problem.kind.is_empty()
            && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
        {
            let why = format!("it refuses: {}", problem.detail);
            Trouble::Said(StoreError::Denied { place: format!("the server {at}"), why })
        }
        None if problem.kind.is_empty() => Trouble::Said(StoreError::Invalid(format!(
            "{at} is no server of Shoal, or of another version: it answered {}",
            problem.detail
        ))),
        None => Trouble::Said(StoreError::Invalid(format!("the server {at} refused: {}", problem.detail))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_core::Revision;

    fn means(status: u16, body: serde_json::Value) -> Trouble {
        let at: Address = "http://a:1".parse().unwrap();
        let problem = serde_json::from_value(body).unwrap();
        meaning(problem, StatusCode::from_u16(status).unwrap(), None, &at)
    }

    #[test]
    fn problems_are_told_apart_by_what_helps() {
        let future = StoreError::Future { asked: Revision(9), newest: Revision(1) };
        let said = means(404, json!({"type": "urn:shoal:problem:no-such-revision", "store_error": future}));
        assert!(matches!(said, Trouble::Said(error) if error == future));
        let down = StoreError::Unavailable { place: "x.db".into(), why: "locked".into() };
        let Trouble::Lost(loss) =
            means(503, json!({"type": "urn:shoal:problem:unavailable", "store_error": down}))
        else {
            panic!("a database that does not answer may answer later")
        };
        assert!(loss.sent && loss.why == "x.db did not answer: locked", "{loss:?}");
        let busy = means(503, json!({"type": "urn:shoal:problem:busy", "detail": "too much"}));
        assert!(matches!(busy, Trouble::Lost(Loss { sent: false, .. })));
        for (status, kind) in [(503, "timeout"), (500, "internal"), (502, "")] {
            let lost = means(status, json!({"type": format!("urn:shoal:problem:{kind}")}));
            assert!(matches!(lost, Trouble::Lost(Loss { sent: true, .. })), "{kind}");
        }
        let only = means(403, json!({"type": "urn:shoal:problem:read-only"}));
        assert!(
            matches!(only, Trouble::Elsewhere(StoreError::ReadOnly(place)) if place.contains("http://a:1"))
        );
        for status in [401, 403] {
            let denied = means(status, json!({"type": "urn:shoal:problem:x", "detail": "the rule r"}));
            let Trouble::Said(StoreError::Denied { place, why }) = denied else { panic!("{status}") };
            assert!(place.contains("http://a:1") && why.contains("the rule r"), "{place} {why}");
        }
        for (status, body, says) in [
            (
                413,
                json!({"type": "urn:shoal:problem:too-large", "detail": "raise --max-body"}),
                "raise --max-body",
            ),
            (404, json!({}), "is no server of Shoal"),
        ] {
            let Trouble::Said(StoreError::Invalid(text)) = means(status, body) else { panic!("{status}") };
            assert!(text.contains(says) && text.contains("http://a:1"), "{text}");
        }
    }
}
