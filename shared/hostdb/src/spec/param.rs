//! Parameters as the document describes them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use shoal_store::MAX_PAGE;

use super::Schemas;

/// One parameter.
pub(crate) struct Param {
    name: &'static str,
    place: &'static str,
    what: &'static str,
    required: bool,
    many: bool,
    form: Form,
}

enum Form {
    Of(fn(&mut SchemaGenerator) -> Schema),
    Is(Schema),
    /// It stands with those that many operations take.
    Shared,
}

/// A parameter of the query that is a `T`.
pub(crate) fn query<T: JsonSchema>(name: &'static str, what: &'static str) -> Param {
    let form = Form::Of(SchemaGenerator::subschema_for::<T>);
    Param { name, place: "query", what, required: false, many: false, form }
}

/// A parameter of the query of this form.
pub(crate) fn text(name: &'static str, schema: Schema, what: &'static str) -> Param {
    Param { form: Form::Is(schema), ..query::<String>(name, what) }
}

/// A whole number within bounds.
pub(crate) fn number(name: &'static str, least: u64, most: u64, what: &'static str) -> Param {
    text(name, json_schema!({"type": "integer", "minimum": least, "maximum": most}), what)
}

/// A parameter that is set by being there.
pub(crate) fn flag(name: &'static str, what: &'static str) -> Param {
    text(name, flags(), what)
}

fn flags() -> Schema {
    json_schema!({"type": "string", "enum": ["true", "false", "1", "0", ""]})
}

/// One of those that many operations take, by name.
pub(crate) fn shared(name: &'static str) -> Param {
    Param { form: Form::Shared, ..query::<String>(name, "") }
}

impl Param {
    /// It stands in the path.
    pub(super) fn of_path(name: &'static str, schema: Schema) -> Self {
        Self { place: "path", required: true, ..text(name, schema, "") }
    }

    /// It must be there.
    pub(crate) fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// It may be there several times.
    pub(crate) fn many(self) -> Self {
        Self { many: true, ..self }
    }

    /// It is a header.
    pub(crate) fn header(self) -> Self {
        Self { place: "header", ..self }
    }

    pub(super) fn entry(self, schemas: &mut Schemas) -> Value {
        let schema = match self.form {
            Form::Shared => return json!({"$ref": format!("#/components/parameters/{}", self.name)}),
            Form::Is(schema) => schema,
            Form::Of(make) => make(&mut schemas.read),
        };
        let schema = if self.many { json!({"type": "array", "items": schema}) } else { schema.into() };
        let mut entry = json!({"name": self.name, "in": self.place, "schema": schema});
        if !self.what.is_empty() {
            entry["description"] = self.what.into();
        }
        if self.required {
            entry["required"] = true.into();
        }
        entry
    }
}

/// Text that any header can hold; a tab is one of its characters.
fn line() -> Schema {
    json_schema!({"type": "string", "maxLength": 4096, "pattern": r"^[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?$"})
}

/// A list of entity tags, or `*`: HTTP says of what form.
fn tags(example: &str) -> Schema {
    json_schema!({"type": "string", "examples": [example]})
}

/// Text that says something.
fn said() -> Schema {
    json_schema!({"type": "string", "pattern": r"\S"})
}

/// The parameters that many operations take.
pub(super) fn components() -> Value {
    let page =
        "How many entries at most; fewer come when they are large. Only `next` says whether there are more.";
    let all = [
        (
            "revision",
            query::<shoal_core::Revision>("revision", "As of this revision; left out: now."),
        ),
        (
            "stale",
            flag(
                "stale",
                "Answer at once with what this server knows: at least of the revision in the header `Shoal-Revision`, and at most `Age` \
                 seconds old. Left out: with all that was committed before the request, or 503.",
            ),
        ),
        ("limit", number("limit", 1, MAX_PAGE as u64, page)),
        (
            "before",
            query::<shoal_core::Revision>(
                "before",
                "Only commits before this revision: `next` of the page before.",
            ),
        ),
        (
            "if-match",
            text(
                "If-Match",
                tags("*"),
                "Only if it is still what it was: the `ETag` that came with it; `*`: if there is anything.",
            )
            .header(),
        ),
        (
            "if-none-match",
            text(
                "If-None-Match",
                tags("\"r7\""),
                "`*` with a write: only if there is nothing. An `ETag` with a read: 304 if it is still the same.",
            )
            .header(),
        ),
        (
            "author",
            text("Shoal-Author", line(), "Who says so, in UTF-8; or the parameter `author`. One of the two must be.")
                .header(),
        ),
        (
            "message",
            text("Shoal-Message", line(), "Why, in UTF-8; or the parameter `message`. One of the two must be.").header(),
        ),
        ("author-in-query", text("author", said(), "Who says so, where no header does.")),
        ("message-in-query", text("message", said(), "Why, where no header says it.")),
        (
            "idempotency-key",
            text(
                "Idempotency-Key",
                json_schema!({"type": "string", "maxLength": 4096, "pattern": r"^[\t\x20-\x7e]*$"}),
                "The same request under the same key is done once.",
            )
            .header(),
        ),
    ];
    let mut schemas = super::Routes::new().schemas;
    let entries = all.into_iter().map(|(name, param)| (name.to_owned(), param.entry(&mut schemas)));
    Value::Object(Map::from_iter(entries))
}
