//! HAProxy's sockets: that of the process, and that of its master.

use std::path::PathBuf;
use std::time::Duration;

use shoal_agent::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The most of an answer that is read, in octets: a pool of 100,000 servers has a tenth of it.
const MOST: u64 = 1 << 29;
/// The most that is asked in one line, in octets: HAProxy's buffer has 16 KiB by default.
const LINE: usize = 8 * 1024;

/// A socket that takes commands.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    path: PathBuf,
    within: Duration,
}

impl Socket {
    pub(super) fn new(path: PathBuf, within: Duration) -> Self {
        Self { path, within }
    }

    /// Asks one line of commands, and gives the whole answer.
    ///
    /// # Errors
    /// HAProxy does not answer, or not in time. What it was told may have been done.
    pub(super) async fn ask(&self, line: &str) -> Result<String, Fault> {
        let talk = async {
            let mut stream = UnixStream::connect(&self.path).await?;
            stream.write_all(line.as_bytes()).await?;
            stream.write_all(b"\n").await?;
            // The master waits for more until it hears that there is none.
            stream.shutdown().await?;
            let mut answer = Vec::new();
            stream.take(MOST).read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        let what = || format!("ask HAProxy at {}", self.path.display());
        match tokio::time::timeout(self.within, talk).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => {
                Err(Fault::new(what(), e).next("see that it runs, and that this agent may use its socket"))
            }
            Err(_) => Err(Fault::new(what(), format!("no answer within {} s", self.within.as_secs()))),
        }
    }

    /// Gives groups of commands, several to a line, and what HAProxy complains of in each; `mark` is a variable of the process that it has.
    ///
    /// How many lines a command answers with differs, so between two groups the variable is asked for.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); or the answers cannot be told apart.
    pub(super) async fn tell(&self, groups: &[Vec<String>], mark: &str) -> Result<Vec<String>, Fault> {
        let mut answers = Vec::with_capacity(groups.len());
        let mut rest = groups;
        while !rest.is_empty() {
            let (line, taken) = line(rest, mark);
            let answer = self.ask(&line).await?;
            let before = answers.len();
            answers.extend(complaints(&answer, mark));
            if answers.len() - before != taken {
                let why = format!("{taken} changes had {} answers: {answer:?}", answers.len() - before);
                return Err(Fault::new(format!("tell HAProxy at {}", self.path.display()), why));
            }
            rest = &rest[taken..];
        }
        Ok(answers)
    }
}

/// As many groups as one line takes, at least one; and how many.
fn line(groups: &[Vec<String>], mark: &str) -> (String, usize) {
    let mut line = String::new();
    let mut taken = 0;
    for group in groups {
        let mut text = group.join(";");
        text.push_str(";get var ");
        text.push_str(mark);
        if taken > 0 && line.len() + text.len() >= LINE {
            break;
        }
        if taken > 0 {
            line.push(';');
        }
        line.push_str(&text);
        taken += 1;
    }
    (line, taken)
}

/// What HAProxy says when all is well.
const WELL: [&str; 4] = ["New server registered", "Server deleted", "IP changed from", "no need to change"];

/// What HAProxy complained of, group by group: nothing, where all went well.
fn complaints(answer: &str, mark: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut said: Vec<&str> = Vec::new();
    for line in answer.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.strip_prefix(mark).is_some_and(|rest| rest.starts_with(':')) {
            all.push(std::mem::take(&mut said).join(" "));
        } else if !WELL.iter().any(|well| line.starts_with(well)) {
            said.push(line);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart_by_the_mark() {
        let answer = "New server registered.\n\n\nproc.a: type=str value=<x>\n\nNo such server.\n\nproc.a: type=str value=<x>\n\n";
        assert_eq!(complaints(answer, "proc.a"), ["", "No such server."]);
        assert_eq!(complaints("", "proc.a"), Vec::<String>::new());
    }

    #[test]
    fn a_line_is_short_and_has_at_least_one_group() {
        let group = vec!["x".repeat(5_000)];
        let (text, taken) = line(&[group.clone(), group], "proc.a");
        assert!(taken == 1 && text.ends_with("x;get var proc.a"));
        let small = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(line(&[small.clone(), small], "m"), ("a;b;get var m;a;b;get var m".to_owned(), 2));
    }
}
