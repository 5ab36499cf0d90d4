//! What handlers take from a request, parsed once at the edge.
//!
//! [`Ask`] is a request without its path and body. [`Named`] is what the path names. [`Params`] is the query, strict: a
//! parameter that a resource does not know is refused, so that a typing error is never silently ignored. [`Text`] is the body with its format, read within the bounds. [`By`] is who writes
//! and why. [`Shape`] is the format of the answer.

use std::str::FromStr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Path, Query};
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shoal_core::{HostName, Key, Member, Revision, TagName};
use shoal_store::Store;

use crate::access::Caller;
use crate::app::App;
use crate::problem::{Answer, Problem};
use crate::recent::{STALE, Stale};
use shoal_core::codec::{self, BadText, Format};

/// The longest author, message or idempotency key that a header may carry, in octets.
const MAX_HEADER: usize = 4096;

/// What handlers take from a request, besides its path and body.
pub(crate) struct Ask {
    pub(crate) app: Arc<App>,
    pub(crate) shape: Shape,
    pub(crate) headers: HeaderMap,
    pub(crate) params: Params,
    /// Who asks.
    pub(crate) caller: Arc<Caller>,
    /// Whether they take what this server knows, without a look at the database ([`crate::recent`]).
    pub(crate) stale: bool,
}

impl FromRequestParts<Arc<App>> for Ask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Answer<Self> {
        let shape = Shape::from_request_parts(parts, app).await?;
        let params = Params::from_request_parts(parts, app).await?;
        let Asker(caller) = Asker::from_request_parts(parts, app).await?;
        let stale = parts.extensions.get::<Stale>().is_some();
        // Nobody after this one reads them.
        let headers = std::mem::take(&mut parts.headers);
        Ok(Self { app: app.clone(), shape, headers, params, caller, stale })
    }
}

/// Who asks, as it was found out at the door.
pub(crate) struct Asker(pub(crate) Arc<Caller>);

impl FromRequestParts<Arc<App>> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Answer<Self> {
        parts.extensions.get::<Arc<Caller>>().cloned().map(Self).ok_or_else(|| {
            let (status, title) = (StatusCode::INTERNAL_SERVER_ERROR, "The server failed");
            Problem::new(status, "internal", title, "nobody was asked who this is".to_owned())
        })
    }
}

impl Ask {
    /// The same request, whose parameters are all of `known`.
    pub(crate) fn only(mut self, known: &[&str]) -> Answer<Self> {
        self.params = self.params.only(known)?;
        Ok(self)
    }

    /// The body. It may come slowly: who asks is looked up again when it is here, so that nobody does anything by a right that was taken
    /// away meanwhile.
    ///
    /// # Errors
    /// As for [`Text::read`], and where what they showed is good no longer, or that cannot be told.
    pub(crate) async fn text(&mut self, body: Body, accepts: Accepts, limit: usize) -> Answer<Text> {
        let text = Text::read(self, body, accepts, limit).await?;
        self.app.trusted().await?;
        self.caller = Arc::new(self.caller.again(&self.app)?);
        Ok(text)
    }

    /// The database's store.
    pub(crate) fn store(&self) -> &dyn Store {
        &**self.app.db.store()
    }
}

/// What the path names: a host, a tag, a member of a tag, or a key.
pub(crate) struct Named<T>(pub(crate) T);

async fn path<T: DeserializeOwned + Send>(parts: &mut Parts, app: &Arc<App>) -> Answer<T> {
    let path = Path::from_request_parts(parts, app).await;
    path.map(|Path(found)| found).map_err(|e| Problem::bad_request(e.body_text()))
}

impl FromRequestParts<Arc<App>> for Named<HostName> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Answer<Self> {
        Ok(Self(path::<String>(parts, app).await?.parse()?))
    }
}

impl FromRequestParts<Arc<App>> for Named<TagName> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Answer<Self> {
        let (ns, key): (String, String) = path(parts, app).await?;
        Ok(Self(format!("{ns}/{key}").parse()?))
    }
}

