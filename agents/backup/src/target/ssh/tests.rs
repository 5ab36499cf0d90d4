//! Which hosts, how they are spoken to, and what scripts do when nobody listens any more.
//! The scripts run in a shell of this machine.

use super::*;

fn ssh(hosts: &[&str]) -> Ssh {
    serde_json::from_value(serde_json::json!({"hosts": hosts, "known_hosts": "/etc/shoal/known hosts"}))
        .unwrap()
}

#[test]
fn which_hosts_and_what_cannot_be_said_otherwise() {
    let host: HostName = "web1.example.com".parse().unwrap();
    for (hosts, reached) in
        [(["*.example.com"], true), (["*"], true), (["web1.example.com"], true), (["*.example.org"], false)]
    {
        assert_eq!(ssh(&hosts).reaches(&host), reached, "{hosts:?}");
        ssh(&hosts).check().unwrap();
    }
    assert!(ssh(&["*example.com"]).check().is_err());
    let command = Over::new(&ssh(&["*"]), &host).command().join(" ");
    for option in [
        "-F none",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=\"/etc/shoal/known hosts\"",
        "-- web1.example.com 'sh'",
    ] {
        assert!(command.contains(option), "{command}");
    }
}

#[test]
fn words_are_words_in_a_shell() {
    for odd in ["a b", "$(reboot)", "it's", "`x`", "a\"b", "\\", "*", "", "-x", "ä;#"] {
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", quote(odd))])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), odd);
    }
}

/// Another machine that is this one, with its state in this folder and this for restic.
fn near(folder: &std::path::Path, restic: &str) -> Over {
    let mut ssh = ssh(&["*"]);
    ssh.state = folder.to_str().unwrap().parse().ok();
    ssh.restic = ["sh", "-c", restic].map(str::to_owned).to_vec();
    Over::new(&ssh, &"web1.example.com".parse().unwrap())
}

/// Runs a script as sshd does, and hangs up once this is there.
fn hang_up_at(script: &str, there: &std::path::Path) -> std::process::Output {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    until(|| there.exists());
    drop(input);
    child.wait_with_output().unwrap()
}

/// Runs a script, and listens to its end.
fn run(script: &str) -> std::process::Output {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut command = Command::new("sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    let mut ended = None;
    until(|| {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    drop(input);
    child.wait_with_output().unwrap()
}

fn until(mut is: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(90), "it does not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn dumps_do_not_outlive_a_lost_connection() {
    let dir = tempfile::tempdir().unwrap();
    let begun = dir.path().join("begun");
    // A shell in the background takes no interrupt: it ends by itself.
    let restic = format!("touch {}; sleep 2", begun.display());
    let over = near(dir.path(), &restic);
    let spool = dir.path().join("hosts/web1.example.com/spool/nightly@main");
    std::fs::create_dir_all(&spool).unwrap();
    let dump = spool.join("sql.koji");
    std::fs::write(&dump, "secret").unwrap();
    let args = vec!["backup", "--", "/etc", dump.to_str().unwrap()];
    let call = Call { password: "p", url: "u", environment: &[], args };
    hang_up_at(&over.restic(&call).unwrap(), &begun);
    assert!(!spool.exists());
    assert!(spool.parent().unwrap().exists(), "nothing else is removed");
    assert_eq!(over.of_the_run(&["backup", "--", "/etc"]), None);
    let test = format!("{}/test/nightly@main", over.folder());
    assert_eq!(over.of_the_run(&["restore", "1", "--target", &test]), Some(test.clone()));
    assert_eq!(over.of_the_run(&["backup", "--", &test]), None);
    let all = format!("{}/test/", over.folder());
    assert_eq!(over.of_the_run(&["restore", "1", "--target", &all]), None);
}

/// A dump that would go on for minutes, with a child of its own.
#[test]
fn a_script_and_what_it_called_end_with_the_connection_and_hold_the_lock_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let over = near(dir.path(), "true");
    let spool = at("hosts/web1.example.com/spool/nightly@main");
    std::fs::create_dir_all(&spool).unwrap();
    let begun = at("begun");
    let body = format!(
        "sh -c 'sleep 120 & echo $! >{0}; mv {0} {1}; wait' && echo more",
        at("child").display(),
        begun.display()
    );
    let leaves = spool.to_str();
    let script = over.script(&body, Way::Alone { leaves });
    let locked = || {
        let lock = std::fs::File::open(at("hosts/web1.example.com/lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
    };
    let ended = std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            until(|| begun.exists());
            let seen = (locked(), run(&over.script("echo second", Way::Alone { leaves: None })));
            std::fs::write(at("go"), "").unwrap();
            seen
        });
        let first = hang_up_at(&script, &at("go"));
        (first, ended.join().unwrap())
    });
    let (first, (was_locked, second)) = ended;
    assert_eq!((first.status.code(), first.stdout.as_slice()), (Some(143), &b""[..]), "{first:?}");
    assert!(was_locked && second.status.code() == Some(BUSY), "{second:?}");
    let child = std::fs::read_to_string(&begun).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "it goes on: {stat}");
    assert!(!spool.exists(), "half a dump stays");
    assert!(!locked());
    // One that had to be killed removes nothing itself.
    std::fs::create_dir_all(&spool).unwrap();
    let ended = run(&over.script("kill -s KILL $$", Way::Alone { leaves }));
    assert!(ended.status.code() == Some(137) && !spool.exists(), "{ended:?}");
    // What comes to its end says what it says, with its own code; large ones too.
    let large = format!("{}echo done; exit 5", "# a line\n".repeat(50_000));
    let ended = run(&over.script(&large, Way::Beside { leaves: None }));
    assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(5), &b"done\n"[..]), "{ended:?}");
}

#[test]
fn a_program_that_is_missing_is_no_other_run() {
    let script = format!("{}exit 0\n", needs("no-such-program"));
    let ended = run(&script);
    assert_eq!(ended.status.code(), Some(NO_PROGRAM));
    let dir = tempfile::tempdir().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    let fault =
        near(dir.path(), "true").judge("back up", Ended { code: Some(NO_PROGRAM), said }).unwrap_err();
    assert!(fault.to_string().contains("there is no no-such-program"), "{fault}");
}
