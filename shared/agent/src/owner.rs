//! Whose a directory of files is that a target owns whole: one database's.
//!
//! A file says that Shoal made it, not from which database. Two databases that want the same file would write it by
//! turns, each sure that what the other wrote is an edit. So the first that writes into a directory leaves its epoch there, and
//! every other is refused before it has changed anything. Instances of one agent have one database and share the directory.
//!
//! A restored backup is another epoch, and so is a database made anew. Whether it stands in for the one before, only a person
//! knows: that one removes the file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use shoal_core::Epoch;
use shoal_engine::Fault;

/// The name of the file that says it.
pub const NAME: &str = ".shoal-database";

/// What a directory holds, for what is said of it.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// The directory: `zone directory`.
    pub what: &'a str,
    /// What is in it: `zone files`.
    pub files: &'a str,
    /// Where a person can read of it: `docs/agents/dns.md, One directory, one database`.
    pub page: &'a str,
}

/// Makes the directory this database's, if it is nobody's yet. Costs one small read otherwise.
///
/// # Errors
/// It is another database's, or nobody can say whose.
pub fn claim(directory: &Path, epoch: Epoch, kind: &Kind<'_>) -> Result<(), Fault> {
    let Kind { what, files, page } = kind;
    let path = directory.join(NAME);
    let read = || match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    };
    let fault = |why: &dyn ToString| {
        Fault::new(format!("make out whose the {what} {} is", directory.display()), why.to_string())
    };
    let text = match read().map_err(|e| fault(&e))? {
        Some(text) => text,
        None => {
            create(directory, &path, epoch, files).map_err(|e| fault(&e))?;
            // Of two that begin at once, one comes first.
            read().map_err(|e| fault(&e))?.unwrap_or_default()
        }
    };
    let next = |what: &str| {
        format!(
            "{what}, remove {}: the next that writes has the directory from then on (see {page})",
            path.display()
        )
    };
    match owner(&text) {
        Some(owner) if owner == epoch => Ok(()),
        Some(Epoch(owner)) => Err(Fault::new(
            format!("write into the {what} {}", directory.display()),
            format!(
                "it is that of the database {owner:016x}, says {NAME} there, and this agent's is {:016x}",
                epoch.0
            ),
        )
        .next(next(
            "give each database a directory of its own; or, if this one was restored from that one or stands in for it",
        ))
        .permanent()),
        None => {
            let why = format!("{} names no database", path.display());
            Err(fault(&why).next(next("if this database is the only one that writes there")).permanent())
        }
    }
}

/// Whether a file whose name is a dot and this is what [`claim`] leaves when it is killed.
#[must_use]
pub fn is_candidate(hidden: &str) -> bool {
    let random =
        NAME.get(1..).and_then(|name| hidden.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".new"));
    random.is_some_and(|random| random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn owner(text: &str) -> Option<Epoch> {
    let hex = text.lines().find_map(|line| line.strip_prefix("database "))?;
    u64::from_str_radix(hex.trim(), 16).ok().map(Epoch)
}

/// Creates the file whole, unless there is one by now.
fn create(directory: &Path, path: &Path, Epoch(epoch): Epoch, files: &str) -> io::Result<()> {
    let candidate: PathBuf = directory.join(format!("{NAME}.{:016x}.new", rand::random::<u64>()));
    let text = format!(
        "# The {files} in this directory are made by Shoal from the database of this epoch, and no other writes here.\n\
         # If that database was restored, or another one stands in for it, remove this file.\n\
         database {epoch:016x}\n"
    );
    let made = fs::File::create_new(&candidate).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match fs::hard_link(&candidate, path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    let removed = fs::remove_file(&candidate);
    made.and(removed)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(directory: &Path, epoch: Epoch) -> Result<(), Fault> {
        super::claim(directory, epoch, &Kind { what: "folder", files: "files", page: "a page" })
    }

    #[test]
    fn the_first_database_has_the_directory_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Epoch(0x1234), Epoch(0xabcd));
        claim(dir.path(), first).unwrap();
        claim(dir.path(), first).unwrap();
        let why = claim(dir.path(), second).unwrap_err().to_string();
        for part in ["0000000000001234", "000000000000abcd", "restored", NAME] {
            assert!(why.contains(part), "{part}: {why}");
        }
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [NAME]);
        // By a person's word.
        fs::remove_file(dir.path().join(NAME)).unwrap();
        claim(dir.path(), second).unwrap();
        assert!(claim(dir.path(), first).is_err());
        // Ignorance is not leave.
        fs::write(dir.path().join(NAME), "").unwrap();
        let why = claim(dir.path(), second).unwrap_err().to_string();
        assert!(why.contains("names no database") && why.contains("remove"), "{why}");
    }

    #[test]
    fn of_many_at_once_one_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let won: usize = std::thread::scope(|scope| {
            let dir = dir.path();
            let one = |n| scope.spawn(move || usize::from(claim(dir, Epoch(n)).is_ok()));
            let all: Vec<_> = (1..9).map(one).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
    }
}
