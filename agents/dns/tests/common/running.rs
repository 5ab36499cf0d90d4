//! A server of a test's own, in a scratch directory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A program that is ended when dropped.
pub(crate) struct Running(Child, TempDir);

impl Running {
    pub(crate) fn start(program: &str, args: &[&str], config: &str, dir: TempDir) -> Self {
        let path = dir.path().join("conf");
        fs::write(&path, config.replace("DIR", &dir.path().display().to_string())).unwrap();
        let log = fs::File::create(dir.path().join("out")).unwrap();
        let child = Command::new(program)
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .args(args)
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child, dir)
    }

    /// Whether it still runs: another test may have taken its port.
    pub(crate) fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.1.path()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
