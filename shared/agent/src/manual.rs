//! What shells and man(1) need to know of an agent, from what its command line is made of.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Args, Generate};

/// It, of the program of this name.
pub(crate) fn text(what: Generate, program: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let mut command = Args::command().name(program.to_owned());
    let shell = match what {
        Generate::Man => {
            // Memory takes all.
            let _ = clap_mangen::Man::new(command).manual("Shoal").render(&mut text);
            return text;
        }
        Generate::Bash => Shell::Bash,
        Generate::Fish => Shell::Fish,
        Generate::Zsh => Shell::Zsh,
    };
    clap_complete::generate(shell, &mut command, program, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_tells_of_the_program_and_its_options() {
        for what in [Generate::Man, Generate::Bash, Generate::Fish, Generate::Zsh] {
            let text = String::from_utf8(text(what, "shoal-motd")).unwrap().replace('\\', "");
            assert!(text.contains("shoal-motd") && text.contains("preview"), "{what:?}: {text}");
        }
    }
}
