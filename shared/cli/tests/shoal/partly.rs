//! The command through a server that asks, as somebody whose rules cover only a part of the database.

use std::process::{Command, Output};

use crate::program::{shoal, text};
use crate::served::Served;
use crate::terminal::terminal;

/// A server on which carl writes `lb/` and hosts, but for what he may not even read: `lb/secret` and all of `vault/`.
struct Partly {
    served: Served,
    file: String,
}

impl Partly {
    fn new() -> Self {
        let served = Served::asking();
        let file = format!("sqlite:{}", served.dir.path().join("shoal.db").display());
        let this = Self { served, file };
        for line in [
            "put web1.example.com address=192.0.2.1 -m x",
            "put web2.example.com address=192.0.2.2 -m x",
            "put lb/example.com port=80 -m x",
            "put lb/secret key=planted -m x",
            "put vault/safe key=planted -m x",
            "put puppet/base classes=[ntp] -m x",
            "tag puppet/base +web1.example.com -m x",
            "tag lb/example.com +web1.example.com -m x",
            "acl set lb/ carl=rw *=ro -m x",
            "acl set hosts/ carl=rw *=ro -m x",
            "acl set lb/secret *=none -m x",
            "acl set vault/ *=none -m x",
        ] {
            let done = shoal(&this.file, &line.split(' ').collect::<Vec<_>>());
            assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        }
        this.token("carl", &["--owner", "carl"]);
        this
    }

