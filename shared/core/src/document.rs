//! JSON text that is known to be JSON.
//!
//! Rows travel and rest as compact JSON text and are parsed only by who looks inside: a commit that passes
//! through a server, a watch and a view is copied by reference count. Field order is the writer's.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// One JSON value as compact text. Equal documents have equal text; a change of field order is a change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Document(Arc<str>);

impl Document {
    /// The document of `value`.
    ///
    /// # Errors
    /// What `serde_json` says: a map with keys that are not text.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(|text| Self(text.into()))
    }

    /// Parses and compacts `text`.
    ///
    /// # Errors
    /// Text that is not one JSON value.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_str(text)?;
        Ok(Self(value.to_string().into()))
    }

    /// Takes text that a store kept. Only for stores, which got it from [`Document::as_str`].
    #[must_use]
    pub fn trusted(text: &str) -> Self {
        Self(text.into())
    }

    /// The empty map.
    #[must_use]
    pub fn empty() -> Self {
        Self("{}".into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole as a value. Costs a parse.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }

    /// The whole as a `T`. Costs a parse.
    ///
    /// # Errors
    /// A document of another form.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// The JSON text of one top-level field, found without building the rest: about 1 µs a KiB.
    #[must_use]
    pub fn raw(&self, field: &str) -> Option<&str> {
        find(&self.0, field)
    }

    /// The JSON texts of several top-level fields, found in one go.
    #[must_use]
    pub fn raws<const N: usize>(&self, fields: [&str; N]) -> [Option<&str>; N] {
        several(&self.0, fields)
    }

    /// One top-level field.
    #[must_use]
    pub fn field(&self, field: &str) -> Option<Value> {
        serde_json::from_str(self.raw(field)?).ok()
    }

    /// One top-level field that is text.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<Cow<'_, str>> {
        as_text(self.raw(field)?)
    }

    /// Every top-level field with its JSON text, in order; nothing for what is not a map.
    #[must_use]
    pub fn fields(&self) -> Vec<(Cow<'_, str>, &str)> {
        each(&self.0)
    }

    /// Whether the document is a map.
    #[must_use]
    pub fn is_map(&self) -> bool {
        self.0.starts_with('{')
    }

    /// Whether both are one piece of memory: what is made once and shared is compared without being read.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Where the text lies. Names the document as long as somebody holds it.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

/// JSON text that is a string, decoded.
pub(crate) fn as_text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The JSON text of one top-level field of JSON text; as [`Document::raw`].
#[must_use]
pub fn find<'a>(json: &'a str, field: &str) -> Option<&'a str> {
    // Most documents do not even hold the word, and a name may be spelt in another way only with a backslash.
    if !json.contains(field) && !json.contains('\\') {
        return None;
    }
    several(json, [field])[0]
}

fn several<'a, const N: usize>(json: &'a str, fields: [&str; N]) -> [Option<&'a str>; N] {
    struct Which<'n, const N: usize>([&'n str; N]);
    impl<'de, const N: usize> DeserializeSeed<'de> for &Which<'_, N> {
        type Value = Option<usize>;
        fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Option<usize>, D::Error> {
            d.deserialize_str(self)
        }
    }
    impl<const N: usize> Visitor<'_> for &Which<'_, N> {
        type Value = Option<usize>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a field name")
        }
        fn visit_str<E>(self, text: &str) -> Result<Option<usize>, E> {
            Ok(self.0.iter().position(|field| *field == text))
        }
    }
    struct Find<'n, const N: usize>(Which<'n, N>);
    impl<'de, const N: usize> Visitor<'de> for Find<'_, N> {
        type Value = [Option<&'de RawValue>; N];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(which) = map.next_key_seed(&self.0)? {
                match which {
                    Some(at) => found[at] = Some(map.next_value()?),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(found)
        }
    }
    let mut d = serde_json::Deserializer::from_str(json);
    let found = d.deserialize_map(Find(Which(fields))).unwrap_or([None; N]);
    found.map(|raw| raw.map(RawValue::get))
}

fn each(json: &str) -> Vec<(Cow<'_, str>, &str)> {
    #[derive(Deserialize, PartialEq, Eq, Hash)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
    struct Each;
    impl<'de> Visitor<'de> for Each {
        type Value = Vec<(Cow<'de, str>, &'de str)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::with_capacity(32);
            while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                all.push((name, value.get()));
            }
            Ok(all)
        }
    }
    let mut d = serde_json::Deserializer::from_str(json);
    d.deserialize_map(Each).unwrap_or_default()
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `trusted` may have been given rubbish; a store that kept it whole did not.
        <&RawValue>::deserialize(&mut serde_json::Deserializer::from_str(&self.0))
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through a value: it may come from YAML, and is compacted on the way.
        Value::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_fields_are_what_each_alone_is() {
        let documents = [
            r#"{"a":1,"b":{"a":2},"c":"a"}"#,
            r#"{"b":{"a":2}}"#,
            r#"{"\u0061":3,"b":"\""}"#,
            r#"{"a":1,"a":2}"#,
            "[1]",
            "{}",
        ];
        for text in documents {
            let document = Document::trusted(text);
            let [a, b, x] = document.raws(["a", "b", "x"]);
            assert_eq!((a, b, x), (document.raw("a"), document.raw("b"), document.raw("x")), "{text}");
            let value = document.value();
            let is = |raw: Option<&str>| raw.map(|raw| serde_json::from_str::<Value>(raw).unwrap());
            assert_eq!((is(a), is(b)), (value.get("a").cloned(), value.get("b").cloned()), "{text}");
        }
    }
}
