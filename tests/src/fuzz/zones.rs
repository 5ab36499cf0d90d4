//! Record data, zone files, and zones that come in.

use shoal_cli::import::zone;
use shoal_core::Edit;
use shoal_dns::{Zone, trial};

use super::{MOST, in_time};

/// The text as a zone file, as a zone that is imported, and each of its lines as a type and data of it. What is read and
/// written reads the same; nothing that is a record is lost on the way in.
pub fn zones(data: &[u8]) {
    let text = String::from_utf8_lossy(&data[..data.len().min(MOST)]).into_owned();
    let origin = Zone::parse("example.com").unwrap();
    for line in text.lines().take(64) {
        let Some((rtype, data)) = line.split_once(' ') else { continue };
        if let Ok((canonical, wire)) = in_time("reading data", || trial::canonical(rtype, data, &origin)) {
            let again = trial::canonical(rtype, &canonical, &origin);
            assert_eq!(again, Ok((canonical, wire)), "{rtype} {data:?}");
        }
    }
    if let Some((once, twice)) = in_time("reading a file", || trial::differs(&text, &origin)) {
        panic!("what was written reads otherwise:\n{once}\n{twice}");
    }
    let generic = |_: &str, _: &str| Ok("\\# 1 00".to_owned());
    if let Ok(import) = in_time("importing", || zone::read("example.com", &text, true, generic)) {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(';')).count();
        assert_eq!(import.records + import.left_out, lines, "every line is a record, or of signing");
        let said: usize = import.edits.iter().map(records).sum();
        assert_eq!(said, import.records, "every record stands in a tag");
    }
}

/// How many records a tag says.
fn records(edit: &Edit) -> usize {
    let Edit::PutTag { document, .. } = edit else { panic!("{edit:?}") };
    let document = document.value();
    let count = |value: &serde_json::Value| value.as_array().map_or(1, Vec::len);
    let statics =
        document["static"].as_array().into_iter().flatten().map(|set| count(&set["data"])).sum::<usize>();
    let servers = document["ns"].as_array().map_or(0, Vec::len);
    statics + servers + usize::from(document["soa"].is_object())
}
