//! What an error of the SDK means for what was asked.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use shoal_agent::Fault;

/// What is known of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Too much was asked in too short a time. Nothing was done.
    Throttled,
    /// Whoever asks may not, or could not show who they are. Nothing was done.
    Refused,
    /// What it is about does not exist. Nothing was done.
    Missing,
    /// The request itself cannot be granted, however often it is asked. Nothing was done.
    Invalid,
    /// Nobody was reached by the last attempt. Where there was more than one, an earlier one may have been done.
    OutOfReach,
    /// It may have been done or not: look.
    Unknown,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What is known of it.
    pub kind: Kind,
    /// The service's word for it (`NoSuchHostedZone`), where it answered.
    pub code: Option<String>,
    /// The service's own sentence, or what stood in the way.
    pub message: String,
}

/// The words for too much at a time, of all services.
const THROTTLED: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// The words for who may not, beside 401 and 403.
const REFUSED: [&str; 9] = [
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

impl Failed {
    /// Of an error of any call.
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(why) = find::<CredentialsError>(error) {
            let kind = Kind::Refused;
            return Self { kind, code: None, message: format!("no credentials: {}", chain(why)) };
        }
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let code = answer.err().code().map(str::to_owned);
                let message =
                    answer.err().message().map_or_else(|| format!("it answered {status}"), str::to_owned);
                Self { kind: kind(status, code.as_deref()), code, message }
            }
            SdkError::ConstructionFailure(_) => {
                Self { kind: Kind::Invalid, code: None, message: chain(error) }
            }
            SdkError::DispatchFailure(_) if unreachable(error) => {
                Self { kind: Kind::OutOfReach, code: None, message: chain(error) }
            }
            _ => Self { kind: Kind::Unknown, code: None, message: chain(error) },
        }
    }

    /// Whether the service used this word.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// For people. `what` was attempted, and on what.
    #[must_use]
    pub fn fault(&self, what: impl Into<String>) -> Fault {
        let why = match &self.code {
            Some(code) => format!("{code}: {}", self.message),
            None => self.message.clone(),
        };
        match self.kind {
            Kind::Throttled => Fault::new(what, why)
                .next("it is tried again, more slowly; others may use the same account's share, see the rate in the configuration"),
            Kind::Refused => Fault::new(what, why).next(
                "give the agent credentials that may do this (the page of its target lists the actions), or correct role_arn in [agent.aws]",
            ),
            Kind::Missing => Fault::new(what, why),
            Kind::Invalid => Fault::new(what, why).permanent(),
            Kind::OutOfReach => Fault::new(what, why).next("see that this machine reaches it, and endpoint in [agent.aws]"),
            Kind::Unknown => Fault::new(what, format!("{why}; whether it was done is not known, and is looked at")),
        }
    }
}

/// Has the SDK make a call again by itself only where the service said that it did nothing.
///
/// For calls that must not meet their own traces: a creation that was done and not answered, and is asked for again, is refused because it
/// is there, and nobody could tell that it was not there before.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnlyWhenRefused;

impl ClassifyRetry for OnlyWhenRefused {
    fn classify_retry(&self, call: &InterceptorContext) -> RetryAction {
        match call.response().map(|answer| answer.status().as_u16()) {
            // What the others made of it: it is throttled, or it is no use.
            Some(200..500) => RetryAction::NoActionIndicated,
            _ => RetryAction::RetryForbidden,
        }
    }

    fn name(&self) -> &'static str {
        "only when refused"
    }
}

/// Keeps the SDK from making a call again by itself that was refused in one of these words: that there is no room does not change within
/// seconds, and there is something else to be done meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct UnlessFor(pub &'static [&'static str]);

impl ClassifyRetry for UnlessFor {
    fn classify_retry(&self, call: &InterceptorContext) -> RetryAction {
        let answer = call.response().filter(|answer| !answer.status().is_success());
        let body = answer.and_then(|answer| answer.body().bytes()).map(String::from_utf8_lossy);
        let says =
            |word: &&str| body.as_ref().is_some_and(|body| body.contains(&format!("<Code>{word}</Code>")));
        if self.0.iter().any(says) { RetryAction::RetryForbidden } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "unless refused for good"
    }
}

