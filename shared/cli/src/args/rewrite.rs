//! `+MEMBER` and `-MEMBER` of `shoal tag`.

use std::ffi::OsString;

/// What may stand anywhere and is followed by its value.
const VALUED: [&str; 8] =
    ["--store", "--output", "-o", "--ca", "--cert", "--key", "--token-file", "--password-file"];

/// Rewrites `+MEMBER` and `-MEMBER` of `shoal tag` into `--add` and `--remove`, which clap can tell from options.
/// For `tag`, short options stand alone (`-m TEXT`), so that `-mail1` takes out mail1.
pub(crate) fn rewrite(args: Vec<OsString>) -> Vec<OsString> {
    let is_tag = {
        let mut rest = args.iter().skip(1).filter_map(|a| a.to_str());
        loop {
            match rest.next() {
                Some(option) if VALUED.contains(&option) => {
                    rest.next();
                }
                Some(option) if option.starts_with('-') => {}
                command => break command == Some("tag"),
            }
        }
    };
    if !is_tag {
        return args;
    }
    let mut out = Vec::with_capacity(args.len());
    let mut rest = args.into_iter();
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            Some(option) if VALUED.contains(&option) || ["-m", "--message", "--author"].contains(&option) => {
                out.push(arg);
                out.extend(rest.next());
            }
            Some("-h" | "--") => out.push(arg),
            Some(text) if text.starts_with('+') => out.push(format!("--add={}", &text[1..]).into()),
            Some(text) if text.len() > 1 && text.starts_with('-') && !text.starts_with("--") => {
                out.push(format!("--remove={}", &text[1..]).into());
            }
            _ => out.push(arg),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::{CommandFactory, Parser};

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(rewrite(line.iter().map(OsString::from).collect()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn tag_takes_plus_and_minus() {
        let line =
            ["shoal", "-o", "json", "tag", "dns/a", "+web4", "-mail1", "-m", "-x", "+@b", "-select: a == 1"];
        let Command::Tag(tag) = parse(&line).unwrap().command else { panic!() };
        assert_eq!(tag.add, ["web4".parse().unwrap(), "@b".parse().unwrap()]);
        assert_eq!(tag.remove, ["mail1".parse().unwrap(), "select: a == 1".parse().unwrap()]);
        assert_eq!(tag.sign.message.as_deref(), Some("-x"));
        // Options that stand before the command, or after it, keep their values.
        for line in [
            ["shoal", "--token-file", "f", "tag", "dns/a", "+web4", "-m", "x"],
            ["shoal", "--password-file", "+f", "tag", "dns/a", "+web4", "-m", "x"],
            ["shoal", "tag", "dns/a", "+web4", "--ca", "+f", "-m", "x"],
        ] {
            let Command::Tag(tag) = parse(&line).unwrap().command else { panic!() };
            assert_eq!((tag.add.len(), tag.remove.len()), (1, 0));
        }
        assert!(parse(&["shoal", "tag", "dns/a", "-m", "x"]).is_err());
        // Elsewhere a minus is an option.
        assert!(parse(&["shoal", "get", "-web1"]).is_err());
    }
}
