//! One operation: a method of a path, its handler, and what is said of both.

use std::sync::Arc;

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use shoal_core::{HostName, Key, Member, Revision, forms};

use super::{Param, Schemas, shared};
use crate::app::App;
use crate::problem::PROBLEM_JSON;

type Make = fn(&mut SchemaGenerator) -> Schema;

/// One operation.
pub(crate) struct Op {
    verb: &'static str,
    route: MethodRouter<Arc<App>>,
    summary: &'static str,
    params: Vec<Param>,
    body: Option<(Vec<&'static str>, Make)>,
    answers: Vec<Reply>,
    problems: Vec<u16>,
    area: Option<&'static str>,
    open: bool,
}

struct Reply {
    status: u16,
    what: &'static str,
    content: Content,
    headers: Vec<(&'static str, &'static str)>,
}

enum Content {
    None,
    /// JSON or YAML.
    Value(Make),
    Text(&'static str),
    /// Server-sent events.
    Events,
}

macro_rules! verb {
    ($name:ident, $filter:ident, $problems:expr) => {
        pub(crate) fn $name<H, T>(summary: &'static str, handler: H) -> Op
        where
            H: Handler<T, Arc<App>>,
            T: 'static,
        {
            Op::new(stringify!($name), MethodFilter::$filter, handler, summary, &$problems)
        }
    };
}

verb!(get, GET, [400, 414, 421, 431, 500, 503]);
verb!(put, PUT, WRITE);
verb!(post, POST, [400, 413, 414, 415, 421, 422, 431, 500, 503]);
verb!(patch, PATCH, WRITE);
verb!(delete, DELETE, [400, 403, 404, 409, 412, 414, 421, 422, 431, 500, 503, 507]);

/// What a write may be refused with.
const WRITE: [u16; 14] = [400, 403, 404, 409, 412, 413, 414, 415, 421, 422, 431, 500, 503, 507];

impl Op {
    fn new<H, T>(
        verb: &'static str,
        filter: MethodFilter,
        handler: H,
        summary: &'static str,
        problems: &[u16],
    ) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        Self {
            verb,
            route: on(filter, handler),
            summary,
            params: Vec::new(),
            body: None,
            answers: Vec::new(),
            problems: problems.to_vec(),
            area: None,
            open: false,
        }
    }

    /// What it does, in a line.
    pub(crate) fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// It is signed: by headers, or parameters, or (a commit of many things) its body.
    pub(crate) fn signed(self) -> Self {
        let by = ["author", "author-in-query", "message", "message-in-query", "idempotency-key"];
        self.takes(by.map(shared))
    }

    /// It takes these parameters.
    pub(crate) fn takes(mut self, params: impl IntoIterator<Item = Param>) -> Self {
        self.params.extend(params);
        self
    }

    /// Its body is a `T`, as JSON or YAML.
    pub(crate) fn body<T: JsonSchema>(self) -> Self {
        self.body_of(SchemaGenerator::subschema_for::<T>)
    }

    /// Its body is of this form, as JSON or YAML.
    pub(crate) fn body_of(mut self, form: Make) -> Self {
        self.body = Some((vec!["application/json", "application/yaml"], form));
        self
    }

    /// Its body is a merge patch.
    pub(crate) fn patches(mut self) -> Self {
        self.body = Some((
            vec!["application/merge-patch+json"],
            SchemaGenerator::subschema_for::<Map<String, Value>>,
        ));
        self
    }

    /// It answers a `T`.
    pub(crate) fn answers<T: JsonSchema>(self, what: &'static str) -> Self {
        self.reply(200, what, Content::Value(SchemaGenerator::subschema_for::<T>))
    }

    /// It answers text of this media type.
    pub(crate) fn answers_text(self, kind: &'static str, what: &'static str) -> Self {
        self.reply(200, what, Content::Text(kind))
    }

    /// It answers a stream of events.
    pub(crate) fn streams(self, what: &'static str) -> Self {
        self.reply(200, what, Content::Events)
    }

    /// It answers a `T` with 201, too.
    pub(crate) fn creates<T: JsonSchema>(self, what: &'static str) -> Self {
        self.reply(201, what, Content::Value(SchemaGenerator::subschema_for::<T>))
    }

    /// It has nothing to say.
    pub(crate) fn answers_nothing(self, what: &'static str) -> Self {
        self.reply(204, what, Content::None)
    }

    fn reply(mut self, status: u16, what: &'static str, content: Content) -> Self {
        self.answers.push(Reply { status, what, content, headers: Vec::new() });
        self
    }

    /// What the last answer has in its head.
    pub(crate) fn with_header(mut self, name: &'static str, what: &'static str) -> Self {
        if let Some(last) = self.answers.last_mut() {
            last.headers.push((name, what));
        }
        self
    }

    /// It may be refused with these, too.
    pub(crate) fn refuses(mut self, statuses: &[u16]) -> Self {
        self.problems.extend(statuses);
        self
    }

    /// A read of one thing that has an ETag.
    pub(crate) fn tagged(self) -> Self {
        let what = "The revision that wrote it, as `If-Match` takes it.";
        self.with_header("ETag", what)
            .reply(304, "It is what you have.", Content::None)
            .with_header("ETag", what)
            .takes([shared("revision"), shared("if-none-match")])
            .refuses(&[404])
    }

    /// A write of one thing: signed, and on conditions.
    pub(crate) fn writes(self) -> Self {
        self.signed().takes(["if-match", "if-none-match"].map(shared))
    }

    /// It is answered whoever asks.
    pub(crate) fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// A path below the rows of this namespace.
    pub(crate) fn below(mut self, area: &'static str) -> Self {
        self.area = Some(area);
        self
    }

    /// The verb, the route and the entry.
    pub(super) fn finish(
        self,
        path: &str,
        schemas: &mut Schemas,
    ) -> (&'static str, MethodRouter<Arc<App>>, Value) {
        let mut params: Vec<Value> =
            in_path(path, self.area, schemas).into_iter().map(|p| p.entry(schemas)).collect();
        // Every read of the database may say it.
        let stale = (self.verb == "get" && !self.open && path.starts_with("/api/")).then(|| shared("stale"));
        params.extend(self.params.into_iter().chain(stale).map(|param| param.entry(schemas)));
        let mut entry =
            json!({"summary": self.summary, "operationId": id(self.verb, path), "tags": [group(path)]});
        if !params.is_empty() {
            entry["parameters"] = params.into();
        }
        if let Some((kinds, make)) = self.body {
            let schema = make(&mut schemas.read);
            let content = kinds.into_iter().map(|kind| (kind.to_owned(), json!({"schema": schema})));
            entry["requestBody"] = json!({"required": true, "content": Map::from_iter(content)});
        }
        let mut responses = Map::new();
        for reply in self.answers {
            responses.insert(reply.status.to_string(), reply.entry(schemas));
        }
        let mut problems = self.problems;
        if self.open {
            // Also for those who show nothing, and say so.
            entry["security"] = json!([]);
        } else {
            problems.extend([401, 403]);
        }
        problems.sort_unstable();
        problems.dedup();
        for status in problems {
            responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{status}")}));
        }
        entry["responses"] = Value::Object(responses);
        (self.verb, self.route, entry)
    }
}

impl Reply {
    fn entry(self, schemas: &mut Schemas) -> Value {
        let mut entry = json!({"description": self.what});
        match self.content {
            Content::None => {}
            Content::Value(make) => {
                let schema = make(&mut schemas.written);
                entry["content"] =
                    json!({"application/json": {"schema": schema}, "application/yaml": {"schema": schema}});
            }
            Content::Text(kind) => {
                // JSON that is written elsewhere is a map here, whatever it holds.
                let form = if kind == "application/json" { "object" } else { "string" };
                entry["content"] = json!({kind: {"schema": {"type": form}}});
            }
            Content::Events => entry["content"] = json!({"text/event-stream": {"schema": event()}}),
        }
        if !self.headers.is_empty() {
            let header = |what| json!({"description": what, "schema": {"type": "string"}, "required": true});
            let headers = self.headers.into_iter().map(|(name, what)| (name.to_owned(), header(what)));
            entry["headers"] = Value::Object(Map::from_iter(headers));
        }
        entry
    }
}

/// One event of a stream.
fn event() -> Value {
    json!({
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"enum": ["commit", "upto", "reset", "error"]},
            "id": {"type": "string", "pattern": "^[0-9]+-[0-9]+$", "description": "`<epoch>-<revision>`, as `Last-Event-ID` takes it."},
            "retry": {"type": "integer"},
            "data": {"type": "string", "contentMediaType": "application/json", "description": "Of a `commit`: a LogEntry."},
        },
    })
}