    /// Makes a token, in a file of that name.
    fn token(&self, name: &str, of: &[&str]) {
        let token = shoal(&self.file, &[&["token", "create", "-m", "x"], of].concat());
        let token = text(&token.stdout).lines().next().unwrap().to_owned();
        let path = self.served.file(name, &token);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn carl(&self, line: &[&str]) -> Output {
        self.with("carl", line)
    }

    /// What the command does with the token in that file.
    fn with(&self, token: &str, line: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_shoal"))
            .args(["--store", &self.served.url, "--token-file"])
            .arg(self.served.dir.path().join(token))
            .args(line)
            .env("SHOAL_AUTHOR", "somebody")
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    }

    fn ok(&self, line: &[&str]) -> String {
        let run = self.carl(line);
        assert!(run.status.success(), "{line:?}: {}", text(&run.stderr));
        text(&run.stdout).to_owned()
    }

    /// What is refused, by which rule, and without what is kept.
    fn no(&self, line: &[&str], rule: &str) {
        let run = self.carl(line);
        let said = text(&run.stdout).to_owned() + text(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{line:?}: {said}");
        assert!(said.contains(rule) && !said.contains("planted"), "{line:?}: {said}");
    }
}

#[test]
fn what_one_may_write_one_writes_without_reading_everything() {
    let p = Partly::new();
    p.ok(&["put", "web2.example.com", "rack=r7", "-m", "mine"]);
    assert!(p.ok(&["get", "web2.example.com"]).contains("r7"));
    p.ok(&["put", "lb/example.com", "port=81", "-m", "mine"]);
    p.ok(&["put", "lb/new", "port=82", "-m", "mine"]);
    // Short names are found, too.
    assert!(p.ok(&["tag", "lb/example.com", "+web2", "-m", "mine"]).contains("web2 = web2.example.com"));
    assert!(p.ok(&["tag", "lb/example.com", "-web1", "-m", "mine"]).contains("web1 = web1.example.com"));
    let tag = p.ok(&["get", "lb/example.com"]);
    assert!(tag.contains("web2.example.com") && !tag.contains("web1.example.com"), "{tag}");
    p.no(&["tag", "lb/example.com", "+nobody.example.com", "-m", "x"], "nobody.example.com");
    for line in [
        &["put", "lb/secret", "key=guess", "-m", "x"][..],
        &["tag", "lb/secret", "+web1.example.com", "-m", "x"],
    ] {
        p.no(line, "access/rules/lb/secret");
    }
    p.no(&["put", "vault/safe", "key=guess", "-m", "x"], "access/rules/vault");
    // What would be written is worked out here, and says why it is not.
    p.no(&["put", "lb/example.com", "port=83", "--plan", "-m", "x"], "access/rules/");
}

/// In the editor, too: what is refused comes back with the reason, and what others write meanwhile is not taken back.
#[test]
fn what_one_may_write_one_edits() {
    let p = Partly::new();
    let editor = p.served.file(
        "editor.sh",
        "#!/bin/sh\n\
         if grep -q 'Nothing was written' \"$1\"; then cat \"$1\" >> \"$LOOK\"; sed -i 's/^  port:.*/  port: 90/' \"$1\"; exit; fi\n\
         \"$SHOAL\" --store \"$FILE\" put lb/example.com note=others -m meanwhile > /dev/null\n\
         sed -i 's/^  port:.*/  port: 85/' \"$1\"\n",
    );
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let edit = |key: &str| {
        let (dir, shoal) = (p.served.dir.path(), env!("CARGO_BIN_EXE_shoal"));
        let token = dir.join("carl").display().to_string();
        let line = format!("'{shoal}' --store {} --token-file {token} edit {key} -m 'by hand'", p.served.url);
        let mut command = terminal(&line);
        command
            .env("SHOAL_AUTHOR", "somebody")
            .env_remove("VISUAL")
            .env("EDITOR", &editor)
            .env("TMPDIR", dir);
        command.env("LOOK", dir.join("look")).env("SHOAL", shoal).env("FILE", &p.file);
        let run = command.output().unwrap();
        (text(&run.stdout).replace('\r', ""), run.status.code().unwrap())
    };
    let (said, code) = edit("lb/example.com");
    assert_eq!(code, 0, "{said}");
    let look = std::fs::read_to_string(p.served.dir.path().join("look")).unwrap();
    assert!(look.contains("changed tag lb/example.com while you edited it"), "{look}");
    let tag = p.ok(&["get", "lb/example.com"]);
    assert!(tag.contains("port: 90") && tag.contains("note: others"), "{tag}");
    let (said, code) = edit("lb/secret");
    assert!(code == 1 && said.contains("access/rules/lb/secret") && !said.contains("planted"), "{said}");
}

/// Many at once set different fields of one host; none takes back another's.
#[test]
fn fields_that_are_set_at_once_are_all_there() {
    let p = Partly::new();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let p = &p;
            scope.spawn(move || p.ok(&["put", "web1.example.com", &format!("f{n}={n}"), "-m", "mine"]));
        }
    });
    let host = p.ok(&["get", "web1.example.com"]);
    assert!((0..4).all(|n| host.contains(&format!("f{n}: {n}"))), "{host}");
}

/// What is worked out from much is answered where all of that may be read, and refused by name where it is not.
#[test]
fn what_is_answered_is_whole() {
    let p = Partly::new();
    let list = p.ok(&["inventory", "--list", "--namespace", "puppet"]);
    assert!(list.contains("web1.example.com") && list.contains("\"base\""), "{list}");
    assert!(p.ok(&["inventory", "--host", "web1.example.com"]).contains("192.0.2.1"));
    p.no(&["inventory", "--list", "--namespace", "lb"], "access/rules/lb/secret");
    p.no(&["inventory", "--list", "--namespace", "vault"], "access/rules/vault");
    // A node's answer lists all that it is in.
    let cache = p.served.dir.path().join("cache").display().to_string();
    p.no(&["enc", "web1.example.com", "--cache", &cache], "access/rules/");
}

