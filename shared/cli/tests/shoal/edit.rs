//! `shoal edit` as people use it: in a terminal, with an editor that is a script.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::program::{shoal, text};
use crate::terminal::terminal;

struct Desk {
    dir: tempfile::TempDir,
    store: String,
}

impl Desk {
    /// A host and a tag that an agent's schema binds.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
        let desk = Self { dir, store };
        let docs = "\
host: web1.example.com
document: {zulu: 1, alpha: 2}
---
host: web2.example.com
---
tag: dns/example.com
document: {ttl: 300, note: x}
members: [web1.example.com]
---
edit: write
key: schemas/dns
value: {tag: {type: object, properties: {ttl: {type: integer}}}}
";
        std::fs::write(desk.path("fleet.yaml"), docs).unwrap();
        desk.ok(&["apply", "-f", desk.path("fleet.yaml").to_str().unwrap(), "-m", "first"]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ok(&self, line: &[&str]) -> String {
        let run = shoal(&self.store, line);
        assert!(run.status.success(), "{line:?}: {}", text(&run.stderr));
        text(&run.stdout).to_owned()
    }

    /// Edits with this script as the editor, `$1` being the file; what the terminal showed, and the exit code.
    fn edit(&self, key: &str, script: &str) -> (String, i32) {
        let editor = self.path("editor.sh");
        let look = format!("cat \"$1\" >> {}", self.path("seen").display());
        std::fs::write(&editor, format!("#!/bin/sh\n{look}\n{script}\n")).unwrap();
        std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
        let tmp = self.path("tmp");
        std::fs::create_dir_all(&tmp).unwrap();
        let line = format!("'{}' edit {key} -m 'by hand'", env!("CARGO_BIN_EXE_shoal"));
        let mut command = terminal(&line);
        command
            .env("SHOAL_STORE", &self.store)
            .env("SHOAL_AUTHOR", "ann")
            .env_remove("VISUAL")
            .env("SHOAL", env!("CARGO_BIN_EXE_shoal"))
            .env("EDITOR", &editor)
            .env("TMPDIR", &tmp)
            .current_dir(self.dir.path());
        let run = command.output().unwrap();
        (text(&run.stdout).replace('\r', ""), run.status.code().unwrap())
    }

    /// What the editor was shown, all times it was opened.
    fn seen(&self) -> String {
        std::fs::read_to_string(self.path("seen")).unwrap_or_default()
    }

    /// The texts that were kept.
    fn kept(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.path("tmp")).unwrap();
        files.map(|entry| entry.unwrap().path()).collect()
    }

    fn revision(&self) -> u64 {
        let log: serde_json::Value =
            serde_json::from_str(&self.ok(&["log", "-n", "1", "-o", "json"])).unwrap();
        log[0]["revision"].as_u64().unwrap()
    }
}

#[test]
fn what_is_saved_is_committed_in_the_order_it_was_written() {
    let desk = Desk::new();
    let (said, code) = desk.edit("web1.example.com", "sed -i 's/zulu: 1/zulu: 7/' \"$1\"");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("revision 2: 1 row by ann"), "{said}");
    // What the editor got is what `get` prints, under one line of ours.
    let seen = desk.seen();
    let shown = desk.ok(&["get", "web1.example.com", "--revision", "1"]);
    assert!(seen.starts_with("#: host web1.example.com: save"), "{seen}");
    assert_eq!(seen.split_once('\n').unwrap().1, shown);
    let now = desk.ok(&["get", "web1.example.com"]);
    assert!(now.contains("zulu: 7\n  alpha: 2"), "{now}");
    assert!(desk.ok(&["show", "2"]).contains("by hand"));
    assert_eq!(desk.kept(), Vec::<PathBuf>::new());
    let (said, code) = desk.edit("dns/example.com", "sed -i 's/- web1/- web2/' \"$1\"");
    assert_eq!(code, 0, "{said}");
    assert!(desk.ok(&["members", "dns/example.com"]).contains("web2.example.com"));
    let (said, code) = desk.edit("schemas/dns", "sed -i 's/integer/number/' \"$1\"");
    assert_eq!(code, 0, "{said}");
    assert!(desk.ok(&["get", "schemas/dns"]).contains("number"));
}

#[test]
fn unchanged_emptied_and_failed_write_nothing() {
    let desk = Desk::new();
    for (script, code, says) in [
        ("true", 0, "nothing was changed"),
        ("sed -i 's/^document:/# a remark\\n&/' \"$1\"", 0, "nothing was changed"),
        (": > \"$1\"", 0, "the text is empty"),
        ("sed -i 's/zulu: 1/zulu: 9/' \"$1\"; exit 3", 1, "ended with 3"),
        ("kill -TERM $$", 1, "ended with 143"),
    ] {
        let (said, got) = desk.edit("web1.example.com", script);
        assert_eq!(got, code, "{script}: {said}");
        assert!(said.contains(says), "{script}: {said}");
        assert_eq!(desk.revision(), 1, "{script}");
    }
    // Only where something was typed is it kept, and the path is named.
    let kept = desk.kept();
    assert_eq!(kept.len(), 1);
    assert!(std::fs::read_to_string(&kept[0]).unwrap().contains("zulu: 9"));
}

