//! Everything that is printed goes through here: results on stdout, remarks and errors on stderr.
//!
//! Keys and messages may come from other machines, so control characters never reach a terminal.

use std::{
    borrow::Cow,
    fmt,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
};

use serde_json::Value;

/// Whoever read our stdout went away: the command ends quietly, as `cat` does.
#[derive(Debug)]
pub(crate) struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stdout was closed")
    }
}

impl std::error::Error for StdoutClosed {}

/// A failed write to stdout, as the error that ends the command.
pub(crate) fn stdout_failed(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => StdoutClosed.into(),
        _ => anyhow::Error::new(error).context("can't write to stdout"),
    }
}

/// Stdout: lines for people, or one JSON value a line for programs.
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    /// Whether programs read it.
    pub(crate) json: bool,
    terminal: bool,
}

impl Output {
    /// Stdout, in this form.
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { stdout: BufWriter::with_capacity(64 << 10, stdout), json, terminal }
    }

    /// A line for people.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> anyhow::Result<()> {
        let line = if self.terminal { printable(line.as_ref()) } else { line.as_ref().into() };
        writeln!(self.stdout, "{line}").map_err(stdout_failed)
    }

    /// A text as it is.
    pub(crate) fn text(&mut self, text: &[u8]) -> anyhow::Result<()> {
        self.stdout.write_all(text).map_err(stdout_failed)
    }

    /// A line for programs.
    pub(crate) fn value(&mut self, value: &Value) -> anyhow::Result<()> {
        writeln!(self.stdout, "{value}").map_err(stdout_failed)
    }

    /// One or the other, as was asked for.
    pub(crate) fn either(&mut self, value: &Value, lines: impl AsRef<str>) -> anyhow::Result<()> {
        match self.json {
            true => self.value(value),
            false => lines.as_ref().lines().try_for_each(|line| self.line(line)),
        }
    }

    /// Sends on what was printed so far.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.stdout.flush().map_err(stdout_failed)
    }
}

/// A remark on stderr. A closed stderr is no reason to stop.
pub(crate) fn note(message: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", printable(&message.to_string()));
}

/// The one line that says why a command failed.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("pando: {error:#}"));
}

/// The text with control characters (escape sequences, line breaks) made visible.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\t') {
        return text.into();
    }
    let escape = |c: char| match c {
        '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequence_reaches_a_terminal() {
        assert_eq!(printable("plain ö"), "plain ö");
        assert_eq!(printable("a\x1b[31mb\r\nc"), "a\\u{1b}[31mb\\r\\nc");
    }
}
