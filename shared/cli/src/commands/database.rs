//! `shoal database`: the file itself, without opening it as a store.

use std::path::Path;

use serde_json::json;
use shoal_store_sqlite::{Restored, backup, restore};

use crate::args::{Database, Work};
use crate::failure::{Failure, Outcome};
use crate::out::Out;

pub(crate) fn run(out: &mut Out, store: &str, args: &Database) -> Outcome {
    let Some(path) = store.strip_prefix("sqlite:").filter(|path| !path.is_empty()).map(Path::new) else {
        return Err(Failure::Usage(format!(
            "{store} is no file: name it with --store sqlite:PATH, on the machine where it is"
        )));
    };
    match &args.work {
        Work::Backup { file } => {
            let head = backup(path, file).map_err(|error| Failure::Store {
                what: format!("no backup was made of {}", path.display()),
                error,
            })?;
            let value = json!({"file": file, "revision": head.revision});
            let (from, to) = (path.display(), file.display());
            out.print(&value, |_| format!("{to} holds {from} as of revision {}\n", head.revision))
        }
        Work::Restore { file, replace } => {
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

fn restored(path: &Path, done: &Restored) -> String {
    let mut text = format!("{} is restored, as of revision {}\n", path.display(), done.head.revision);
    if let Some((kept, before)) = &done.replaced {
        let upto = before.map(|revision| format!(" (up to revision {revision})")).unwrap_or_default();
        text.push_str(&format!("what stood there{upto} is kept as {}\n", kept.display()));
    }
    text.push_str(
        "What was written since the backup is unknown to it, so agents hold whatever they would do. Start them, then look \
         and agree:\n  shoal approve                         what is held\n  shoal approve AGENT/UNIT --plan       what it \
         would do\n  shoal approve AGENT/UNIT -m REASON    agrees for all units of that agent\n",
    );
    text
}
