//! `--preview FILE`: what would be wanted otherwise if the documents in FILE were committed.
//!
//! FILE holds YAML documents, each a host (`host: NAME`), a tag (`tag: NAMESPACE/KEY`), or an edit (`edit: delete`,
//! `key: hosts/web1.example.com`). They are put together in one proposal and checked as a commit would be; nothing is
//! committed.

use std::path::Path;

use serde_json::Value;
use shoal_core::{Edit, HostId, Proposal, View, prepare};
use shoal_engine::{Agent, Nature, Preview};

use crate::exit::Failure;
use crate::setup::Setup;

pub(crate) async fn preview<A: Agent>(setup: &Setup<'_, A>, file: &Path) -> Result<Preview, Failure> {
    let wrong = |why: String| Failure::Usage(format!("the file {} {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let edits = edits(&text).map_err(|why| wrong(format!("is wrong: {why}")))?;
    let (head, rows) = setup.read().await?;
    let mut engine = setup.engine(Nature::default())?;
    let mut view = View::new();
    for row in &rows {
        view.load(row.clone());
    }
    view.loaded(head.revision);
    engine.load(head.epoch, head.revision, rows);
    let proposal = Proposal::new("preview", "preview", edits);
    let mut new_id = || HostId(uuid::Uuid::now_v7().to_string());
    let prepared = prepare(&view, &proposal, &mut new_id)
        .map_err(|refusal| wrong(format!("would be refused: {refusal}")))?;
    Ok(engine.preview(&prepared.commit.changes))
}

/// The edits that the documents of a file mean.
fn edits(text: &str) -> Result<Vec<Edit>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|e| e.to_string().trim_end().to_owned())?;
    documents
        .into_iter()
        .enumerate()
        .map(|(n, document)| edit(document).map_err(|e| format!("document {}: {e}", n + 1)))
        .collect()
}

fn edit(document: Value) -> Result<Edit, String> {
    let Value::Object(mut map) = document else {
        return Err("it is no map; begin it with `host: NAME` or `tag: NAMESPACE/KEY`".to_owned());
    };
    if !map.contains_key("edit") {
        let kind = match (map.contains_key("host"), map.contains_key("tag")) {
            (true, false) => "put_host",
            (false, true) => "put_tag",
            _ => return Err("begin it with either `host: NAME` or `tag: NAMESPACE/KEY`".to_owned()),
        };
        // What was read can be sent back: it is only meant for the revision that it was read at.
        if let Some(revision) = map.shift_remove("revision") {
            map.insert("expect".to_owned(), serde_json::json!({"at": revision}));
        }
        map.insert("edit".to_owned(), kind.into());
    }
    serde_json::from_value(Value::Object(map)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_hosts_tags_and_edits() {
        let text = "host: web1.example.com\nstate: draining\ndocument: {a: 1}\n---\ntag: dns/example.com\n\
                    members: [web1.example.com]\nrevision: 7\n---\nedit: delete\nkey: hosts/old.example.com\n";
        let edits = edits(text).unwrap();
        assert!(matches!(&edits[0], Edit::PutHost { host, .. } if host.as_str() == "web1.example.com"));
        assert!(matches!(&edits[1], Edit::PutTag { members: Some(m), .. } if m.len() == 1));
        assert!(matches!(&edits[2], Edit::Delete { .. }));
    }

    #[test]
    fn faults_name_the_document() {
        for (text, names) in [
            ("host: web1.example.com\n---\nhots: x", "document 2"),
            ("host: web1.example.com\nstat: active", "stat"),
            ("- a", "no map"),
            ("a: [", "line"),
        ] {
            let error = edits(text).unwrap_err();
            assert!(error.contains(names), "{error}");
        }
    }
}
