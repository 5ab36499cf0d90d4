//! `shoal enc`: what Puppet is to do with a node.
//!
//! * A node that the database knows is answered for, and the answer is kept ([`cache`]).
//! * One that it does not know is an error, and nothing is printed: what was kept of it does not count. Of one that was deleted or renamed it is
//!   forgotten; one that never was may be in another database, which was opened by mistake.
//! * A database that does not answer in time, cannot be opened or is damaged, one that refuses who asks (a token that has expired, was
//!   revoked, or may not read it all), and one that cannot tell what the node is in (a rule that cannot be evaluated), says nothing of the node. Then what was kept is printed, with its age on standard error; where nothing was
//!   kept, or too long ago, that is an error. There is no answer without classes for want of a better one.
//!
//! Puppet runs with the last catalog it had when this fails; so a failure changes nothing on the node.

mod cache;
mod node;

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use shoal_core::{HostName, View};
use shoal_hostdb::reading::Found;
use shoal_hostdb::{Access, OpenError, reading};
use shoal_store::StoreError;

use self::cache::{Cache, Of};
use self::node::Node;
use crate::args::Enc;
use crate::failure::{Failure, Outcome, report};
use crate::out::Out;
use crate::run::there;

/// What became of the question.
enum Asked {
    /// The node, as the database has it.
    Known(Box<Node>),
    /// There is no such node any more: it was deleted, or renamed.
    Gone(Failure),
    /// There never was.
    Never(Failure),
    /// Nothing is known of the node, for this reason.
    Silent(String),
}

pub(crate) fn run(out: &mut Out, store: &str, access: &Access, args: &Enc) -> Outcome {
    let host: HostName =
        args.node.parse().map_err(|bad: shoal_core::BadName| Failure::Missing(bad.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let asked = runtime.block_on(async {
        let late = |_| Ok(Asked::Silent(format!("no answer within {}", shown(args.deadline))));
        tokio::time::timeout(args.deadline, ask(store, access, args, &host)).await.unwrap_or_else(late)
    });
    // Who was asked may hang for long, and is not waited for.
    runtime.shutdown_background();
    let of = Of { store, namespace: args.namespace.as_str(), node: host.as_str() };
    let cache = Cache::open(args.cache.as_deref());
    match asked? {
        Asked::Known(node) => {
            node.notes.iter().for_each(|note| say(note));
            if args.strict && node.contradicts {
                return Err(Failure::Held(format!(
                    "the tags of {host} contradict each other, and --strict refuses that"
                )));
            }
            if let Err(why) = cache.and_then(|cache| cache.keep(&of, &node.yaml, Timestamp::now())) {
                say(&format!("the answer is not kept for when the database does not answer: {why}"));
            }
            out.write(&node.yaml)
        }
        Asked::Never(failure) => Err(failure),
        Asked::Gone(failure) => {
            // What was kept of it is no longer so; whether anything was does not matter.
            let _ = cache.map(|cache| cache.forget(&of));
            Err(failure)
        }
        Asked::Silent(why) => {
            let silent = format!("the database at {store} says nothing of {host}: {why}");
            let kept = cache.and_then(|cache| cache.find(&of, Timestamp::now(), args.max_age));
            let (yaml, age) = kept.map_err(|kept| Failure::Missing(format!("{silent}; and {kept}")))?;
            say(&format!("{silent}; this is what it said {} ago", shown(age)));
            out.write(&yaml)
        }
    }
}

/// Asks the database.
async fn ask(store: &str, access: &Access, args: &Enc, host: &HostName) -> Outcome<Asked> {
    if let Err(gone) = there(store) {
        return Ok(Asked::Silent(report(&gone).unwrap_or_default()));
    }
    let open = match shoal_hostdb::open_brief(store, access).await {
        Ok(open) => open,
        Err(error @ OpenError::Store { .. }) => {
            return Ok(Asked::Silent(report(&error.into()).unwrap_or_default()));
        }
        // A wrong address will not come right by waiting.
        Err(error) => return Err(error.into()),
    };
    let view: View = match reading::around(&*open, host, None).await {
        Ok(view) => view,
        Err(error) => return silent(error),
    };
    if view.host(host.as_str()).is_none() {
        let key = shoal_core::Key::host(host);
        let gone = match reading::row(&*open, &key, None).await {
            Ok(gone) => gone,
            Err(error) => return silent(error),
        };
        let failure = crate::session::missing(&gone, &key);
        return Ok(match gone {
            Found::Gone { .. } => Asked::Gone(failure),
            Found::Never | Found::Here(_) => Asked::Never(failure),
        });
    }
    let namespace = args.namespace.as_str();
    if let Some(doubt) = view.tags_in(namespace).find_map(|tag| view.doubt(&tag.name, host.as_str())) {
        return Ok(Asked::Silent(doubt.to_string()));
    }
    let wrong = |why: String| Failure::Missing(format!("node {host} has no answer: {why}"));
    node::node(&view, host, namespace).map(|node| Asked::Known(Box::new(node))).map_err(wrong)
}

/// A failure that says nothing of the node; all others are for who runs this.
fn silent(error: StoreError) -> Outcome<Asked> {
    match error {
        StoreError::Unavailable { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Full { .. }
        // What was kept tells this user nothing that they do not have already.
        | StoreError::Denied { .. } => Ok(Asked::Silent(error.to_string())),
        error => Err(Failure::Store { what: "the node cannot be read".to_owned(), error }),
    }
}

fn say(text: &str) {
    let _ = std::io::Write::write_all(&mut anstream::stderr(), format!("warning: {text}\n").as_bytes());
}

/// A span of time with its two largest units.
fn shown(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, 0) if !span.is_zero() => format!("{} ms", span.as_millis()),
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let text = |seconds| shown(Duration::from_secs(seconds));
        assert_eq!((text(0), text(59), text(61)), ("0 s".into(), "59 s".into(), "1 min 1 s".into()));
        assert_eq!((text(7_260), text(180_000)), ("2 h 1 min".into(), "2 d 2 h".into()));
        assert_eq!(shown(Duration::from_millis(250)), "250 ms");
    }
}
