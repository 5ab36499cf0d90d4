//! What keepalived wrote down, in a folder where others may write, too: only a plain file of root's or of this program's own user counts,
//! and nothing that stands there in its place is waited for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// The most that is read, in octets: some thousand addresses.
const MOST: u64 = 16 << 20;

/// What it says; nothing where it is not there.
///
/// # Errors
/// It cannot be read, is no plain file, is somebody else's, or can be written by others.
pub(super) fn read(path: &Path) -> io::Result<String> {
    match open(path) {
        Ok(file) => text(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or_default()).open(path)
}

fn text(file: File) -> io::Result<String> {
    let is = file.metadata()?;
    if !is.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&is.uid()) || is.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("it is user {}'s, or others may write it", is.uid())));
    }
    if is.len() > MOST {
        return Err(io::Error::other(format!("it has {} octets", is.len())));
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_a_plain_file_of_ones_own_counts_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert_eq!(read(&path).unwrap(), "");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path).unwrap(), "x");
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read(&link).is_err() && read(dir.path()).is_err());
        // Nobody ever writes into it: it is not waited for.
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(read(&pipe).unwrap_err().to_string().contains("no plain file"));
        fs::set_permissions(&path, Permissions::from_mode(0o622)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("others may write it"));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        match chown(&path, Some(12345), None) {
            Ok(()) => assert!(read(&path).unwrap_err().to_string().contains("12345")),
            Err(e) => println!("SKIPPED: a file of somebody else's: {e}"),
        }
    }
}
