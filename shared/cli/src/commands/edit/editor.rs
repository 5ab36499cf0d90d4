//! The editor, and the file that it works on.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use shoal_core::Key;
use tempfile::{NamedTempFile, TempPath};

use crate::failure::{Failure, Outcome};
use crate::names::shown;

/// The most octets of an edited text.
const MOST: u64 = 16 << 20;

/// How the editor is started: a command line for the shell, as git and others take `$EDITOR`.
pub(super) struct Editor(String);

impl Editor {
    /// The editor, where there is a terminal for it; `named`: what the environment says.
    pub(super) fn find(named: Option<&str>, key: &Key) -> Outcome<Self> {
        if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
            let name = match key.kind() {
                shoal_core::Kind::Host(host) => host.to_string(),
                _ => key.to_string(),
            };
            return Err(Failure::Usage(format!(
                "{} cannot be edited: there is no terminal. Write `shoal get {name} > FILE`, change the file, and \
                 `shoal put -f FILE -m WHY`; or set one field with `shoal put {name} FIELD=VALUE -m WHY`",
                shown(key)
            )));
        }
        Ok(Self(named.unwrap_or("vi").to_owned()))
    }

    /// Runs it on the file until it ends.
    async fn run(&self, path: &Path) -> Outcome {
        let editor = &self.0;
        let failed = |why: String| {
            Failure::Other(anyhow::anyhow!(
                "nothing was written: the editor `{editor}` {why}; set $VISUAL or $EDITOR"
            ))
        };
        let _deaf = Deaf::new();
        let status = tokio::process::Command::new("sh")
            .arg("-c")
            .arg(format!("{editor} \"$@\""))
            .arg(editor)
            .arg(path)
            .status()
            .await
            .map_err(|error| failed(format!("could not be started ({error})")))?;
        match status.code() {
            Some(0) => Ok(()),
            Some(127) => Err(failed("is not there (127)".to_owned())),
            Some(code) => Err(failed(format!("ended with {code}"))),
            None => Err(failed(format!("was ended by a signal ({status})"))),
        }
    }
}

/// While an editor runs, Ctrl-C is the editor's: it goes to every process of the terminal.
struct Deaf;

static EDITING: AtomicBool = AtomicBool::new(false);

impl Deaf {
    fn new() -> Self {
        static HEARD: AtomicBool = AtomicBool::new(false);
        EDITING.store(true, Ordering::Relaxed);
        if !HEARD.swap(true, Ordering::Relaxed) {
            tokio::spawn(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if !EDITING.load(Ordering::Relaxed) {
                        // As the signal itself would have done; what was typed stays in its file.
                        std::process::exit(130);
                    }
                }
            });
        }
        Self
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        EDITING.store(false, Ordering::Relaxed);
    }
}

/// The file that is edited. It goes when it is dropped, unless it is kept.
pub(super) struct Sheet {
    path: Option<TempPath>,
    name: String,
    /// Whether there is something in it that was typed.
    typed: bool,
}

impl Sheet {
    /// An empty one, that only this user reads.
    pub(super) fn new(key: &Key) -> Outcome<Self> {
        let name = key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let path = file(&name, "")?.into_temp_path();
        Ok(Self { path: Some(path), name, typed: false })
    }

    /// Has the text edited; what it is then.
    pub(super) async fn open(&mut self, editor: &Editor, text: &str) -> Outcome<String> {
        let Some(path) = self.path.as_deref() else { return Ok(text.to_owned()) };
        std::fs::write(path, text).map_err(|error| unwritable(path, &error))?;
        let ran = editor.run(path).await;
        let read = || -> std::io::Result<String> {
            if path.metadata()?.len() > MOST {
                return Err(std::io::Error::new(ErrorKind::FileTooLarge, "it has more than 16 MiB"));
            }
            std::fs::read_to_string(path)
        };
        let edited = read().map_err(|error| Failure::File { path: path.display().to_string(), error });
        self.typed |= edited.as_ref().is_ok_and(|edited| edited != text && !edited.trim().is_empty());
        ran?;
        edited
    }

    /// A copy of the text, beside; where.
    pub(super) fn keep_copy(&self, text: &str) -> Outcome<PathBuf> {
        let mut copy = file(&self.name, ".mine")?;
        copy.write_all(text.as_bytes()).map_err(|error| unwritable(copy.path(), &error))?;
        copy.into_temp_path().keep().map_err(|error| unwritable(&error.path, &error.error))
    }

    /// Keeps the file if something was typed into it; where it is.
    pub(super) fn keep(&mut self) -> Option<PathBuf> {
        if self.typed { self.path.take()?.keep().ok() } else { None }
    }
}

fn file(name: &str, more: &str) -> Outcome<NamedTempFile> {
    let dir = std::env::temp_dir();
    tempfile::Builder::new()
        .prefix(&format!("shoal-{}-", name.get(..40).unwrap_or(name)))
        .suffix(&format!("{more}.yaml"))
        .tempfile_in(&dir)
        .map_err(|error| unwritable(&dir, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Other(anyhow::anyhow!(
        "nothing was written: cannot write {} for the editor: {error}; set TMPDIR to a folder with room",
        path.display()
    ))
}
