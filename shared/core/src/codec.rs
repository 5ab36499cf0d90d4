//! Text in, text out: JSON and YAML at the edge of the system, JSON values inside.
//!
//! The server, the command line and agents read what people write through this module, so that a fault is
//! described in the same way everywhere: the line, or the path of the field, what was expected and what was
//! found. YAML is read with the limits of its parser (depth, aliases, anchors), so that a small text cannot
//! become a large value; a key that stands twice in a map is refused, never half kept.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [RFC 8259](https://www.rfc-editor.org/rfc/rfc8259).
    Json,
    /// [YAML 1.2](https://yaml.org/spec/1.2.2/).
    Yaml,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
        })
    }
}

/// A text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// Not JSON or YAML at all.
    #[error("this is not {format}: {why}")]
    Syntax {
        /// What was expected.
        format: Format,
        /// What the parser says, with the place.
        why: String,
    },
    /// JSON or YAML of another form than what is expected here.
    #[error("{}{why}", at(.path))]
    Form {
        /// The path of the field, empty for the whole.
        path: String,
        /// What was expected and found.
        why: String,
    },
}

impl BadText {
    /// The same fault, seen from outside: what was read stands at `place`.
    #[must_use]
    pub fn inside(self, place: &str) -> Self {
        match self {
            Self::Form { path, why } if path.is_empty() || path == "." => {
                Self::Form { path: place.to_owned(), why }
            }
            Self::Form { path, why } => Self::Form { path: format!("{place}.{path}"), why },
            syntax @ Self::Syntax { .. } => syntax,
        }
    }
}

fn at(path: &str) -> String {
    if path.is_empty() || path == "." { String::new() } else { format!("field {path}: ") }
}

/// Reads one value.
///
/// # Errors
/// Text that is not one value of this format, or not a `T`.
pub fn read<T: DeserializeOwned>(text: &[u8], format: Format) -> Result<T, BadText> {
    match format {
        Format::Json => read_json(text),
        Format::Yaml => {
            let mut all = read_yaml(text)?;
            match (all.pop(), all.is_empty()) {
                (Some(one), true) => form(one),
                (None, _) => Err(BadText::Syntax { format, why: "there is no document in it".to_owned() }),
                (Some(_), false) => {
                    let why = format!("it holds {} documents, and one was expected", all.len() + 1);
                    Err(BadText::Form { path: String::new(), why })
                }
            }
        }
    }
}

/// Reads every document of a text: the documents of a YAML stream; the elements of a JSON array, or the one
/// JSON value. A document that is itself a list counts as its elements.
///
/// # Errors
/// Text that is not of this format.
pub fn read_many(text: &[u8], format: Format) -> Result<Vec<Value>, BadText> {
    let all = match format {
        Format::Json => vec![read_json(text)?],
        Format::Yaml => read_yaml(text)?,
    };
    Ok(all
        .into_iter()
        .flat_map(|one| match one {
            Value::Array(list) => list,
            one => vec![one],
        })
        .collect())
}

/// The value as a `T`.
///
/// # Errors
/// A value of another form, with the path of the field.
pub fn form<T: DeserializeOwned>(value: Value) -> Result<T, BadText> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        BadText::Form { path, why: plainly(&error.into_inner().to_string()) }
    })
}

/// What is wrong with a value, in the words of who wrote it: YAML and JSON have lists, maps and text.
fn plainly(why: &str) -> String {
    if let Some(rest) = why.strip_prefix("unknown variant ") {
        return rest.replacen(", expected one of", " is none of", 1).replacen(", expected", " is not", 1);
    }
    let Some((found, expected)) =
        why.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return why.to_owned();
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a string" => "text",
        other if other.starts_with("struct ") => "a map",
        other => other,
    };
    let found = match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer" | "floating", number)) => {
            format!("the number {}", number.trim_start_matches("point ").trim_matches('`'))
        }
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        _ => match found {
            "sequence" => "a list".to_owned(),
            "map" => "a map".to_owned(),
            "null" | "unit value" => "nothing".to_owned(),
            other => other.to_owned(),
        },
    };
    format!("expected {expected}, found {found}")
}

/// Writes a value, with a line end.
///
/// # Errors
/// A map with keys that are not text.
pub fn write<T: Serialize + ?Sized>(value: &T, format: Format) -> Result<String, serde_json::Error> {
    match format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(value)?;
            text.push('\n');
            Ok(text)
        }
        Format::Yaml => {
            // Through a value: raw JSON inside must come out as YAML.
            let value = serde_json::to_value(value)?;
            serde_saphyr::to_string(&value).map_err(serde::ser::Error::custom)
        }
    }
}

