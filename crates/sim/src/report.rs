//! What a run of one seed is asked and gives, and the sums over many. Knows neither worlds nor processes.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::schedule::Profile;

/// How to run a world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Note every step in [`Report::lines`].
    pub trace: bool,
    /// A mistake to make on purpose, one of [`crate::mutants::MUTANTS`].
    pub mutant: Option<String>,
    /// Worlds of this profile only: other worlds than the seeds' own.
    pub profile: Option<Profile>,
}

/// What came of a world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// A hash of all that happened: the same seed must give the same one.
    pub trace_hash: [u8; 32],
    /// Operations of clients.
    pub operations: u64,
    /// How long the world lasted, in its own time.
    pub virtual_ms: u64,
    /// What happened, and how often: faults as they struck, not as they were planned.
    pub events: BTreeMap<String, u64>,
    /// What was promised and did not hold.
    pub violation: Option<String>,
    /// The trace, if asked for; the last of it, if something did not hold.
    pub lines: Vec<String>,
}

/// Runs one world.
pub type Run = fn(u64, &Options) -> Report;

/// A seed that did not end well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub seed: u64,
    /// How it ended.
    pub kind: FindingKind,
    /// What was violated, or what the panic said, or the last that the process wrote.
    pub what: String,
    /// The end of the trace, if there is one.
    pub lines: Vec<String>,
}

/// How a seed ended badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A promise did not hold.
    Violation,
    /// The world panicked.
    Panic,
    /// It did not end within the limit of real time.
    Hang,
    /// The process was gone without an answer.
    Died,
    /// A second run of the seed went another way.
    NotDeterministic,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Violation => "violation",
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::Died => "process died",
            Self::NotDeterministic => "not deterministic",
        })
    }
}

/// The command that repeats a seed with a trace.
pub fn repeat_command(seed: u64, options: &Options) -> String {
    format!(
        "cargo sim -- --seed {seed} --trace{}",
        options.arguments().iter().map(|a| format!(" {a}")).collect::<String>()
    )
}

impl Options {
    /// What says these on the command line, but for the trace.
    pub fn arguments(&self) -> Vec<String> {
        let mutant = self.mutant.iter().flat_map(|name| ["--mutant".to_owned(), name.clone()]);
        let profile =
            self.profile.iter().flat_map(|profile| ["--profile".to_owned(), profile.name().to_owned()]);
        mutant.chain(profile).collect()
    }
}

/// The sums over the seeds that were run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Seeds run, those that failed included.
    pub seeds: u64,
    /// Seeds that were found done in the file to resume from.
    pub skipped: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Time in the worlds.
    pub virtual_ms: u64,
    /// What happened, and how often.
    pub events: BTreeMap<String, u64>,
    /// What was found, in order of seed.
    pub findings: Vec<Finding>,
    /// Real time.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
}

fn as_seconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}

impl Summary {
    /// Adds a world that ended.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.operations += report.operations;
        self.virtual_ms += report.virtual_ms;
        for (event, times) in &report.events {
            *self.events.entry(event.clone()).or_default() += times;
        }
    }

    /// Adds the sums of another run.
    pub fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.skipped += other.skipped;
        self.operations += other.operations;
        self.virtual_ms += other.virtual_ms;
        for (event, times) in other.events {
            *self.events.entry(event).or_default() += times;
        }
        self.findings.extend(other.findings);
        self.elapsed += other.elapsed;
    }

    /// Seeds run in a second of real time.
    pub fn rate(&self) -> f64 {
        self.seeds as f64 / self.elapsed.as_secs_f64().max(0.001)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rate) = (self.elapsed.as_secs_f64(), self.rate());
        write!(f, "{} seeds in {seconds:.1}s ({rate:.1}/s), {} failed", self.seeds, self.findings.len())?;
        if self.skipped > 0 {
            write!(f, ", {} skipped as done", self.skipped)?;
        }
        let hours = self.virtual_ms as f64 / 3_600_000.0;
        write!(f, "\n{} operations in {hours:.1} virtual hours", self.operations)?;
        let events: Vec<String> =
            self.events.iter().map(|(event, times)| format!("{event} {times}")).collect();
        if events.is_empty() { Ok(()) } else { write!(f, "\nevents: {}", events.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let mut summary = Summary { elapsed: Duration::from_secs(2), ..Summary::default() };
        for times in [1, 2] {
            let events = BTreeMap::from([("crash".to_owned(), times)]);
            let report = Report { operations: 10, virtual_ms: 1_800_000, events, ..Report::default() };
            summary.add(&report);
        }
        let text = "2 seeds in 2.0s (1.0/s), 0 failed\n20 operations in 1.0 virtual hours\nevents: crash 3";
        assert_eq!(summary.to_string(), text);
    }

    #[test]
    fn a_report_survives_the_way_between_processes() {
        let violation = Some("two\nlines".to_owned());
        let report = Report { trace_hash: [7; 32], violation, operations: 3, ..Report::default() };
        let line = serde_json::to_string(&report).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
    }
}
