//! The OpenAPI document: every route is in it, and it says of each what the server does. `tests/openapi` has a tool try all of
//! it that it can think of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Running, problem};

/// A part of the document, or what it refers to.
fn resolved<'d>(document: &'d Value, part: &'d Value) -> &'d Value {
    match part["$ref"].as_str() {
        Some(place) => document.pointer(&place[1..]).expect(place),
        None => part,
    }
}

/// Every operation: method, path, entry.
pub(crate) fn operations(document: &Value) -> Vec<(String, &String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, entry): (_, &'_ Value)| (path, entry.as_object().unwrap().clone());
    let mut all = Vec::new();
    for (path, entry) in paths.iter().map(of) {
        for method in entry.keys() {
            all.push((method.to_uppercase(), path, &paths[path][method]));
        }
    }
    all
}

/// The path with an example for each of its parts.
pub(crate) fn example(document: &Value, path: &str, entry: &Value) -> String {
    let mut path = path.to_owned();
    for param in entry["parameters"].as_array().into_iter().flatten() {
        let param = resolved(document, param);
        if param["in"] == "path" {
            let schema = resolved(document, &param["schema"]);
            let example = match &schema["examples"][0] {
                Value::String(text) => text.clone(),
                _ => "1".to_owned(),
            };
            path = path.replace(&format!("{{{}}}", param["name"].as_str().unwrap()), &example);
        }
    }
    assert!(!path.contains('{'), "{path}");
    path
}

fn sources(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else {
            into.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Only what makes the document makes routes.
#[test]
fn no_route_is_made_without_an_entry() {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let made: Vec<&String> = all
        .iter()
        .filter(|(_, text)| {
            [".route(", ".nest(", ".merge(", ".fallback"].iter().any(|way| text.contains(way))
        })
        .map(|(path, _)| path)
        .collect();
    assert!(
        made.len() == 1 && made[0].ends_with("spec/mod.rs"),
        "routes are made by `Routes::at` alone: {made:?}"
    );
}

#[tokio::test]
async fn the_document_is_whole() {
    let server = Running::new().await;
    let document = server.get("/api/v2/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.1");
    let all = operations(&document);
    assert!(all.len() >= 60, "{}", all.len());
    let mut ids = BTreeSet::new();
    for (method, path, entry) in &all {
        assert!(ids.insert(entry["operationId"].as_str().unwrap()), "{method} {path}");
        assert!(!entry["summary"].as_str().unwrap().is_empty(), "{method} {path}");
        assert!(
            entry["responses"].as_object().unwrap().keys().any(|s| s.starts_with('2')),
            "{method} {path}"
        );
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for place in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(place).is_some(), "{place}");
    }
    server.stop().await;
}

/// The server refuses a parameter that it does not know, and names those that it does: the document has the same.
#[tokio::test]
async fn the_document_has_the_parameters_that_the_server_takes() {
    let server = Running::new().await;
    let document = server.get("/api/v2/openapi.json").await;
    let mut asked = 0;
    for (method, path, entry) in operations(&document) {
        if !path.starts_with("/api/v2/") || path == "/api/v2/openapi.json" {
            continue;
        }
        let query = |param: &Value| {
            let param = resolved(&document, param);
            (param["in"] == "query").then(|| param["name"].as_str().unwrap().to_owned())
        };
        let said: BTreeSet<String> =
            entry["parameters"].as_array().into_iter().flatten().filter_map(query).collect();
        let at = format!("{}?zzz=1", example(&document, path, entry));
        let body =
            problem(server.ask(&method, &at).send().await.unwrap(), 400, "bad-request", &["zzz"]).await;
        let detail = body["detail"].as_str().unwrap();
        let known = detail.rsplit_once("known here: ").unwrap().1;
        let known: BTreeSet<String> =
            known.split(", ").filter(|name| *name != "none").map(str::to_owned).collect();
        assert_eq!(said, known, "{method} {path}");
        asked += 1;
    }
    assert!(asked > 50, "{asked}");
    server.stop().await;
}

/// `docs/api.md` has a row for every path but those of the rows, and no other, and each row names the methods.
#[tokio::test]
async fn the_api_page_has_every_path() {
    let server = Running::new().await;
    let document = server.get("/api/v2/openapi.json").await;
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md")).unwrap();
    let mut rows = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| `/")) {
        let cells: Vec<&str> = line.split(" | ").collect();
        for path in cells[0].split('`').filter(|text| text.starts_with('/')) {
            rows.insert((path.to_owned(), cells[1].to_owned()));
        }
    }
    let paths = document["paths"].as_object().unwrap();
    let short = |path: &str| path.strip_prefix("/api/v2").unwrap_or(path).to_owned();
    for (path, entry) in paths.iter().filter(|(path, _)| !path.starts_with("/api/v2/store/")) {
        let methods = rows.iter().find(|(row, _)| *row == short(path)).map(|(_, methods)| methods);
        let methods = methods.expect(path);
        for method in entry.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            assert!(methods.contains(&method), "docs/api.md: {path} takes {method}");
        }
    }
    let known: BTreeSet<String> = paths.keys().map(|path| short(path)).collect();
    for (row, _) in rows.iter().filter(|(row, _)| !row.starts_with("/store/")) {
        assert!(known.contains(row), "docs/api.md has {row}, and the server has not");
    }
    server.stop().await;
}
