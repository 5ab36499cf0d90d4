//! House rules that a machine can hold.
//!
//! Sizes of files and functions, documentation of every module, the layers of the design, links, and what must
//! not be in the repository at all. Each rule is an ordinary test that lists every offender at once, with its
//! place and the way out. They read the working tree, so they also see what is not committed yet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use syn::spanned::Spanned;
use syn::visit::Visit;

/// The most lines of a source file.
const FILE_LINES: usize = 600;
/// The most lines of a function, signature included.
const FUNCTION_LINES: usize = 80;
/// Folders that hold nothing of ours.
const SKIP: [&str; 4] = ["target", ".git", ".shoal", "node_modules"];

/// Crates in layers; each may depend on those that stand before it in its own list, and on nothing else of ours.
const LAYERS: [(&str, &[&str]); 20] = [
    ("shared/core", &[]),
    ("shared/engine", &["shoal-core"]),
    ("shared/machine", &["shoal-core"]),
    ("shared/group", &["shoal-core", "shoal-machine"]),
    ("shared/store", &["shoal-core"]),
    ("shared/store-sqlite", &["shoal-core", "shoal-store"]),
    ("shared/store-etcd", &["shoal-core", "shoal-store"]),
    ("shared/client", &["shoal-core", "shoal-store"]),
    (
        "shared/agent",
        &[
            "shoal-client",
            "shoal-core",
            "shoal-engine",
            "shoal-store",
            "shoal-store-etcd",
            "shoal-store-sqlite",
        ],
    ),
    ("shared/sim", &["shoal-core", "shoal-engine", "shoal-store"]),
    ("shared/aws", &["shoal-agent"]),
    (
        "shared/hostdb",
        &["shoal-client", "shoal-core", "shoal-store", "shoal-store-etcd", "shoal-store-sqlite"],
    ),
    ("shared/cli", &["shoal-core", "shoal-group", "shoal-store", "shoal-store-sqlite", "shoal-hostdb"]),
    ("agents/dns", &["shoal-core", "shoal-engine", "shoal-agent", "shoal-aws"]),
    ("agents/monitoring", &["shoal-agent"]),
    ("agents/lb", &["shoal-agent", "shoal-aws"]),
    ("agents/backup", &["shoal-agent"]),
    ("agents/placement", &["shoal-core", "shoal-machine", "shoal-group", "shoal-agent"]),
    ("agents/vm", &["shoal-core", "shoal-machine", "shoal-agent", "shoal-aws"]),
    ("agents/example", &["shoal-agent"]),
];

/// What pure crates must not reach, in their source or through a dependency.
const PURE: [&str; 4] = ["shared/core", "shared/engine", "shared/machine", "shared/group"];
const IMPURE_CRATES: [&str; 9] =
    ["tokio", "mio", "rand", "reqwest", "hyper", "rusqlite", "notify", "rustix", "tracing-subscriber"];
const IMPURE_SOURCE: [&str; 11] = [
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "std::time::Instant",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "rand::",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file of the working tree whose name ends so, as paths relative to the root.
fn files(ending: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, ending: &str, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || SKIP.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(&path, ending, into);
            } else if name.ends_with(ending) {
                into.push(path);
            }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    walk(&root, ending, &mut found);
    found.sort();
    found.into_iter().map(|p| p.strip_prefix(&root).unwrap().to_owned()).collect()
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(root().join(path)).unwrap()).into_owned()
}

