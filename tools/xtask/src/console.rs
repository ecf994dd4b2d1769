//! What the commands say while they work. Everything goes to standard error: standard output is the guest's console.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// One line for the person at the terminal.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// A step that takes a while: a spinner on a terminal, a line at its start and end otherwise.
pub(crate) struct Step {
    what: String,
    started: Instant,
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Shows that the step has begun.
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let spinner = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if spinner.is_none() {
            say(&format!("{what} ..."));
        }
        Step { what, started: Instant::now(), spinner }
    }

    /// Shows that it has succeeded, with what came of it. A step that is dropped instead has failed; its error says why.
    pub(crate) fn done(mut self, result: &str) {
        if let Some(bar) = self.spinner.take() {
            bar.finish_and_clear();
        }
        let colon = if result.is_empty() { "" } else { ": " };
        say(&format!("{}{colon}{result} ({:.1} s)", self.what, self.started.elapsed().as_secs_f64()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.spinner.take() {
            bar.finish_and_clear();
        }
    }
}
