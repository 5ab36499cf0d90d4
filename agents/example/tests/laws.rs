//! The example keeps the laws, on a model target and on its own.

use shoal_agent::Deserialize as _;
use shoal_agent::laws::{Broken, Laws};
use shoal_example::{Files, Motd};

fn laws() -> Laws<Motd> {
    let json = |banner: &str| shoal_agent::serde_json::json!({ "banner": banner });
    Laws::new(|| Motd, "motd/all", json("be kind")).then(json("be quiet"))
}

#[test]
fn it_keeps_the_laws() -> Result<(), Broken> {
    laws().check()
}

#[test]
fn it_keeps_them_with_real_files() -> Result<(), Broken> {
    // The laws write thousands of files, and every one is synced: in memory where the system has room for that.
    let memory = std::path::Path::new("/dev/shm");
    let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let count = std::cell::Cell::new(0);
    laws().check_with(|| {
        count.set(count.get() + 1);
        let dir = root.path().join(count.get().to_string());
        std::fs::create_dir(&dir).unwrap();
        Files::deserialize(shoal_agent::serde_json::json!({ "dir": dir })).unwrap()
    })
}
