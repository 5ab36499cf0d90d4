//! What shells and man(1) need to know of an agent, from what its command line is made of.

use std::io::{self, Write};

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Args, Generate};

/// Prints it for the program of this name.
///
/// # Errors
/// Nothing takes the text.
pub(crate) fn print(what: Generate, program: &str, to: &mut impl Write) -> io::Result<()> {
    let mut command = Args::command().name(program.to_owned());
    let shell = match what {
        Generate::Man => return clap_mangen::Man::new(command).manual("Shoal").render(to),
        Generate::Bash => Shell::Bash,
        Generate::Fish => Shell::Fish,
        Generate::Zsh => Shell::Zsh,
    };
    clap_complete::generate(shell, &mut command, program, to);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_tells_of_the_program_and_its_options() {
        for what in [Generate::Man, Generate::Bash, Generate::Fish, Generate::Zsh] {
            let mut text = Vec::new();
            print(what, "shoal-motd", &mut text).unwrap();
            let text = String::from_utf8(text).unwrap().replace('\\', "");
            assert!(text.contains("shoal-motd") && text.contains("preview"), "{what:?}: {text}");
        }
    }
}
