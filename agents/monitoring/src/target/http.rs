//! What every answer of a server's API is read with.

/// What an error of the client says, with what it comes from.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        said += &format!(": {error}");
        source = error.source();
    }
    said
}

/// The body of an answer, if it has at most this many octets.
pub(super) async fn body(mut answer: reqwest::Response, most: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|e| reason(&e))? {
        body.extend_from_slice(&part);
        if body.len() > most {
            return Err(format!("it answers with more than {most} octets"));
        }
    }
    Ok(body)
}
