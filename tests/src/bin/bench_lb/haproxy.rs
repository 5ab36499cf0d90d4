//! A real HAProxy, with master and worker, ended when dropped.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shoal_tests::process::Process;
use shoal_tests::wait;

/// HAProxy, which reads the folder `pools` in a scratch folder.
pub(crate) struct Haproxy {
    admin: PathBuf,
    _process: Process,
}

impl Haproxy {
    /// Starts it without any pool.
    pub(crate) fn start(program: &Path, dir: &Path) -> Result<Self> {
        let (admin, config, pools) = (dir.join("admin.sock"), dir.join("haproxy.cfg"), dir.join("pools"));
        std::fs::create_dir(&pools).context("the folder of pools")?;
        let text = format!(
            "global\n  nbthread 1\n  maxconn 1000\n  stats socket {} mode 600 level admin expose-fd listeners\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n",
            admin.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.args(["-W", "-S"]).arg(dir.join("master.sock"));
        command.arg("-f").arg(&config).arg("-f").arg(&pools);
        let haproxy = Self { admin, _process: Process::start("haproxy", dir, &mut command)? };
        wait::until("HAProxy answers", wait::PATIENCE, || {
            let said = haproxy.ask("show info")?;
            ensure!(said.contains("Pid:"), "it says {said:?}");
            Ok(())
        })?;
        Ok(haproxy)
    }

    /// What it says to a command.
    pub(crate) fn ask(&self, command: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.admin)?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    }
}
