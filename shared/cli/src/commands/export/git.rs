//! The history of the database as the history of a git repository, by `git fast-import`.
//!
//! Each revision is one git commit with the commit's author, message and time; a document is a file that holds what `shoal get`
//! prints. The repository is bare: people clone it. The last line of a git commit's message says its revision, so that the next
//! run begins after the newest one; the same database always comes to the same commits.
//!
//! Guarantees: a folder that this did not make is not touched. git takes whole commits only, so a run that is interrupted
//! leaves what was there or some commits more, and the next one goes on from there. Two runs at a time: one waits for nobody and
//! says so.

use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shoal_core::codec::{self, Format};
use shoal_core::docs::HostDoc;
use shoal_core::{Change, CommitInfo, Kind, LogEntry, Revision, Row};
use shoal_hostdb::reading::{self, Found};
use shoal_store::{Feed, Filter, Head};

use super::{damaged, tree, value};
use crate::failure::{Failure, Outcome};
use crate::names::shown;
use crate::session::Session;

/// What a repository of ours holds.
const MARKER: &str = "shoal-export.json";
const BRANCH: &str = "refs/heads/main";
/// The last line of each message.
const TRAILER: &str = "Shoal-Revision: ";
/// After how many commits what was done is kept, whatever comes.
const CHECKPOINT: u64 = 1000;

#[derive(Serialize, Deserialize)]
struct Marker {
    /// Whose history it is.
    epoch: String,
    /// The form of files and messages.
    format: u32,
}

pub(super) async fn run(session: &mut Session, dir: &Path, upto: Option<Revision>) -> Outcome {
    let head = session.store.head().await.map_err(Failure::reading("the database"))?;
    let upto = upto.unwrap_or(head.revision);
    if upto > head.revision {
        return Err(Failure::Missing(format!(
            "revision {upto} does not exist: the newest is {}",
            head.revision
        )));
    }
    let repository = Repository::open(dir, head)?;
    let from = repository.newest()?;
    let mut import = Import { added: 0, stream: None, repository: &repository, from };
    if from < upto {
        follow(session, &mut import, Head { epoch: head.epoch, revision: from }, upto).await?;
    }
    let added = import.finish()?;
    let value = json!({"git": dir, "revision": upto.max(from), "commits": added});
    session.out.print(&value, |_| match added {
        0 => format!("{} is as of revision {} already\n", dir.display(), from),
        1 => format!("{} has 1 commit more, up to revision {upto}\n", dir.display()),
        _ => format!("{} has {added} commits more, up to revision {upto}\n", dir.display()),
    })
}

/// Writes every commit after `after` up to `upto`.
async fn follow(session: &Session, import: &mut Import<'_>, after: Head, upto: Revision) -> Outcome {
    let mut feed = session.store.watch(Filter::all(), after);
    while let Some(message) = feed.next().await {
        match message.map_err(Failure::reading("the log"))? {
            Feed::Commit(entry) if entry.info.revision <= upto => {
                commit(session, import, &entry).await?;
                session.out.at(entry.info.revision.0, upto.0);
                if entry.info.revision == upto {
                    return Ok(());
                }
            }
            Feed::Commit(_) => return Ok(()),
            Feed::Upto(revision) if revision >= upto => return Ok(()),
            Feed::Upto(_) => {}
            Feed::Reset(_) => {
                return Err(Failure::Other(anyhow::anyhow!(
                    "the database does not keep the commits after revision {}: export into a new folder",
                    after.revision
                )));
            }
        }
    }
    Err(Failure::Other(anyhow::anyhow!(
        "the database stopped telling its commits before revision {upto}; run it again"
    )))
}

/// Writes one commit.
async fn commit(session: &Session, import: &mut Import<'_>, entry: &LogEntry) -> Outcome {
    let mut files: Vec<(String, Option<String>)> = Vec::new();
    let mut last: Option<&str> = None;
    // Who may do what is no part of what people read there.
    let told = |change: &&Change| change.key.namespace() != shoal_core::ACCESS;
    let mut changes: Vec<&Change> = entry.changes.iter().filter(told).collect();
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    let mut tags = std::collections::HashSet::new();
    for change in changes {
        if last == Some(change.key.as_str()) {
            continue;
        }
        last = Some(change.key.as_str());
        let file = match change.key.kind() {
            Kind::Tag(tag) | Kind::Member(tag, _) => {
                if !tags.insert(tag.clone()) {
                    continue;
                }
                let found = reading::tag(&*session.store, &tag, Some(entry.info.revision), usize::MAX).await;
                match found.map_err(Failure::reading(shown(&change.key)))? {
                    Found::Here(doc) => Some(value(&doc)),
                    Found::Gone { .. } | Found::Never => None,
                }
            }
            _ => document(change, entry.info.revision)?,
        };
        let text = file.map(|file| codec::write(&file, Format::Yaml)).transpose();
        let text = text.map_err(|e| damaged(&change.key, entry.info.revision, &e.to_string()))?;
        files.push((tree::path(&change.key), text));
    }
    import.commit(&entry.info, &files)
}

