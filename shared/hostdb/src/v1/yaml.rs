//! Values as HostDB writes them: YAML whose text stands bare wherever it can.
//!
//! The rest of the system writes with more caution: what any reader could take for a number is quoted, addresses among it. Scripts that cut
//! HostDB's answers apart do not expect that.

use http::StatusCode;
use serde_json::Value;
use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlEmitter};

use super::fault::{Answer, Fault};

/// A value as a YAML document, with a line end.
pub(super) fn yaml(value: &Value) -> Answer<String> {
    let mut text = String::new();
    let written = YamlEmitter::new(&mut text).dump(&node(value));
    written.map_err(|e| {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The value cannot be written: {e}"))
    })?;
    let block = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    text.push('\n');
    // One value stands on the line that the document begins with.
    Ok(if block { text } else { text.replacen("---\n", "--- ", 1) })
}

fn node(value: &Value) -> Yaml {
    match value {
        Value::Null => Yaml::Null,
        Value::Bool(is) => Yaml::Boolean(*is),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Yaml::Integer(number),
            None => Yaml::Real(number.to_string()),
        },
        Value::String(text) => Yaml::String(text.clone()),
        Value::Array(list) => Yaml::Array(list.iter().map(node).collect()),
        Value::Object(map) => {
            let pairs = map.iter().map(|(name, value)| (Yaml::String(name.clone()), node(value)));
            Yaml::Hash(pairs.collect::<Hash>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use shoal_core::codec::{self, Format};

    #[test]
    fn text_stands_bare_where_it_can() {
        for (value, text) in [
            (json!("192.0.2.1"), "--- 192.0.2.1\n"),
            (json!("8080"), "--- \"8080\"\n"),
            (json!("no"), "--- \"no\"\n"),
            (json!(8080), "--- 8080\n"),
            (json!(null), "--- ~\n"),
            (json!({}), "--- {}\n"),
            (json!([]), "--- []\n"),
            (
                json!({"a": {"b": [1, "x"]}, "c": "10.0.0.0/8"}),
                "---\na:\n  b:\n    - 1\n    - x\nc: 10.0.0.0/8\n",
            ),
        ] {
            assert_eq!(yaml(&value).unwrap(), text);
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
            "[0-9a-fxo.:_+e-]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[ -~]{0,8}", inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in values()) {
            // A document that is nothing is no document to what reads it here.
            prop_assume!(!value.is_null());
            let text = yaml(&value).unwrap();
            let back: Value = codec::read(text.as_bytes(), Format::Yaml)
                .map_err(|e| TestCaseError::fail(format!("{e}: {text:?}")))?;
            prop_assert_eq!(back, value, "{}", text);
        }
    }
}
