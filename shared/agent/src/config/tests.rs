//! What a configuration may say, and that the page about it is true.

use std::collections::{BTreeMap, BTreeSet};

use clap::{CommandFactory as _, ValueEnum as _};
use shoal_engine::{Nature, Options};

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    dir: PathBuf,
    #[serde(default)]
    port: Option<u16>,
}

fn read(text: &str) -> Result<Config<Own>, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    std::fs::write(&path, text).unwrap();
    Config::read(&path, true)
}

#[test]
fn both_parts_are_typed() {
    let config =
        read("resync = '90s'\nmax_change = '50%'\ndrift = 'report'\n[max_change_by_tag]\n'dns/a' = '70%'\n[agent]\ndir = '/d'")
            .unwrap();
    assert_eq!(config.common.resync, Some(Duration::from_secs(90)));
    assert_eq!(config.common.max_change, Some(MaxChange(50)));
    assert_eq!(config.common.drift, OnDrift::Report);
    assert_eq!((config.agent.dir, config.agent.port), (PathBuf::from("/d"), None));
}

#[test]
fn slips_are_errors_that_name_the_file_and_the_field() {
    for (text, names) in [
        ("max_chnge = '5%'\n[agent]\ndir = '/d'", "max_chnge"),
        ("max_change = '500%'\n[agent]\ndir = '/d'", "500%"),
        ("[agent]\ndri = '/d'", "dri"),
        ("", "dir"),
        ("\n[agent]\nport = 'x'\ndir = '/d'", "line 3, column 8"),
        ("claim = '2999ms'\n[agent]\ndir = '/d'", "line 1, column 9 is wrong: claim is at least 3s"),
        ("resync = '10ms'\n[agent]\ndir = '/d'", "resync is at least 1s"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(names) && error.contains("x.toml"), "{error}");
    }
}

#[test]
fn what_is_too_short_is_refused_and_not_made_longer() {
    let common = read("claim = '3s'\nresync = '1s'\n[agent]\ndir = '/d'").unwrap().common;
    let seconds = Duration::from_secs;
    assert_eq!((common.claim, common.resync), (Some(seconds(3)), Some(seconds(1))));
    let usage = Args::command().try_get_matches_from(["x", "--resync", "10ms"]).unwrap_err();
    assert!(usage.to_string().contains("resync is at least 1s"), "{usage}");
    assert_eq!(usage.exit_code(), 2);
}

#[test]
fn an_error_never_tells_a_secret() {
    for text in [
        "store = ['hunter2']\n[agent]\ndir = '/d'",
        "resync = 'hunter2'\n[agent]\ndir = '/d'",
        "store = 'x:hunter2' oops\n[agent]\ndir = '/d'",
        "store = 'hunter2\n[agent]\ndir = '/d'",
        "store = hunter2\n[agent]\ndir = '/d'",
        "[agent]\ndir = '/d'\nport = 'hunter2'",
        "[agent]\ndir = '/d'\nport = '\\hunter2, expected \"'",
        "[agent]\ndir = '/d'\npassword = 'hunter2'",
        "agent = 'hunter2'",
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_file_that_went_away_is_not_an_empty_one() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Any {}
    let nowhere = Path::new("/nonexistent/motd.toml");
    assert!(Config::<Any>::read(nowhere, false).is_ok());
    let error = Config::<Any>::read(nowhere, true).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/motd.toml"), "{error}");
}

#[test]
fn without_a_file_the_error_says_what_to_write() {
    let nowhere = Path::new("/nonexistent/motd.toml");
    let error = Config::<Own>::read(nowhere, false).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/motd.toml") && error.contains("[agent]\n    dir = "), "{error}");
}

/// The rows of the table of settings: field, option, default.
fn rows(page: &str) -> Vec<[&str; 3]> {
    fn cells(line: &str) -> [&str; 3] {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    }
    let table = page.lines().skip_while(|line| !line.starts_with("| configuration | command line |"));
    table.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_page_has_every_setting_and_its_default() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = rows(&page);
    let told = |at: usize| -> BTreeSet<String> {
        let first = rows.iter().filter_map(|row| row[at].split(' ').next());
        first.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    // serde says which fields there are when it meets another.
    let error = toml::from_str::<Common>("zzz = 1").unwrap_err();
    let (_, known) = error.message().split_once("expected one of ").unwrap();
    let fields: BTreeSet<String> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(told(0), fields);
    let command = Args::command();
    let options = command.get_arguments().filter_map(|arg| arg.get_long()).map(|long| format!("--{long}"));
    assert_eq!(told(1), options.collect::<BTreeSet<_>>());

    let default: BTreeMap<&str, &str> = rows
        .iter()
        .map(|row| (if row[0].is_empty() { row[1] } else { row[0] }, row[2]))
        .filter(|(_, default)| !default.is_empty())
        .map(|(name, default)| (name.split(' ').next().unwrap_or_default(), default))
        .collect();
    let options = Options::new("x", Nature::default(), 1);
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap();
    let span = |name: &str| millis(shoal_core::span(default[name]).unwrap());
    assert_eq!(default["store"], DEFAULT_STORE);
    assert_eq!(default["max_change"], options.max_change.to_string());
    assert_eq!(serde_json::json!(default["drift"]), serde_json::to_value(options.drift).unwrap());
    assert_eq!((span("resync"), span("claim")), (options.resync, options.ttl));
    assert_eq!(span("timeout"), millis(crate::setup::TIMEOUT));
    assert_eq!(span("--wait"), millis(crate::setup::MOST));
    assert_eq!(default["retry_rate"], options.retry_rate.to_string());
    assert_eq!(default["max_batch"], options.max_batch.to_string());
    assert_eq!(default["log"], format!("{:?}", LogForm::default()).to_lowercase());
    assert_eq!(default["--output"], crate::cli::Output::default().to_possible_value().unwrap().get_name());
    assert_eq!(span("max_change_within"), options.max_change_within);
    assert_eq!(default.len(), 12, "a default that nobody checks: {default:?}");
}

#[test]
fn a_secret_in_the_place_of_where_it_is_stays_untold() {
    const PLANTED: &str = "correct-horse-battery-staple";
    for place in
        [format!("\"{PLANTED}\""), format!("{{ value = \"{PLANTED}\" }}"), format!("[\"{PLANTED}\"]")]
    {
        let text = format!("[secrets]\npager = {place}\n[agent]\n");
        let said = Config::<toml::Table>::parse(text, Path::new("x.toml")).unwrap_err().to_string();
        assert!(said.contains("x.toml, line 2") && !said.contains(PLANTED), "{said}");
    }
}