#[test]
fn what_is_refused_comes_back_with_the_reason_and_the_text() {
    let desk = Desk::new();
    // First YAML that is none, then a document that breaks the schema, then a good one.
    let script = "\
n=$(cat n 2>/dev/null || echo 0); n=$((n+1)); echo $n > n
case $n in
1) sed -i 's/ttl: 300/ttl: [/; s/note: x/note: mine/' \"$1\" ;;
2) sed -i 's/ttl: \\[/ttl: much/' \"$1\" ;;
3) sed -i 's/ttl: much/ttl: 60/' \"$1\" ;;
esac";
    let (said, code) = desk.edit("dns/example.com", script);
    assert_eq!(code, 0, "{said}");
    let seen = desk.seen();
    assert!(seen.contains("#: Nothing was written: this is not YAML"), "{seen}");
    assert!(
        seen.contains("#: Nothing was written: the document of dns/example.com breaks the schema of dns"),
        "{seen}"
    );
    let now = desk.ok(&["get", "dns/example.com"]);
    assert!(now.contains("ttl: 60") && now.contains("note: mine"), "{now}");
    assert_eq!(desk.revision(), 2);
    // Who leaves it as it was refused gives up, and keeps the text.
    let (said, code) = desk.edit("dns/example.com", "sed -i 's/ttl: 60/ttl: much/' \"$1\"");
    assert_eq!(code, 2, "{said}");
    let kept = desk.kept();
    let named = kept[0].display().to_string();
    assert!(said.replace('\n', "").contains(&named), "{said}");
    assert_eq!(desk.revision(), 2);
}

#[test]
fn what_others_wrote_meanwhile_is_merged_and_nothing_is_lost() {
    let desk = Desk::new();
    let script = "\
n=$(cat n 2>/dev/null || echo 0); n=$((n+1)); echo $n > n
if [ $n = 1 ]; then
  SHOAL_AUTHOR=bob \"$SHOAL\" put web1.example.com zulu=5 beta=1 -m 'bob was faster' > /dev/null
  sed -i 's/zulu: 1/zulu: 7/; s/alpha: 2/alpha: 3/' \"$1\"
fi";
    let (said, code) = desk.edit("web1.example.com", script);
    assert_eq!(code, 0, "{said}");
    let seen = desk.seen();
    assert!(
        seen.contains("#: Nothing was written yet: revision 2 (bob was faster by bob) changed host"),
        "{seen}"
    );
    assert!(seen.contains("#:   document.zulu: yours 7, theirs 5"), "{seen}");
    let now = desk.ok(&["get", "web1.example.com"]);
    assert!(["zulu: 7", "alpha: 3", "beta: 1"].iter().all(|one| now.contains(one)), "{now}");
    let kept = desk.kept();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(said.replace('\n', "").contains(kept[0].to_str().unwrap()), "{said}");
    let mine = std::fs::read_to_string(&kept[0]).unwrap();
    assert!(mine.contains("zulu: 7") && !mine.contains("beta"), "{mine}");
}

#[test]
fn what_was_deleted_meanwhile_is_said_and_the_text_is_kept() {
    let desk = Desk::new();
    let script = "\"$SHOAL\" rm web2.example.com -m gone > /dev/null\nsed -i 's/^document:.*/document: {a: 1}/' \"$1\"";
    let (said, code) = desk.edit("web2.example.com", script);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("was deleted in revision 2"), "{said}");
    let kept = desk.kept();
    assert!(kept.iter().any(|path: &PathBuf| has(path, "a: 1")), "{kept:?}");
}

fn has(path: &Path, what: &str) -> bool {
    std::fs::read_to_string(path).unwrap().contains(what)
}

#[test]
fn without_a_terminal_or_a_reason_nothing_is_opened() {
    let desk = Desk::new();
    let run = shoal(&desk.store, &["edit", "web1.example.com", "-m", "x"]);
    assert_eq!(run.status.code(), Some(2));
    let said = text(&run.stderr);
    assert!(said.contains("there is no terminal") && said.contains("shoal put -f FILE"), "{said}");
    let (line, marker) =
        (format!("'{}' edit web1.example.com", env!("CARGO_BIN_EXE_shoal")), desk.path("opened"));
    let run = terminal(&line)
        .env("SHOAL_STORE", &desk.store)
        .env("SHOAL_AUTHOR", "ann")
        .env("EDITOR", format!("touch {}; true", marker.display()))
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2), "{}", text(&run.stdout));
    assert!(text(&run.stdout).contains("-m 'TEXT'") && !marker.exists(), "{}", text(&run.stdout));
}
