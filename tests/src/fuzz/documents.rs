//! What people write: JSON and YAML, hosts, tags and edits.

use serde_json::Value;
use shoal_core::codec::{self, Format};
use shoal_core::docs::{Doc, Entry};

use super::{MOST, in_time};

/// Reads the octets in both formats, and as a file of hosts, tags and edits. What is read, written and read again is the same,
/// and is not much larger than what was written.
pub fn documents(data: &[u8]) {
    let data = &data[..data.len().min(MOST)];
    for format in [Format::Json, Format::Yaml] {
        let read = in_time("reading", || codec::read_many(data, format));
        for value in read.iter().flatten() {
            same_again(value);
        }
        let octets: usize = read.iter().flatten().map(|value| value.to_string().len()).sum();
        // An escape may take six octets where one was written, and a bare word gets quotes.
        assert!(octets <= 16 * data.len() + 4096, "{} octets became {octets}", data.len());
    }
    for entry in in_time("reading a file", || Entry::all(data)).into_iter().flatten() {
        match entry {
            Entry::Doc(doc) => {
                let again = Doc::read(serde_json::to_value(&doc).unwrap()).expect("what was written is read");
                assert_eq!(doc, again);
            }
            Entry::Edit(edit) => {
                let again =
                    codec::form(serde_json::to_value(&edit).unwrap()).expect("what was written is read");
                assert_eq!(edit, again);
            }
        }
    }
}

fn same_again(value: &Value) {
    for format in [Format::Json, Format::Yaml] {
        // A YAML text that says nothing at all is no document.
        if format == Format::Yaml && value.is_null() {
            continue;
        }
        let text = codec::write(value, format).expect("what was read is written");
        let again = codec::read::<Value>(text.as_bytes(), format);
        let again = again.unwrap_or_else(|bad| panic!("{format} {text:?} of {value} does not read: {bad}"));
        assert_eq!(*value, again, "{format} {text:?}");
    }
}
