//! `shoal database`: the file itself, without opening it as a store; and what is to be done where etcd was restored.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use shoal_hostdb::Access;
use shoal_store_sqlite::{Restored, backup, restore, verify};

use crate::args::{Database, Work};
use crate::failure::{Failure, Outcome};
use crate::out::Out;

pub(crate) fn run(out: &mut Out, store: &str, access: &Access, args: &Database) -> Outcome {
    if let Work::Renew { yes } = &args.work {
        return renew(out, store, access, *yes);
    }
    if let Work::Verify { file: Some(file) } = &args.work {
        return check(out, file);
    }
    let Some(path) = store.strip_prefix("sqlite:").filter(|path| !path.is_empty()).map(Path::new) else {
        return Err(Failure::Usage(format!(
            "{store} is no file: name it with --store sqlite:PATH, on the machine where it is"
        )));
    };
    match &args.work {
        Work::Backup { file } => {
            out.begin("making a backup");
            let head = backup(path, file).map_err(|error| Failure::Store {
                what: format!("no backup was made of {}", path.display()),
                error,
            })?;
            let value = json!({"file": file, "revision": head.revision});
            let (from, to) = (path.display(), file.display());
            out.print(&value, |_| format!("{to} holds {from} as of revision {}\n", head.revision))
        }
        Work::Verify { .. } => check(out, path),
        // It was done above: it is for no file.
        Work::Renew { .. } => Ok(()),
        Work::Restore { file, replace } => {
            out.begin("restoring");
            let done = restore(file, path, *replace).map_err(|error| Failure::Store {
                what: format!("{} was not restored", path.display()),
                error,
            })?;
            let (kept, before) = done.replaced.clone().unzip();
            let value = json!({
                "revision": done.head.revision,
                "epoch": format!("{:016x}", done.head.epoch.0),
                "kept": kept,
                "before": before.flatten(),
            });
            out.print(&value, |_| restored(path, &done))
        }
    }
}

fn renew(out: &mut Out, store: &str, access: &Access, yes: bool) -> Outcome {
    if !matches!(store.split_once(':'), Some(("etcd" | "etcds", _))) {
        return Err(Failure::Usage(format!(
            "{} is not in etcd: this is for an etcd that was restored from a snapshot (--store etcd://HOST,HOST/NAME); a file is \
             restored with `shoal database restore BACKUP`, which does as much",
            shoal_store::without_password(store)
        )));
    }
    if !yes {
        return Err(Failure::Usage(
            "nothing was done. It gives the database another epoch, so every agent holds what it would do until a person agrees, and it \
             ends all leased claims. Do it after etcd was restored from a snapshot, before anything else uses the database: --yes"
                .to_owned(),
        ));
    }
    out.begin("beginning another life of the database");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let head = runtime.block_on(shoal_hostdb::renew(store, access))?;
    let value = json!({"revision": head.revision, "epoch": format!("{:016x}", head.epoch.0)});
    out.print(&value, |_| {
        format!(
            "the database has a new epoch, as of revision {}; nobody holds a claim of before\n{AGREE}",
            head.revision
        )
    })
}

fn check(out: &mut Out, path: &Path) -> Outcome {
    out.begin("checking");
    let verified = verify(path, &mut |done, of| out.at(done, of))
        .map_err(|error| Failure::Store { what: format!("{} was not checked", path.display()), error })?;
    let damage: Vec<Value> =
        verified.damage.iter().map(|one| json!({"place": one.place, "what": one.what})).collect();
    let value = json!({
        "file": path,
        "sound": verified.is_sound(),
        "revision": verified.head.map(|head| head.revision),
        "epoch": verified.head.map(|head| format!("{:016x}", head.epoch.0)),
        "commits": verified.commits,
        "changes": verified.changes,
        "rows": verified.rows,
        "damage": damage,
        "damage_total": verified.damage_total,
    });
    out.print(&value, |out| {
        let rows = verified.damage.iter().map(|one| vec![one.place.clone(), one.what.clone()]).collect();
        let many = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (commits, changes) = (many(verified.commits, "commit"), many(verified.changes, "change"));
        let seen = format!("{commits}, {changes}, {}", many(verified.rows, "key"));
        let revision = verified.head.map_or_else(|| "unknown".to_owned(), |head| head.revision.to_string());
        let sound = format!("{} is sound as of revision {revision}: {seen}", path.display());
        out.table(&["WHERE", "WHAT"], rows, &sound)
    })?;
    if verified.is_sound() {
        return Ok(());
    }
    let place = path.display();
    Err(Failure::Other(anyhow::anyhow!(
        "{place} is damaged in {} place{}. Copy the file away, then restore a backup that `shoal database verify BACKUP` calls \
         sound (`shoal database restore BACKUP --replace`). Without one, `shoal export > all.yaml` brings out what can be \
         read, and `shoal apply -f all.yaml` makes a new database of it, without history",
        verified.damage_total,
        if verified.damage_total == 1 { "" } else { "s" },
    )))
}

/// What is to be done then.
const AGREE: &str = "What was written since the backup is unknown to it, so agents hold whatever they would do. Start them, then look \
                     and agree:\n  shoal approve                         what is held\n  shoal approve AGENT/UNIT --plan       what it \
                     would do\n  shoal approve AGENT/UNIT -m REASON    agrees for all units of that agent\n";

fn restored(path: &Path, done: &Restored) -> String {
    let mut text = format!("{} is restored, as of revision {}\n", path.display(), done.head.revision);
    if let Some((kept, before)) = &done.replaced {
        let upto = before.map(|revision| format!(" (up to revision {revision})")).unwrap_or_default();
        text.push_str(&format!("what stood there{upto} is kept as {}\n", kept.display()));
    }
    text.push_str(AGREE);
    text
}
