//! What Pando wants to reach, each as a ratio of two figures of the same run.

use serde::Serialize;

use crate::{
    ceilings::{Rate, Sync, Write},
    floor::Floors,
    report::{Line, Unit, figure},
    stats::{Latency, ratio},
};

/// The results that goals speak of; what was not measured is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// And one TLS stream, measured in turn with it.
    pub(crate) get_peer: Option<(Line, Rate)>,
    /// And `cat`.
    pub(crate) get_local: Option<(Line, Rate)>,
    pub(crate) put_three: Option<Line>,
    pub(crate) put_disk: Option<(Line, Write)>,
    pub(crate) first_byte: Option<Latency>,
    pub(crate) small_put: Option<(Line, Sync)>,
    /// CPU milliseconds of a get by S3, and of an answer of a bare server.
    pub(crate) small_get: Option<(f64, f64)>,
    /// Keys a second.
    pub(crate) list: Option<f64>,
    /// MiB, of the node that needed most in any measurement.
    pub(crate) peak: Option<f64>,
    /// MiB, and percent of a core.
    pub(crate) idle: Option<(f64, f64)>,
}

/// Which side of the limit is good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// A goal, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) measured: f64,
    pub(crate) unit: Unit,
    /// What the ratio is to; 1 where the measured value itself is what counts.
    pub(crate) ceiling: f64,
    pub(crate) ratio: f64,
    pub(crate) goal: Limit,
    pub(crate) met: bool,
}

impl Goal {
    fn new(what: &'static str, measured: f64, unit: Unit, ceiling: f64, goal: Limit) -> Self {
        let ratio = ratio(measured, ceiling);
        Self { what, measured, unit, ceiling, ratio, goal, met: ceiling > 0.0 && goal.is_met(ratio) }
    }

    /// How CPU relates to its floor: the ratio is the floor's.
    fn of_floor(what: &'static str, used: f64, floor: f64, goal: Limit) -> Self {
        let ratio = ratio(floor, used);
        Self {
            what,
            measured: used,
            unit: Unit::CpuPerGib,
            ceiling: floor,
            ratio,
            goal,
            met: goal.is_met(ratio),
        }
    }

    /// How far it is: 1 is just met, more is better.
    pub(crate) fn reached(&self) -> f64 {
        match self.goal {
            Limit::AtLeast(least) => ratio(self.ratio, least),
            Limit::AtMost(most) => ratio(most, self.ratio),
        }
    }

    pub(crate) fn row(&self) -> String {
        let with_unit = |value| format!("{} {}", figure(value), self.unit.name());
        let (ceiling, shown) = if self.ceiling == 1.0 {
            (String::new(), String::new())
        } else {
            (with_unit(self.ceiling), figure(self.ratio))
        };
        let (sign, limit) = match self.goal {
            Limit::AtLeast(least) => ('≥', least),
            Limit::AtMost(most) => ('≤', most),
        };
        let goal = format!("{sign} {}", round(limit));
        let verdict = if self.met { "met" } else { "NOT MET" };
        format!(
            "{:<54}{:>20}{ceiling:>20}{shown:>8}  {goal:<10}{verdict}",
            self.what,
            with_unit(self.measured)
        )
    }
}

impl Limit {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Limit::AtLeast(least) => ratio >= least,
            Limit::AtMost(most) => ratio <= most,
        }
    }
}

/// A limit as people write it.
pub(crate) fn round(limit: f64) -> String {
    if limit.fract() == 0.0 { format!("{limit:.0}") } else { format!("{limit}") }
}

/// All goals of which the figures were measured.
pub(crate) fn goals(figures: &Figures, floors: &Floors, round_trip: Latency) -> Vec<Goal> {
    let mut goals = large(figures, floors, round_trip);
    goals.extend(small(figures));
    if let Some(peak) = figures.peak {
        let what = "peak memory of a node under any of these";
        goals.push(Goal::new(what, peak, Unit::Mib, 1.0, Limit::AtMost(200.0)));
    }
    if let Some((memory, percent)) = figures.idle {
        goals.push(Goal::new("idle node: memory", memory, Unit::Mib, 1.0, Limit::AtMost(40.0)));
        let what = "idle node: CPU, of one core";
        goals.push(Goal::new(what, percent, Unit::Percent, 1.0, Limit::AtMost(0.5)));
    }
    goals
}

