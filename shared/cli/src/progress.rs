//! What a command that takes long says meanwhile: one line on the terminal of standard error, gone when it ends.
//!
//! Nothing is shown of what ends within two seconds, and nothing at all where standard error is no terminal. A thread of its
//! own draws, so that a command that computes or waits need not think of it.

use std::io::IsTerminal as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long a command may take in silence.
const SILENT: Duration = Duration::from_secs(2);
/// How often it is drawn.
const TICK: Duration = Duration::from_millis(200);

/// A line about what is going on. Goes away when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    ends: Option<Sender<()>>,
    drawer: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to say what is done, where there is somebody to see it.
    pub(crate) fn begin(what: &str) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style("{spinner} {msg} ({elapsed})"));
        bar.set_message(what.to_owned());
        let (ends, ended) = channel();
        let drawn = bar.clone();
        let drawer = std::thread::spawn(move || {
            if ended.recv_timeout(SILENT) == Err(RecvTimeoutError::Timeout) {
                drawn.set_draw_target(ProgressDrawTarget::stderr());
                drawn.enable_steady_tick(TICK);
            }
        });
        Some(Self { bar, ends: Some(ends), drawer: Some(drawer) })
    }

    /// What is being done now.
    pub(crate) fn say(&self, what: String) {
        self.bar.set_message(what);
    }

    /// How much of how much is done.
    pub(crate) fn at(&self, done: u64, of: u64) {
        if self.bar.length() != Some(of) {
            self.bar.set_length(of);
            self.bar.set_style(style("{spinner} {msg} [{bar:30}] {human_pos} of {human_len} ({elapsed})"));
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.ends.take());
        // It only waits, so it ends at once.
        let _ = self.drawer.take().map(JoinHandle::join);
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; one with a fault is shown in the plainest way.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