/// What `get` prints of a row that stands alone.
fn document(change: &Change, revision: Revision) -> Outcome<Option<serde_json::Value>> {
    let Some(document) = &change.value else { return Ok(None) };
    if let Kind::Host(name) = change.key.kind() {
        let record = document.to().map_err(|e| damaged(&change.key, revision, &e.to_string()))?;
        return Ok(Some(value(&HostDoc::of(name, record, revision))));
    }
    let (key, moved) = (change.key.clone(), change.moved.clone());
    Ok(Some(value(&Row { key, value: Some(document.clone()), revision, moved })))
}

/// A repository of ours.
struct Repository {
    dir: PathBuf,
    /// Held as long as this run takes.
    _lock: File,
}

impl Repository {
    /// Opens it, or makes it where there is nothing.
    fn open(dir: &Path, head: Head) -> Outcome<Self> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::Other(anyhow::anyhow!("nothing was exported to {}: {what}: {error}", dir.display()))
        };
        let epoch = format!("{:016x}", head.epoch.0);
        let empty = match std::fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed("it cannot be read", &error)),
        };
        if empty {
            make(dir, &Marker { epoch: epoch.clone(), format: 1 })?;
        }
        let path = dir.join(MARKER);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failure::Usage(format!(
                "nothing was exported: {} is not a folder that `shoal export` made, so it is left alone; name one that is \
                 empty or not there yet",
                dir.display()
            )),
            _ => failed("its marker cannot be read", &error),
        })?;
        let marker: Marker =
            serde_json::from_str(&text).map_err(|error| failed("its marker is not one", &error))?;
        if marker.format != 1 {
            return Err(failed("it was made by a newer version", &marker.format));
        }
        if marker.epoch != epoch {
            return Err(Failure::Held(format!(
                "nothing was exported: {} is the history of another life of the database ({}, now {epoch}: it was \
                 restored, or is another one); export into a new folder",
                dir.display(),
                marker.epoch
            )));
        }
        let lock = File::open(&path).map_err(|error| failed("its marker cannot be opened", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::Held(format!("{}: another export is writing to it; wait for it", dir.display())))
            }
            Err(TryLockError::Error(error)) => Err(failed("it cannot be locked", &error)),
        }
    }

    /// The revision of its newest commit; 0: it has none.
    fn newest(&self) -> Outcome<Revision> {
        let mut command = git(&self.dir);
        let output = run_git(command.args(["log", "-1", "--format=%B", BRANCH, "--"]))?;
        if !output.status.success() {
            let mut exists = git(&self.dir);
            if !run_git(exists.args(["show-ref", "--verify", "--quiet", BRANCH]))?.status.success() {
                return Ok(Revision(0));
            }
            return Err(said_by_git("its newest commit cannot be read", &output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let revision = text.lines().rev().find_map(|line| line.strip_prefix(TRAILER)?.trim().parse().ok());
        revision.map(Revision).ok_or_else(|| {
            Failure::Held(format!(
                "nothing was exported: the newest commit of {} says no revision: somebody else wrote it; commit elsewhere, \
                 in a clone, or export into a new folder",
                self.dir.display()
            ))
        })
    }
}

/// Makes the repository whole or not at all.
fn make(dir: &Path, marker: &Marker) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::Other(anyhow::anyhow!("nothing was exported: cannot make {}: {error}", dir.display()))
    };
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = tempfile::Builder::new().prefix(".shoal-export-").tempdir_in(parent).map_err(failed)?;
    let output = run_git(git(new.path()).args(["init", "--quiet", "--bare", "--initial-branch=main"]))?;
    if !output.status.success() {
        return Err(said_by_git("no repository could be made", &output.stderr));
    }
    let text = serde_json::to_string(marker).map_err(|e| failed(e.into()))?;
    std::fs::write(new.path().join(MARKER), text + "\n").map_err(failed)?;
    std::fs::write(new.path().join("description"), "The history of a Shoal database\n").map_err(failed)?;
    std::fs::set_permissions(new.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(failed)?;
    // Takes the place of an empty folder, and of nothing else.
    std::fs::rename(new.path(), dir).map_err(failed)?;
    let _gone = new.keep();
    Ok(())
}

/// git on this repository, whatever the environment says of others.
fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    ] {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("LC_ALL", "C");
    command.arg("--git-dir").arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run_git(command: &mut Command) -> Outcome<std::process::Output> {
    command.output().map_err(no_git)
}

fn no_git(error: std::io::Error) -> Failure {
    Failure::Other(match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!(
                "nothing was exported: git is not installed, which writes the repository: apt install git"
            )
        }
        _ => anyhow::anyhow!("nothing was exported: cannot run git: {error}"),
    })
}