fn none(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn files_are_small() {
    let long = files(".rs").into_iter().filter_map(|path| {
        let lines = text(&path).lines().count();
        (lines > FILE_LINES).then(|| format!("{}: {lines} lines", path.display()))
    });
    none(long.collect(), "files of more than 600 lines: split them by what they are about");
}

/// The lines that each literal of several lines spans: golden text is data, and does not make a function long.
fn goldens(tokens: proc_macro2::TokenStream, into: &mut Vec<(usize, usize)>) {
    for token in tokens {
        match token {
            proc_macro2::TokenTree::Group(group) => goldens(group.stream(), into),
            proc_macro2::TokenTree::Literal(literal) => {
                into.push((literal.span().start().line, literal.span().end().line));
            }
            _ => {}
        }
    }
}

#[test]
fn functions_fit_a_screen() {
    struct Long<'a>(&'a Path, Vec<(usize, usize)>, Vec<String>);
    impl Long<'_> {
        fn check(&mut self, name: &syn::Ident, whole: proc_macro2::Span) {
            let (first, last) = (name.span().start().line, whole.end().line);
            let inside = self.1.iter().filter(|(from, to)| first <= *from && *to <= last);
            let lines = last + 1 - first - inside.map(|(from, to)| to - from).sum::<usize>();
            if lines > FUNCTION_LINES {
                self.2.push(format!("{}:{first} {name}: {lines} lines", self.0.display()));
            }
        }
    }
    impl<'ast> Visit<'ast> for Long<'_> {
        fn visit_item_fn(&mut self, f: &'ast syn::ItemFn) {
            self.check(&f.sig.ident, f.span());
            syn::visit::visit_item_fn(self, f);
        }
        fn visit_impl_item_fn(&mut self, f: &'ast syn::ImplItemFn) {
            self.check(&f.sig.ident, f.span());
            syn::visit::visit_impl_item_fn(self, f);
        }
        fn visit_trait_item_fn(&mut self, f: &'ast syn::TraitItemFn) {
            self.check(&f.sig.ident, f.span());
            syn::visit::visit_trait_item_fn(self, f);
        }
    }
    let mut offenders = Vec::new();
    for path in files(".rs") {
        let (text, mut golden) = (text(&path), Vec::new());
        goldens(text.parse().unwrap(), &mut golden);
        let mut long = Long(&path, golden, Vec::new());
        long.visit_file(&syn::parse_file(&text).unwrap());
        offenders.append(&mut long.2);
    }
    none(offenders, "functions of more than 80 lines: give their parts names");
}

#[test]
fn modules_say_what_they_are_for() {
    let silent = files(".rs")
        .into_iter()
        .filter(|path| !syn::parse_file(&text(path)).unwrap().attrs.iter().any(|a| a.path().is_ident("doc")));
    none(silent.map(|p| p.display().to_string()).collect(), "modules that do not start with a doc (`//!`)");
}

#[test]
fn main_is_one_expression() {
    let long = files("main.rs").into_iter().filter(|path| {
        syn::parse_file(&text(path)).unwrap().items.iter().any(|item| match item {
            syn::Item::Fn(f) => f.sig.ident == "main" && f.block.stmts.len() != 1,
            _ => false,
        })
    });
    none(long.map(|p| p.display().to_string()).collect(), "main functions of more than one expression");
}

