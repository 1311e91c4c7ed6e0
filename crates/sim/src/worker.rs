//! The worker process: reads seeds, a line each, runs their worlds, answers one line of JSON for each.
//!
//! A world that panics is answered too, and then the process ends, since nobody knows what the panic left
//! behind in it; [`crate::runner`] starts another. Hangs and deaths are the runner's to notice.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::RefCell,
    io::{self, BufRead, Write},
    panic::{self, AssertUnwindSafe},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::report::{Options, Report, Run};

/// What answers start with: whatever else a world writes to its standard output is not taken for one.
pub const MARK: &str = "\u{1}answer ";

/// The answer to one seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Which.
    pub seed: u64,
    /// What came of it, or what the panic said.
    pub result: Result<Report, String>,
}

/// A failure to rehearse in worlds in which nothing else happens, so that tests can see what the runner makes of
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    kind: RehearsalKind,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RehearsalKind {
    Nothing,
    Panic,
    Hang,
    Die,
}

impl FromStr for Rehearsal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = || format!("{text:?} is not nothing@SEED, panic@SEED, hang@SEED or die@SEED");
        let (kind, seed) = text.split_once('@').ok_or_else(help)?;
        let kind = match kind {
            "nothing" => RehearsalKind::Nothing,
            "panic" => RehearsalKind::Panic,
            "hang" => RehearsalKind::Hang,
            "die" => RehearsalKind::Die,
            _ => return Err(help()),
        };
        Ok(Self { kind, seed: seed.parse().map_err(|_| help())? })
    }
}

impl Rehearsal {
    fn play(self, seed: u64) {
        if seed != self.seed {
            return;
        }
        match self.kind {
            RehearsalKind::Nothing => {}
            RehearsalKind::Panic => panic!("a rehearsed panic"),
            RehearsalKind::Hang => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            RehearsalKind::Die => std::process::abort(),
        }
    }
}

/// Answers seeds until the input ends or a world panics.
pub fn serve(
    run: Run,
    options: &Options,
    rehearsal: Option<Rehearsal>,
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    for line in input.lines() {
        let line = line?;
        let seed = line.trim().parse().map_err(|_| io::Error::other(format!("not a seed: {line:?}")))?;
        let result = caught(|| {
            if let Some(rehearsal) = rehearsal {
                rehearsal.play(seed);
                return Report { operations: seed, ..Report::default() };
            }
            run(seed, options)
        });
        let answer = Answer { seed, result };
        writeln!(output, "{MARK}{}", serde_json::to_string(&answer)?)?;
        output.flush()?;
        if answer.result.is_err() {
            break;
        }
    }
    Ok(())
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a world, and gives what it said if it panicked: message, place and, if `RUST_BACKTRACE` is set, the
/// stack. Panics on other threads of a world are its own to notice.
pub fn caught(world: impl FnOnce() -> Report) -> Result<Report, String> {
    let before = panic::take_hook();
    panic::set_hook(Box::new(|info| {
        let stack = Backtrace::capture();
        let mut said = info.to_string();
        if stack.status() == BacktraceStatus::Captured {
            said = format!("{said}\n{stack}");
        }
        // The first panic is the cause; others follow from it.
        PANIC.with_borrow_mut(|kept| _ = kept.get_or_insert(said));
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(world));
    panic::set_hook(before);
    let said = PANIC.take();
    result.map_err(|_| said.unwrap_or_else(|| "a panic that said nothing".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &str, rehearsal: &str) -> Vec<Answer> {
        let run: Run = |_, _| unreachable!("a rehearsal needs no world");
        let mut output = Vec::new();
        let rehearsal = Some(rehearsal.parse().unwrap());
        serve(run, &Options::default(), rehearsal, input.as_bytes(), &mut output).unwrap();
        let lines = String::from_utf8(output).unwrap();
        lines.lines().map(|line| serde_json::from_str(line.strip_prefix(MARK).unwrap()).unwrap()).collect()
    }

    #[test]
    fn seeds_are_answered_until_a_panic() {
        let answers = answers("4\n5\n6\n7\n", "panic@6");
        assert_eq!(answers.iter().map(|answer| answer.seed).collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(answers[1].result.as_ref().unwrap().operations, 5);
        assert!(answers[2].result.as_ref().unwrap_err().contains("a rehearsed panic"));
    }

    #[test]
    fn a_rehearsal_is_named_rightly_or_refused() {
        assert!("hang@7".parse::<Rehearsal>().is_ok());
        for wrong in ["hang", "nap@7", "hang@x"] {
            assert!(wrong.parse::<Rehearsal>().unwrap_err().contains("hang@SEED"));
        }
    }
}
