//! `shoal migrate`: the database, with all that belongs to it, in another store.

use std::path::Path;

use serde_json::json;
use shoal_hostdb::Access;
use shoal_store::{MigrateError, Migrated, Step, Told, migrate};

use crate::args::Migrate;
use crate::failure::{Failure, Outcome};
use crate::out::Out;

pub(crate) async fn run(out: &mut Out, access: &Access, args: &Migrate) -> Outcome {
    let Migrate { from, to } = args;
    for url in [from, to] {
        lasts(url)?;
    }
    there(from)?;
    out.begin("opening both");
    let store = shoal_hostdb::open_existing(from, access).await?;
    let Some(source) = store.whole() else { return Err(served(from)) };
    let stand = source.stand().await.map_err(Failure::reading(from.clone()))?;
    let draft = shoal_hostdb::open_draft(to, stand.head.epoch, access).await?;
    let done = migrate(source, &*draft, &mut |told| say(out, told)).await;
    let done = done.map_err(|error| match error {
        MigrateError::InUse { .. } | MigrateError::Late { .. } => Failure::Held(error.to_string()),
        MigrateError::Source(error) => Failure::Store { what: format!("cannot read {from}"), error },
        MigrateError::Copy(error) => Failure::Store { what: format!("{to} is not finished"), error },
        other => Failure::Other(anyhow::Error::new(other).context(format!("{to} is not finished"))),
    })?;
    let value = json!({
        "from": from,
        "to": to,
        "revision": done.head.revision,
        "epoch": format!("{:016x}", done.head.epoch.0),
        "commits": done.commits,
        "changes": done.changes,
        "rows": done.rows,
        "ledger_rows": done.ledger,
        "idempotency_keys": done.retries,
        "claims": done.claims,
        "digest": done.digest,
    });
    out.print(&value, |_| text(from, to, &done))
}

/// Refuses what is no place of a database: a server does not give all of it, and memory does not last.
fn lasts(url: &str) -> Outcome {
    match url.split_once(':') {
        Some(("http" | "https" | "unix", _)) => Err(served(url)),
        Some(("memory", _)) => Err(Failure::Usage(format!(
            "{url} is gone when this command ends: name sqlite:PATH or etcd://HOST"
        ))),
        _ => Ok(()),
    }
}

fn served(url: &str) -> Failure {
    Failure::Usage(format!(
        "{url} is a server, and does not give or take all that belongs to its database: name the database itself, \
         sqlite:PATH on the machine where the file is, or etcd://HOST,HOST/NAME"
    ))
}

/// Refuses to make an empty database, to be copied then, where the path is mistyped.
fn there(url: &str) -> Outcome {
    let Some(path) = url.strip_prefix("sqlite:").filter(|path| !path.is_empty()).map(Path::new) else {
        return Ok(());
    };
    let empty = path.metadata().is_ok_and(|found| found.is_file() && found.len() == 0);
    if empty || matches!(path.try_exists(), Ok(false)) {
        return Err(Failure::Missing(format!("there is no database at {}: mend --from", path.display())));
    }
    Ok(())
}

fn say(out: &Out, Told { step, done, of }: Told) {
    out.say(|| match step {
        Step::History => "copying the history".to_owned(),
        Step::Beside => "copying what stands beside the history".to_owned(),
        Step::ReadSource => "reading the database, to compare".to_owned(),
        Step::ReadCopy => "reading the copy, to compare".to_owned(),
    });
    if of.0 > 0 {
        out.at(done.0, of.0);
    }
}

fn text(from: &str, to: &str, done: &Migrated) -> String {
    let many = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let counts = [
        many(done.commits, "commit"),
        many(done.changes, "change"),
        many(done.rows, "row"),
        many(done.ledger, "row") + " of the ledger",
        many(done.retries, "idempotency key"),
        many(done.claims, "claim"),
    ];
    format!(
        "{to} holds {from} as of revision {}, compared: {}\n\
         It is the same database, so let nobody write to {from} from now on. Name {to} to the servers and agents (--store), start them, \
         and keep {from} until all is well.\n",
        done.head.revision,
        counts.join(", "),
    )
}
