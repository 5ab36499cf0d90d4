//! Every refusal of the server, as [RFC 9457] problem details.
//!
//! A problem has a stable `type` (`urn:shoal:problem:<kind>`, listed in `docs/api.md`), a title that is the same
//! for all of its kind, and a `detail` that says what was attempted, on what, why it failed and what to do next.
//! Programs read `type` and the extra members; people read `detail`. Nothing else ever leaves the server with
//! a status of 400 or more: what axum or hyper answer by themselves is turned into a problem on its way out.
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457

use std::fmt;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use shoal_core::{BadName, Refusal, Revision, Sort};
use shoal_store::{StoreError, TransactError};

/// The media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// What every answer of this server that is not a success says.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    more: Box<Map<String, Value>>,
    retry_after: Option<u32>,
    /// Who it says it is that is refused, where no principal is known: for the log alone.
    claimed: Option<Box<str>>,
}

/// What handlers answer.
pub(crate) type Answer<T = Response> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: String) -> Self {
        Self { status, kind, title, detail, more: Box::default(), retry_after: None, claimed: None }
    }

    /// Adds a member that programs can read.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Says when trying again makes sense, in seconds.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Says in the log as whom somebody was refused: a user of a login.
    #[must_use]
    pub(crate) fn of_login(mut self, user: &str) -> Self {
        self.claimed = Some(user.into());
        self
    }

    /// The request cannot be understood.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be understood", detail.into())
    }

    /// The answer is there and cannot be written down.
    pub(crate) fn unwritable(error: &serde_json::Error) -> Self {
        Self::broken(format!(
            "the answer cannot be written: {error}; the database holds something that is not JSON"
        ))
    }

    /// What was asked for stopped inside.
    pub(crate) fn broken(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed", detail.into())
    }

    /// There is nothing at `what`.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail.into())
    }

    /// A well-formed request that cannot be done as it stands.
    pub(crate) fn invalid(detail: impl Into<String>, hint: &str) -> Self {
        let (status, title) = (StatusCode::UNPROCESSABLE_ENTITY, "What was sent cannot be stored");
        Self::new(status, "invalid", title, detail.into()).with("hint", hint)
    }

    /// `If-Match` named a revision that is no longer the newest of this resource.
    pub(crate) fn stale(what: &str, asked: &str, actual: Option<Revision>) -> Self {
        let detail = match actual {
            Some(now) => format!(
                "{what} was not changed: If-Match names {asked}, but it is now at revision {now} (ETag \"r{now}\"); \
                 read it again, apply your change to what it says now, and send that ETag"
            ),
            None => format!(
                "{what} was not changed: If-Match names {asked}, but it does not exist; \
                 leave If-Match out, or send If-None-Match: * to make it"
            ),
        };
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "It is not what you last saw",
            detail,
        )
        .with("expected", asked)
        .with("actual", actual.map(|r| r.0))
    }

    /// `If-None-Match: *` was sent for what exists.
    pub(crate) fn exists(what: &str, actual: Revision) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "It is not what you last saw",
            format!(
                "{what} was not made: it exists already, at revision {actual}; \
                 leave If-None-Match out to replace it, or send If-Match: \"r{actual}\""
            ),
        )
        .with("expected", "absent")
        .with("actual", actual.0)
    }

    /// The server is at one of its bounds.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "The server has too much to do at once",
            detail.into(),
        )
        .retry_after(1)
    }

    /// The server only answers reads.
    pub(crate) fn read_only() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "read-only",
            "This server does not take writes",
            "nothing was written: this server runs with --read-only; send writes to one that does not"
                .to_owned(),
        )
    }

    /// The body is larger than what this server takes.
    pub(crate) fn too_large(limit: usize, how: &str) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The body is too large",
            format!("nothing was written: the body has more than {limit} octets; {how}"),
        )
        .with("limit", limit)
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says to people.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether it refuses somebody, for the log.
    pub(crate) fn refused(&self) -> Option<Refused> {
        let refuses = matches!(self.kind, "denied" | "unauthenticated");
        let kind = if self.claimed.is_some() { "password" } else { self.kind };
        refuses.then(|| Refused { kind, detail: self.detail.clone(), login: self.claimed.clone() })
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:shoal:problem:{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(map) = &mut body {
            map.extend((*self.more).clone());
        }
        body
    }
}

impl fmt::Display for Problem {
    /// As JSON, for streams that have begun already.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body().fmt(f)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"shoal\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(refused) = self.refused() {
            response.extensions_mut().insert(refused);
        }
        response
    }
}

/// Goes with an answer that refuses somebody, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
    /// The user whom a login named.
    pub(crate) login: Option<Box<str>>,
}

