//! Publishes what a tag's document and a host's override must look like, so that a commit which breaks it is refused.

use shoal_core::{Change, Commit, Document, Key, Namespace, Pre, Range, Schema};
use shoal_engine::{Agent, Fault};
use shoal_store::{Query, Store, StoreError};

use crate::exit::Failure;

/// Writes `schemas/<namespace>` of an agent, when another stands there or none.
pub(crate) async fn schema<A: Agent>(agent: &A, store: &dyn Store) -> Result<(), Failure> {
    let schema = Schema {
        tag: schemars::schema_for!(A::Spec).to_value(),
        host: agent.overrides().map(|schema| schema.to_value()),
        agent: Some(agent.namespace().to_owned()),
        writes: agent.writes(),
    };
    row(agent.namespace(), schema, store).await
}

/// Writes a schema, when another stands there or none.
pub(crate) async fn row(namespace: &str, schema: Schema, store: &dyn Store) -> Result<(), Failure> {
    let name: Namespace = namespace.parse().map_err(|e| Fault::new("start the agent", e))?;
    let broken = |e: serde_json::Error| Fault::new("publish the agent's schema", e);
    let key = Key::schema(&name);
    let wanted = Document::of(&schema).map_err(broken)?;
    let doing = || Failure::store(format!("publish {key}"));
    loop {
        let page = store.read(&Query::new(Range::Key(key.clone()))).await.map_err(doing())?;
        let have = page.rows.into_iter().next();
        if have.as_ref().is_some_and(|row| row.value.as_ref() == Some(&wanted)) {
            return Ok(());
        }
        let pre = have.map_or_else(|| Pre::Absent(key.clone()), |row| Pre::At(key.clone(), row.revision));
        let commit = Commit {
            pre: vec![pre],
            ..Commit::new(
                format!("agent {name}"),
                format!("publish the schema of {name}"),
                vec![Change::put(key.clone(), wanted.clone())],
            )
        };
        match store.commit(commit).await {
            Ok(_) => return Ok(()),
            // Another instance was faster: look again.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(doing()(error)),
        }
    }
}
