//! What a run found: lines as they are measured, goals at the end, all of it as JSON.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::{
    ceilings::{Ceilings, GIB, MIB, Sync, Write},
    cluster::Cost,
    floor::Floors,
    goals::{ALL, Figures, Goal},
    machine::Machine,
    stats::{Latency, millis, ratio},
};

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "MiB/s")]
    MibPerSecond,
    #[serde(rename = "/s")]
    PerSecond,
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "MiB")]
    Mib,
    #[serde(rename = "%")]
    Percent,
    #[serde(rename = "CPU-s/GiB")]
    CpuPerGib,
    #[serde(rename = "CPU-ms")]
    CpuMillis,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::MibPerSecond => "MiB/s",
            Unit::PerSecond => "/s",
            Unit::Millis => "ms",
            Unit::Mib => "MiB",
            Unit::Percent => "%",
            Unit::CpuPerGib => "CPU-s/GiB",
            Unit::CpuMillis => "CPU-ms",
        }
    }
}

/// One result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) part: &'static str,
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    #[serde(flatten)]
    pub(crate) latency: Option<Latency>,
    /// Of all nodes: CPU seconds a GiB of a transfer, CPU milliseconds of each operation.
    pub(crate) cpu: Option<f64>,
    /// CPU floor / CPU used.
    pub(crate) of_floor: Option<f64>,
    /// Of the value that the ceiling is.
    pub(crate) of_ceiling: Option<f64>,
    /// The most memory that a node had, in MiB.
    pub(crate) peak: Option<f64>,
}

impl Line {
    /// A value by itself.
    pub(crate) fn value(part: &'static str, what: impl Into<String>, value: f64, unit: Unit) -> Self {
        let what = what.into();
        Self {
            part,
            what,
            value,
            unit,
            latency: None,
            cpu: None,
            of_floor: None,
            of_ceiling: None,
            peak: None,
        }
    }

    /// So many bytes that were moved.
    pub(crate) fn transfer(part: &'static str, what: impl Into<String>, bytes: u64, cost: Cost) -> Self {
        let rate = ratio(bytes as f64 / MIB, cost.wall.as_secs_f64());
        Self {
            cpu: Some(ratio(cost.cpu.as_secs_f64(), bytes as f64 / GIB)),
            peak: Some(cost.peak as f64 / MIB),
            ..Self::value(part, what, rate, Unit::MibPerSecond)
        }
    }

    /// So many operations, that took `wall` in all.
    pub(crate) fn operations(
        part: &'static str,
        what: impl Into<String>,
        count: u64,
        wall: Duration,
        cost: Cost,
    ) -> Self {
        Self {
            cpu: Some(ratio(millis(cost.cpu), count as f64)),
            peak: Some(cost.peak as f64 / MIB),
            ..Self::value(part, what, ratio(count as f64, wall.as_secs_f64()), Unit::PerSecond)
        }
    }

    /// A latency.
    pub(crate) fn latency(part: &'static str, what: impl Into<String>, latency: Latency) -> Self {
        Self { latency: Some(latency), ..Self::value(part, what, latency.p50, Unit::Millis) }
    }

    /// The better of two runs, each figure for itself: noise only ever makes worse. The peak is the higher.
    pub(crate) fn or_better(mut self, other: Self) -> Self {
        self.value = self.value.max(other.value);
        self.cpu = self.cpu.zip(other.cpu).map(|(one, other)| one.min(other));
        self.peak = self.peak.zip(other.peak).map(|(one, other)| one.max(other));
        self
    }

    /// With the ratios to a floor of CPU and a ceiling.
    pub(crate) fn against(mut self, floor: Option<f64>, ceiling: Option<f64>) -> Self {
        self.of_floor = floor.zip(self.cpu).map(|(floor, cpu)| ratio(floor, cpu));
        self.of_ceiling = ceiling.map(|ceiling| ratio(self.value, ceiling));
        self
    }
}

/// All of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) command: String,
    pub(crate) seconds: f64,
    pub(crate) ceilings: Ceilings,
    pub(crate) round_trip: Latency,
    pub(crate) floors: Floors,
    /// Of the disk, where it was measured.
    pub(crate) disk_write: Option<Write>,
    pub(crate) disk_sync: Option<Sync>,
    pub(crate) lines: Vec<Line>,
    pub(crate) goals: Vec<Goal>,
    #[serde(skip)]
    pub(crate) figures: Figures,
    #[serde(skip)]
    pub(crate) shown: Shown,
}

/// Where people see it as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Stdout,
    /// Stdout is for something else.
    Stderr,
    #[cfg(test)]
    Nowhere,
}

impl Report {
    /// Enters a result and shows it.
    pub(crate) fn push(&mut self, line: Line) -> io::Result<()> {
        if self.lines.last().is_none_or(|last| last.part != line.part) {
            self.say(&format!("\n{}", header(line.part)))?;
        }
        if let Some(peak) = line.peak {
            self.figures.peak = Some(self.figures.peak.map_or(peak, |before| before.max(peak)));
        }
        self.say(&row(&line))?;
        self.lines.push(line);
        Ok(())
    }