fn said_by_git(what: &str, stderr: &[u8]) -> Failure {
    Failure::Other(anyhow::anyhow!("{what}: git says: {}", String::from_utf8_lossy(stderr).trim()))
}

/// Commits on their way into the repository.
struct Import<'r> {
    repository: &'r Repository,
    from: Revision,
    stream: Option<(Child, BufWriter<ChildStdin>)>,
    added: u64,
}

impl Import<'_> {
    fn commit(&mut self, info: &CommitInfo, files: &[(String, Option<String>)]) -> Outcome {
        if self.stream.is_none() {
            let mut command = git(&self.repository.dir);
            let args = ["fast-import", "--quiet", "--done", "--date-format=raw"];
            let mut child = command.args(args).stdin(Stdio::piped()).spawn().map_err(no_git)?;
            let Some(stdin) = child.stdin.take() else { return Ok(()) };
            self.stream = Some((child, BufWriter::new(stdin)));
        }
        let first = self.added == 0 && self.from > Revision(0);
        let checkpoint = self.added % CHECKPOINT == CHECKPOINT - 1;
        let Some((_, stream)) = &mut self.stream else { return Ok(()) };
        let wrote = write_commit(stream, info, files, first)
            .and_then(|()| if checkpoint { stream.write_all(b"checkpoint\n\n") } else { Ok(()) });
        match wrote {
            Ok(()) => self.added += 1,
            // It ended early; what it says is the reason.
            Err(_) => return self.ended("took no more"),
        }
        Ok(())
    }

    /// Ends the stream; how many commits it had.
    fn finish(mut self) -> Outcome<u64> {
        let Some((_, stream)) = &mut self.stream else { return Ok(0) };
        if stream.write_all(b"done\n").and_then(|()| stream.flush()).is_err() {
            self.ended("took no more")?;
        }
        self.ended("did not take all")?;
        Ok(self.added)
    }

    fn ended(&mut self, how: &str) -> Outcome {
        let Some((child, stream)) = self.stream.take() else { return Ok(()) };
        drop(stream);
        let output = child.wait_with_output().map_err(no_git)?;
        if output.status.success() {
            return Ok(());
        }
        let dir = self.repository.dir.display();
        Err(said_by_git(&format!("{dir}: git {how} (run it again: it goes on where it was)"), &output.stderr))
    }
}

fn write_commit(
    to: &mut impl Write,
    info: &CommitInfo,
    files: &[(String, Option<String>)],
    first: bool,
) -> std::io::Result<()> {
    let message = format!("{}\n\n{TRAILER}{}\n", info.message.replace('\0', "").trim_end(), info.revision);
    // git keeps whole seconds.
    let time = info.time.as_second();
    let committer = info.principal.as_deref().unwrap_or(&info.author);
    writeln!(to, "commit {BRANCH}")?;
    writeln!(to, "author {} {time} +0000", person(&info.author))?;
    writeln!(to, "committer {} {time} +0000", person(committer))?;
    write!(to, "data {}\n{message}\n", message.len())?;
    if first {
        writeln!(to, "from {BRANCH}^0")?;
    }
    // Removals first: what is renamed may leave its place to another one.
    for (path, _) in files.iter().filter(|(_, text)| text.is_none()) {
        writeln!(to, "D {path}")?;
    }
    for (path, text) in files {
        if let Some(text) = text {
            write!(to, "M 100644 inline {path}\ndata {}\n{text}\n", text.len())?;
        }
    }
    writeln!(to)
}

/// `Name <address>`, as git wants it.
fn person(who: &str) -> String {
    let clean = |text: &str| -> String {
        let kept = text.chars().filter(|c| !matches!(c, '<' | '>') && !c.is_control());
        kept.collect::<String>().trim().to_owned()
    };
    let (name, address) = match who.trim().strip_suffix('>').and_then(|rest| rest.split_once('<')) {
        Some((name, address)) => (clean(name), clean(address).replace(' ', "")),
        None => (clean(who), String::new()),
    };
    let name = if name.is_empty() { "unknown".to_owned() } else { name };
    format!("{name} <{address}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_written_as_git_wants_them() {
        assert_eq!(person("ann"), "ann <>");
        assert_eq!(person("Ann B. <ann@example.com>"), "Ann B. <ann@example.com>");
        assert_eq!(person("<ann@example.com>"), "unknown <ann@example.com>");
        assert_eq!(person("a<b\nc"), "abc <>");
        assert_eq!(person("  "), "unknown <>");
    }
}