fn kind(status: u16, code: Option<&str>) -> Kind {
    match code {
        Some(code) if THROTTLED.contains(&code) => Kind::Throttled,
        Some(code) if REFUSED.contains(&code) => Kind::Refused,
        Some(code)
            if code.starts_with("NoSuch")
                || code.ends_with("NotFound")
                || code.ends_with("NotFoundException") =>
        {
            Kind::Missing
        }
        _ => match status {
            429 => Kind::Throttled,
            401 | 403 => Kind::Refused,
            404 => Kind::Missing,
            400..500 => Kind::Invalid,
            _ => Kind::Unknown,
        },
    }
}

/// Whether no connection came about.
fn unreachable(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    find::<io::Error>(error)
        .is_some_and(|io| matches!(io.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable))
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        at = error.source();
    }
    None
}

/// An error with its causes, none told twice.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut all = error.to_string();
    let mut at = error.source();
    while let Some(error) = at {
        let text = error.to_string();
        if !all.contains(&text) {
            all.push_str(": ");
            all.push_str(&text);
        }
        at = error.source();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    #[derive(Debug)]
    struct Word(ErrorMetadata);

    impl std::fmt::Display for Word {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a word")
        }
    }

    impl Error for Word {}

    impl ProvideErrorMetadata for Word {
        fn meta(&self) -> &ErrorMetadata {
            &self.0
        }
    }

    fn answered(status: u16, code: Option<&str>) -> Kind {
        let mut meta = ErrorMetadata::builder().message("why");
        if let Some(code) = code {
            meta = meta.code(code);
        }
        let Ok(status) = StatusCode::try_from(status) else { return Kind::Unknown };
        let raw = HttpResponse::new(status, SdkBody::empty());
        Failed::of(&SdkError::service_error(Word(meta.build()), raw)).kind
    }

    #[test]
    fn an_answer_says_whether_it_was_done() {
        for (status, code, kind) in [
            (400, Some("Throttling"), Kind::Throttled),
            (400, Some("PriorRequestNotComplete"), Kind::Throttled),
            (503, Some("RequestLimitExceeded"), Kind::Throttled),
            (429, None, Kind::Throttled),
            (403, Some("AccessDenied"), Kind::Refused),
            (400, Some("ExpiredToken"), Kind::Refused),
            (404, Some("NoSuchHostedZone"), Kind::Missing),
            (400, Some("TargetGroupNotFound"), Kind::Missing),
            (400, Some("InvalidChangeBatch"), Kind::Invalid),
            (500, Some("InternalFailure"), Kind::Unknown),
            (503, Some("ServiceUnavailable"), Kind::Unknown),
        ] {
            assert_eq!(answered(status, code), kind, "{status} {code:?}");
        }
    }

    #[test]
    fn no_answer_is_no_sign_that_it_was_not_done() {
        let failed =
            |error: ConnectorError| Failed::of(&SdkError::<Word, HttpResponse>::dispatch_failure(error));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(failed(ConnectorError::io(refused.into())).kind, Kind::OutOfReach);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let unknown = failed(ConnectorError::io(reset.into()));
        assert_eq!(unknown.kind, Kind::Unknown);
        assert!(unknown.fault("change a zone").to_string().contains("looked at"));
        let late = Failed::of(&SdkError::<Word, HttpResponse>::timeout_error("10 s"));
        assert_eq!(late.kind, Kind::Unknown);
    }

    #[test]
    fn what_has_no_room_is_not_asked_for_again() {
        use aws_smithy_runtime_api::client::interceptors::context::Input;

        let asked = |status: u16, code: &str| -> Option<RetryAction> {
            let mut call = InterceptorContext::new(Input::erase(()));
            let body = format!("<Response><Errors><Error><Code>{code}</Code></Error></Errors></Response>");
            let status = StatusCode::try_from(status).ok()?;
            call.set_response(HttpResponse::new(status, SdkBody::from(body)));
            Some(UnlessFor(&["NoRoom"]).classify_retry(&call))
        };
        assert_eq!(asked(500, "NoRoom"), Some(RetryAction::RetryForbidden));
        // Others say what these mean; and what is only called so in an answer is none.
        for (status, code) in [(500, "InternalError"), (503, "RequestLimitExceeded"), (200, "NoRoom")] {
            assert_eq!(asked(status, code), Some(RetryAction::NoActionIndicated), "{status} {code}");
        }
    }

    #[test]
    fn missing_credentials_are_named() {
        let none = ConnectorError::other(CredentialsError::not_loaded("nothing in the chain").into(), None);
        let failed = Failed::of(&SdkError::<Word, HttpResponse>::dispatch_failure(none));
        assert_eq!(failed.kind, Kind::Refused);
        assert!(failed.message.contains("nothing in the chain"), "{}", failed.message);
    }
}
