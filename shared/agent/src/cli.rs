//! What stands on the command line of every agent.

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use shoal_client::Access;
use shoal_engine::MaxChange;

/// The command line of every agent. Without a mode it runs as a daemon.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    version,
    about = "Converges what the tags of one namespace ask for",
    after_help = "Exit codes: 0 converged, 1 failed, 2 usage, 4 held (guard, clash, pause), 5 still waiting.\n\
                  With --plan: 0 nothing to do, 3 changes pending, 4 something is held (whatever else is pending),\n\
                  1 something cannot be seen, 5 not done in time.\n\
                  With --preview: 0 nothing would be wanted otherwise, 3 something would."
)]
pub(crate) struct Args {
    /// Converge once, then exit
    #[arg(long, conflicts_with_all = ["plan", "preview"])]
    pub(crate) once: bool,
    /// Print what would be done; write nothing
    #[arg(long, conflicts_with = "preview")]
    pub(crate) plan: bool,
    /// Print what would be wanted otherwise if the documents in FILE were committed; look at no target
    #[arg(long, value_name = "FILE")]
    pub(crate) preview: Option<PathBuf>,
    /// How --plan and --preview print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// The host database: sqlite:PATH, https://HOST:PORT, http://HOST:PORT or unix:/PATH of a server (several with commas), etcds://HOST,HOST, memory:
    #[arg(long, value_name = "URL", env = "SHOAL_STORE")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Only units that this tag feeds; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Only units that this host feeds, now or as far as the ledger knows; self: this machine
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Only this unit; may be repeated
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Vec<String>,
    /// The configuration file [default: /etc/shoal/NAME.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The share of a unit's items that one batch may change or remove without asking
    #[arg(long, value_name = "SHARE")]
    pub(crate) max_change: Option<MaxChange>,
    /// After how long everything is looked at again
    #[arg(long, value_name = "TIME", value_parser = crate::config::resync)]
    pub(crate) resync: Option<Duration>,
    /// Where to answer /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// How long --once, --plan and --preview may take in all, and --once goes on while something waits or failed
    /// [default: 10m, and not at all]
    #[arg(long, value_name = "TIME", value_parser = shoal_core::span)]
    pub(crate) wait: Option<Duration>,
    /// What this instance calls itself in claims and status
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print the manual page, or completions for a shell, and do nothing else
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) generate: Option<Generate>,
}

impl Args {
    /// What stands on the command line of the program of this name. Ends it where that is no command line, or asks for help.
    pub(crate) fn of(program: &str) -> Self {
        let command = Self::command().name(program.to_owned());
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// Whether it is to run until it is told to stop.
    pub(crate) fn is_daemon(&self) -> bool {
        self.works() && !self.once
    }

    /// Whether anything may be opened and written: not for a plan or a preview.
    pub(crate) fn works(&self) -> bool {
        !self.plan && self.preview.is_none()
    }
}

/// What can be made from the command line itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Generate {
    /// A page for man(1).
    Man,
    /// Completions.
    Bash,
    /// Completions.
    Fish,
    /// Completions.
    Zsh,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
