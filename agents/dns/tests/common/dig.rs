//! Asking with `dig`, as people do.

use std::net::SocketAddr;
use std::process::Command;

/// What `dig` said.
#[derive(Debug)]
pub(crate) struct Dig {
    pub(crate) text: String,
}

/// Asks the server; the rest of the command line is given in words.
pub(crate) fn dig(server: SocketAddr, words: &str) -> Dig {
    let output = Command::new("dig")
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+norecurse", "+nocookie", "+timeout=5", "+tries=4"])
        .args(words.split(' '))
        .output()
        .unwrap();
    Dig { text: String::from_utf8_lossy(&output.stdout).into_owned() }
}

impl Dig {
    /// `NOERROR`, `NXDOMAIN`, ….
    pub(crate) fn status(&self) -> &str {
        self.text.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("no answer")
    }

    /// The header's flags.
    pub(crate) fn flags(&self) -> &str {
        self.text.split("flags: ").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or("")
    }

    /// The records of a section, `name ttl type data`, sorted.
    pub(crate) fn section(&self, name: &str) -> Vec<String> {
        let head = format!(";; {name} SECTION:");
        let mut lines: Vec<String> = self
            .text
            .lines()
            .skip_while(|line| *line != head)
            .skip(1)
            .take_while(|line| !line.is_empty())
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "IN").collect();
                words.join(" ")
            })
            .collect();
        lines.sort();
        lines
    }

    /// The answer section.
    pub(crate) fn answer(&self) -> Vec<String> {
        self.section("ANSWER")
    }
}
