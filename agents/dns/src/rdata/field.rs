//! Text to octets and back, part by part.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::types::Field;
use super::{Token, types};
use crate::name::{self, Base, push_octet};

/// The octets of the words.
pub(super) fn encode(fields: &[types::Field], tokens: &[Token], base: Base<'_>) -> Result<Vec<u8>, String> {
    let mut wire = Vec::new();
    let mut rest = tokens.iter();
    for field in fields {
        match field {
            Field::Strs => {
                let strings = rest.by_ref().map(Token::octets).collect::<Result<Vec<_>, _>>()?;
                wire.extend(strings_of(&strings)?);
            }
            Field::Hex => match hex(&joined(&mut rest))? {
                octets if octets.is_empty() => return Err("hexadecimal digits are missing".to_owned()),
                octets => wire.extend(octets),
            },
            Field::Base64 => wire.extend(base64(&joined(&mut rest))?),
            field => {
                let token = rest.next().ok_or_else(|| missing(fields, tokens.len()))?;
                one(*field, token, base, &mut wire)?;
            }
        }
    }
    match rest.next() {
        Some(token) => Err(format!("{:?} is more than belongs here", token.raw)),
        None => Ok(wire),
    }
}

fn missing(fields: &[Field], found: usize) -> String {
    format!("{} parts are needed and {found} were found", fields.len())
}

fn joined<'a>(tokens: &mut impl Iterator<Item = &'a Token>) -> String {
    tokens.map(|token| token.raw.as_str()).collect()
}

fn one(field: Field, token: &Token, base: Base<'_>, wire: &mut Vec<u8>) -> Result<(), String> {
    let raw = token.raw.as_str();
    let number = |max: u32| match raw.parse::<u32>() {
        Ok(number) if number <= max => Ok(number),
        _ => Err(format!("{raw:?} is not a number from 0 to {max}")),
    };
    match field {
        Field::U8 => wire.push(number(255)?.to_be_bytes()[3]),
        Field::U16 => wire.extend(&number(65535)?.to_be_bytes()[2..]),
        Field::U32 => wire.extend(number(u32::MAX)?.to_be_bytes()),
        Field::V4 => {
            let ip: Ipv4Addr = raw.parse().map_err(|_| format!("{raw:?} is not an IPv4 address"))?;
            wire.extend(ip.octets());
        }
        Field::V6 => {
            let ip: Ipv6Addr = raw.parse().map_err(|_| format!("{raw:?} is not an IPv6 address"))?;
            wire.extend(ip.octets());
        }
        Field::Name => wire.extend(name::target(raw, base)?),
        Field::Str => {
            let octets = token.octets()?;
            let len = u8::try_from(octets.len()).map_err(|_| "a string has at most 255 octets".to_owned())?;
            wire.push(len);
            wire.extend(octets);
        }
        Field::Tag => {
            let tag = raw.to_ascii_lowercase();
            if tag.is_empty() || tag.len() > 15 || !tag.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(format!("{raw:?} is not a word of 1 to 15 letters and digits"));
            }
            wire.push(u8::try_from(tag.len()).unwrap_or_default());
            wire.extend(tag.bytes());
        }
        Field::Rest => wire.extend(token.octets()?),
        Field::Strs | Field::Hex | Field::Base64 => {}
    }
    Ok(())
}

/// Character strings with their lengths; one of more than 255 octets becomes several.
pub(super) fn strings<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, String> {
    let mut wire = Vec::new();
    for string in all {
        if string.is_empty() {
            wire.push(0);
        }
        for part in string.chunks(255) {
            wire.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            wire.extend(part);
        }
    }
    if wire.is_empty() { Err("at least one string is needed".to_owned()) } else { Ok(wire) }
}

fn strings_of(all: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    strings(all.iter().map(Vec::as_slice))
}

pub(super) fn hex(text: &str) -> Result<Vec<u8>, String> {
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .map_err(|_| format!("{:?} is not an even number of hexadecimal digits", cut(text)))
}

fn base64(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Err("base 64 data is missing".to_owned());
    }
    data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| format!("{:?} is not base 64", cut(text)))
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The octets as they are kept (names and tags in lower case), and the words; `None` where they do not fit the parts.
pub(super) fn decode(fields: &[Field], wire: Vec<u8>) -> Option<(Vec<u8>, String)> {
    let mut rest = wire.as_slice();
    let mut kept = Vec::with_capacity(wire.len());
    let mut text = String::new();
    for field in fields {
        if !text.is_empty() {
            text.push(' ');
        }
        match field {
            Field::U8 => text.push_str(&take::<1>(&mut rest)?[0].to_string()),
            Field::U16 => text.push_str(&u16::from_be_bytes(take(&mut rest)?).to_string()),
            Field::U32 => text.push_str(&u32::from_be_bytes(take(&mut rest)?).to_string()),
            Field::V4 => text.push_str(&Ipv4Addr::from(take::<4>(&mut rest)?).to_string()),
            Field::V6 => text.push_str(&Ipv6Addr::from(take::<16>(&mut rest)?).to_string()),
            Field::Name => {
                let (name, used) = name::of_wire(rest, name::spell)?;
                kept.extend_from_slice(&wire[kept.len()..wire.len() - rest.len()]);
                kept.extend(rest[..used].iter().map(u8::to_ascii_lowercase));
                rest = &rest[used..];
                text.push_str(&name);
            }
            Field::Str => string(&mut rest, &mut text)?,
            Field::Strs => {
                string(&mut rest, &mut text)?;
                while !rest.is_empty() {
                    text.push(' ');
                    string(&mut rest, &mut text)?;
                }
            }
            Field::Tag => {
                let len = usize::from(take::<1>(&mut rest)?[0]);
                let (tag, tail) = rest.split_at_checked(len)?;
                if tag.is_empty() || !tag.iter().all(u8::is_ascii_alphanumeric) {
                    return None;
                }
                // Upper case means the same, and NSD loads no zone with it.
                kept.extend_from_slice(&wire[kept.len()..wire.len() - rest.len()]);
                kept.extend(tag.iter().map(u8::to_ascii_lowercase));
                text.extend(tag.iter().map(|b| char::from(b.to_ascii_lowercase())));
                rest = tail;
            }
            Field::Rest => quote(std::mem::take(&mut rest), &mut text),
            Field::Hex | Field::Base64 if rest.is_empty() => return None,
            Field::Hex => text.push_str(&data_encoding::HEXLOWER.encode(std::mem::take(&mut rest))),
            Field::Base64 => text.push_str(&data_encoding::BASE64.encode(std::mem::take(&mut rest))),
        }
    }
    if !rest.is_empty() {
        return None;
    }
    kept.extend_from_slice(&wire[kept.len()..]);
    Some((kept, text))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn string(rest: &mut &[u8], text: &mut String) -> Option<()> {
    let len = usize::from(take::<1>(rest)?[0]);
    let (octets, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    quote(octets, text);
    Some(())
}

/// Octets in quotes. A space stands for itself there.
fn quote(octets: &[u8], text: &mut String) {
    text.push('"');
    for &octet in octets {
        if octet == b' ' { text.push(' ') } else { push_octet(text, octet, "\"\\") }
    }
    text.push('"');
}
