//! How far something is that the node does, on stderr and only when a person watches.

use std::{borrow::Cow, io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const SIZED: &str = "{prefix} {wide_bar} {msg}";
const UNSIZED: &str = "{spinner} {prefix} {msg}";
/// How often the display moves.
const TICK: Duration = Duration::from_millis(100);

/// Whether a person watches.
pub(super) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// A display of something under way; gone when dropped.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Shows what is under way, and how much there is to do, if that is known.
    pub(super) fn show(what: impl Into<Cow<'static, str>>, total: Option<u64>) -> Self {
        if !is_watched() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = if total.is_some() { SIZED } else { UNSIZED };
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        bar.set_style(style.progress_chars("━╸ "));
        bar.set_prefix(what);
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    /// So much of it is done, in words and as a number.
    pub(super) fn set(&self, done: u64, words: String) {
        self.bar.set_position(done);
        self.bar.set_message(words);
    }

    /// There is so much to do.
    pub(super) fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Prints a remark above the display.
    pub(super) fn note(&self, remark: &str) {
        self.bar.suspend(|| crate::output::note(remark));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        for template in [SIZED, UNSIZED] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
