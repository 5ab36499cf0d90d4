//! [Server-sent events] out of octets that come in pieces of any size.
//!
//! [Server-sent events]: https://html.spec.whatwg.org/multipage/server-sent-events.html

use std::time::Duration;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Why a stream is not one of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadStream {
    #[error("an event has more than {0} octets")]
    TooLarge(usize),
    #[error("an event is not UTF-8")]
    NotText,
}

/// The events of one connection. What came of an event when the connection broke is forgotten with this.
#[derive(Debug)]
pub(crate) struct Events {
    buffer: Vec<u8>,
    /// What stands before it in the buffer is done with.
    start: usize,
    /// What stands before it has no end of line.
    scanned: usize,
    event: Event,
    most: usize,
    /// How long the server wants to be left alone after the connection broke.
    pub(crate) retry: Option<Duration>,
}

impl Events {
    /// Events of at most so many octets.
    pub(crate) fn new(most: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, event: Event::default(), most, retry: None }
    }

    /// Takes what came.
    pub(crate) fn feed(&mut self, octets: &[u8]) -> Result<(), BadStream> {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        if self.buffer.len() + octets.len() + self.event.data.len() > self.most {
            return Err(BadStream::TooLarge(self.most));
        }
        self.buffer.extend_from_slice(octets);
        Ok(())
    }

    /// The next whole event; `None`: it has not all come yet.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, BadStream> {
        while let Some(end) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
            let end = self.scanned + end;
            let line = &self.buffer[self.start..end];
            let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line));
            let line = line.map_err(|_| BadStream::NotText)?;
            (self.start, self.scanned) = (end + 1, end + 1);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if !event.name.is_empty() || !event.data.is_empty() {
                    return Ok(Some(event));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.name),
                "data" => {
                    if !self.event.data.is_empty() {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
                // The position stands in the data, too; a field without a name is a comment.
                _ => {}
            }
        }
        self.scanned = self.buffer.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], size: usize) -> Vec<(String, String)> {
        let mut events = Events::new(1000);
        let mut found = Vec::new();
        for piece in text.chunks(size) {
            events.feed(piece).unwrap();
            while let Some(event) = events.next().unwrap() {
                found.push((event.name, event.data));
            }
        }
        found
    }

    #[test]
    fn events_come_whole_in_pieces_of_any_size() {
        let text = "event: commit\nid: 1-2\nretry: 1000\ndata: {\"ö\":1}\n\n: alive\n\n\
                    data:a\r\ndata: b\r\nevent:x\r\n\r\nevent: half\ndata: never";
        let expected = [("commit", "{\"ö\":1}"), ("x", "a\nb")].map(|(n, d)| (n.to_owned(), d.to_owned()));
        for size in 1..text.len() {
            assert_eq!(all(text.as_bytes(), size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_too_large_or_no_text_is_an_error() {
        let mut events = Events::new(10);
        events.feed(b"data: 12\n").unwrap();
        assert_eq!(events.next(), Ok(None));
        assert_eq!(events.feed(b"data: 3456\n"), Err(BadStream::TooLarge(10)));
        let mut events = Events::new(100);
        events.feed(b"retry: 70\ndata: \xff\n\n").unwrap();
        assert_eq!(events.next(), Err(BadStream::NotText));
        assert_eq!(events.retry, Some(Duration::from_millis(70)));
    }
}