impl FromRequestParts<Arc<App>> for Named<(TagName, Member)> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Answer<Self> {
        let (ns, key, member): (String, String, String) = path(parts, app).await?;
        Ok(Self((format!("{ns}/{key}").parse()?, member.parse()?)))
    }
}

impl FromRequestParts<Arc<App>> for Named<Key> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Answer<Self> {
        Ok(Self(path::<String>(parts, app).await?.parse()?))
    }
}

/// The parameters of the query, in the order they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    list: Vec<(String, String)>,
    /// Whether they are those of a read, which may say that it takes what is known.
    read: bool,
}

impl FromRequestParts<Arc<App>> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Answer<Self> {
        let read = matches!(parts.method, Method::GET | Method::HEAD);
        if parts.uri.query().is_none() {
            return Ok(Self { list: Vec::new(), read });
        }
        Query::try_from_uri(&parts.uri)
            .map(|Query(list)| Self { list, read })
            .map_err(|e| Problem::bad_request(format!("the query cannot be read: {e}")))
    }
}

impl Params {
    /// Refuses parameters that are not in `known`, and those of `known` that stand twice without being in `many`.
    pub(crate) fn only(self, known: &[&str]) -> Answer<Self> {
        let every: &[&str] = if self.read { &[STALE] } else { &[] };
        for (i, (name, _)) in self.list.iter().enumerate() {
            if !known.contains(&name.as_str()) && !every.contains(&name.as_str()) {
                let all = [known, every].concat();
                let list = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                return Err(Problem::bad_request(format!("unknown parameter {name:?}; known here: {list}"))
                    .with("field", name.as_str()));
            }
            let repeats = !MANY.contains(&name.as_str()) && self.list[..i].iter().any(|(n, _)| n == name);
            if repeats {
                return Err(Problem::bad_request(format!("the parameter {name:?} stands twice"))
                    .with("field", name.as_str()));
            }
        }
        Ok(self)
    }

    /// The first value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Every value of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.list.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value of `name` as a `T`.
    pub(crate) fn parse<T: FromStr>(&self, name: &str, expected: &str) -> Answer<Option<T>> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Problem::bad_request(format!("the parameter {name}={text:?} is not {expected}"))
                        .with("field", name)
                        .with("expected", expected)
                        .with("found", text)
                })
            })
            .transpose()
    }

    /// The whole number `name`, from `least` to `most`.
    pub(crate) fn within(&self, name: &str, least: u64, most: u64) -> Answer<Option<u64>> {
        let found = self.parse(name, "a whole number")?;
        match found.filter(|n| !(least..=most).contains(n)) {
            None => Ok(found),
            Some(n) => {
                Err(Problem::bad_request(format!("{name}={n} is out of bounds: it is {least} to {most}"))
                    .with("field", name))
            }
        }
    }

    /// The `revision` to read at; `None`: now.
    pub(crate) fn revision(&self) -> Answer<Option<Revision>> {
        Ok(self.parse("revision", "a revision (a whole number)")?.map(Revision))
    }

    /// The `limit` of a page.
    pub(crate) fn limit(&self, app: &App) -> Answer<usize> {
        let most = app.limits.max_page;
        match self.parse::<usize>("limit", "a whole number")? {
            None => Ok(app.limits.page.min(most)),
            Some(n) if (1..=most).contains(&n) => Ok(n),
            Some(n) => Err(Problem::bad_request(format!(
                "limit={n} is out of bounds: a page has 1 to {most} entries; follow `next` for more"
            ))
            .with("field", "limit")),
        }
    }

    /// Whether `name` is set: present without a value, or `true`.
    pub(crate) fn flag(&self, name: &str) -> Answer<bool> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => {
                Err(Problem::bad_request(format!("the parameter {name}={other:?} is not true or false"))
                    .with("field", name))
            }
        }
    }
}

/// Parameters that may stand more than once.
const MANY: [&str; 4] = ["key", "prefix", "tag", "naming"];

/// How the answer is to be written: JSON, unless YAML is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape(Format);