fn large(figures: &Figures, floors: &Floors, round_trip: Latency) -> Vec<Goal> {
    use Limit::{AtLeast, AtMost};
    let mut goals = Vec::new();
    if let Some((line, tls)) = &figures.get_peer {
        let what = "get from a peer / one TLS stream";
        goals.push(Goal::new(what, line.value, line.unit, tls.rate, AtLeast(0.6)));
        let (what, cpu) = ("get from a peer, CPU / that of one TLS stream", line.cpu.unwrap_or(f64::NAN));
        goals.push(Goal::new(what, cpu, Unit::CpuPerGib, tls.cpu, AtMost(2.2)));
    }
    if let Some(line) = &figures.put_three {
        let (what, cpu) = ("put, 3 copies, in memory: CPU floor / used", line.cpu.unwrap_or(f64::NAN));
        goals.push(Goal::of_floor(what, cpu, floors.put_three, AtLeast(0.5)));
    }
    if let Some((line, write)) = &figures.put_disk {
        let what = "put, 3 copies, on disk / (synced write / 3)";
        goals.push(Goal::new(what, line.value, line.unit, write.rate / 3.0, AtLeast(0.75)));
    }
    if let Some((line, cat)) = &figures.get_local {
        let what = "get of a local object / cat through a pipe";
        goals.push(Goal::new(what, line.value, line.unit, cat.rate, AtLeast(0.35)));
    }
    if let Some(latency) = figures.first_byte {
        let what = "first byte from a peer / a small round trip";
        goals.push(Goal::new(what, latency.p50, Unit::Millis, round_trip.p50, AtMost(12.0)));
    }
    goals
}

fn small(figures: &Figures) -> Vec<Goal> {
    use Limit::{AtLeast, AtMost};
    let mut goals = Vec::new();
    if let Some((line, sync)) = &figures.small_put {
        let what = "4 KiB puts, 3 copies, on disk, 32 at once / syncs";
        goals.push(Goal::new(what, line.value, line.unit, sync.per_second, AtLeast(0.5)));
        let what = "4 KiB puts, 3 copies, on disk, 32 at once: CPU";
        goals.push(Goal::new(what, line.cpu.unwrap_or(f64::NAN), Unit::CpuMillis, 1.0, AtMost(0.6)));
    }
    if let Some((get, bare)) = figures.small_get {
        let what = "4 KiB gets by S3, 32 at once: CPU / bare hyper";
        goals.push(Goal::new(what, get, Unit::CpuMillis, bare, AtMost(3.0)));
    }
    if let Some(rate) = figures.list {
        let what = "list of all keys, 3 nodes, native";
        goals.push(Goal::new(what, rate, Unit::PerSecond, 1.0, AtLeast(200_000.0)));
    }
    goals
}

/// How many goals there are when everything was measured.
pub(crate) const ALL: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_on_its_side() {
        let met = |value, ceiling, limit| Goal::new("x", value, Unit::PerSecond, ceiling, limit).met;
        assert!(met(6.0, 10.0, Limit::AtLeast(0.6)) && !met(5.9, 10.0, Limit::AtLeast(0.6)));
        assert!(met(22.0, 10.0, Limit::AtMost(2.2)) && !met(22.1, 10.0, Limit::AtMost(2.2)));
        assert!(!met(1.0, 0.0, Limit::AtMost(2.2)), "a ceiling that was not measured");
        assert!(Goal::of_floor("x", 4.0, 2.0, Limit::AtLeast(0.5)).met);
        assert!(!Goal::of_floor("x", 4.1, 2.0, Limit::AtLeast(0.5)).met);
    }

    #[test]
    fn reach_is_one_where_a_goal_is_just_met() {
        let reached = |limit| Goal::new("x", 4.0, Unit::PerSecond, 2.0, limit).reached();
        assert_eq!(reached(Limit::AtLeast(2.0)), 1.0);
        assert_eq!(reached(Limit::AtLeast(1.0)), 2.0);
        assert_eq!(reached(Limit::AtMost(2.0)), 1.0);
        assert_eq!(reached(Limit::AtMost(1.0)), 0.5);
    }
}