fn read_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, BadText> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => BadText::Form { path, why: plainly(&inner.to_string()) },
            _ => BadText::Syntax { format: Format::Json, why: inner.to_string() },
        }
    })?;
    parser.end().map_err(|e| BadText::Syntax { format: Format::Json, why: e.to_string() })?;
    Ok(value)
}

fn read_yaml(text: &[u8]) -> Result<Vec<Value>, BadText> {
    let bad = |why: String| BadText::Syntax { format: Format::Yaml, why };
    let text = std::str::from_utf8(text).map_err(|e| bad(format!("it is not UTF-8: {e}")))?;
    // A fleet in one file has more documents and nodes than the parser's cautious defaults; the size of the
    // text bounds them.
    let most = text.len().max(1024);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 4 * most,
            max_nodes: 2 * most,
            max_documents: most,
            max_total_scalar_bytes: most,
        },
        // YAML 1.2: only true and false are; `no` is Norway.
        strict_booleans: true,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|e| {
        // What is said to programmers is of no use here.
        let why = e.without_snippet().to_string();
        bad(why.replace(", set DuplicateKeyPolicy in Options if acceptable", "").replace(
            "recursive references require weak recursion types",
            "an alias stands inside of its own anchor",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        a: Vec<u8>,
    }

    #[test]
    fn both_formats_say_where_the_fault_is() {
        for format in [Format::Json, Format::Yaml] {
            assert_eq!(read::<Doc>(br#"{"a": [1, 2]}"#, format).unwrap(), Doc { a: vec![1, 2] });
            let bad = read::<Doc>(br#"{"a": [1, "x"]}"#, format).unwrap_err().to_string();
            assert!(bad.contains("a[1]") && bad.contains("\"x\""), "{bad}");
            let bad = read::<Doc>(br#"{"b": 1}"#, format).unwrap_err().to_string();
            assert!(bad.contains("unknown field `b`"), "{bad}");
            let bad = read::<Doc>(b"{\"a\":\n [1", format).unwrap_err().to_string();
            assert!(bad.contains(&format!("not {format}")) && bad.contains("line"), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_the_format() {
        let why =
            |text: &str| read::<Vec<(String, bool)>>(text.as_bytes(), Format::Yaml).unwrap_err().to_string();
        assert!(why("a").ends_with("expected a list, found the text \"a\""), "{}", why("a"));
        assert!(why("{a: 1}").ends_with("expected a list, found a map"), "{}", why("{a: 1}"));
        assert!(why("[[a, 1]]").ends_with("expected a boolean, found the number 1"), "{}", why("[[a, 1]]"));
        assert!(
            why("[[1.5, true]]").ends_with("expected text, found the number 1.5"),
            "{}",
            why("[[1.5, true]]")
        );
        assert!(why("[[true, true]]").ends_with("expected text, found true"), "{}", why("[[true, true]]"));
        assert_eq!(plainly("unknown variant `up`, expected one of `a`, `b`"), "`up` is none of `a`, `b`");
        assert_eq!(plainly("invalid type: null, expected struct Host"), "expected a map, found nothing");
        assert_eq!(plainly("missing field `a`"), "missing field `a`");
    }

    #[test]
    fn yaml_is_read_without_losing_anything() {
        let value: Value = read(b"b: yes\na: 1.5\nc: '010'\nd: ~\ne: 2026-01-01\n", Format::Yaml).unwrap();
        assert_eq!(value.to_string(), r#"{"b":"yes","a":1.5,"c":"010","d":null,"e":"2026-01-01"}"#);
        assert_eq!(
            read::<Value>(write(&value, Format::Yaml).unwrap().as_bytes(), Format::Yaml).unwrap(),
            value
        );
        for bad in ["a: 1\na: 2\n", "a: .nan\n", "a: [\n", "a: &x [*x]\n"] {
            assert!(read::<Value>(bad.as_bytes(), Format::Yaml).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let list = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        assert!(read::<Value>(text.as_bytes(), Format::Yaml).is_err());
    }

    #[test]
    fn many_documents_in_one_text() {
        let many = "---\na: 1\n".repeat(3000);
        assert_eq!(read_many(many.as_bytes(), Format::Yaml).unwrap().len(), 3000);
        assert_eq!(read_many(b"[{\"a\":1},{\"a\":2}]", Format::Json).unwrap().len(), 2);
        assert!(read::<Value>(b"a: 1\n---\na: 2\n", Format::Yaml).is_err());
    }
}
