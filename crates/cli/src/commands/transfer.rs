//! The progress of a transfer, on stderr and only when a person watches.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const SIZED: &str =
    "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
const UNSIZED: &str = "{spinner} {msg} {binary_bytes}, {binary_bytes_per_sec}";
/// How often the display moves.
const TICK: Duration = Duration::from_millis(100);

/// A transfer under way.
pub(crate) struct Transfer {
    bar: ProgressBar,
    begun: Instant,
    bytes: u64,
}

impl Transfer {
    /// Shows a transfer of so many bytes, if that is known.
    pub(crate) fn show(name: &str, size: Option<u64>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template = if size.is_some() { SIZED } else { UNSIZED };
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        bar.set_style(style.progress_chars("━╸ "));
        bar.set_message(name.chars().filter(|c| !c.is_control()).collect::<String>());
        bar.enable_steady_tick(TICK);
        Self { bar, begun: Instant::now(), bytes: 0 }
    }

    /// Counts without showing.
    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), begun: Instant::now(), bytes: 0 }
    }

    /// So many more bytes went.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.bar.set_position(self.bytes);
    }

    /// Time so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for Transfer {
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
