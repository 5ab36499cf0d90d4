//! One request over TLS at a time, to one server, whose certificate one authority signed.
//!
//! The HTTP client of everything else has no TLS: with it, it would bring the system's authorities, and every program that links it a
//! choice of cryptography.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use shoal_agent::Fault;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one answer may take.
const WITHIN: Duration = Duration::from_secs(30);
/// The most that an answer may have, in octets: that of about 50,000 downtimes.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// A server, and as whom it is asked.
pub(super) struct Https {
    tls: TlsConnector,
    name: ServerName<'static>,
    host: String,
    port: u16,
    authorization: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Nobody listens.
    Down(String),
    /// Something else.
    Other(String),
}

impl Https {
    /// Reads the certificate of the authority; connects to nothing yet.
    pub(super) fn open(url: &str, ca: &Path, user: &str, password: &str) -> Result<Self, Fault> {
        let what = || format!("read {} for the API of Icinga", ca.display());
        let bad = |e: &dyn ToString| Fault::new(what(), e.to_string()).permanent();
        let mut roots = rustls::RootCertStore::empty();
        for one in CertificateDer::pem_file_iter(ca).map_err(|e| bad(&e))? {
            roots.add(one.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        }
        let tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| bad(&e))?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let wrong = || {
            let why = format!("url {url:?} is not https://HOST:PORT");
            Fault::new("read [agent.icinga2] of the configuration", why).permanent()
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let credentials = BASE64.encode(format!("{user}:{password}").as_bytes());
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls)),
            name,
            port: uri.port_u16().unwrap_or(443),
            host,
            authorization: format!("Basic {credentials}"),
        })
    }

    /// Sends one request, with a body of JSON where there is one, and reads what it answers.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        over: Option<&Method>,
        body: String,
    ) -> Result<(StatusCode, Bytes), NoAnswer> {
        let asked = tokio::time::timeout(WITHIN, self.send(method, path, over, body)).await;
        asked.unwrap_or_else(|_| {
            Err(NoAnswer::Other(format!("{self} does not answer within {} seconds", WITHIN.as_secs())))
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        over: Option<&Method>,
        body: String,
    ) -> Result<(StatusCode, Bytes), NoAnswer> {
        let other = |e: &dyn fmt::Display| NoAnswer::Other(format!("{self}: {e}"));
        let tcp = TcpStream::connect((&*self.host, self.port)).await;
        let tcp = tcp.map_err(|e| NoAnswer::Down(format!("{self}: {e}")))?;
        let stream = self.tls.connect(self.name.clone(), tcp).await.map_err(|e| other(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| other(&e))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, &self.authorization);
        if let Some(over) = over {
            request = request.header("x-http-method-override", over.as_str());
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| other(&e))?;
        let driving = tokio::spawn(connection);
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|e| other(&e))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| other(&e))?;
            Ok((head.status, body.to_bytes()))
        };
        let answer = answer.await;
        driving.abort();
        answer
    }
}

impl fmt::Display for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Https {
    /// Without what it says who it is with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Https({self})")
    }
}