    /// Shows a line of text.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        match self.shown {
            Shown::Stdout => writeln!(io::stdout().lock(), "{}", text.trim_end()),
            Shown::Stderr => writeln!(io::stderr().lock(), "{}", text.trim_end()),
            #[cfg(test)]
            Shown::Nowhere => Ok(()),
        }
    }

    /// Shows what the machine is and allows.
    pub(crate) fn show_ceilings(&self) -> io::Result<()> {
        let Machine { cpu, cores, kernel, load, congestion, .. } = &self.machine;
        self.say(&format!("{cpu}, {cores} cores, Linux {kernel}, TCP {congestion}, load {load}"))?;
        self.say(&format!("\n{:<54}{:>10}  {:>20}", "what the machine allows", "MiB/s", "CPU-s/GiB"))?;
        let Ceilings { memcpy, blake3, aes, md5, tls, cat, .. } = &self.ceilings;
        let Ceilings { socket_send, socket_receive, memory_write, memory_read, .. } = &self.ceilings;
        for (what, rate) in [
            ("memcpy", memcpy),
            ("BLAKE3", blake3),
            ("AES-256-GCM", aes),
            ("MD5", md5),
            ("TLS stream over loopback, both ends", tls),
            ("Unix socket, sending end", socket_send),
            ("Unix socket, receiving end", socket_receive),
            ("files in memory, written", memory_write),
            ("files in memory, read", memory_read),
        ] {
            self.say(&format!("{what:<54}{:>10.0}  {:>20.3}", rate.rate, rate.cpu))?;
        }
        self.say(&format!("{:<54}{:>10.0}", "cat FILE, through a pipe", cat.rate))?;
        let Latency { p50, p99 } = self.round_trip;
        self.say(&format!(
            "{:<54}{p50:>10.3} ms (p50), {p99:.3} ms (p99)",
            "RPC lane, 64 bytes there and back"
        ))?;
        let Floors { put_one, put_three, get_local, get_peer } = self.floors;
        self.say(&format!(
            "CPU floors, CPU-s/GiB: put with 1 copy {put_one:.2}, with 3 {put_three:.2}; get of a local object \
             {get_local:.2}, from a peer {get_peer:.2}"
        ))
    }

    /// Shows the goals.
    pub(crate) fn show_goals(&self) -> io::Result<()> {
        if self.goals.is_empty() {
            return Ok(());
        }
        self.say(&format!(
            "\n{:<54}{:>20}{:>20}{:>8}  {:<10}",
            "goals", "measured", "ceiling", "ratio", "goal"
        ))?;
        for goal in &self.goals {
            self.say(&goal.row())?;
        }
        let met = self.goals.iter().filter(|goal| goal.met).count();
        self.say(&format!("{met} of {} goals met, in {:.0} s", self.goals.len(), self.seconds))
    }
}

impl Report {
    /// An error if some figure is none: not a number, or less than nothing, or lacking though everything was measured.
    pub(crate) fn check(&self, all: bool) -> anyhow::Result<()> {
        let value = serde_json::to_value(self).context("the report as JSON")?;
        check_numbers(&value, "the report")?;
        // JSON has no way to write what is no number, and writes null.
        for line in &self.lines {
            let figures = [Some(line.value), line.cpu, line.of_floor, line.of_ceiling, line.peak];
            ensure!(figures.iter().flatten().all(|figure| figure.is_finite()), "{}: {figures:?}", line.what);
        }
        for goal in &self.goals {
            let figures = [goal.measured, goal.ceiling, goal.ratio];
            ensure!(figures.iter().all(|figure| figure.is_finite()), "{}: {figures:?}", goal.what);
        }
        let count = self.goals.len();
        ensure!(!all || count == ALL, "{count} goals were measured, of {ALL}");
        Ok(())
    }
}

