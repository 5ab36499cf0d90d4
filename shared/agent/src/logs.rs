//! Logs: to the journal without a time of our own, to a terminal with one, or as JSON.

use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::LogForm;

type Form = Box<dyn Layer<Registry> + Send + Sync>;

/// How to write them otherwise; empty where somebody else set logging up.
static SWITCH: OnceLock<reload::Handle<Form, Registry>> = OnceLock::new();

/// Sets logging up for this process. Where somebody did so before, theirs stands.
pub(crate) fn start(form: LogForm) {
    let (layer, switch) = reload::Layer::new(layer(form));
    if tracing_subscriber::registry().with(layer).with(filter()).try_init().is_ok() {
        let _ = SWITCH.set(switch);
    }
}

/// Writes them so from now on.
pub(crate) fn switch(form: LogForm) {
    if let Some(switch) = SWITCH.get()
        && let Err(error) = switch.reload(layer(form))
    {
        tracing::error!("the form of the logs stays as it was: {error}");
    }
}

/// What is logged: `SHOAL_LOG`, else `RUST_LOG`, else `info`, as in every program of Shoal.
fn filter() -> EnvFilter {
    let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    EnvFilter::new(["SHOAL_LOG", "RUST_LOG"].into_iter().find_map(set).as_deref().unwrap_or("info"))
}

fn layer(form: LogForm) -> Form {
    let base = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match form {
        LogForm::Json => base.json().flatten_event(true).boxed(),
        LogForm::Text if journal => base.without_time().with_ansi(false).boxed(),
        LogForm::Text => base.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
    }
}
