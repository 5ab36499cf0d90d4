//! Large answers, compressed for whoever asks.
//!
//! The coding is negotiated (`Accept-Encoding`: zstd or gzip). Answers under 4 KiB are sent as they are: compressing
//! one costs more than sending it, and most reads are of one host. A watch is never compressed: its events would stay in the
//! compressor's window. What is compressed is another representation, so its ETag is another (`"r7-gzip"`), which writes
//! take as well: a weak one could not be written by.

use std::convert::Infallible;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG};
use http::{HeaderValue, Request};
use tower::ServiceExt;
use tower_http::compression::Compression;
use tower_http::compression::predicate::SizeAbove;

/// Smaller answers stay as they are.
const LEAST: u16 = 4096;

/// The codings that answers may have.
pub(crate) const CODINGS: [&str; 2] = ["zstd", "gzip"];

/// The answer, compressed if that is wanted and worth it.
pub(crate) async fn squeezed(answer: Response, wanted: Option<HeaderValue>) -> Response {
    let large = answer.body().size_hint().exact().is_some_and(|size| size >= u64::from(LEAST));
    let (Some(wanted), true) = (wanted, large) else { return answer };
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(ACCEPT_ENCODING, wanted);
    let mut held = Some(answer);
    let inner = tower::service_fn(move |_: Request<Body>| {
        std::future::ready(Ok::<_, Infallible>(held.take().unwrap_or_default()))
    });
    let service = Compression::new(inner).compress_when(SizeAbove::new(LEAST));
    match service.oneshot(request).await {
        Ok(squeezed) => tagged(squeezed.map(Body::new)),
        Err(never) => match never {},
    }
}

/// What is compressed has a tag of its own.
fn tagged(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    let coding = headers.get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok()?.strip_suffix('"'));
    let own =
        coding.zip(tag).and_then(|(coding, tag)| HeaderValue::try_from(format!("{tag}-{coding}\"")).ok());
    if let Some(own) = own {
        headers.insert(ETAG, own);
    }
    answer
}
