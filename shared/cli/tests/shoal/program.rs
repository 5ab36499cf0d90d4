//! The program itself, as people start it: files, exit codes, streams.

use std::process::{Command, Output};

pub(crate) fn shoal(store: &str, line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args(line)
        .env("SHOAL_STORE", store)
        .env("SHOAL_AUTHOR", "ann")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn what_one_process_writes_the_next_one_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    let made = shoal(&store, &["put", "web1.example.com", "address=192.0.2.1", "-m", "first"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(
        text(&made.stdout),
        "revision 1: 1 row by ann (from $SHOAL_AUTHOR)\nmade host web1.example.com\n"
    );
    let got = shoal(&store, &["get", "web1.example.com", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(value["document"]["address"], "192.0.2.1");
    assert!(!text(&got.stdout).contains('\u{1b}'), "no colours into a pipe");
    let missing = shoal(&store, &["get", "web2.example.com"]);
    assert_eq!((missing.status.code(), text(&missing.stdout)), (Some(1), ""));
    assert_eq!(
        text(&missing.stderr),
        "error: there is no host web2.example.com; `shoal get hosts` lists all\n"
    );
    shoal(&store, &["put", "web2.example.com", "-m", "second"]);
    let early = shoal(&store, &["get", "web2.example.com", "--revision", "1"]);
    let said = text(&early.stderr);
    assert!(said.contains("no host web2.example.com at revision 1; `shoal log web2.example.com`"), "{said}");
}

/// Who leaves out a domain makes another host, and is told before that is forgotten.
#[test]
fn a_new_host_that_may_be_another_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    assert!(shoal(&store, &["put", "web1.example.com", "-m", "x"]).status.success());
    let planned = shoal(&store, &["put", "web1", "a=1", "--plan"]);
    assert_eq!(planned.status.code(), Some(3));
    assert_eq!(text(&planned.stderr), "note: host web1 is new; there is web1.example.com already\n");
    for quiet in [&["put", "web2", "a=1", "--plan"][..], &["put", "web1", "a=1", "--new", "--plan"]] {
        assert_eq!(text(&shoal(&store, quiet).stderr), "", "{quiet:?}");
    }
}

/// A slip finds nobody, which is no fault: what may be meant is said beside it.
#[test]
fn a_field_that_nobody_has_is_told_where_nobody_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    assert!(
        shoal(&store, &["put", "web1.example.com", "site=ams", "rack-unit=7", "-m", "x"]).status.success()
    );
    for (line, notes) in [
        (
            "site == ams",
            &["note: no host has a field `ams`; if that is meant as text, it is quoted: \"ams\""][..],
        ),
        ("sitte == \"ams\"", &["note: no host has a field `sitte`"]),
        ("web1.example.com", &["note: no host has a field `web1`", "name.startsWith(\"web1.example.com\")"]),
        ("a == b", &["field `a`", "field `b`"]),
        // These are there, and nobody has that in them.
        ("site == \"rdu\" || host[\"rack-unit\"] == 8 || id == \"x\" || owner == \"y\"", &[]),
        // Somebody is found.
        ("site == \"ams\" || sitte == \"ams\"", &[]),
    ] {
        let found = shoal(&store, &["search", line]);
        assert!(found.status.success(), "{line}");
        let said = text(&found.stderr);
        assert!(notes.iter().all(|note| said.contains(note)), "{line}: {said}");
        assert_eq!(said.is_empty(), notes.is_empty(), "{line}: {said}");
    }
}

/// Runs it with its output into this file.
fn into(file: std::fs::File, store: &str, line: &[&str]) -> Output {
    let mut shoal = Command::new(env!("CARGO_BIN_EXE_shoal"));
    shoal.args(line).env("SHOAL_STORE", store).env("SHOAL_AUTHOR", "ann").stdout(file);
    shoal.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_result_that_was_not_printed_whole_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    assert!(shoal(&store, &["put", "web1", "-m", "m"]).status.success());
    for line in [&["get", "web1"][..], &["export"], &["log"], &["search", "true"], &["completions", "bash"]] {
        let run = into(std::fs::File::options().write(true).open("/dev/full").unwrap(), &store, line);
        assert_eq!(run.status.code(), Some(1), "{line:?}");
        let said = text(&run.stderr);
        assert!(said.contains("No space left") && said.contains("only a part"), "{line:?}: {said}");
    }
    // Whoever closed the pipe has read enough.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = into(std::os::fd::OwnedFd::from(writer).into(), &store, &["get", "web1"]);
    assert_eq!((run.status.code(), text(&run.stderr)), (Some(0), ""));
}

#[test]
fn stores_that_cannot_be_opened_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let store = format!("sqlite:{}", path.display());
    std::fs::write(&path, "This is not a database, but it is longer than the header of one. ".repeat(40))
        .unwrap();
    let wrong = shoal(&store, &["get"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = text(&wrong.stderr);
    assert!(said.contains("shoal.db") && said.lines().count() == 1, "{said}");
    let nowhere = shoal("sqlite:/nonexistent/dir/shoal.db", &["get"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("/nonexistent/dir"), "{}", text(&nowhere.stderr));
    let nowhere = shoal("sqlite:/nonexistent/dir/shoal.db", &["put", "web1", "-m", "x"]);
    let said = text(&nowhere.stderr);
    assert!(said.contains("mkdir -p '/nonexistent/dir'") && !said.contains("did not answer"), "{said}");
    let folder = shoal(&format!("sqlite:{}", dir.path().display()), &["get"]);
    assert_eq!(folder.status.code(), Some(1));
    assert!(text(&folder.stderr).contains("is a folder"), "{}", text(&folder.stderr));
    for url in ["https://hostdb.example", "etcd://h1", "nonsense"] {
        let refused = shoal(url, &["get"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains(url), "{}", text(&refused.stderr));
    }
    assert_eq!(std::fs::read(&path).unwrap()[..4], *b"This", "the file was left alone");
}

#[test]
fn a_mistyped_path_is_told_and_not_filled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shaol.db");
    let store = format!("sqlite:{}", path.display());
    for line in [&["get"][..], &["log"], &["rm", "web1.example.com", "-m", "x"], &["wait"]] {
        let run = shoal(&store, line);
        assert_eq!(run.status.code(), Some(1), "{line:?}");
        assert!(text(&run.stderr).contains("there is no database at"), "{}", text(&run.stderr));
        assert!(!path.exists(), "{line:?} made it");
    }
}

#[test]
fn a_plan_makes_no_database() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let docs = file("fleet.yaml", "host: web1.example.com\n");
    let inventory = file("inventory.json", r#"{"_meta": {"hostvars": {}}}"#);
    let mapping = file("mapping.yaml", "{}\n");
    let zone = file("example.com", "");
    let path = dir.path().join("shoal.db");
    let store = format!("sqlite:{}", path.display());
    for line in [
        &["put", "web1.example.com", "a=1"][..],
        &["put", "-f", &docs],
        &["apply", "-f", &docs],
        &["import", "ansible", &inventory, "--mapping", &mapping],
        &["import", "zone", &zone],
        &["rm", "web1.example.com"],
        &["mv", "web1.example.com", "web2.example.com"],
        &["tag", "dns/example.com", "+web1.example.com"],
        &["rollback", "--all", "--to", "1"],
    ] {
        let run = shoal(&store, &[line, &["--plan"]].concat());
        assert_eq!(run.status.code(), Some(1), "{line:?}: {}", text(&run.stdout));
        assert!(text(&run.stderr).contains("there is no database at"), "{line:?}: {}", text(&run.stderr));
        assert!(!path.exists(), "{line:?} made it");
    }
}

#[test]
fn a_corrupt_database_is_named_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let store = format!("sqlite:{}", path.display());
    for n in 0..20 {
        let name = format!("web{n}.example.com");
        let made = shoal(&store, &["put", &name, "note=some text that takes room", "-m", "x"]);
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    let mut octets = std::fs::read(&path).unwrap();
    // Behind the header, so that it still looks like a database.
    let from = 4096.min(octets.len() / 2);
    octets[from..].fill(0xA5);
    std::fs::write(&path, &octets).unwrap();
    let read = shoal(&store, &["get"]);
    assert_eq!(read.status.code(), Some(1), "{}", text(&read.stdout));
    let said = text(&read.stderr);
    assert!(said.contains("shoal.db") && said.contains("damaged"), "{said}");
    assert!(said.contains("`shoal database restore BACKUP --replace`"), "{said}");
    // Cut to nothing, it is no database without hosts.
    std::fs::write(&path, b"").unwrap();
    let read = shoal(&store, &["get"]);
    assert_eq!(read.status.code(), Some(1), "{}", text(&read.stdout));
    assert!(text(&read.stderr).contains("is empty, not even a database"), "{}", text(&read.stderr));
}

/// Damage that a question does not meet is found by who writes, and by who takes everything away.
#[test]
fn who_asks_reads_what_is_asked_for_and_who_writes_checks_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let store = format!("sqlite:{}", path.display());
    let made = shoal(&store, &["put", "web1.example.com", "note=x", "-m", "x"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let connection = rusqlite::Connection::open(&path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'claims'";
    let page = connection.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap() as usize;
    drop(connection);
    let mut octets = std::fs::read(&path).unwrap();
    octets[(page - 1) * 4096..page * 4096].fill(0);
    std::fs::write(&path, octets).unwrap();
    let asked = shoal(&store, &["inventory", "--list"]);
    assert!(
        asked.status.success() && text(&asked.stdout).contains("web1.example.com"),
        "{}",
        text(&asked.stderr)
    );
    for line in [&["export"][..], &["rm", "web1.example.com", "-m", "x"]] {
        let refused = shoal(&store, line);
        assert_eq!(refused.status.code(), Some(1), "{line:?}: {}", text(&refused.stdout));
        assert!(text(&refused.stderr).contains("is damaged"), "{line:?}: {}", text(&refused.stderr));
    }
}

/// In a file system of its own, so small that it is soon full; nothing that was acknowledged is lost.
#[test]
fn a_full_disk_is_said_and_nothing_is_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let list: String = (0..900)
        .map(|n| format!("host: h{n}.example.com\ndocument: {{note: {}}}\n---\n", "x".repeat(900)))
        .collect();
    std::fs::write(dir.path().join("big.yaml"), list).unwrap();
    let script = "\
mkdir disk && mount -t tmpfs -o size=600k none disk || exit 77
shoal put web1.example.com a=1 -m first || exit 1
shoal apply -f big.yaml -m big 2> refused && exit 2
cat refused >&2
shoal get hosts
dd if=/dev/zero of=disk/fill bs=1k 2> /dev/null
shoal put web2.example.com a=1 -m second 2> refused && exit 3
cat refused >&2
shoal get hosts 2> refused && exit 4
cat refused >&2
rm disk/fill
mkdir small && mount -t tmpfs -o size=16k none small || exit 77
shoal database backup small/copy.db 2> refused && exit 5
cat refused >&2
shoal put web3.example.com a=1 -m third && shoal get hosts
";
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_shoal")).parent().unwrap();
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .env("SHOAL_STORE", format!("sqlite:{}", dir.path().join("disk/shoal.db").display()))
        .env("SHOAL_AUTHOR", "ann")
        .current_dir(dir.path())
        .output();
    let run = match run {
        Ok(run) if run.status.code() != Some(77) && !text(&run.stderr).contains("unshare") => run,
        _ => {
            return println!(
                "SKIPPED: a_full_disk_is_said_and_nothing_is_half_done: no file system of its own"
            );
        }
    };
    let (out, error) = (text(&run.stdout), text(&run.stderr));
    assert!(run.status.success(), "{out}\n{error}");
    assert_eq!(error.matches("no room left in").count(), 4, "{error}");
    assert_eq!(error.matches("free some space").count(), 4, "{error}");
    assert_eq!(error.matches("without it nothing can be read either").count(), 2, "{error}");
    assert!(error.contains(&format!("no room left in {}", dir.path().join("small").display())), "{error}");
    assert!(error.contains("disk/shoal.db"), "{error}");
    assert!(out.contains("web1.example.com") && out.contains("web3.example.com"), "{out}");
    assert!(!out.contains("h1.example.com") && !out.contains("web2"), "{out}");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(dir.path().join("probe"), "").is_ok() {
        println!("SKIPPED: a_place_that_cannot_be_written_is_named: this user may write anywhere");
        return;
    }
    let made = shoal(&store, &["put", "web1.example.com", "a=1", "-m", "x"]);
    assert_eq!(made.status.code(), Some(1));
    assert!(text(&made.stderr).contains("shoal.db"), "{}", text(&made.stderr));
}

#[test]
fn help_teaches() {
    let help = shoal("memory:", &["--help"]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("shoal tag dns/example.com +web4"), "{}", text(&help.stdout));
    let wrong = shoal("memory:", &["statu"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("status"), "{}", text(&wrong.stderr));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    assert!(shoal(&store, &["put", "web1.example.com", "a=1", "-m", "x"]).status.success());
    let script = format!("'{}' get hosts | true", env!("CARGO_BIN_EXE_shoal"));
    let run = Command::new("sh").args(["-c", &script]).env("SHOAL_STORE", store).output().unwrap();
    assert_eq!(text(&run.stderr), "");
}

#[test]
fn serve_runs_the_server_until_it_is_told_to_stop() {
    use std::io::{BufRead, BufReader, Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args(["--store", &store, "serve", "--listen", "127.0.0.1:0", "--access", "off"])
        .env("RUST_LOG", "info")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = log
        .by_ref()
        .find_map(|line| {
            Some(line.unwrap().split_once("at=http://")?.1.split_whitespace().next()?.to_owned())
        })
        .unwrap();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Beside the server, the command opens the same file.
    assert!(shoal(&store, &["put", "web1.example.com", "a=1", "-m", "x"]).status.success());
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(log.any(|line| line.unwrap().contains("stopped")));
}

#[test]
fn a_backup_is_made_and_restored_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    let copy = dir.path().join("copy.db").display().to_string();
    let missing = shoal(&store, &["database", "backup", &copy]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("there is no database at"), "{}", text(&missing.stderr));
    assert!(shoal(&store, &["put", "web1.example.com", "-m", "x"]).status.success());
    let made = shoal(&store, &["database", "backup", &copy, "-o", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(value["revision"], 1, "{}", text(&made.stderr));
    assert!(shoal(&store, &["put", "web2.example.com", "-m", "x"]).status.success());
    let refused = shoal(&store, &["database", "restore", &copy]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--replace"), "{}", text(&refused.stderr));
    let restored = shoal(&store, &["database", "restore", &copy, "--replace"]);
    let said = text(&restored.stdout);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert!(said.contains("up to revision 2") && said.contains("shoal approve"), "{said}");
    assert_eq!(shoal(&store, &["get", "web2.example.com"]).status.code(), Some(1));
    let remote = shoal("http://127.0.0.1:1", &["database", "backup", &copy]);
    assert_eq!(remote.status.code(), Some(2), "{}", text(&remote.stderr));
}

#[test]
fn a_damaged_database_is_told_by_name_and_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let store = format!("sqlite:{}", path.display());
    for n in 0..40 {
        let line = ["put", &format!("web{n}.example.com"), &format!("note=number {n}."), "-m", "x"];
        assert!(shoal(&store, &line).status.success());
    }
    let copy = dir.path().join("copy.db").display().to_string();
    assert!(shoal(&store, &["database", "backup", &copy]).status.success());
    for line in [&["database", "verify"][..], &["database", "verify", &copy]] {
        let sound = shoal(&store, line);
        assert!(sound.status.success(), "{}", text(&sound.stderr));
        assert!(
            text(&sound.stdout).contains("is sound as of revision 40: 40 commits"),
            "{}",
            text(&sound.stdout)
        );
    }
    // A bit of one document tips over: pages stay whole, and only who reads the document sees it.
    let mut octets = std::fs::read(&copy).unwrap();
    let quote = b"\"note\":\"number 7.";
    // Where pages were split, they hold it twice, once as what is free.
    for at in 0..octets.len() - quote.len() {
        if octets[at..].starts_with(quote) {
            octets[at] = b'?';
        }
    }
    std::fs::write(&copy, octets).unwrap();
    let bad = shoal(&store, &["database", "verify", &copy]);
    assert_eq!(bad.status.code(), Some(1), "{}", text(&bad.stdout));
    let (out, error) = (text(&bad.stdout), text(&bad.stderr));
    assert!(
        out.contains("hosts/web7.example.com at revision 8") && out.contains("its value cannot be read"),
        "{out}"
    );
    assert!(
        error.contains("is damaged in 1 place") && error.contains("shoal database restore BACKUP --replace"),
        "{error}"
    );
    let json = shoal(&store, &["database", "verify", &copy, "-o", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&value["sound"], &value["damage_total"]), (&false.into(), &1.into()));
    let remote = shoal("http://127.0.0.1:1", &["database", "verify"]);
    assert_eq!(remote.status.code(), Some(2), "{}", text(&remote.stderr));
}

#[test]
fn the_examples_of_the_operations_page_run() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let text = std::fs::read_to_string(page).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_shoal")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let blocks: Vec<&str> =
        text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```\n").next()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        let mut script = "set -eu\n: > out\nexec >>out\n".to_owned();
        for line in block.lines() {
            match line.strip_prefix("# prints: ") {
                Some(text) => script.push_str(&format!(
                    "grep -qF -e '{text}' out || {{ echo 'expected: {text}' >&2; cat out >&2; exit 99; }}\n: > out\n"
                )),
                None => script.push_str(&format!("{line}\n")),
            }
        }
        let run = Command::new("sh")
            .args(["-c", &script])
            .env("PATH", &path)
            .env("SHOAL_STORE", format!("sqlite:{}", dir.path().join("shoal.db").display()))
            .env("SHOAL_AUTHOR", "ann")
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(run.status.success(), "{block}\n{}", text_of(&run.stderr));
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