fn check_numbers(value: &Value, at: &str) -> anyhow::Result<()> {
    match value {
        Value::Number(number) => {
            let good = number.as_f64().is_some_and(|number| number.is_finite() && number >= 0.0);
            ensure!(good, "{at} is {number}");
            Ok(())
        }
        Value::Array(values) => values.iter().try_for_each(|value| check_numbers(value, at)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| check_numbers(value, name)),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

fn header(part: &str) -> String {
    format!(
        "{part:<54}{:>10} {:<6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}",
        "value", "", "p50 ms", "p99 ms", "CPU", "floor/", "of its", "peak"
    ) + &format!(
        "\n{:<54}{:>10} {:<6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}",
        "", "", "", "", "", "used", "CPU", "ceiling", "MiB"
    )
}

fn row(line: &Line) -> String {
    let or_nothing =
        |value: Option<f64>, places| value.map(|value| format!("{value:.places$}")).unwrap_or_default();
    format!(
        "{:<54}{:>10} {:<6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}",
        line.what,
        figure(line.value),
        line.unit.name(),
        or_nothing(line.latency.map(|latency| latency.p50), 2),
        or_nothing(line.latency.map(|latency| latency.p99), 2),
        line.cpu.map(cost).unwrap_or_default(),
        or_nothing(line.of_floor, 2),
        or_nothing(line.of_ceiling, 2),
        or_nothing(line.peak, 0),
    )
}

/// A cost, of which small ones have to be told apart.
fn cost(cpu: f64) -> String {
    if cpu < 0.1 { format!("{cpu:.4}") } else { format!("{cpu:.3}") }
}

/// A number with as many places as say something.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.3}"),
        1.0..100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ceilings::Rate, goals::goals, machine::Machine};

    const COST: Cost = Cost { wall: Duration::from_secs(2), cpu: Duration::from_secs(3), peak: 50 << 20 };

    /// A report of made-up figures that has everything.
    pub(crate) fn sample() -> Report {
        let rate = |rate| Rate { rate, cpu: 1000.0 / rate };
        let ceilings = Ceilings {
            memcpy: rate(9000.0),
            blake3: rate(4000.0),
            aes: rate(5000.0),
            md5: rate(600.0),
            tls: rate(1200.0),
            socket_send: rate(4000.0),
            socket_receive: rate(4000.0),
            memory_write: rate(1500.0),
            memory_read: rate(3000.0),
            cat: rate(2000.0),
        };
        let (latency, floors) = (Latency { p50: 0.05, p99: 0.2 }, Floors::of(&ceilings));
        let (write, sync) = (Write { rate: 600.0 }, Sync { per_second: 5000.0, latency });
        let large = Line::transfer("large", "get <1 GiB> & more", 1 << 30, COST);
        let small = Line::operations("small", "put", 6000, COST.wall, COST);
        let figures = Figures {
            get_peer: Some((large.clone(), ceilings.tls)),
            get_local: Some((large.clone(), ceilings.cat)),
            put_three: Some(large.clone()),
            put_disk: Some((large.clone(), write)),
            first_byte: Some(latency),
            small_put: Some((small.clone(), sync)),
            small_get: Some((0.1, 0.02)),
            list: Some(250_000.0),
            peak: None,
            idle: Some((20.0, 0.1)),
        };
        let mut report = Report {
            machine: Machine::here(),
            command: "pando-bench --svg <file>".to_owned(),
            seconds: 100.0,
            ceilings,
            round_trip: latency,
            floors,
            disk_write: Some(write),
            disk_sync: Some(sync),
            lines: Vec::new(),
            goals: Vec::new(),
            figures,
            shown: Shown::Nowhere,
        };
        for line in [large.against(Some(1.0), Some(1000.0)), small, Line::latency("large", "first", latency)]
        {
            report.push(line).unwrap();
        }
        report.goals = goals(&report.figures, &report.floors, report.round_trip);
        report
    }

    #[test]
    fn a_whole_report_is_well_formed() {
        let report = sample();
        report.check(true).unwrap();
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["goals"].as_array().unwrap().len(), ALL);
        let line = &value["lines"][0];
        assert_eq!((line["value"].as_f64(), line["unit"].as_str()), (Some(512.0), Some("MiB/s")));
        assert_eq!((line["cpu"].as_f64(), line["peak"].as_f64()), (Some(3.0), Some(50.0)));
        assert_eq!(line["of_ceiling"].as_f64(), Some(0.512));
        assert_eq!(value["lines"][1]["cpu"].as_f64(), Some(0.5), "milliseconds each");
        assert_eq!(value["lines"][2]["p99"].as_f64(), Some(0.2));
        assert_eq!(value["goals"][0]["goal"]["at_least"].as_f64(), Some(0.6));
    }

    #[test]
    fn a_figure_that_is_none_is_found() {
        let mut report = sample();
        report.lines[0].cpu = Some(f64::NAN);
        assert!(report.check(true).is_err());
        let mut report = sample();
        report.round_trip.p50 = -1.0;
        assert!(report.check(true).is_err());
        let mut report = sample();
        report.goals.pop();
        assert!(report.check(true).is_err());
        report.check(false).unwrap();
    }

    #[test]
    fn the_better_of_two_has_the_worse_peak() {
        let line = |cpu, wall, peak| {
            let cost = Cost { wall: Duration::from_secs(wall), cpu: Duration::from_secs(cpu), peak };
            Line::transfer("x", "y", 1 << 30, cost)
        };
        let better = line(4, 1, 1 << 20).or_better(line(3, 2, 2 << 20));
        assert_eq!((better.value, better.cpu, better.peak), (1024.0, Some(3.0), Some(2.0)));
    }

    #[test]
    fn rows_are_in_line() {
        let report = sample();
        let ends: Vec<usize> = report.lines.iter().map(|line| row(line).chars().count()).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
        assert_eq!(figure(0.12345) + " " + &figure(12.345) + " " + &figure(1234.5), "0.123 12.35 1234");
    }
}
