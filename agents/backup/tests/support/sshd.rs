//! A real sshd of a test's own, on a free port, with its own host key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use super::until;

/// sshd, killed when dropped. `config` is for clients, which know it by its name.
pub(crate) struct Sshd {
    folder: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) known_hosts: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) port: u16,
    child: Mutex<Child>,
}

fn make_key(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.unwrap().success());
}

impl Sshd {
    /// Whether one can be started here; says so if not.
    pub(crate) fn here(test: &str) -> bool {
        let found = Path::new("/usr/sbin/sshd").exists()
            && Command::new("ssh").arg("-V").output().is_ok_and(|out| out.status.success())
            && rustix::process::geteuid().is_root();
        if !found {
            println!(
                "SKIPPED: {test}: no sshd can be started here (openssh-server, openssh-client, and root)"
            );
        }
        found
    }

    /// Starts one in this folder, as the host of this name.
    pub(crate) fn start(folder: &Path, name: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        for key in ["host", "id", "second"] {
            make_key(&folder.join(key));
        }
        let keys = ["id.pub", "second.pub"].map(|key| fs::read_to_string(folder.join(key)).unwrap()).concat();
        fs::write(folder.join("authorized_keys"), keys).unwrap();
        let port = super::free();
        let at = |file: &str| folder.join(file).display().to_string();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\n\
             MaxStartups 100\nSubsystem sftp internal-sftp\n",
            at("host"),
            at("pid"),
            at("authorized_keys"),
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        let public = fs::read_to_string(folder.join("host.pub")).unwrap();
        let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
        fs::write(folder.join("known_hosts"), format!("[127.0.0.1]:{port} {public}\n{name} {public}\n"))
            .unwrap();
        fs::write(
            folder.join("ssh_config"),
            format!(
                "Host {name}\n HostName 127.0.0.1\n Port {port}\n User root\n HostKeyAlias {name}\n IdentityFile {}\n IdentitiesOnly yes\n \
                 UserKnownHostsFile {}\n",
                at("id"),
                at("known_hosts"),
            ),
        )
        .unwrap();
        let sshd = Self {
            config: folder.join("ssh_config"),
            known_hosts: folder.join("known_hosts"),
            key: folder.join("id"),
            folder: folder.to_owned(),
            port,
            child: Mutex::new(Self::spawn(folder)),
        };
        sshd.wait();
        sshd
    }

    fn spawn(folder: &Path) -> Child {
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(folder.join("sshd_config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn wait(&self) {
        until("sshd answers", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub(crate) fn second_key(&self) -> PathBuf {
        self.folder.join("second")
    }

    /// Ends it; connections that are there stay.
    pub(crate) fn stop(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Ends it together with all of its connections, as a machine that loses its network does.
    pub(crate) fn cut(&self) {
        let own = self.child.lock().unwrap().id().to_string();
        let _ = Command::new("pkill").args(["-KILL", "-P", &own]).status();
        self.stop();
    }

    /// Starts it again.
    pub(crate) fn again(&self) {
        *self.child.lock().unwrap() = Self::spawn(&self.folder);
        self.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}