/// Lists for people leave out what is not for them, say so, and say nothing of what they cannot know.
#[test]
fn lists_leave_out_what_is_not_for_the_reader() {
    let p = Partly::new();
    for line in [
        "tag lb/example.com +web2.example.com -m x",
        "put lb/nests --member @secret --member web1.example.com -m x",
        "put lb/open port=1 -m x",
        "put lb/closed port=1 --member web1.example.com -m x",
        "acl set lb/closed carl=data:ro,members:none -m x",
        "put secret.example.com key=planted -m x",
        "acl set hosts/secret.example.com carl=none -m x",
        "put lb/secret key=planted2 -m planted",
    ] {
        let done = shoal(&p.file, &line.split(' ').collect::<Vec<_>>());
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
    }
    shoal(&p.file, &["put", "lb/ruled", "--member", "select: has(host.address)", "-m", "x"]);
    let list = |line: &[&str], note: &str| {
        let run = p.carl(line);
        let (out, said) = (text(&run.stdout).to_owned(), text(&run.stderr));
        assert!(run.status.success() && said.contains(note), "{line:?}: {said}");
        assert!(!out.contains("planted") && !said.contains("planted"), "{line:?}: {out}{said}");
        out
    };
    for word in ["lb/", "lb"] {
        let json = list(&["get", word, "-o", "json"], "1 tag is not for you to read, and left out");
        let tags: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        let of = |name: &str| {
            let tag = tags.iter().find(|tag| tag["tag"] == name).unwrap_or_else(|| panic!("{name}: {json}"));
            (tag["members"].as_u64(), tag["hosts"].as_u64())
        };
        assert_eq!(tags.len(), 5, "{json}");
        assert_eq!(of("lb/example.com"), (Some(2), Some(2)));
        assert_eq!(of("lb/open"), (Some(0), Some(0)));
        // What cannot be known is not said.
        assert_eq!((of("lb/nests"), of("lb/closed")), ((Some(2), None), (None, None)));
        assert_eq!(of("lb/ruled"), (Some(1), None));
    }
    assert!(list(&["get", "tags"], "2 tags are not for you").contains("puppet/base"));
    assert!(list(&["get", "lb/"], "").contains('?'));
    let hosts = list(&["get", "hosts"], "1 host is not for you to read, and left out");
    assert!(hosts.contains("web2.example.com") && !hosts.contains("secret.example.com"), "{hosts}");
    let log = list(&["log", "lb/"], "not for you to read, and left out");
    assert!(log.contains("lb/example.com") && !log.contains("lb/secret"), "{log}");
    // As many as are asked for, however many are left out before them.
    for limit in ["1", "3"] {
        let note = if limit == "3" { "left out" } else { "" };
        let log = list(&["log", "--limit", limit, "-o", "json"], note);
        let log: Vec<serde_json::Value> = serde_json::from_str(&log).unwrap();
        assert_eq!(log.len().to_string(), limit);
    }
    let all = list(&["log", "--limit", "1000"], "left out");
    assert!(!all.contains("vault") && !all.contains("lb/secret") && all.contains("puppet/base"), "{all}");
    // One commit with both shows what is theirs of it.
    let both = p.served.file(
        "both.yaml",
        "tag: lb/secret\ndocument: {key: planted3}\n---\ntag: lb/open\ndocument: {port: 2}\n",
    );
    assert!(shoal(&p.file, &["apply", "-f", &both, "-m", "both"]).status.success());
    let log = list(&["log", "--limit", "1"], "");
    assert!(log.contains("lb/open, 1 not for you") && !log.contains("lb/secret"), "{log}");
    // Who may read all of it is told nothing.
    p.token("root", &["--owner", "root"]);
    shoal(&p.file, &["group", "add", "admins", "root", "-m", "x"]);
    for line in [&["get", "lb/"][..], &["get", "tags"], &["get", "hosts"], &["log"]] {
        let run = p.with("root", line);
        assert!(run.status.success() && run.stderr.is_empty(), "{line:?}: {}", text(&run.stderr));
    }
}

