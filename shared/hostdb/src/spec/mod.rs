//! Every route with its entry in the OpenAPI document, said once.
//!
//! [`Routes::at`] is the only way to a path: it gives the router the handlers and the document what they take and answer, so
//! neither has what the other lacks; a test refuses routes that are made elsewhere. Schemas come from the types that are read
//! and written. What handlers check by hand (parameters) is compared with the document by a test that asks each of them.
//!
//! The document is [OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.1), made when a server starts and served as it is.

mod op;
mod param;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::routing::MethodRouter;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::app::App;

pub(crate) use op::{Op, delete, get, patch, post, put};
pub(crate) use param::{Param, flag, number, query, shared, text};

/// Where schemas stand in the document.
const SCHEMAS: &str = "/components/schemas";

/// Paths, with what is said of them.
pub(crate) struct Routes {
    router: Router<Arc<App>>,
    paths: Map<String, Value>,
    schemas: Schemas,
}

/// The schemas of what is read and of what is written: a field may be left out of the one and always stand in the other.
pub(crate) struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Routes {
    pub(crate) fn new() -> Self {
        let settings = || SchemaSettings::draft2020_12().with(|s| s.definitions_path = SCHEMAS.into());
        let schemas = Schemas {
            read: settings().for_deserialize().into_generator(),
            written: settings().for_serialize().into_generator(),
        };
        Self { router: Router::new(), paths: Map::new(), schemas }
    }

    /// A path and all that it takes.
    pub(crate) fn at(mut self, path: &str, ops: impl IntoIterator<Item = Op>) -> Self {
        let mut entry = Map::new();
        for op in ops {
            let (verb, route, said) = op.finish(path, &mut self.schemas);
            self.router = self.router.route(path, route);
            entry.insert(verb.to_owned(), said);
        }
        // `{*rest}` is the router's word for a part that may hold slashes.
        self.paths.insert(path.replace("{*", "{"), Value::Object(entry));
        self
    }

    /// A path of another product's interface, which its own page describes and the document leaves out.
    pub(crate) fn foreign(mut self, path: &str, route: MethodRouter<Arc<App>>) -> Self {
        self.router = self.router.route(path, route);
        self
    }

    /// The router, and the document.
    pub(crate) fn finish(self) -> (Router<Arc<App>>, Bytes) {
        let document = document(self.paths, self.schemas);
        (self.router, Bytes::from(document.to_string()))
    }
}

/// The whole document.
fn document(mut paths: Map<String, Value>, mut schemas: Schemas) -> Value {
    let mut all = schemas.written.take_definitions(true);
    let read = schemas.read.take_definitions(true);
    let renamed = renames(&read, &all);
    for (name, mut schema) in read {
        rename(&mut schema, &renamed);
        let own = renamed.iter().any(|(from, _)| from.ends_with(&format!("/{name}")));
        all.insert(if own { format!("{name}Sent") } else { name }, schema);
    }
    for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        for part in ["requestBody", "parameters"] {
            if let Some(read) = operation.get_mut(part) {
                rename(read, &renamed);
            }
        }
    }
    let mut document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Shoal host database",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Hosts and tags with their history, read, written and watched.",
            "description": "docs/api.md says the same in words, with examples that run.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": all, "parameters": param::components(), "responses": op::problems(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "A token (`shoal token create`) or a session (`POST /api/v2/sessions`)."}}},
        "security": [{"token": []}],
    });
    plain(&mut document);
    document
}

/// What is read otherwise than it is written, itself or in its parts, and the other name that it has for that.
fn renames(read: &Map<String, Value>, written: &Map<String, Value>) -> Vec<(String, String)> {
    let place = |name: &str| format!("#{SCHEMAS}/{name}");
    let mut renamed: Vec<(String, String)> = Vec::new();
    loop {
        let known = renamed.len();
        for (name, schema) in read {
            let (from, text) = (place(name), schema.to_string());
            let parts = renamed.iter().any(|(other, _)| text.contains(&format!("\"{other}\"")));
            let differs = written.get(name).is_some_and(|other| parts || other != schema);
            if differs && !renamed.iter().any(|(other, _)| *other == from) {
                renamed.push((from, place(&format!("{name}Sent"))));
            }
        }
        if renamed.len() == known {
            return renamed;
        }
    }
}

fn rename(value: &mut Value, names: &[(String, String)]) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let to = names.iter().find(|(from, _)| key == "$ref" && value.as_str() == Some(from));
                match to {
                    Some((_, to)) => *value = Value::String(to.clone()),
                    None => rename(value, names),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}

/// Descriptions come from the docs of types, where names are links: here they are names.
fn plain(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
                    }
                    value => plain(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(plain),
        _ => {}
    }
}
