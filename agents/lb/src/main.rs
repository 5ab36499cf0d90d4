//! The load-balancer agent as a program: see `docs/agents/lb.md`.

use shoal_agent::{ExitCode, Program};
use shoal_lb::Settings;

fn main() -> ExitCode {
    Program::with_base(|settings: Settings, _, base| settings.open_with(base)).main()
}
