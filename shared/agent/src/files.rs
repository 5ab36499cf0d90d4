//! Files as a target: written so that a reader sees the old or the new, never half of either.
//!
//! The path is the caller's: join a folder from the node's own configuration with a name that was *parsed* (a
//! [`HostName`](crate::HostName), a tag's key). Text from the database that was not parsed is no file name.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

use shoal_engine::{Fault, Seen};

/// What stands in a file of text. A file that cannot be read is unknown, not absent, and so is one whose folder is not there: a folder that
/// was moved, or is not mounted, is no empty folder.
#[must_use]
pub fn read(path: &Path) -> Seen<String> {
    match fs::read_to_string(path) {
        Ok(text) => Seen::There(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                Seen::Unknown(format!("{}: its folder is not there", path.display()))
            }
            _ => Seen::Nothing,
        },
        Err(e) => Seen::Unknown(format!("{}: {e}", path.display())),
    }
}

/// The files of a folder whose names are a `K`; others are somebody else's and left out.
///
/// # Errors
/// The folder cannot be read, or not to its end.
pub fn names<K: FromStr>(folder: &Path) -> Result<Vec<K>, Fault> {
    let fault = |e| Fault::new(format!("look into {}", folder.display()), e);
    let mut names = Vec::new();
    for file in fs::read_dir(folder).map_err(fault)? {
        let name = file.map_err(fault)?.file_name();
        names.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    Ok(names)
}

/// Puts `text` into a file, or removes it (`None`). The text is written beside it and synced, then takes its place in
/// one step; the folder is synced, too.
///
/// # Errors
/// It could not be done; what stood there before stands there still, or (when only the last sync failed) the new text.
pub fn put(path: &Path, text: Option<&str>) -> Result<(), Fault> {
    let done = match text {
        Some(text) => write(path, text),
        None => match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
    };
    let what = if text.is_some() { "write" } else { "remove" };
    done.and_then(|()| sync_folder(path)).map_err(|e| Fault::new(format!("{what} {}", path.display()), e))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let mut candidate = std::ffi::OsString::from(".new.");
    candidate.push(name);
    let candidate = path.with_file_name(candidate);
    let written = fs::File::create(&candidate)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&candidate, path));
    if written.is_err() {
        // On a full disk half of it may be there, and takes the room. What cannot be removed is written over next time.
        let _ = fs::remove_file(&candidate);
    }
    written
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web1.example.com");
        assert_eq!(read(&path), Seen::Nothing);
        put(&path, Some("a")).unwrap();
        put(&path, Some("b")).unwrap();
        assert_eq!(read(&path), Seen::There("b".into()));
        let found: Vec<shoal_core::HostName> = names(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        put(&path, None).unwrap();
        put(&path, None).unwrap();
        assert_eq!(read(&path), Seen::Nothing);
    }

    #[test]
    fn what_could_not_be_put_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web1.example.com");
        // A folder: the new text can be written beside it, and cannot take its place.
        fs::create_dir(&path).unwrap();
        put(&path, Some("a")).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Seen::Unknown(_)));
        assert!(matches!(read(&dir.path().join("none/x")), Seen::Unknown(why) if why.contains("folder")));
        assert!(names::<String>(&dir.path().join("none")).is_err());
        let error = put(&dir.path().join("none/x"), Some("a")).unwrap_err().to_string();
        assert!(error.contains("none/x"), "{error}");
    }
}
