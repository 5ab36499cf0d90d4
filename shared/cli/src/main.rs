//! `shoal`: the host database from the command line.

fn main() -> std::process::ExitCode {
    shoal_cli::main()
}
