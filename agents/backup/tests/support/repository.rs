//! The repository of a test: made in no time, who is at it, and its locks.

use std::fs;
use std::path::{Path, PathBuf};

/// What opens it; no secret. `repository/make.py` has the same.
pub(crate) const PASSWORD: &str = "correct horse";
/// What opens it as well, and what no process anywhere may have in its arguments or its environment.
pub(crate) const WHISPERED: &str = "whispered horse";

/// A new repository, as `restic init` leaves it, but for one thing: its keys cost nothing to open. Such a one as `restic init` makes takes
/// a second of a processor with each call of restic, of which the tests make thousands. `repository/make.py` says where it comes from.
pub(crate) fn lay(at: &Path) {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/repository");
    for folder in ["data", "index", "keys", "locks", "snapshots"] {
        fs::create_dir_all(at.join(folder)).unwrap();
    }
    for file in files(&made) {
        fs::copy(made.join(&file), at.join(&file)).unwrap();
    }
}

/// The same as objects: each its path, and what it holds.
pub(crate) fn objects() -> Vec<(String, Vec<u8>)> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/repository");
    files(&made).iter().map(|file| (file.display().to_string(), fs::read(made.join(file)).unwrap())).collect()
}

/// What of it is files: the configuration, and the keys.
fn files(made: &Path) -> Vec<PathBuf> {
    let keys = fs::read_dir(made.join("keys")).unwrap();
    let keys = keys.map(|key| Path::new("keys").join(key.unwrap().file_name()));
    [PathBuf::from("config")].into_iter().chain(keys).collect()
}

/// How many locks there are. While restic writes one it has another name, which does not count.
pub(crate) fn locks(repository: &Path) -> usize {
    let locks = fs::read_dir(repository.join("locks")).unwrap();
    locks.filter(|lock| !lock.as_ref().unwrap().file_name().to_string_lossy().contains('-')).count()
}

/// The words of a process of restic that works on this repository.
fn restic(process: &Path, repository: &str) -> Option<Vec<String>> {
    let text = |file: &str| Some(String::from_utf8_lossy(&fs::read(process.join(file)).ok()?).into_owned());
    let words: Vec<String> = text("cmdline")?.split('\0').map(str::to_owned).collect();
    let here = format!("RESTIC_REPOSITORY={repository}");
    let ours = words[0] == "restic" && text("environ")?.split('\0').any(|variable| variable == here);
    ours.then_some(words)
}

/// Lays a lock into it of which restic alone would say that it is stale: it is of years ago, and of another machine, where nobody can ask
/// whether its holder lives.
pub(crate) fn lay_old_lock(at: &Path) {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/repository/lock");
    for lock in fs::read_dir(made).unwrap() {
        let lock = lock.unwrap();
        fs::copy(lock.path(), at.join("locks").join(lock.file_name())).unwrap();
    }
}

/// Of each process of restic that an agent has work on this repository, its words. All of them lived at one and the same moment: each was
/// seen before it and is seen after it.
pub(crate) fn running(repository: &str) -> Vec<Vec<String>> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let seen: Vec<(PathBuf, Vec<String>)> =
        processes.filter_map(|process| Some((process.clone(), restic(&process, repository)?))).collect();
    let lives =
        |(process, words): &(PathBuf, Vec<String>)| restic(process, repository).as_ref() == Some(words);
    seen.into_iter().filter(lives).map(|(_, words)| words).collect()
}
