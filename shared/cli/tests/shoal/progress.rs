//! What is said of what takes long: on a terminal, and nowhere else.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::program::text;
use crate::terminal::terminal;

/// Longer than what is shown nothing of.
const LONG: Duration = Duration::from_millis(5_500);

/// An address where somebody takes requests and answers none, for a while from the first on.
fn slow() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut open, mut begun) = (Vec::new(), None::<Instant>);
        listener.set_nonblocking(true).unwrap();
        while begun.is_none_or(|begun| begun.elapsed() < LONG) {
            open.extend(listener.accept());
            if begun.is_none() && !open.is_empty() {
                begun = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    url
}

fn piped(store: &str, line: &str) -> Output {
    let line = format!("'{}' {line}", env!("CARGO_BIN_EXE_shoal"));
    Command::new("sh")
        .args(["-c", &line])
        .env("SHOAL_STORE", store)
        .env("SHOAL_AUTHOR", "ann")
        .output()
        .unwrap()
}

fn shown(store: &str, line: &str) -> Command {
    let line = format!("'{}' {line}", env!("CARGO_BIN_EXE_shoal"));
    let mut command = terminal(&line);
    command.env("SHOAL_STORE", store).env("SHOAL_AUTHOR", "ann").env("TERM", "xterm");
    command
}

fn seen(store: &str, line: &str) -> String {
    let run = shown(store, line).output().unwrap();
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// The same; does something once it shows this.
fn seen_then(store: &str, line: &str, says: &str, then: impl FnOnce()) -> String {
    let mut child = shown(store, line).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut said, mut some, mut then) = (Vec::new(), [0; 4096], Some(then));
    loop {
        let read = out.read(&mut some).unwrap();
        if read == 0 {
            break;
        }
        said.extend_from_slice(&some[..read]);
        if String::from_utf8_lossy(&said).contains(says)
            && let Some(then) = then.take()
        {
            then();
        }
    }
    child.wait().unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn what_waits_for_a_server_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(dir.path().join(name), content).unwrap();
        dir.path().join(name).display().to_string()
    };
    let docs = file("fleet.yaml", "host: web1.example.com\n");
    let inventory = file("inventory.json", r#"{"_meta": {"hostvars": {}}}"#);
    let mapping = file("mapping.yaml", "name: ansible\n");
    let apply = format!("apply -f {docs} -m x");
    let import = format!("import ansible {inventory} --mapping {mapping} -m x");
    let git = format!("export --git {}", dir.path().join("git").display());
    let all = [
        (apply.as_str(), "applying 1 document"),
        (&import, "importing"),
        ("export", "exporting"),
        (&git, "exporting"),
        ("wait", "waiting for the agents"),
        ("search true", "searching"),
    ];
    std::thread::scope(|scope| {
        for (line, says) in all {
            scope.spawn(move || {
                let run = piped(&slow(), line);
                let (out, error) = (text(&run.stdout), text(&run.stderr));
                assert!(
                    out.is_empty() && error.starts_with("error:") && !error.contains("(2s)"),
                    "{line}: {error}"
                );
            });
            scope.spawn(move || {
                let shown = seen(&slow(), line);
                assert!(shown.contains(says), "{line}: {shown}");
                // Of a machine that stalls, not each second is shown.
                assert!((2..=9).any(|n| shown.contains(&format!("({n}s)"))), "{line}: {shown}");
                // It is wiped before the error is printed.
                let error = shown.find("error:").unwrap();
                assert!(shown[..error].rfind(says) < shown[..error].rfind("\u{1b}["), "{line}: {shown:?}");
            });
        }
    });
}

#[test]
fn what_waits_for_a_file_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    assert!(piped(&store, "put web1.example.com -m x").status.success());
    let path = dir.path().join("copy.db");
    let copy = path.display().to_string();
    assert!(piped(&store, &format!("database backup {copy}")).status.success());
    // Quick ones say nothing.
    let quick = seen(&store, &format!("database verify {copy}"));
    assert!(!quick.contains("checking") && quick.contains("is sound"), "{quick}");
    let backup = format!("database backup {}", dir.path().join("again.db").display());
    for (store, line, says) in [
        (&store, format!("database verify {copy}"), "checking"),
        (&format!("sqlite:{copy}"), backup, "making a backup"),
    ] {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
        // However late it begins: it waits until it was seen to wait.
        let shown = seen_then(store, &line, says, || connection.execute_batch("COMMIT").unwrap());
        assert!(shown.contains(says) && !shown.contains("error"), "{line}: {shown}");
    }
}
