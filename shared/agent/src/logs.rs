//! Logs: to the journal without a time of our own, to a terminal with one, or as JSON.

use tracing_subscriber::EnvFilter;

use crate::config::LogForm;

/// Sets logging up for this process. A second call does nothing.
pub(crate) fn start(form: LogForm) {
    let filter = EnvFilter::try_from_env("SHOAL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let base =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let done = match form {
        LogForm::Json => base.json().flatten_event(true).try_init(),
        LogForm::Text if journal => base.without_time().with_ansi(false).try_init(),
        LogForm::Text => base.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    // Somebody set it up before: theirs stands.
    let _ = done;
}