impl FromRequestParts<Arc<App>> for Shape {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Answer<Self> {
        let yaml = parts.headers.get(ACCEPT).is_some_and(|accept| {
            let first = accept.to_str().unwrap_or("").split(',').next().unwrap_or("");
            is_yaml(first.split(';').next().unwrap_or("").trim())
        });
        Ok(Self(if yaml { Format::Yaml } else { Format::Json }))
    }
}

impl Shape {
    /// Whether it is YAML.
    pub(crate) fn is_yaml(self) -> bool {
        self.0 == Format::Yaml
    }

    /// An answer of 200 with this value.
    pub(crate) fn ok<T: Serialize + ?Sized>(self, value: &T) -> Answer {
        self.with(StatusCode::OK, value)
    }

    /// An answer with this value.
    pub(crate) fn with<T: Serialize + ?Sized>(self, status: StatusCode, value: &T) -> Answer {
        let (text, kind) = match self.0 {
            // Compact: this is read by programs; `curl … | jq .` shows it to people.
            Format::Json => (serde_json::to_string(value), "application/json"),
            Format::Yaml => (codec::write(value, Format::Yaml), "application/yaml"),
        };
        let text = text.map_err(|e| Problem::unwritable(&e))?;
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(response)
    }
}

fn is_yaml(kind: &str) -> bool {
    matches!(kind, "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml")
}

/// A body, read whole.
#[derive(Debug)]
pub(crate) struct Text {
    bytes: axum::body::Bytes,
    format: Format,
}

/// Which media types a body may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// JSON or YAML.
    Documents,
    /// `application/merge-patch+json`.
    Patch,
}

impl Text {
    /// Reads the body of a request. Handlers that ask who it is from take [`Ask::text`].
    ///
    /// # Errors
    /// 415 for another media type, 413 for more than the bound, 503 when too many large bodies are on their way.
    pub(crate) async fn read(ask: &Ask, body: Body, accepts: Accepts, limit: usize) -> Answer<Self> {
        let Ask { app, headers, .. } = ask;
        let format = media(headers, accepts)?;
        plain(headers)?;
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let how = if limit > app.limits.document {
            "split it into several commits, or, for an agent with a large unit, raise the server's --max-body (one document has at most 1 MiB all the same)"
        } else {
            "a document has at most 1 MiB, whatever the server is told: keep what is large elsewhere, and say here where"
        };
        if announced.is_some_and(|n: usize| n > limit) {
            return Err(Problem::too_large(limit, how));
        }
        // A body of unknown length counts as large.
        let _large = if announced.is_none_or(|n| n > app.limits.document) && limit > app.limits.document {
            let busy = || Problem::busy("too many large bodies are being read: try again");
            Some(app.large_bodies.try_acquire().map_err(|_| busy())?)
        } else {
            None
        };
        let bytes = to_bytes(body, limit).await.map_err(|error| {
            let text = error.to_string();
            if text.contains("length limit") {
                Problem::too_large(limit, how)
            } else {
                Problem::bad_request(format!("the body did not arrive whole: {text}; nothing was written"))
            }
        })?;
        Ok(Self { bytes, format })
    }

    /// The body as a `T`, whose fields have names: what is read into it could also be a list of their values.
    pub(crate) fn map<T: DeserializeOwned>(&self) -> Answer<T> {
        let list = || {
            let why = "expected a map, found a list".to_owned();
            Problem::from(BadText::Form { path: String::new(), why })
        };
        match self.format {
            Format::Json if self.bytes.trim_ascii_start().starts_with(b"[") => Err(list()),
            Format::Json => self.parse(),
            Format::Yaml => match self.parse()? {
                Value::Array(_) => Err(list()),
                value => Ok(codec::form(value)?),
            },
        }
    }

    /// The body as a `T`.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Answer<T> {
        Ok(codec::read(&self.bytes, self.format)?)
    }
}

