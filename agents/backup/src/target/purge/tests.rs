//! What is open is seen, and what could not be removed is counted.

use super::less::Less;
use super::*;
use crate::item::{Last, Size};
use crate::schedule::Schedule;

#[test]
fn what_another_process_has_open_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "a line\n").unwrap();
    let meta = fs::metadata(&path).unwrap();
    let this = (meta.dev(), meta.ino());
    assert!(!open_files(true).unwrap().contains(&this));
    let open = File::open(&path).unwrap();
    let mut other = std::process::Command::new("sleep").arg("60").stdin(open).spawn().unwrap();
    let seen = open_files(true).unwrap().contains(&this);
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(seen);
}

fn found(path: &Path) -> Found {
    fs::write(path, "a line\n").unwrap();
    let folder = File::open(path.parent().unwrap()).unwrap().into();
    let file = File::open(path).unwrap();
    let was = Was::of(&file).unwrap();
    Found { path: path.to_owned(), folder, file, was }
}

/// A purge that fails, as on a file system that may only be read, and is tried again and again.
#[test]
fn what_could_not_be_removed_is_not_taken_for_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path: AbsPath = dir.path().to_str().unwrap().parse().unwrap();
    let paths = [(&path, dir.path().to_owned())];
    let size = |files| Size { bytes: 7 * files, files };
    let mut last = Last {
        snapshot: "a".to_owned(),
        began: 0,
        took: 0,
        files: 3,
        bytes: 21,
        added: 0,
        sizes: BTreeMap::from([(path.clone(), size(3))]),
        purged: Size::default(),
    };
    let mut batch: Vec<Found> = ["1", "2", "3"].map(|name| found(&dir.path().join(name))).into();
    let second = |one: &Found| match one.path.ends_with("2") {
        true => Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)),
        false => one.unlink(),
    };
    for _ in 0..5 {
        Less::of(&paths, &batch).off(&mut last);
        let (stay, why) = take(&batch, second);
        assert!(why.is_some_and(|why| why.to_string().contains("remove")));
        assert_eq!(stay.len(), 2, "what comes after it is not tried");
        Less::of(&paths, stay).back(&mut last);
        assert_eq!((last.purged, last.left(), last.sizes[&path]), (size(1), size(2), size(2)));
        batch.retain(|one| one.path.exists());
    }
    // What somebody else wrote to meanwhile stays, too.
    fs::write(dir.path().join("3"), "another line\n").unwrap();
    batch.retain(|one| one.path.ends_with("3"));
    let (stay, why) = take(&batch, Found::unlink);
    assert!(stay.len() == 1 && why.is_none());
}

/// Another policy that backs the folder up, too: what it certainly has is taken off, and what it may not have is not.
#[test]
fn what_another_policy_has_for_certain_is_not_missed_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("var/log")).unwrap();
    fs::create_dir_all(root.join("var/cache")).unwrap();
    let files = ["var/log/1", "var/log/2", "var/cache/3"].map(|name| found(&root.join(name)));
    let later = Timestamp::now().as_millisecond() + 60_000;
    let purged = |paths: &[&str], excludes: &[&str], began| {
        let job = Job {
            paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
            excludes: excludes.iter().map(|pattern| (*pattern).to_owned()).collect(),
            mounted: [].into(),
            one_file_system: true,
            dumps: BTreeMap::new(),
            on: "web1.example.com".to_owned(),
            schedule: Schedule::new("0 1 * * *", "UTC", 0, None).unwrap(),
            fresh: None,
            shrink: 50,
            test: None,
            purge: None,
        };
        let size = Size { bytes: 700, files: 100 };
        let mut last = Last {
            snapshot: "a".to_owned(),
            began,
            took: 0,
            files: size.files,
            bytes: size.bytes,
            added: 0,
            sizes: job.paths.iter().map(|path| (path.clone(), size)).collect(),
            purged: Size::default(),
        };
        let before = last.clone();
        let less = Less::of_other(Some(root), &job, began, &files);
        less.off(&mut last);
        let (gone, left) =
            (last.purged.files, last.sizes.values().map(|size| size.files).collect::<Vec<_>>());
        less.back(&mut last);
        assert_eq!(last, before);
        (gone, left)
    };
    assert_eq!(purged(&["/var"], &[], later), (3, vec![97]));
    assert_eq!(purged(&["/var/log", "/etc"], &[], later), (2, vec![100, 98]));
    assert_eq!(purged(&["/etc"], &[], later), (0, vec![100]));
    assert_eq!(purged(&["/var"], &["/var/log"], later), (1, vec![99]), "it is left out there");
    assert_eq!(purged(&["/var"], &["*.gz"], later), (0, vec![100]), "nobody knows what that leaves out");
    assert_eq!(purged(&["/var"], &[], 0), (0, vec![100]), "they came since");
}
