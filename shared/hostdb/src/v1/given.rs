//! What a request of `/v1` gives besides its path: the query, and the fields of a form in its body. The form goes first.
//!
//! What is not known is left alone, as HostDB does.

use axum::body::{Body, to_bytes};
use http::header::{CONTENT_TYPE, COOKIE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use shoal_core::Revision;

use super::fault::{Answer, Fault};

const FORM: &str = "application/x-www-form-urlencoded";
/// The cookie that holds a session.
pub(super) const COOKIE_NAME: &str = "HostDB";

/// Names with their values.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    fields: Vec<(String, String)>,
    cookie: Option<String>,
}

impl Given {
    /// The query alone.
    pub(super) fn in_query(parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        Self { fields: pairs(query.as_bytes()), cookie: cookie(&parts.headers) }
    }

    /// The form in the body, and the query. Some clients send a form without saying that it is one.
    ///
    /// # Errors
    /// A body of another type, or of more than `limit` octets.
    pub(super) async fn in_form(parts: &Parts, body: Body, limit: usize) -> Answer<Self> {
        let kind = parts.headers.get(CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or("?"));
        let plain = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let bytes = to_bytes(body, limit).await.map_err(|error| {
            let why = if error.to_string().contains("length limit") {
                "it is too large"
            } else {
                "it did not arrive whole"
            };
            Fault::bad_request(format!("The body cannot be read: {why} (at most {limit} octets)"))
        })?;
        if !bytes.is_empty() && !matches!(plain.as_str(), "" | FORM) {
            return Err(Fault::bad_request(format!("Send the value in a form ({FORM}); found {kind}")));
        }
        let mut given = Self { fields: pairs(&bytes), ..Self::in_query(parts) };
        given.fields.extend(Self::in_query(parts).fields);
        Ok(given)
    }

    /// The first value of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter without which nothing is done.
    pub(super) fn need(&self, name: &str) -> Answer<&str> {
        let missing = || Fault::bad_request(format!("Missing parameter: {name}"));
        self.get(name).filter(|value| !value.trim().is_empty()).ok_or_else(missing)
    }

    /// Whether a flag is set: Perl's idea of truth, as its clients have it.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value, "" | "0" | "false"))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Answer<Option<usize>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Fault::bad_request(format!("{name} is no number: {text:?}")))
        };
        self.get(name).map(parse).transpose()
    }

    /// As of when.
    pub(super) fn revision(&self) -> Answer<Option<Revision>> {
        let Some(text) = self.get("revision").filter(|text| !text.is_empty()) else { return Ok(None) };
        let none = || {
            Fault::new(
                StatusCode::NOT_FOUND,
                format!("There is no revision {text:?}: revisions are whole numbers"),
            )
        };
        text.parse().map(|number| Some(Revision(number))).map_err(|_| none())
    }

    /// The session: a parameter, or the cookie.
    pub(super) fn session(&self) -> Option<&str> {
        self.get("session").or(self.cookie.as_deref()).filter(|session| !session.is_empty())
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let mut pairs = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name.trim() == COOKIE_NAME).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::get(uri), |r, (name, value)| r.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn a_form_goes_before_the_query() {
        let asked = parts("/v1/hosts/a?log=query&raw=true", &[("cookie", "a=b; HostDB=c00kie")]);
        let given = Given::in_form(&asked, Body::from("log=the+form%21&value=--- 1"), 100).await.unwrap();
        assert_eq!(
            (given.get("log"), given.get("value"), given.flag("raw")),
            (Some("the form!"), Some("--- 1"), true)
        );
        assert_eq!(given.session(), Some("c00kie"));
        let given =
            Given::in_query(&parts("/v1?session=s&limit=x&revision=abc&log=%20", &[("cookie", "HostDB=c")]));
        assert_eq!(given.session(), Some("s"));
        assert!(given.number("limit").is_err() && given.revision().is_err() && given.need("log").is_err());
    }

    #[tokio::test]
    async fn other_bodies_are_refused() {
        let json = parts("/v1/hosts/a", &[("content-type", "application/json")]);
        assert_eq!(Given::in_form(&json, Body::from("{}"), 100).await.unwrap_err().status(), 400);
        let form =
            parts("/v1/hosts/a", &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")]);
        assert!(Given::in_form(&form, Body::from("value=1"), 100).await.is_ok());
        assert_eq!(Given::in_form(&form, Body::from("value=12345"), 4).await.unwrap_err().status(), 400);
    }
}