/// Their tokens and their password are everybody's own.
#[test]
fn everybody_sees_and_ends_what_is_their_own() {
    let p = Partly::new();
    p.token("other", &["--owner", "carl", "--expires", "1h"]);
    p.token("narrow", &["--owner", "carl", "--namespace", "lb"]);
    p.token("dora", &["--owner", "dora"]);
    let id = |name: &str| {
        let token = std::fs::read_to_string(p.served.dir.path().join(name)).unwrap();
        token.split('_').nth(1).unwrap().to_owned()
    };
    let mine = p.ok(&["token", "list"]);
    assert!(["carl", "other", "narrow"].iter().all(|name| mine.contains(&id(name))), "{mine}");
    assert!(!mine.contains(&id("dora")) && !mine.contains("(hidden)"), "{mine}");
    // A narrow one sees and ends itself alone.
    let seen = p.with("narrow", &["token", "list"]);
    assert!(text(&seen.stdout).contains(&id("narrow")) && !text(&seen.stdout).contains(&id("carl")));
    let no = p.with("narrow", &["token", "revoke", &id("other"), "-m", "x"]);
    assert!(
        no.status.code() == Some(1) && text(&no.stderr).contains("ends itself alone"),
        "{}",
        text(&no.stderr)
    );
    p.no(&["token", "revoke", &id("dora"), "-m", "x"], "is carl's");
    assert!(p.ok(&["token", "revoke", &id("other"), "-m", "lost it"]).contains(&id("other")));
    let gone = p.with("other", &["get", "hosts"]);
    assert!(text(&gone.stderr).contains("was revoked"), "{}", text(&gone.stderr));
    let log = shoal(&p.file, &["log", "--limit", "1"]);
    assert!(
        text(&log.stdout).contains("lost it") && text(&log.stdout).contains("carl"),
        "{}",
        text(&log.stdout)
    );
    assert!(p.with("narrow", &["token", "revoke", &id("narrow"), "-m", "x"]).status.success());

    let (old, new) = ("correct horse battery", "another staple 2");
    let set = p.served.file("first", old);
    assert!(shoal(&p.file, &["user", "add", "carl", "-m", "x"]).status.success());
    // Not without the one of now, and the first is an administrator's to give.
    p.no(&["user", "password", "carl", "-f", &set, "-m", "x"], "--old FILE");
    let change = |was: &str, next: &str, code: i32| {
        let (was, next) = (p.served.file("was", was), p.served.file("next", next));
        let run = p.carl(&["user", "password", "carl", "--old", &was, "-f", &next, "-m", "x"]);
        let said = text(&run.stdout).to_owned() + text(&run.stderr);
        assert_eq!(run.status.code(), Some(code), "{said}");
        assert!(!said.contains("horse") && !said.contains("staple"), "{said}");
        said
    };
    assert!(change(old, new, 1).contains("the password was not changed"));
    assert!(shoal(&p.file, &["user", "password", "carl", "-f", &set, "-m", "x"]).status.success());
    assert!(change("wrong horse", new, 1).contains("the password was not changed"));
    assert!(change(old, "short", 1).contains("8 to 1024"));
    assert!(change(old, new, 0).contains("carl has another password"));
    change(old, new, 1);
    // Both in one file, the one of now first.
    let both = p.served.file("both", &format!("{new}\n{old}\n"));
    p.ok(&["user", "password", "carl", "--old", &both, "-f", &both, "-m", "x"]);
    change(old, new, 0);
    let file = shoal(&p.file, &["user", "password", "carl", "--old", &set, "-f", &set, "-m", "x"]);
    assert!(
        file.status.code() == Some(2) && text(&file.stderr).contains("leave out --old"),
        "{}",
        text(&file.stderr)
    );
}

/// A token that others can read is used, and warned of.
#[test]
fn a_token_that_others_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let p = Partly::new();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(p.served.dir.path(), 0o755);
    let run = p.carl(&["get", "hosts"]);
    assert!(run.status.success() && run.stderr.is_empty(), "{}", text(&run.stderr));
    mode(&p.served.dir.path().join("carl"), 0o644);
    let run = p.carl(&["get", "hosts"]);
    let said = text(&run.stderr);
    assert!(run.status.success() && said.matches("warning:").count() == 1, "{said}");
    assert!(said.contains("carl (mode 0644)") && said.contains("chmod o="), "{said}");
}

