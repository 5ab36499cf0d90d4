//! The program.
fn main() -> shoal_agent::ExitCode {
    shoal_agent::main(|files: shoal_example::Files| Ok((shoal_example::Motd, files)))
}
