//! The record types that are known by name, and what their data consists of.

use super::Rtype;

/// One part of a record's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// A number of one octet.
    U8,
    /// A number of two octets.
    U16,
    /// A number of four octets.
    U32,
    /// An IPv4 address.
    V4,
    /// An IPv6 address.
    V6,
    /// A name, never compressed here.
    Name,
    /// One character string of at most 255 octets.
    Str,
    /// A word of letters and digits with a length before it (CAA).
    Tag,
    /// One or more character strings; a longer one is split.
    Strs,
    /// The rest, as one quoted text without a length.
    Rest,
    /// The rest, in hexadecimal digits.
    Hex,
    /// The rest, in base 64.
    Base64,
}

use Field::{Base64, Hex, Name, Rest, Str, Strs, Tag, U8, U16, U32, V4, V6};

type Row = (&'static str, u16, Option<&'static [Field]>);

/// Name, number, parts. Without parts the data is written generically.
const TYPES: &[Row] = &[
    ("A", 1, Some(&[V4])),
    ("NS", 2, Some(&[Name])),
    ("CNAME", 5, Some(&[Name])),
    ("SOA", 6, Some(&[Name, Name, U32, U32, U32, U32, U32])),
    ("PTR", 12, Some(&[Name])),
    ("HINFO", 13, Some(&[Str, Str])),
    ("MX", 15, Some(&[U16, Name])),
    ("TXT", 16, Some(&[Strs])),
    ("RP", 17, Some(&[Name, Name])),
    ("AFSDB", 18, Some(&[U16, Name])),
    ("KEY", 25, Some(&[U16, U8, U8, Base64])),
    ("AAAA", 28, Some(&[V6])),
    ("LOC", 29, None),
    ("SRV", 33, Some(&[U16, U16, U16, Name])),
    ("NAPTR", 35, Some(&[U16, U16, Str, Str, Str, Name])),
    ("KX", 36, Some(&[U16, Name])),
    ("CERT", 37, Some(&[U16, U16, U8, Base64])),
    ("DNAME", 39, Some(&[Name])),
    ("APL", 42, None),
    ("DS", 43, Some(&[U16, U8, U8, Hex])),
    ("SSHFP", 44, Some(&[U8, U8, Hex])),
    ("IPSECKEY", 45, None),
    ("DNSKEY", 48, Some(&[U16, U8, U8, Base64])),
    ("DHCID", 49, Some(&[Base64])),
    ("TLSA", 52, Some(&[U8, U8, U8, Hex])),
    ("SMIMEA", 53, Some(&[U8, U8, U8, Hex])),
    ("HIP", 55, None),
    ("CDS", 59, Some(&[U16, U8, U8, Hex])),
    ("CDNSKEY", 60, Some(&[U16, U8, U8, Base64])),
    ("OPENPGPKEY", 61, Some(&[Base64])),
    ("CSYNC", 62, None),
    ("ZONEMD", 63, None),
    ("SVCB", 64, None),
    ("HTTPS", 65, None),
    ("SPF", 99, Some(&[Strs])),
    ("EUI48", 108, None),
    ("EUI64", 109, None),
    ("URI", 256, Some(&[U16, U16, Rest])),
    ("CAA", 257, Some(&[U8, Tag, Rest])),
];

fn row(rtype: Rtype) -> Option<&'static Row> {
    TYPES.binary_search_by_key(&rtype.0, |row| row.1).ok().map(|at| &TYPES[at])
}

pub(super) fn name(rtype: Rtype) -> Option<&'static str> {
    row(rtype).map(|row| row.0)
}

/// The names of all that a tag may ask for.
pub(super) fn plain() -> impl Iterator<Item = &'static str> {
    TYPES.iter().filter(|row| Rtype(row.1).is_plain()).map(|row| row.0)
}

pub(super) fn by_name(upper: &str) -> Option<Rtype> {
    TYPES.iter().find(|row| row.0 == upper).map(|row| Rtype(row.1))
}

pub(super) fn fields(rtype: Rtype) -> Option<&'static [Field]> {
    row(rtype)?.2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TYPES.is_sorted_by_key(|row| row.1));
    }
}
