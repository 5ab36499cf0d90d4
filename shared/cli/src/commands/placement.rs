//! `shoal capacity`, `shoal evacuate` and `shoal rebalance`: the placement agent's program answers. How it chooses stands in its
//! configuration, and this command depends on no agent; so it becomes that program, and hands its database on.

use std::ffi::OsString;
use std::process::Command;

use shoal_hostdb::Access;

use super::programs;
use crate::args::Output;
use crate::failure::{Failure, Outcome};

const PROGRAM: &str = "shoal-placement";

/// Becomes the program, which looks at this database. Comes back only where that fails.
pub(crate) fn run(words: Vec<OsString>, store: &str, access: &Access, output: Output) -> Outcome {
    let output = match output {
        Output::Text => "text",
        Output::Json => "json",
        Output::Yaml => {
            return Err(Failure::Usage("this is printed as text or json, not as yaml".to_owned()));
        }
    };
    let mut command = programs::command(PROGRAM);
    command.args(words).args(["--output", output]);
    hand_on(&mut command, store, access);
    programs::run(
        command,
        "ask on a machine where the placement agent is installed; whatever its configuration says of the policy counts there",
    )
}

/// By its environment: an address may hold a password, and everybody sees the words of a command.
fn hand_on(command: &mut Command, store: &str, access: &Access) {
    command.env("SHOAL_STORE", store);
    let Access { ca, cert, key, token_file, password_file } = access;
    let files = [
        ("SHOAL_CA", ca),
        ("SHOAL_CERT", cert),
        ("SHOAL_KEY", key),
        ("SHOAL_TOKEN_FILE", token_file),
        ("SHOAL_PASSWORD_FILE", password_file),
    ];
    for (name, file) in files {
        if let Some(file) = file {
            command.env(name, file);
        }
    }
}
