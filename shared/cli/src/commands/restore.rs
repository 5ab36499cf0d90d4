//! `shoal restore`: the backup agent's program does it. Repositories and their credentials stand in the agent's configuration, and this
//! command depends on no agent; so it becomes that program.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::args::Restore;
use crate::failure::{Failure, Outcome};

const PROGRAM: &str = "shoal-backup";

/// Becomes the program, the one that lies beside this one or else the first in the path. Comes back only where that fails.
pub(crate) fn run(args: &Restore) -> Outcome {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    let program = beside.filter(|path| path.exists()).unwrap_or_else(|| PROGRAM.into());
    let error = Command::new(&program).args(args.words()).exec();
    Err(Failure::Other(anyhow::anyhow!(
        "cannot run {}: {error}: restore on a machine where the backup agent is installed and its configuration has the repositories",
        program.display()
    )))
}
