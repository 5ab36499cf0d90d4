//! Questions to what chooses: a look at the database, an answer, nothing written.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use serde::de::DeserializeOwned;
use serde_json::Value;
use shoal_client::Access;
use shoal_core::View;
use shoal_engine::{Fault, Verdict};
use shoal_store::Database;

use crate::cli::{Args, Output};
use crate::config::{self, Config};
use crate::exit::{End, Failure};
use crate::logs;
use crate::program::{program_name, to_end};
use crate::setup::{Limit, json, print};
use crate::stores::{Missing, Stores};

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// For people.
    pub text: String,
    /// For programs (`--output json`).
    pub json: Value,
    /// How the program ends.
    pub word: Word,
}

/// An answer in a word: the program's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// 0: all is well.
    Well,
    /// 3: there is something to do.
    ToDo,
    /// 4: something cannot be done.
    Not,
}

/// The command line of a question.
#[derive(Debug, Parser)]
#[command(version)]
struct Question<Q: clap::Args> {
    #[command(flatten)]
    asked: Q,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The host database: sqlite:PATH, https://HOST:PORT, http://HOST:PORT or unix:/PATH of a server (several with commas), memory:
    #[arg(long, value_name = "URL", env = "SHOAL_STORE")]
    store: Option<String>,
    #[command(flatten)]
    access: Access,
    /// The configuration file [default: /etc/shoal/NAME.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Answers a question, if the first word of the command line is its name. `answer` gets the node's configuration, the database and what stands
/// behind the name. Nothing is written.
///
/// The exit code is as [`Word`] says, 1 where it cannot be answered, 2 for wrong usage.
pub fn question<C, Q>(
    name: &'static str,
    about: &'static str,
    answer: impl FnOnce(C, &View, &Q) -> Result<Answer, Fault> + Send + 'static,
) -> Option<ExitCode>
where
    C: DeserializeOwned + Send + 'static,
    Q: clap::Args + Send + Sync + 'static,
{
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if words.first().is_none_or(|word| word.as_os_str() != name) {
        return None;
    }
    let program = format!("shoal-{} {name}", program_name());
    let command = Question::<Q>::command().name(program.clone()).bin_name(program).about(about);
    let matches = command.get_matches_from(words);
    let question = Question::<Q>::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Some(to_end(answered(question, answer)))
}

async fn answered<C, Q>(
    question: Question<Q>,
    answer: impl FnOnce(C, &View, &Q) -> Result<Answer, Fault> + Send,
) -> Result<End, Failure>
where
    C: DeserializeOwned + Send,
    Q: clap::Args,
{
    let Question { asked, output, store, access, config } = question;
    let args = Args { output, store, access, config, plan: true, ..Args::default() };
    let path = config::path(&args, &program_name());
    let config = Config::<C>::read(&path, args.config.is_some())?;
    logs::start(config.common.log);
    let limit = Limit::new(&args, &config.common);
    let (url, access) = (config.store(&args), config.access(&args));
    let stores = Stores::new();
    let store = limit.keep("open the database", stores.open(&url, Missing::Refuse, &access)).await?;
    let read = async { Database::open(store).await.map_err(Failure::store("read the database")) };
    let database = limit.keep("read the database", read).await?;
    let answer = answer(config.agent, &database.view(), &asked)?;
    print(match output {
        Output::Text => answer.text,
        Output::Json => json(&answer.json)?,
    })?;
    Ok(match answer.word {
        Word::Well => End::Chosen(false, Verdict::Converged),
        Word::ToDo => End::Chosen(true, Verdict::Converged),
        Word::Not => End::Chosen(false, Verdict::Held),
    })
}