/// What stands in braces in a path.
fn in_path(path: &str, area: Option<&str>, schemas: &mut Schemas) -> Vec<Param> {
    let mut of = |make: Make| make(&mut schemas.read);
    let named = |part: &str| part.strip_prefix('{').and_then(|p| p.strip_suffix('}')).map(str::to_owned);
    let mut all = Vec::new();
    for name in path.split('/').filter_map(named) {
        all.push(match name.as_str() {
            "fqdn" => Param::of_path("fqdn", of(SchemaGenerator::subschema_for::<HostName>)),
            "ns" => Param::of_path("ns", forms::tag_namespace()),
            "key" => Param::of_path("key", forms::tag_key()),
            "member" => Param::of_path("member", of(SchemaGenerator::subschema_for::<Member>)),
            "revision" => Param::of_path("revision", of(SchemaGenerator::subschema_for::<Revision>)),
            "*key" => Param::of_path("key", of(SchemaGenerator::subschema_for::<Key>)),
            "id" => Param::of_path("id", forms::text(r"[^/\s]+", 64, "Which token.", "0a1b2c3d4e5f")),
            _ => {
                let pattern = area.and_then(forms::below).unwrap_or_default();
                let what = "What stands below; its slashes may stand as they are, whatever this format says.";
                let example = match area {
                    Some(shoal_core::FACTS) => "vm/web1.example.com",
                    Some(shoal_core::PAUSES) => "host/web1.example.com",
                    Some(shoal_core::ACCESS) => "users/ann",
                    _ => "dns",
                };
                Param::of_path("rest", forms::text(&pattern, 600, what, example))
            }
        });
    }
    all
}