#[test]
fn no_ignored_tests_and_no_catch_all_modules() {
    let marker = concat!("#[", "ignore");
    let mut offenders = Vec::new();
    for path in files(".rs") {
        if text(&path).contains(marker) {
            offenders.push(format!("{}: print SKIPPED with the reason instead of {marker}]", path.display()));
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if ["util", "utils", "helpers", "misc", "common"].contains(&stem.as_str()) {
            offenders.push(format!("{}: name it after what it is about", path.display()));
        }
    }
    none(offenders, "house rules");
}

#[test]
fn layers_point_down() {
    let mut offenders = Vec::new();
    for (dir, allowed) in LAYERS {
        let manifest: toml::Table = text(&Path::new(dir).join("Cargo.toml")).parse().unwrap();
        let deps = manifest.get("dependencies").and_then(|d| d.as_table());
        for dep in deps.into_iter().flat_map(|d| d.keys()).filter(|d| d.starts_with("shoal-")) {
            if !allowed.contains(&dep.as_str()) {
                offenders.push(format!("{dir} depends on {dep}"));
            }
        }
    }
    none(offenders, "a crate depends on one that stands above it (docs/architecture.md has the map)");
}

/// The crates that are built for the crate of this folder.
fn reached(dir: &str, features: &[&str]) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .arg("--manifest-path")
        .arg(root().join(dir).join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(out.status.success(), "cargo tree of {dir}: {}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8_lossy(&out.stdout).into_owned();
    let crates: BTreeSet<String> =
        tree.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect();
    assert!(crates.contains("serde_json"), "cargo tree of {dir} is not what this test reads:\n{tree}");
    crates
}

#[test]
fn pure_crates_depend_on_nothing_that_acts() {
    let mut offenders = Vec::new();
    for dir in PURE {
        let crates = reached(dir, &[]);
        for bad in IMPURE_CRATES.into_iter().filter(|c| crates.contains(*c)) {
            offenders.push(format!("{dir} reaches {bad}: `cargo tree -p … -i {bad}` shows through what"));
        }
    }
    none(offenders, "a pure crate depends on one that acts");
}

#[test]
fn pure_crates_have_no_clock_no_environment_no_chance() {
    let mut offenders = Vec::new();
    for path in files(".rs") {
        if !PURE.iter().any(|dir| path.starts_with(Path::new(dir).join("src"))) {
            continue;
        }
        for (n, line) in text(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for bad in IMPURE_SOURCE.into_iter().filter(|bad| code.contains(bad)) {
                offenders.push(format!("{}:{}: {bad}", path.display(), n + 1));
            }
        }
    }
    none(offenders, "a pure crate reads the world itself: make what it needs an argument");
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for path in files(".md") {
        let (text, mut fenced) = (text(&path), false);
        for (n, line) in text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            for target in
                line.split("](").skip(1).filter(|_| !fenced).filter_map(|rest| rest.split(')').next())
            {
                let file = target.split('#').next().unwrap_or("");
                if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                    continue;
                }
                if !root().join(path.parent().unwrap()).join(file).exists() {
                    dead.push(format!("{}:{}: {target}", path.display(), n + 1));
                }
            }
        }
    }
    none(dead, "links that lead nowhere");
}

#[test]
fn words_in_italics_have_a_row() {
    let page = text(Path::new("docs/glossary.md"));
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")).map(|(word, _)| word);
    let words: BTreeSet<&str> = rows.flat_map(|row| row.split(", ")).collect();
    assert!(words.contains("host") && words.contains("left out"), "{words:?}");
    // Every other part stands between two stars.
    let used = page.lines().flat_map(|line| line.split('*').skip(1).step_by(2)).map(str::to_lowercase);
    let known = |word: &str| word == "italics" || words.contains(word);
    let missing: BTreeSet<String> =
        used.filter(|word| !known(word) && !word.strip_suffix('s').is_some_and(known)).collect();
    none(missing.into_iter().collect(), "words in italics without a row in docs/glossary.md");
}

/// A variable that a page tells people to set is read somewhere.
#[test]
fn variables_in_the_docs_are_read() {
    fn variables(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        words.filter(|word| word.starts_with("SHOAL_") && word.len() > 6).collect()
    }
    let mut code = String::new();
    let programs = [
        ".rs",
        ".sh",
        ".service",
        "up",
        "down",
        "install",
        "cluster",
        "run",
        "fleet",
        "bench",
        "chaos",
        "fresh-root",
        "installed",
        "stories",
    ];
    for path in programs.into_iter().flat_map(files) {
        code += &text(&path);
    }
    let read = variables(&code);
    let mut unread = Vec::new();
    for path in files(".md") {
        let page = text(&path);
        unread.extend(variables(&page).difference(&read).map(|name| format!("{}: {name}", path.display())));
    }
    none(unread, "variables that nothing reads");
}

#[test]
fn decisions_are_listed() {
    let index = text(Path::new("docs/decisions/README.md"));
    let unlisted = files(".md").into_iter().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        path.starts_with("docs/decisions") && name != "README.md" && !index.contains(&format!("({name})"))
    });
    none(
        unlisted.map(|p| p.display().to_string()).collect(),
        "decisions that docs/decisions/README.md does not list",
    );
}

