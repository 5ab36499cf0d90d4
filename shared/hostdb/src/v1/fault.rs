//! What a request of `/v1` is refused with: a status whose reason phrase says why, as HostDB's clients print it.
//!
//! The header `CallTrace` says it too, because one of these clients reads it of every error; so does the body, for people.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use hyper::ext::ReasonPhrase;
use shoal_core::codec::BadText;
use shoal_core::{BadName, Refusal};
use shoal_store::{StoreError, TransactError};

use crate::problem::{Problem, Refused};

/// The longest reason, in octets: it stands in a line of the head.
const MAX_REASON: usize = 500;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    status: StatusCode,
    reason: String,
    refused: Option<Refused>,
}

/// What is answered.
pub(super) type Answer<T = Response> = Result<T, Fault>;

/// Marks an answer that says itself what is wrong, and is no problem document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said;

impl Fault {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), refused: None }
    }

    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// Nobody is known who may. It is counted and said in the log, as elsewhere.
    pub(super) fn unauthorized(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let refused = Refused { kind: "unauthenticated", detail: reason.clone(), login: None };
        Self { refused: Some(refused), ..Self::new(StatusCode::UNAUTHORIZED, reason) }
    }

    pub(super) fn not_found(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, reason)
    }

    pub(super) fn not_allowed(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, reason)
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

/// The reason as one line of a head: what may not stand there is a space.
fn line(reason: &str) -> String {
    let mut line: String =
        reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned();
    if line.len() > MAX_REASON {
        let end = (0..=MAX_REASON - 3).rev().find(|&at| line.is_char_boundary(at)).unwrap_or_default();
        line.truncate(end);
        line.push_str("...");
    }
    line
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let said = line(&self.reason);
        let mut response = Response::new(Body::from(format!("{}\n", self.reason)));
        *response.status_mut() = self.status;
        if let Ok(value) = HeaderValue::from_bytes(said.as_bytes()) {
            response.headers_mut().insert("CallTrace", value);
        }
        if let Ok(reason) = ReasonPhrase::try_from(said.into_bytes()) {
            response.extensions_mut().insert(reason);
        }
        response.extensions_mut().insert(Said);
        if let Some(refused) = self.refused {
            response.extensions_mut().insert(refused);
        }
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(super::TEXT));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Problem> for Fault {
    /// HostDB knows neither 409 nor 422: what cannot be done as it stands is a bad request.
    fn from(problem: Problem) -> Self {
        let status = match problem.status() {
            StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::BAD_REQUEST,
            other => other,
        };
        Self { refused: problem.refused(), ..Self::new(status, problem.detail()) }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<TransactError> for Fault {
    /// A member that does not exist is not there, as HostDB sees it.
    fn from(error: TransactError) -> Self {
        let missing = matches!(
            &error,
            TransactError::Refused(Refusal::UnknownMember { .. } | Refusal::NoMember { .. })
        );
        let fault: Self = Problem::from(error).into();
        if missing { Self::not_found(fault.reason) } else { fault }
    }
}

impl From<BadName> for Fault {
    /// A name that nothing can have is the name of nothing.
    fn from(bad: BadName) -> Self {
        Self::not_found(format!("Resource does not exist: {bad}"))
    }
}

impl From<BadText> for Fault {
    fn from(bad: BadText) -> Self {
        Self::bad_request(bad.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_one_line_of_the_head() {
        let response = Fault::not_found("a\r\nSet-Cookie: x\u{0} é").into_response();
        assert_eq!(
            response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(),
            "a  Set-Cookie: x  é".as_bytes()
        );
        assert_eq!(response.headers()["calltrace"].as_bytes(), "a  Set-Cookie: x  é".as_bytes());
        let long = line(&"é".repeat(400));
        assert!(long.len() <= MAX_REASON && long.ends_with("..."), "{long}");
    }
}
