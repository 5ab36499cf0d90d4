//! Spans of time, written alike on every command line and in every configuration.

use std::time::Duration;

/// Longer is taken for a slip.
const MOST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Text that is no span of time.
///
/// It does not repeat the text: a configuration may hold a password in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a span of time is written 500ms, 90s, 1.5m or 1h30m, and is at most ten years")]
pub struct BadSpan;

/// A span of time: `500ms`, `90s`, `1.5m`, `1h30m`, or a number of seconds.
///
/// # Errors
/// Anything else, and less than nothing.
pub fn span(text: &str) -> Result<Duration, BadSpan> {
    let found = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let span: jiff::SignedDuration = text.parse().map_err(|_| BadSpan)?;
            span.try_into().map_err(|_| BadSpan)?
        }
    };
    if found <= MOST { Ok(found) } else { Err(BadSpan) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        for (text, millis) in
            [("0", 0), ("7", 7_000), ("500ms", 500), ("90s", 90_000), ("1.5m", 90_000), ("1h30m", 5_400_000)]
        {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "x", "s", "-1s", "-1", "5 parsecs", "99999999999", "9999999h", "1m ago"] {
            assert_eq!(span(bad), Err(BadSpan), "{bad}");
        }
    }
}