impl From<BadText> for Problem {
    fn from(bad: BadText) -> Self {
        let detail = format!("nothing was written: {bad}");
        match bad {
            BadText::Syntax { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "malformed",
                "The body is not what its Content-Type says",
                detail,
            ),
            BadText::Form { path, why } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid",
                "What was sent cannot be stored",
                detail,
            )
            .with(
                "hint",
                "mend that field; docs/api.md and shared/core/src/edit.rs have the form of every body",
            )
            .with("field", path)
            .with("expected", why),
        }
    }
}

fn media(headers: &HeaderMap, accepts: Accepts) -> Answer<Format> {
    let sent = headers.get(CONTENT_TYPE).map_or("", |v| v.to_str().unwrap_or("?"));
    let kind = sent.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match (accepts, kind.as_str()) {
        (Accepts::Documents, "application/json") | (Accepts::Patch, "application/merge-patch+json") => {
            Ok(Format::Json)
        }
        (Accepts::Documents, other) if is_yaml(other) => Ok(Format::Yaml),
        _ => {
            let list = match accepts {
                Accepts::Documents => "application/json or application/yaml",
                Accepts::Patch => "application/merge-patch+json",
            };
            let found = if sent.is_empty() { "none" } else { sent };
            Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body is of a type that is not understood here",
                format!("nothing was written: send Content-Type: {list} (found: {found})"),
            )
            .with("expected", list)
            .with("found", found))
        }
    }
}

/// A body comes as it is: a small one that is compressed may be a large one, and here nobody is far away.
fn plain(headers: &HeaderMap) -> Answer<()> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter().map(|v| v.to_str().unwrap_or("?"));
    let Some(coding) = codings.find(|coding| !coding.eq_ignore_ascii_case("identity")) else { return Ok(()) };
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "The body is of a type that is not understood here",
        format!("nothing was written: send the body as it is, without Content-Encoding (found: {coding})"),
    )
    .with("expected", "identity")
    .with("found", coding))
}

/// Who writes, why, and under which idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct By {
    pub(crate) author: String,
    pub(crate) message: String,
    pub(crate) idempotency: Option<String>,
}

impl By {
    /// Nobody: whoever only asks what would be signs nothing.
    ///
    /// # Errors
    /// A signature that cannot be one, as with a write.
    pub(crate) fn nobody(ask: &Ask, given: [&Option<String>; 2]) -> Answer<Self> {
        if given.into_iter().flatten().any(|text| text.trim().is_empty()) {
            return Err(Problem::bad_request("the author or the message in the body says nothing"));
        }
        for name in ["shoal-author", "shoal-message", "idempotency-key"] {
            text_of(&ask.headers, name)?;
        }
        said(&ask.params)?;
        Ok(Self { author: "nobody".to_owned(), message: "plan".to_owned(), idempotency: None })
    }

    /// From the headers `Shoal-Author`, `Shoal-Message` and `Idempotency-Key`, else from the query; `author` and
    /// `message` of a body go before both.
    pub(crate) fn of(ask: &Ask, author: Option<String>, message: Option<String>) -> Answer<Self> {
        // Who was authenticated need not say it again.
        let known = Some(&ask.caller.who).filter(|who| ask.caller.asked && !who.is_anonymous());
        let one = ask.headers.contains_key("shoal-author") || ask.params.get("author").is_some();
        let author = author.or_else(|| known.filter(|_| !one).map(|who| who.name.clone()));
        Self::from(&ask.headers, &ask.params, author, message)
    }

    fn from(
        headers: &HeaderMap,
        params: &Params,
        author: Option<String>,
        message: Option<String>,
    ) -> Answer<Self> {
        said(params)?;
        let one = |given: Option<String>, header: &str, param: &str| -> Answer<Option<String>> {
            let found = match given {
                Some(text) => Some(text),
                None => match text_of(headers, header)? {
                    Some(text) => Some(text),
                    None => params.get(param).map(str::to_owned),
                },
            };
            Ok(found.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()))
        };
        let missing = |what: &str, why: &str, header: &str, param: &str| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "unsigned",
                "A write needs an author and a message",
                format!(
                    "nothing was written: {what} is missing ({why}); send the header {header}, \
                     the parameter ?{param}=…, or in a transaction the field `{param}`"
                ),
            )
            .with("field", param)
        };
        Ok(Self {
            author: one(author, "shoal-author", "author")?
                .ok_or_else(|| missing("the author", "who says so", "Shoal-Author", "author"))?,
            message: one(message, "shoal-message", "message")?
                .ok_or_else(|| missing("the message", "why", "Shoal-Message", "message"))?,
            idempotency: text_of(headers, "idempotency-key")?.filter(|t| !t.is_empty()),
        })
    }
}