impl From<BadName> for Problem {
    fn from(bad: BadName) -> Self {
        Self::bad_request(bad.to_string()).with("expected", bad.what).with("found", bad.text)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = format!("nothing was written: {refusal}");
        let (status, kind, title) = match refusal.sort() {
            Sort::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "What was sent cannot be stored"),
            Sort::Missing => (StatusCode::NOT_FOUND, "not-found", "There is nothing here"),
            Sort::Conflict => (StatusCode::CONFLICT, "conflict", "It contradicts what is there"),
            Sort::Stale => {
                (StatusCode::PRECONDITION_FAILED, "precondition-failed", "It is not what you last saw")
            }
        };
        let mut problem =
            Self::new(status, kind, title, detail).with("code", refusal.code()).with("hint", refusal.hint());
        if let Some(key) = refusal.key() {
            problem = problem.with("key", key.as_str());
        }
        if let Refusal::Stale { seen, actual, .. } = &refusal {
            problem = problem.with("expected", format!("\"r{seen}\"")).with("actual", actual.0);
        }
        if let Some(fault) = refusal.fault() {
            problem = problem
                .with("field", fault.path.as_str())
                .with("expected", fault.expected.as_str())
                .with("found", fault.found.as_str());
        }
        problem
    }
}

impl From<TransactError> for Problem {
    fn from(error: TransactError) -> Self {
        match error {
            TransactError::Refused(refusal) => refusal.into(),
            TransactError::Store(error) => error.into(),
            TransactError::Denied(denied) => (*denied).into(),
            TransactError::Busy { .. } => Self::busy(format!("nothing was written: {error}")),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        let (status, kind, title) = match &error {
            StoreError::Conflict { .. } => {
                (StatusCode::CONFLICT, "conflict", "Somebody else changed it at the same time")
            }
            StoreError::Fenced { .. } => (StatusCode::CONFLICT, "fenced", "The claim was lost"),
            StoreError::Reused { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "The idempotency key was used before")
            }
            StoreError::Invalid(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "What was sent cannot be stored")
            }
            StoreError::Future { .. } => {
                (StatusCode::NOT_FOUND, "no-such-revision", "There is no such revision yet")
            }
            StoreError::ReadOnly(_) => {
                (StatusCode::FORBIDDEN, "read-only", "This server does not take writes")
            }
            StoreError::Denied { .. } => {
                (StatusCode::FORBIDDEN, "denied", "The database behind this server refuses")
            }
            StoreError::Full { .. } => {
                (StatusCode::INSUFFICIENT_STORAGE, "full", "The database has no room left")
            }
            StoreError::Corrupt { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "corrupt", "The database is damaged")
            }
            StoreError::Unavailable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The database did not answer")
            }
        };
        let problem = Self::new(status, kind, title, detail);
        let problem = match &error {
            StoreError::Reused { .. } => {
                problem.with("hint", "send another commit with another Idempotency-Key")
            }
            StoreError::Invalid(_) => {
                problem.with("hint", "change what is sent: the same is refused whenever it comes")
            }
            _ => problem,
        };
        let problem = if error.is_transient() { problem.retry_after(2) } else { problem };
        match serde_json::to_value(&error) {
            Ok(value) => problem.with("store_error", value),
            Err(_) => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_core::{Pre, Range};

    #[test]
    fn every_error_of_a_store_has_its_status() {
        let pre = Pre::Unchanged(Range::All, Revision(1));
        let (place, why) = ("x.db".to_owned(), "because".to_owned());
        for (error, status, kind, waits) in [
            (StoreError::Conflict { pre, actual: None }, 409, "conflict", false),
            (StoreError::Fenced { name: "n".into(), number: 1 }, 409, "fenced", false),
            (StoreError::Reused { key: "k".into(), revision: Revision(1) }, 422, "key-reused", false),
            (StoreError::Invalid("no".into()), 422, "invalid", false),
            (StoreError::Future { asked: Revision(2), newest: Revision(1) }, 404, "no-such-revision", false),
            (StoreError::ReadOnly("x.db".into()), 403, "read-only", false),
            (StoreError::Denied { place: place.clone(), why: why.clone() }, 403, "denied", false),
            (StoreError::Full { place: place.clone(), why: why.clone() }, 507, "full", true),
            (StoreError::Corrupt { place: place.clone(), why: why.clone() }, 500, "corrupt", false),
            (StoreError::Unavailable { place, why }, 503, "unavailable", true),
        ] {
            let said = error.to_string();
            let problem = Problem::from(error.clone());
            assert_eq!(
                (problem.status().as_u16(), problem.kind, problem.detail()),
                (status, kind, said.as_str())
            );
            // A client of the row API gets the very error back.
            let back: StoreError = serde_json::from_value(problem.body()["store_error"].clone()).unwrap();
            assert_eq!(back, error);
            assert_eq!(problem.into_response().headers().contains_key(RETRY_AFTER), waits, "{said}");
        }
    }
}