/// `get_tags_ns_key`
fn id(verb: &str, path: &str) -> String {
    let words = path.trim_start_matches("/api/v2").split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).fold(verb.to_owned(), |id, word| format!("{id}_{word}"))
}

/// What the path is about.
fn group(path: &str) -> &str {
    path.trim_start_matches("/api/v2").split('/').nth(1).unwrap_or("")
}

/// Every problem, by status.
pub(super) fn problems() -> Value {
    let schema = json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "pattern": "^urn:shoal:problem:[a-z-]+$"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What was attempted, why it failed, what to do next."},
            "field": {"type": "string"}, "code": {"type": "string"}, "key": {"type": "string"},
            "hint": {"type": "string", "description": "What to do instead."},
            "rule": {"type": "string", "description": "Of a 401 or 403: what refuses it."},
            "attempted": {"type": "string", "description": "Of a 403: what was wanted."},
            "principal": {"type": "string", "description": "Of a 403: who asks, as far as is known."},
        },
    });
    let all = [
        (400, "The request cannot be understood, or is not signed."),
        (
            401,
            "Nobody says who asks, or what was shown for it is not good. Send `Authorization: Bearer TOKEN`.",
        ),
        (403, "Who asks may not do this (`rule` says what refuses it); or this server only reads."),
        (404, "There is nothing here, or no such revision yet."),
        (409, "It contradicts what is there, or a claim was lost."),
        (412, "It is not what you last saw."),
        (413, "The body is too large."),
        (415, "The body is of a type or a coding that is not understood here."),
        (421, "The `Host` header is no name of this machine's loopback."),
        (422, "Understood, and not to be done or stored; `code` and `hint` say why and what to do."),
        (500, "The database is damaged, or the server is at fault."),
        (
            503,
            "A bound was reached, or the database did not answer: of a read, not even how new it is what this server knows.",
        ),
        (507, "There is no room left; nothing was written."),
    ];
    let entry = |(status, what): (u16, &str)| {
        let mut entry = json!({"description": what, "content": {PROBLEM_JSON: {"schema": schema}}});
        if status == 401 {
            let what = "`Bearer`.";
            entry["headers"] =
                json!({"WWW-Authenticate": {"description": what, "schema": {"type": "string"}}});
        }
        if status == 503 || status == 507 {
            let what = "When to come back, in seconds.";
            entry["headers"] = json!({"Retry-After": {"description": what, "schema": {"type": "integer"}}});
        }
        (status.to_string(), entry)
    };
    let mut all = Map::from_iter(all.map(entry));
    // HTTP itself says these, before there is anything that a problem document could tell.
    for (status, what) in [("414", "The target"), ("431", "The head")] {
        let what = format!("{what} of the request has more than 64 KiB; there is no body.");
        all.insert(status.to_owned(), json!({"description": what}));
    }
    Value::Object(all)
}
