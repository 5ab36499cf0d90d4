//! `shoal completions` and `shoal man`: what shells and man(1) need to know of the programs, from what their command lines
//! are made of.

use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::generate;

use crate::args::{Cli, Completions, Manual, Program};
use crate::failure::{Failure, Outcome};
use crate::out::Out;

fn program(which: Program) -> Command {
    match which {
        Program::Shoal => Cli::command(),
        Program::Hostdb => shoal_hostdb::command(),
    }
}

/// Prints the completions of a program for a shell.
pub(crate) fn completions(out: &mut Out, args: &Completions) -> Outcome {
    let mut command = program(args.program);
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(args.shell, &mut command, name, &mut script);
    out.write(&String::from_utf8_lossy(&script))
}

/// Writes a page for each program and each command of it.
pub(crate) fn manual(out: &mut Out, args: &Manual) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::Other(anyhow::anyhow!("cannot write manual pages to {}: {error}", args.dir.display()))
    };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    let mut pages = 0;
    for which in [Program::Shoal, Program::Hostdb] {
        let mut command = program(which);
        command.build();
        pages += page(&command, &args.dir).map_err(failed)?;
    }
    let value = serde_json::json!({"dir": args.dir, "pages": pages});
    out.print(&value, |_| format!("{} has {pages} manual pages\n", args.dir.display()))
}

/// Writes the page of a command and those below it; how many they are.
fn page(command: &Command, dir: &Path) -> std::io::Result<usize> {
    let mut pages = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages += page(below, dir)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let text = text(command)?;
    // Whole or not at all: somebody may be reading it.
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.persist(dir.join(format!("{name}.1")))?;
    Ok(pages)
}

/// The page of a command. What stands below its help keeps its lines: it is examples and lists.
fn text(command: &Command) -> std::io::Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let man = clap_mangen::Man::new(command.clone()).source(format!("shoal {version}")).manual("Shoal");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if let Some(after) = command.get_after_help() {
        text += ".SH NOTES\n.nf\n";
        text.extend(after.to_string().lines().map(|line| format!("{}\n", roff(line))));
        text += ".fi\n";
    }
    Ok(ascii(&text))
}

/// A line as roff has it.
fn roff(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if line.starts_with('.') { format!("\\&{line}") } else { line }
}

/// The same in the characters that every formatter takes.
fn ascii(text: &str) -> String {
    use std::fmt::Write as _;
    text.chars().fold(String::with_capacity(text.len()), |mut all, c| {
        if c.is_ascii() {
            all.push(c);
        } else {
            let _ = write!(all, "\\[u{:04X}]", u32::from(c));
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_nothing_to_roff() {
        assert_eq!(ascii(&roff(".a -b 'c' \\ …")), "\\&.a \\-b \\(aqc\\(aq \\e \\[u2026]");
    }
}
