//! What Prometheus answers, for groups whose size a metric decides. Where it answers stands in the node's configuration, and the query in the
//! group's document.
//!
//! A pass may come with every commit, so an answer, or that there was none, is good for a while. All queries of a pass together take a bounded
//! time: placing is not held up by a Prometheus that is silent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;
use shoal_agent::Fault;
use shoal_agent::chooser::Measured;
use tokio::time::Instant;

/// How long all queries of a pass may take.
const WITHIN: Duration = Duration::from_secs(5);
/// For how long an answer is good.
const GOOD: Duration = Duration::from_secs(15);
/// The most that an answer may have, in octets: it is one number.
const MAX_ANSWER: usize = 64 * 1024;

/// When it was answered, and what.
type Said = (Instant, Result<f64, String>);

/// A Prometheus, and what it said.
#[derive(Debug)]
pub(super) struct Prometheus {
    server: String,
    http: Client,
    said: Mutex<BTreeMap<String, Said>>,
}

/// An answer of its API.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(Sample),
    Vector(Vec<Series>),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    value: Sample,
}

/// A time, and a number in words.
#[derive(Deserialize)]
struct Sample(#[allow(dead_code, reason = "it stands before the number")] f64, String);

impl Prometheus {
    pub(super) fn open(server: &str) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::new("use `agent.prometheus`", why).permanent();
        let url = reqwest::Url::parse(server).map_err(|e| wrong(format!("{server:?} is no address: {e}")))?;
        if url.scheme() != "http" {
            return Err(wrong(format!(
                "{server:?} is no plain address, http://HOST:PORT: there is no TLS here"
            )));
        }
        let built = Client::builder().timeout(WITHIN).build();
        let http = built.map_err(|e| Fault::new("make an HTTP client", e).permanent())?;
        let server = server.trim_end_matches('/').to_owned();
        Ok(Self { server, http, said: Mutex::new(BTreeMap::new()) })
    }

    /// What each query says.
    pub(super) async fn measure(&self, queries: BTreeSet<String>) -> Measured {
        let end = Instant::now() + WITHIN;
        let mut measured = Measured::new();
        for query in queries {
            let known = self.known(&query);
            let said = match known {
                Some(said) => said,
                None => {
                    let asked = tokio::time::timeout_at(end, self.ask(&query)).await;
                    let said =
                        asked.unwrap_or_else(|_| Err(format!("{} did not answer in time", self.server)));
                    let mut all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                    all.retain(|_, (at, _)| at.elapsed() < GOOD);
                    all.insert(query.clone(), (Instant::now(), said.clone()));
                    said
                }
            };
            measured.insert(query, said);
        }
        measured
    }

    fn known(&self, query: &str) -> Option<Result<f64, String>> {
        let all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, said) = all.get(query)?;
        (at.elapsed() < GOOD).then(|| said.clone())
    }

    async fn ask(&self, query: &str) -> Result<f64, String> {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let url = format!("{}/api/v1/query?{query}", self.server);
        let failed = |e: reqwest::Error| format!("{}: {}", self.server, reason(&e));
        let mut answer = self.http.get(url).send().await.map_err(failed)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&part);
            if body.len() > MAX_ANSWER {
                return Err(format!("{} answers with more than one number", self.server));
            }
        }
        number(&body).map_err(|why| format!("{}, {status}: {why}", self.server))
    }
}

/// The one number of an answer.
fn number(body: &[u8]) -> Result<f64, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|e| format!("it is no answer of Prometheus: {e}"))?;
    if let Some(error) = answer.error {
        return Err(error);
    }
    let sample = match answer.data {
        Some(Data::Scalar(sample)) => sample,
        Some(Data::Vector(mut all)) => match (all.pop(), all.len()) {
            (Some(one), 0) => one.value,
            (None, _) => return Err("there is no data".to_owned()),
            (Some(_), more) => return Err(format!("{} series, and one number was asked for", more + 1)),
        },
        Some(Data::Matrix(_) | Data::String(_)) => return Err("it is no number".to_owned()),
        None => return Err("there is no data".to_owned()),
    };
    sample.1.parse().map_err(|e| format!("{:?}: {e}", sample.1))
}

/// What an error of the client says, with what it comes from.
fn reason(error: &reqwest::Error) -> String {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        said += &format!(": {error}");
        source = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_one_and_all_else_is_none() {
        let vector = |result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#)
        };
        let one = r#"{"metric":{},"value":[1435781451.781,"75.5"]}"#;
        assert_eq!(number(vector(&format!("[{one}]")).as_bytes()), Ok(75.5));
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"1"]}}"#;
        assert_eq!(number(scalar), Ok(1.0));
        assert_eq!(number(vector("[]").as_bytes()), Err("there is no data".to_owned()));
        assert!(number(vector(&format!("[{one},{one}]")).as_bytes()).unwrap_err().contains("2 series"));
        let nan = one.replace("75.5", "NaN");
        assert!(
            number(vector(&format!("[{nan}]")).as_bytes()).unwrap().is_nan(),
            "what to do with it is decided elsewhere"
        );
        let error = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert_eq!(number(error), Err("parse error".to_owned()));
        assert!(number(b"<html>").is_err());
        let matrix = br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert_eq!(number(matrix), Err("it is no number".to_owned()));
    }

    /// A server that answers each connection alike, and counts them.
    fn server(body: &'static str) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 2048];
                let read = stream.read(&mut request).unwrap();
                assert!(
                    String::from_utf8_lossy(&request[..read])
                        .starts_with("GET /api/v1/query?query=avg%28cpu%29 ")
                );
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        (address, asked)
    }

    #[tokio::test]
    async fn each_query_is_asked_once_in_a_while() {
        let (address, asked) =
            server(r#"{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"42"]}}"#);
        let prometheus = Prometheus::open(&address).unwrap();
        for _ in 0..3 {
            let measured = prometheus.measure(["avg(cpu)".to_owned()].into()).await;
            assert_eq!(measured["avg(cpu)"], Ok(42.0));
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
        // Nobody is there: that is said, and good for a while, too.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        drop(silent);
        let nobody = Prometheus::open(&address).unwrap();
        let measured = nobody.measure(["avg(cpu)".to_owned()].into()).await;
        assert!(measured["avg(cpu)"].as_ref().unwrap_err().starts_with(&address), "{measured:?}");
    }

    #[test]
    fn only_a_plain_address_is_asked() {
        assert!(Prometheus::open("http://127.0.0.1:9090/").is_ok());
        for wrong in ["https://127.0.0.1:9090", "127.0.0.1:9090", "file:///etc/passwd", ""] {
            assert!(Prometheus::open(wrong).is_err(), "{wrong}");
        }
    }
}
