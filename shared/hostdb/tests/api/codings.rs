//! Compressed answers, and bodies that must not be.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Running, problem};

async fn get(server: &Running, path: &str, coding: &str) -> Response {
    server.ask("GET", path).header("accept-encoding", coding).send().await.unwrap()
}

fn coding(answer: &Response) -> Option<&str> {
    answer.headers().get("content-encoding").map(|coding| coding.to_str().unwrap())
}

fn tag(answer: &Response) -> String {
    answer.headers()["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn large_answers_are_compressed_for_whoever_asks() {
    let server = Running::new().await;
    let long = json!({"document": {"text": "all work and no play ".repeat(1000)}});
    server.write("PUT", "/api/v2/hosts/long", &long).send().await.unwrap();
    server.write("PUT", "/api/v2/hosts/short", &json!({"document": {"a": 1}})).send().await.unwrap();
    let path = "/api/v2/hosts/long";
    for (wanted, found) in [
        ("gzip", Some("gzip")),
        ("zstd", Some("zstd")),
        ("gzip;q=0.5, zstd", Some("zstd")),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
    ] {
        assert_eq!(coding(&get(&server, path, wanted).await), found, "{wanted}");
    }
    assert_eq!(coding(&server.ask("GET", path).send().await.unwrap()), None);
    assert_eq!(coding(&get(&server, "/api/v2/hosts/short", "gzip").await), None);

    let plain = server.get(path).await;
    let answer = get(&server, path, "gzip").await;
    assert!(answer.headers()["vary"].to_str().unwrap().to_ascii_lowercase().contains("accept-encoding"));
    let packed = answer.bytes().await.unwrap();
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), plain);
    assert!(packed.len() * 10 < text.len(), "{} of {}", packed.len(), text.len());
    let packed = get(&server, path, "zstd").await.bytes().await.unwrap();
    assert_eq!(packed[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    server.stop().await;
}

#[tokio::test]
async fn each_form_has_its_tag_and_writes_take_them_all() {
    let server = Running::new().await;
    let long = json!({"document": {"text": "x".repeat(10_000)}});
    let path = "/api/v2/hosts/long";
    server.write("PUT", path, &long).send().await.unwrap();
    let packed = tag(&get(&server, path, "gzip").await);
    let yaml = tag(&server.ask("GET", path).header("accept", "application/yaml").send().await.unwrap());
    let plain = tag(&get(&server, path, "identity").await);
    assert_eq!((plain.as_str(), packed.as_str(), yaml.as_str()), ("\"r1\"", "\"r1-gzip\"", "\"r1-yaml\""));
    for (mine, accept, status) in [
        (&packed, "application/json", 304),
        (&plain, "application/json", 304),
        (&yaml, "application/yaml", 304),
        // What one has as YAML says nothing of what comes as JSON.
        (&yaml, "application/json", 200),
        (&plain, "application/yaml", 200),
    ] {
        let ask = server.ask("GET", path).header("if-none-match", mine).header("accept", accept);
        assert_eq!(ask.send().await.unwrap().status(), status, "{mine} {accept}");
    }
    for (revision, form) in ["", "-gzip", "-zstd", "-yaml", "-yaml-gzip"].into_iter().enumerate() {
        let mine = format!("\"r{}{form}\"", revision + 1);
        let body = json!({"document": {"text": "x".repeat(10_000), "n": revision}});
        let put = server.write("PUT", path, &body).header("if-match", &mine).send().await.unwrap();
        assert_eq!(put.status(), 200, "{mine}");
    }
    let other = server.write("PUT", path, &long).header("if-match", "\"r6-br\"").send().await.unwrap();
    problem(other, 412, "precondition-failed", &["r6-br"]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_watch_is_not_compressed() {
    let server = Running::new().await;
    let watch = get(&server, "/api/v2/watch?after=0&stop_after=1", "gzip, zstd").await;
    assert_eq!((watch.status().as_u16(), coding(&watch)), (200, None));
    assert!(watch.text().await.unwrap().contains("event: upto"), "and it ends by itself");
    server.stop().await;
}

/// A small body that would be a large one is not even looked at.
#[tokio::test]
async fn compressed_bodies_are_refused() {
    let server = Running::new().await;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(b"{\"document\": {\"a\": \"").unwrap();
    for _ in 0..256 {
        bomb.write_all(&[b'x'; 1 << 18]).unwrap();
    }
    bomb.write_all(b"\"}}").unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    for coding in ["gzip", "zstd", "gzip, identity", "x"] {
        let put = server.write("PUT", "/api/v2/hosts/web1", &json!({})).header("content-encoding", coding);
        let answer = put.body(bomb.clone()).send().await.unwrap();
        problem(answer, 415, "unsupported-media-type", &["Content-Encoding", "nothing was written"]).await;
    }
    let put = server.write("PUT", "/api/v2/hosts/web1", &json!({})).header("content-encoding", "identity");
    assert_eq!(put.send().await.unwrap().status(), 201);
    server.stop().await;
}
