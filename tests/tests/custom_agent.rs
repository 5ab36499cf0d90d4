//! The second agent of `docs/custom-agents.md`, made as the page says: copied from it into a folder of its own, built, tested,
//! and run on a database of its own. What else the page shows is true of the code.
#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shoal_tests::process::output;
use shoal_tests::swarm::repository;
use shoal_tests::{binaries, pages};

fn page() -> Result<String> {
    std::fs::read_to_string(repository().join("docs/custom-agents.md")).context("the page")
}

/// The fenced block after this text, with what the fence says cut off.
fn block<'p>(page: &'p str, after: &str) -> Result<&'p str> {
    let rest = page.split_once(after).with_context(|| format!("the page has no {after:?}"))?.1;
    let body = rest.split_once("```").and_then(|(_, rest)| rest.split_once('\n')).context("no block")?.1;
    Ok(body.split_once("\n```").context("a block without an end")?.0)
}

#[test]
fn the_page_shows_the_second_example_as_it_is() -> Result<()> {
    let real = std::fs::read_to_string(repository().join("agents/example/examples/hostsfile.rs"))?;
    ensure!(block(&page()?, "<!-- hostsfile: src/main.rs -->")? == real.trim_end(), "copy it into the page");
    Ok(())
}

#[test]
fn copied_from_the_page_it_builds_and_runs() -> Result<()> {
    let programs = binaries::binary("shoal")?;
    let programs = programs.parent().context("a folder")?;
    let (page, dir, clone) = (page()?, tempfile::tempdir()?, repository().display().to_string());
    let write = |name: &str, text: String| -> Result<()> {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(std::fs::write(path, text.replace("…/shoal", &clone))?)
    };
    // The workspace's profile and target folder: what is heavy was built there already.
    let profile = "[profile.dev]\ndebug = \"line-tables-only\"\n[profile.dev.package.\"*\"]\ndebug = false\n\
                   [profile.dev.package.libsqlite3-sys]\nopt-level = 2\n";
    let toml = block(&page, "<!-- hostsfile: Cargo.toml -->")?;
    write("Cargo.toml", format!("{toml}\n\n[workspace]\n\n{profile}"))?;
    write("src/main.rs", block(&page, "<!-- hostsfile: src/main.rs -->")?.to_owned() + "\n")?;
    let place = block(&page, "| `host.revision` |")?;
    let around = "#![allow(dead_code)]\nuse shoal_agent::*;\nstruct Spec;\nfn main() {}\n";
    write("src/bin/place.rs", format!("{around}{place}"))?;
    write("src/bin/left.rs", format!("{around}{}", block(&page, "<!-- left out -->")?))?;
    let target = programs.parent().context("a target folder")?;
    std::os::unix::fs::symlink(target, dir.path().join("target"))?;
    let try_it = block(&page, "<!-- hostsfile: try -->")?.replace("…/shoal", &clone);
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let env = [("PATH", path), ("CARGO_NET_OFFLINE", "true".to_owned()), ("RUSTFLAGS", String::new())];
    pages::run(&try_it, dir.path(), &env)
}

/// One line, one space between words, no comma before a closing bracket.
fn plain(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(line));
    let text = lines.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("( ", "(").replace(", )", ")").replace(" )", ")").replace(",)", ")")
}

/// The associated types and functions of a trait in a text, as they are declared there.
fn declared(text: &str, name: &str) -> Result<Vec<String>> {
    let begin = format!("pub trait {name}");
    let body = text.split_once(&begin).with_context(|| format!("no trait {name}"))?.1;
    let body = plain(body.split_once("\n}\n").context("a trait without an end")?.0);
    let items = body.split([';', '{', '}']).map(str::trim);
    let items = items.filter_map(|item| {
        let at = [item.find("type "), item.find("fn ")].into_iter().flatten().min()?;
        Some(item[at..].to_owned())
    });
    let mut items: Vec<String> = items.collect();
    items.sort();
    Ok(items)
}

#[test]
fn the_traits_in_short_are_the_traits() -> Result<()> {
    let page = page()?;
    let short = format!("{}\n", block(&page, "## The traits in short")?);
    for (name, file) in [("Agent", "agent.rs"), ("Target", "target.rs")] {
        let code = std::fs::read_to_string(repository().join("shared/engine/src").join(file))?;
        let (shown, real) = (declared(&short, name)?, declared(&code, name)?);
        ensure!(!real.is_empty() && shown == real, "the page shows {shown:#?}, the code has {real:#?}");
    }
    Ok(())
}

#[test]
fn the_service_is_one_for_systemd() -> Result<()> {
    let Some(analyze) = binaries::system("systemd-analyze") else {
        println!("SKIPPED: the_service_is_one_for_systemd: systemd-analyze is not installed");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("shoal-hostsfile.service");
    // Neither the program nor the user is on this machine.
    let page = page()?;
    let text = block(&page, "<!-- hostsfile: unit -->")?;
    let text = text.replace("/usr/local/bin/shoal-hostsfile", "/bin/true").replace("User=shoal\n", "");
    std::fs::write(&file, text)?;
    verify(&analyze, &file)
}

fn verify(analyze: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" verify --man=no \"$1\" 2>&1"]).arg(analyze).arg(file);
    let said = output(&mut command, &[0])?;
    let about: Vec<&str> = said.lines().filter(|line| line.contains("shoal-hostsfile")).collect();
    ensure!(about.is_empty(), "{about:#?}");
    Ok(())
}