/// A signature that is there says something, also where another one goes before it.
fn said(params: &Params) -> Answer<()> {
    let blank = |name: &&str| params.get(name).is_some_and(|text| text.trim().is_empty());
    match ["author", "message"].iter().find(|name| blank(name)) {
        Some(name) => {
            Err(Problem::bad_request(format!("the parameter {name} says nothing")).with("field", *name))
        }
        None => Ok(()),
    }
}

fn text_of(headers: &HeaderMap, name: &str) -> Answer<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let bad = |why| Problem::bad_request(format!("the header {name} {why}")).with("field", name);
    if value.len() > MAX_HEADER {
        return Err(bad("has more than 4096 octets"));
    }
    let text = String::from_utf8(value.as_bytes().to_vec()).map_err(|_| bad("is not UTF-8"))?;
    if text.trim().is_empty() && name != "idempotency-key" {
        return Err(bad("says nothing"));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(list: &[(&str, &str)]) -> Params {
        let list = list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Params { list, read: false }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        params(&[("limit", "1"), ("prefix", "a/"), ("prefix", "b/")]).only(&["limit", "prefix"]).unwrap();
        let bad = params(&[("limt", "1")]).only(&["limit", "after"]).unwrap_err();
        assert!(bad.detail().contains("limit, after"), "{}", bad.detail());
        assert!(params(&[("limit", "1"), ("limit", "2")]).only(&["limit"]).is_err());
        assert!(params(&[("revision", "x")]).revision().is_err());
        // Any read may say it, and no write.
        let stale = params(&[("stale", "")]);
        assert!(stale.clone().only(&[]).is_err());
        let bad = Params { read: true, ..params(&[("limt", "1")]) }.only(&["limit"]).unwrap_err();
        assert!(bad.detail().contains("limit, stale"), "{}", bad.detail());
        Params { read: true, ..stale }.only(&[]).unwrap();
    }

    #[test]
    fn a_write_is_signed_by_header_query_or_body() {
        let mut headers = HeaderMap::new();
        let none = params(&[]);
        let problem = By::from(&headers, &none, None, None).unwrap_err();
        assert!(problem.detail().contains("Shoal-Author"));
        headers.insert("shoal-author", HeaderValue::from_bytes("Jürgen".as_bytes()).unwrap());
        assert!(By::from(&headers, &none, None, None).unwrap_err().detail().contains("Shoal-Message"));
        let by = By::from(&headers, &params(&[("message", "why")]), None, None).unwrap();
        assert_eq!((by.author.as_str(), by.message.as_str()), ("Jürgen", "why"));
        let by = By::from(&headers, &none, Some("ann".into()), Some("m".into())).unwrap();
        assert_eq!(by.author, "ann");
        assert!(By::from(&headers, &none, None, Some("  ".into())).is_err());
    }

    #[test]
    fn bodies_have_a_type() {
        let of = |kind: &'static str, accepts| {
            media(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]), accepts)
        };
        assert_eq!(of("application/json; charset=utf-8", Accepts::Documents).unwrap(), Format::Json);
        assert_eq!(of("text/yaml", Accepts::Documents).unwrap(), Format::Yaml);
        assert_eq!(of("application/merge-patch+json", Accepts::Patch).unwrap(), Format::Json);
        for (kind, accepts) in [("text/plain", Accepts::Documents), ("application/json", Accepts::Patch)] {
            assert_eq!(of(kind, accepts).unwrap_err().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        assert!(media(&HeaderMap::new(), Accepts::Documents).is_err());
    }
}
