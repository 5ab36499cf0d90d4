//! Commands that an agent's own program does: this one becomes it, so that it depends on no agent, and exits as that does.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::failure::{Failure, Outcome};

/// The program, the one that lies beside this one or else the first in the path.
pub(crate) fn command(program: &str) -> Command {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(program));
    Command::new(beside.filter(|path| path.exists()).unwrap_or_else(|| program.into()))
}

/// Becomes the program. Comes back only where that fails, and says what to do then.
pub(crate) fn run(mut command: Command, next: &str) -> Outcome {
    let error = command.exec();
    let program = command.get_program().display();
    Err(Failure::Other(anyhow::anyhow!("cannot run {program}: {error}: {next}")))
}
