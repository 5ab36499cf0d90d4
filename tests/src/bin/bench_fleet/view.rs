//! The view: loading, effective documents, one change, memory.

use std::hint::black_box;

use anyhow::Context;
use serde_json::json;
use shoal_core::{Change, Document, Key, Member, Revision, Row, TagName, View};
use shoal_tests::figure::{Figure, Usage, seconds};
use shoal_tests::shape;

const RUNS: usize = 5;
/// Effective documents of one run.
const ASKED: u32 = 10_000;

/// The rows of a fleet, and a tag with a document whose members are all of it.
pub(crate) fn rows(hosts: u32) -> anyhow::Result<Vec<Change>> {
    let mut rows = shape::fleet(hosts)?;
    let tag: TagName = "motd/all".parse()?;
    let member: Member = "@tags/all".parse()?;
    let document = json!({"banner": "authorised use only", "contact": "noc@fleet.example", "colour": "blue"});
    rows.push(Change::put(Key::tag(&tag), shape::tag_record(&document)));
    rows.push(Change::put(Key::member(&tag, &member), Document::empty()));
    Ok(rows)
}

pub(crate) fn measure(hosts: u32) -> anyhow::Result<()> {
    let rows = rows(hosts)?;
    let documents: usize = rows.iter().filter_map(|r| r.value.as_ref()).map(|v| v.as_str().len()).sum();
    let before = Usage::of(std::process::id())?.resident;
    let mut view = View::new();
    let load = seconds(|| {
        for row in rows.iter().cloned() {
            view.load(Row { key: row.key, value: row.value, revision: Revision(1), moved: None });
        }
        view.loaded(Revision(1));
    });
    let grown = Usage::of(std::process::id())?.resident.saturating_sub(before);
    Figure::median("view_load", "s", vec![load]).hosts(hosts).print();
    // The rows that were made for this stay in memory too, and share their documents with the view.
    Figure::median("view_memory_beyond_documents", "octets/host", vec![grown as f64 / f64::from(hosts)])
        .hosts(hosts)
        .beside("documents", documents as f64 / f64::from(hosts))
        .goal(0.8 * 1024.0)
        .print();

    let tag: TagName = "motd/all".parse()?;
    let names: Vec<_> = (0..ASKED)
        .map(|n| shape::host(n.wrapping_mul(7919) % hosts))
        .collect::<Result<_, _>>()
        .context("names of hosts")?;
    let each = |f: &dyn Fn(&shoal_core::HostName)| {
        (0..RUNS).map(|_| seconds(|| names.iter().for_each(f)) / f64::from(ASKED) * 1e6).collect::<Vec<f64>>()
    };
    let shared = each(&|name| drop(black_box(view.effective_document(&tag, Some(name)))));
    Figure::median("effective_document", "us", shared).hosts(hosts).goal(70.0).print();
    let origins = each(&|name| drop(black_box(view.effective(&tag, Some(name)))));
    Figure::median("effective_document_with_origins", "us", origins).hosts(hosts).goal(70.0).print();

    let mut revision = 1;
    let mut change = || -> anyhow::Result<f64> {
        revision += 1;
        let n = revision as u32 * 31 % hosts;
        let mut document = shape::document(n);
        document["comment"] = json!(format!("revision {revision}"));
        let mut record: shoal_core::HostRecord = shape::record(n).to()?;
        record.document = document.into();
        let change = Change::put(Key::host(&shape::host(n)?), Document::of(&record)?);
        Ok(seconds(|| drop(black_box(view.apply(Revision(revision), &[change])))) * 1e6)
    };
    let changes = (0..1000).map(|_| change()).collect::<anyhow::Result<Vec<f64>>>()?;
    Figure::median("view_apply_one_host", "us", changes).hosts(hosts).print();
    Ok(())
}
