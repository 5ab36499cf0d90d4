//! `shoal restore`: the backup agent's program does it. Repositories and their credentials stand in the agent's configuration, and this
//! command depends on no agent; so it becomes that program.

use super::programs;
use crate::args::Restore;
use crate::failure::Outcome;

const PROGRAM: &str = "shoal-backup";

/// Becomes the program. Comes back only where that fails.
pub(crate) fn run(args: &Restore) -> Outcome {
    let mut command = programs::command(PROGRAM);
    command.args(args.words());
    programs::run(
        command,
        "restore on a machine where the backup agent is installed and its configuration has the repositories",
    )
}
