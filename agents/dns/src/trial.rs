//! What fuzzing asks of the readers of record data and zone files: `tests/fuzz`. No part of what this crate offers.

use std::str::FromStr;

use crate::name::Zone;
use crate::rdata::{self, Rtype};
use crate::target::zonefile;

/// The data of a record in its canonical text, and as octets.
///
/// # Errors
/// Why it is none.
pub fn canonical(rtype: &str, data: &str, zone: &Zone) -> Result<(String, Vec<u8>), String> {
    let rtype = Rtype::from_str(rtype)?;
    rdata::parse(rtype, data, zone).map(|read| (read.text, read.wire))
}

/// Reads a zone file, writes what it holds, reads that and writes it once more: both texts, if they differ.
#[must_use]
pub fn differs(text: &str, zone: &Zone) -> Option<(String, String)> {
    let written = |text: &str| {
        let file = zonefile::read(text, zone);
        let made = zonefile::render(zone, file.serial.unwrap_or(1), &file.nodes);
        format!("{}{}", made.head, made.body)
    };
    let once = written(text);
    let twice = written(&once);
    (once != twice).then_some((once, twice))
}
