//! The type of a record as a tag or a host asks for it.
//!
//! It is kept as it was written and looked at where the record is offered: one that is none costs that record, and not the
//! whole tag with all of its members. Most never come so far, because the schema refuses them when they are committed.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Rtype, types};

/// A record type as it was written: by name, or `TYPEnnn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TypeName(pub String);

impl TypeName {
    /// The type, if a tag may ask for records of it.
    ///
    /// # Errors
    /// No type, or one that has its own place or is made by servers.
    pub(crate) fn plain(&self) -> Result<Rtype, String> {
        let rtype: Rtype = self.0.parse()?;
        if rtype.is_plain() { Ok(rtype) } else { Err(format!("{rtype} records cannot be asked for")) }
    }
}

impl JsonSchema for TypeName {
    fn schema_name() -> Cow<'static, str> {
        "RecordType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = types::plain().collect();
        // Upper and lower case are the same here, which the patterns of JSON Schema cannot say.
        let letter = |c: char| match c {
            'A'..='Z' => format!("[{c}{}]", c.to_ascii_lowercase()),
            _ => c.to_string(),
        };
        let any_case: Vec<String> = names.iter().map(|name| name.chars().map(letter).collect()).collect();
        json_schema!({
            "description": "A record type by name (A, MX, SRV, …), or TYPEnnn (RFC 3597).",
            "anyOf": [
                {"enum": names},
                {"type": "string", "pattern": format!("^({}|[Tt][Yy][Pp][Ee][0-9]{{1,5}})$", any_case.join("|"))},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_record_may_be_asked_for() {
        let of = |text: &str| TypeName(text.to_owned()).plain();
        assert_eq!(
            (of("mx"), of("TYPE15"), of("Type65280")),
            (Ok(Rtype(15)), Ok(Rtype(15)), Ok(Rtype(65280)))
        );
        assert_eq!(of("SOA"), Err("SOA records cannot be asked for".to_owned()));
        for bad in ["NOPE", "", "TYPE", "TYPE65536", "A ", "TYPE6"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