#[test]
fn everybody_may_ask_about_themselves() {
    let p = Partly::new();
    assert!(
        p.ok(&["can", "carl", "write", "lb/example.com"])
            .starts_with("yes: access/rules/lb: carl has data rw")
    );
    p.no(&["can", "carl", "read", "lb/secret"], "no: access/rules/lb/secret: * has data none");
    p.no(&["can", "dora", "read", "lb/example.com"], "access/ is for administrators");
    let json = p.ok(&["can", "carl", "read", "hosts/", "-o", "json"]);
    assert!(json.contains("\"may\": true"), "{json}");
}

/// A token that is good for one namespace does there what its owner may, and is told what it lacks for the rest.
#[test]
fn a_token_of_one_namespace_works_there() {
    let p = Partly::new();
    p.token("lb", &["--owner", "carl", "--namespace", "lb"]);
    let ok = |token: &str, line: &[&str]| {
        let run = p.with(token, line);
        assert!(run.status.success(), "{line:?}: {}", text(&run.stderr));
        text(&run.stdout).to_owned()
    };
    let no = |token: &str, line: &[&str], why: &[&str]| {
        let run = p.with(token, line);
        let said = text(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{line:?}: {said}");
        assert!(why.iter().all(|why| said.contains(why)) && !said.contains("any/"), "{line:?}: {said}");
    };
    ok("lb", &["put", "lb/web", "port=80", "--member", "@example.com", "-m", "mine"]);
    ok("lb", &["put", "lb/web", "port=81", "-m", "mine"]);
    // By nesting and by name, although hosts are not for this token.
    let all = ok("lb", &["members", "lb/web"]);
    assert!(all.contains("web1.example.com") && all.contains("@lb/example.com > named"), "{all}");
    assert!(!all.contains("active"), "{all}");
    assert!(ok("lb", &["members", "lb/web", "--direct"]).contains("@example.com"));
    assert!(ok("lb", &["effective", "lb/web"]).contains("81"));
    ok("lb", &["tag", "lb/web", "-@example.com", "-m", "mine"]);
    assert_eq!(ok("lb", &["members", "lb/web", "-o", "json"]).trim(), "[]");
    // A list leaves out what is not for them; who is in a tag by name is known, although hosts are not for this token.
    let tags = ok("lb", &["get", "lb/"]);
    assert!(tags.contains("lb/web") && !tags.contains("lb/secret"), "{tags}");
    // What is missing is named with what would do.
    no("lb", &["put", "dns/x", "a=1", "-m", "x"], &["dns/x", "the scope of the token", "--namespace dns"]);
    no("lb", &["search", "true"], &["the scope of the token"]);
    shoal(&p.file, &["acl", "set", "lb/secret", "carl=rw", "-m", "x"]);
    let tags = ok("lb", &["get", "lb/"]);
    assert!(tags.contains("lb/web") && tags.contains("lb/secret"), "{tags}");
    shoal(&p.file, &["tag", "lb/web", "+select: has(host.address)", "-m", "x"]);
    no("lb", &["members", "lb/web"], &["hosts/", "--namespace hosts"]);
    no("lb", &["inventory", "--list", "--namespace", "lb"], &["hosts/", "--namespace hosts"]);
    let cache = p.served.dir.path().join("cache").display().to_string();
    no("lb", &["enc", "web1.example.com", "--cache", &cache], &["read everything", "without `--namespace`"]);
    p.token(
        "more",
        &[
            "--owner",
            "carl",
            "--namespace",
            "lb",
            "--namespace",
            "hosts",
            "--namespace",
            "facts",
            "--namespace",
            "schemas",
        ],
    );
    let all = ok("more", &["members", "lb/web"]);
    assert!(all.contains("active") && all.contains("web2.example.com"), "{all}");
    assert!(ok("more", &["inventory", "--list", "--namespace", "lb"]).contains("web2.example.com"));
    // Who administers only that makes tokens.
    shoal(&p.file, &["group", "add", "admins", "carl", "-m", "x"]);
    p.token("access", &["--owner", "carl", "--namespace", "access"]);
    assert!(ok("access", &["token", "create", "--owner", "dora", "-m", "x"]).starts_with("shoal_"));
    assert!(ok("access", &["get", "access/tokens"]).contains("access/tokens/"));
    no("access", &["get", "web1.example.com"], &["--namespace hosts"]);
}

/// Who gives nodes their classes and is refused gives the last ones, and says so.
#[test]
fn a_refused_reader_prints_what_was_kept_of_a_node() {
    let p = Partly::new();
    // By name, what others may not read.
    for of in ["lb/secret", "vault/"] {
        assert!(shoal(&p.file, &["acl", "set", of, "puppet=ro", "-m", "x"]).status.success());
    }
    p.token("puppet", &["--owner", "puppet", "--read-only"]);
    let cache = p.served.dir.path().join("cache").display().to_string();
    let enc = |more: &[&str]| {
        let run = p.with("puppet", &[&["enc", "web1.example.com", "--cache", &cache], more].concat());
        (run.status.code(), text(&run.stdout).to_owned(), text(&run.stderr).to_owned())
    };
    let (code, good, said) = enc(&[]);
    assert!(code == Some(0) && good.contains("ntp: {}") && said.is_empty(), "{said}");
    let kept = |why: &str| {
        let (code, yaml, said) = enc(&[]);
        assert!(code == Some(0) && yaml == good, "{said}");
        assert!(said.contains("this is what it said") && said.contains(why), "{said}");
        let (code, yaml, said) = enc(&["--max-age", "0s"]);
        assert!(code == Some(1) && yaml.is_empty() && said.contains(why), "{said}");
    };
    let rule = |rights: &str| shoal(&p.file, &["acl", "set", "lb/secret", rights, "-m", "x"]);
    assert!(rule("puppet=none").status.success());
    kept("access/rules/lb/secret: puppet has data none");
    assert!(rule("puppet=ro").status.success());
    let (code, _, said) = enc(&["--max-age", "0s"]);
    assert!(code == Some(0) && said.is_empty(), "{said}");
    let token = std::fs::read_to_string(p.served.dir.path().join("puppet")).unwrap();
    assert!(shoal(&p.file, &["token", "revoke", &token, "-m", "x"]).status.success());
    kept("was revoked");
    // A node of which nothing was kept has no answer.
    let run = p.with("puppet", &["enc", "web2.example.com", "--cache", &cache]);
    assert!(run.status.code() == Some(1) && run.stdout.is_empty(), "{}", text(&run.stderr));
}

/// What may be mistyped is said, and who administers does not go by mistake.
#[test]
fn odd_names_in_rules_are_said_and_the_last_administrator_stays() {
    let p = Partly::new();
    let run = |line: &str| {
        let done = shoal(&p.file, &line.split(' ').collect::<Vec<_>>());
        (done.status.code().unwrap(), text(&done.stdout).to_owned() + text(&done.stderr))
    };
    assert_eq!(run("group add web ann -m x").0, 0);
    assert_eq!(run("group add admins root -m x").0, 0);
    for (line, code, says) in [
        ("acl set lb/ @nosuch=rw -m x", 0, "there is no group nosuch"),
        ("acl set lb/ web=rw -m x", 0, "do you mean @web?"),
        ("acl set nosuch/ @web=rw -m x", 0, "nothing stands in nosuch/ yet"),
        ("token create --owner nosuch --namespace nosuch -m x", 0, "nothing stands in nosuch/ yet"),
        ("user disable nobody -m x", 1, "there is no user nobody"),
        ("user disable root -m x", 2, "say --last"),
        ("user remove root -m x", 2, "say --last"),
        ("group remove admins root -m x", 2, "say --last"),
        ("group remove admins root --last -m x", 0, "revision"),
    ] {
        let (is, said) = run(line);
        assert!(is == code && said.contains(says), "{line}: {is} {said}");
    }
    let (_, said) = run("acl set lb/ @web=rw *=ro -m x");
    assert!(!said.contains("warning"), "{said}");
    // An agent is stopped by its own name.
    let agent = ["user", "disable", "agent dns", "-m", "x"];
    assert!(shoal(&p.file, &agent).status.success());
    let (_, said) = run("user list");
    assert!(said.contains("shoal-dns") && said.contains("disabled"), "{said}");
}
