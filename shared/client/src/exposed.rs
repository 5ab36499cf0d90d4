//! Files with secrets that others on the machine can read.
//!
//! They are used all the same: refusing them would stop what ran until yesterday, and whoever reads on has read already. But it is said,
//! once for each file and program, with what mends it. A file that stands behind a folder which others cannot enter is no such file.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What to say of a file with a secret (`what`: "the token") that every user of this machine can read or write; `None`: it is not so, or
/// nothing is known of the file. Costs a look at the file and at the folders above it.
#[must_use]
pub fn exposed(path: &Path, what: &str) -> Option<String> {
    let real = path.canonicalize().ok()?;
    let mode = |path: &Path| path.metadata().map(|found| found.permissions().mode()).ok();
    let own = mode(&real)? & 0o7777;
    let entered = |folder: &Path| mode(folder).is_none_or(|mode| mode & 0o001 != 0);
    let open = own & 0o006 != 0 && real.ancestors().skip(1).all(entered);
    open.then(|| {
        let shown = path.display();
        format!("every user of this machine can reach {what} in {shown} (mode {own:04o}): `chmod o= {shown}`, and put another there if somebody may have read it")
    })
}

/// Says it in the log, the first time that it is asked of this file.
pub fn warn_if_exposed(path: &Path, what: &str) {
    static SAID: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let Some(text) = exposed(path, what) else { return };
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned()) {
        tracing::warn!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};

    #[test]
    fn what_others_can_read_is_told_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "hunter2").unwrap();
        let said = |folder: u32, file: u32| {
            set_permissions(dir.path(), Permissions::from_mode(folder)).unwrap();
            set_permissions(&path, Permissions::from_mode(file)).unwrap();
            exposed(&path, "the token")
        };
        for (folder, file) in [(0o755, 0o600), (0o755, 0o640), (0o755, 0o660), (0o700, 0o644), (0o750, 0o666)]
        {
            assert_eq!(said(folder, file), None, "{folder:o} {file:o}");
        }
        for (file, mode) in [(0o644, "0644"), (0o604, "0604"), (0o602, "0602")] {
            let said = said(0o755, file).unwrap();
            let path = path.display().to_string();
            assert!(said.contains(mode) && said.contains(&path) && said.contains("the token"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert_eq!(exposed(&dir.path().join("none"), "the token"), None);
        // By whatever way it is named.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(exposed(&link, "the token").unwrap().contains("link"));
    }

    #[test]
    fn it_is_said_once() {
        #[derive(Clone, Default)]
        struct Kept(std::sync::Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(octets);
                Ok(octets.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "").unwrap();
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || (0..3).for_each(|_| warn_if_exposed(&path, "the key")));
        let said = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(said.matches("0644").count(), 1, "{said}");
    }
}
