//! The agent for machines as a program: see `docs/agents/vm.md`.

use shoal_agent::{ExitCode, Program};
use shoal_vm::Settings;

fn main() -> ExitCode {
    Program::with_base(|settings: Settings, _, base| settings.open(base)).main()
}
