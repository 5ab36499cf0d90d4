//! The placement agent as a program: see `docs/agents/placement.md`.

use shoal_agent::ExitCode;
use shoal_placement::agent::{Placement, answered};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    answered().unwrap_or_else(|| shoal_agent::chooser::main(Placement::new))
}
