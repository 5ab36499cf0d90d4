//! Taking one variable for what the mapping says it is.
//!
//! Every function answers the value in the one form that documents use, or why it cannot be taken for that.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::mapping::{From, Kind};

/// The value of `from` for a host, given its variables already plain.
pub(super) fn convert(from: &From, value: Value) -> Result<Value, String> {
    let value = match written(&value).and_then(|text| from.values.get(&text)) {
        Some(other) => other.clone(),
        None => value,
    };
    let shown = || {
        let text: String = value.to_string().chars().take(80).collect();
        text
    };
    let converted = match from.kind {
        Kind::Any => Some(value.clone()),
        Kind::Text => written(&value).map(Value::from),
        Kind::Integer => match &value {
            Value::String(text) => text.trim().parse::<i64>().ok().map(Value::from),
            other => other.as_i64().map(Value::from),
        },
        Kind::Boolean => boolean(&value).map(Value::from),
        Kind::Size => size(&value, from.unit.octets()).map(Value::from),
        Kind::Ipv4 => address::<Ipv4Addr>(&value),
        Kind::Ipv6 => address::<Ipv6Addr>(&value),
        // Renaming and parsing names is the caller's: it knows the rules.
        Kind::Host => value.as_str().map(Value::from),
    };
    converted.ok_or_else(|| format!("{} is not {}", shown(), what(from.kind)))
}

fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "a value",
        Kind::Text => "text",
        Kind::Integer => "a whole number",
        Kind::Boolean => "true or false",
        Kind::Size => "a size (a number, or text such as 50g)",
        Kind::Ipv4 => "an IPv4 address",
        Kind::Ipv6 => "an IPv6 address",
        Kind::Host => "a host name",
    }
}

pub(super) fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(yes) => Some(*yes),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        Value::Number(n) => match n.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        _ => None,
    }
}

fn address<T: std::str::FromStr + ToString>(value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim();
    let bare = text.split_once('/').map_or(text, |(bare, _)| bare);
    bare.parse::<T>().ok().map(|address| Value::from(address.to_string()))
}

/// A size in octets. Units are powers of 1024, whether written `g`, `GB` or `GiB`: that is what LVM and libvirt mean.
pub(super) fn size(value: &Value, unit: u64) -> Option<u64> {
    let text = match value {
        Value::Number(number) => return scale(number.as_f64()?, unit),
        Value::String(text) => text.trim().to_ascii_lowercase(),
        _ => return None,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit = match suffix.trim() {
        "" => unit,
        "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    scale(number.parse().ok()?, unit)
}

fn scale(number: f64, unit: u64) -> Option<u64> {
    // Exact up to 2^53 octets, 8 PiB; more is nobody's disk.
    #[allow(clippy::cast_precision_loss, reason = "units are powers of two")]
    let octets = (number * unit as f64).round();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    (octets.is_finite() && (0.0..9.0e15).contains(&octets)).then_some(octets as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_notations_of_sizes() {
        let mib = |value| size(&value, 1 << 20).map(|octets| octets >> 20);
        assert_eq!(mib(json!(20000)), Some(20_000));
        assert_eq!(mib(json!("50g")), Some(51_200));
        assert_eq!(mib(json!("1.5t")), Some(1_572_864));
        assert_eq!(mib(json!("512 MiB")), Some(512));
        assert_eq!(mib(json!("4096")), Some(4096));
        for bad in [json!("big"), json!("1.2.3g"), json!(-1), json!(null), json!("5x"), json!("")] {
            assert_eq!(mib(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn values_are_checked_and_written_one_way() {
        let from = |kind: &str| serde_json::from_value::<From>(json!({"var": "x", "as": kind})).unwrap();
        assert_eq!(convert(&from("ipv6"), json!("2001:DB8:0:0::00fe")).unwrap(), "2001:db8::fe");
        assert_eq!(convert(&from("ipv4"), json!("192.0.2.1/24")).unwrap(), "192.0.2.1");
        assert_eq!(convert(&from("integer"), json!("7")).unwrap(), 7);
        assert_eq!(convert(&from("boolean"), json!("yes")).unwrap(), true);
        assert!(convert(&from("ipv4"), json!("192.0.2.300")).unwrap_err().contains("IPv4"));
        let words: From =
            serde_json::from_value(json!({"var": "x", "values": {"prod": "production"}})).unwrap();
        assert_eq!(convert(&words, json!("prod")).unwrap(), "production");
    }
}