#[test]
fn dependencies_are_explained() {
    let manifest: toml::Table = text(Path::new("Cargo.toml")).parse().unwrap();
    let explained = text(Path::new("docs/dependencies.md"));
    let names = manifest["workspace"]["dependencies"].as_table().unwrap();
    let silent = names
        .keys()
        .filter(|name| !name.starts_with("shoal-") && !explained.contains(&format!("| `{name}` |")));
    none(silent.cloned().collect(), "dependencies without a row in docs/dependencies.md");
    let rows = explained.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let gone = rows.map(|(name, _)| name).filter(|name| !names.contains_key(*name));
    none(gone.map(str::to_owned).collect(), "rows of docs/dependencies.md without a dependency");
}

/// Whatever a new version of the SDK brings along, too.
#[test]
fn every_crate_of_aws_is_quick_to_build() {
    let lock: toml::Table = text(Path::new("Cargo.lock")).parse().unwrap();
    let manifest: toml::Table = text(Path::new("Cargo.toml")).parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let names: BTreeSet<&str> = packages.filter_map(|package| package["name"].as_str()).collect();
    let aws: Vec<&str> = names.into_iter().filter(|name| name.starts_with("aws-")).collect();
    assert!(aws.contains(&"aws-config") && aws.contains(&"aws-smithy-runtime"), "{aws:?}");
    let mut offenders = Vec::new();
    for (profile, usual) in [("dev", 0), ("release", 3)] {
        let said = &manifest["profile"][profile]["package"];
        for name in &aws {
            let of = |key: &str| {
                let [own, all] = [*name, "*"].map(|package| said.get(package).and_then(|it| it.get(key)));
                own.or(all)
            };
            let debug = of("debug").is_none_or(|debug| debug.as_bool() != Some(false));
            let level = of("opt-level").map_or(Some(usual), toml::Value::as_integer);
            if debug || level.is_none_or(|level| level > 1) {
                offenders.push(format!("{name} in the profile {profile}"));
            }
        }
    }
    none(offenders, "crates of AWS without `opt-level = 1` (or 0) and `debug = false` in Cargo.toml");
}

#[test]
fn without_its_feature_no_agent_builds_anything_of_aws() {
    let mut offenders = Vec::new();
    for (dir, feature) in [("agents/dns", "route53"), ("agents/lb", "elbv2"), ("agents/vm", "ec2")] {
        let of_aws = |name: &String| name.starts_with("aws-") || name == "shoal-aws";
        offenders.extend(reached(dir, &[]).into_iter().filter(of_aws).map(|name| format!("{dir}: {name}")));
        let with = reached(dir, &["--features", feature]);
        assert!(with.contains("shoal-aws") && with.contains("aws-config"), "{dir} with {feature}: {with:?}");
    }
    none(offenders, "crates of AWS that are built without a feature that asks for them");
    let up = text(Path::new("deploy/lib.sh"));
    assert!(up.lines().any(|line| line == "features=()"), "deploy/up builds without features");
}

#[test]
fn nothing_of_one_machine_is_committed() {
    // Written in pieces, or this file would be an offender.
    let paths = [
        ["/wo", "rk/"].concat(),
        ["/tmp/", "shoal"].concat(),
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
    ];
    let mut offenders = Vec::new();
    let endings = [".rs", ".md", ".toml", ".yaml", ".yml", ".json", ".sh", ".service", ".conf", ".env"];
    let scripts =
        ["run", "up", "down", "install", "cluster", "fleet", "chaos", "fresh-root", "installed", "stories"];
    for ending in endings.into_iter().chain(scripts) {
        for path in files(ending) {
            for (n, line) in text(&path).lines().enumerate() {
                for bad in paths.iter().filter(|p| line.contains(p.as_str())) {
                    offenders.push(format!("{}:{}: {bad}", path.display(), n + 1));
                }
            }
        }
    }
    none(offenders, "paths of one machine");
}
