//! Figures of many samples.

use std::time::Duration;

use serde::Serialize;

/// Times that something took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Latency {
    /// Of these samples; `None` if there are none.
    pub(crate) fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let at = |percent| percentile(&samples, percent).map(millis);
        Some(Self { p50: at(50)?, p99: at(99)? })
    }
}

/// The smallest sample that is not exceeded by so many percent of all (the nearest-rank method); `sorted` must be.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// `part / whole`; 0 where that makes no sense, so that no report holds a number that is none.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    let ratio = part / whole;
    if ratio.is_finite() { ratio } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&samples, 50), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&samples, 99), Some(Duration::from_millis(198)));
        assert_eq!(percentile(&samples, 100), Some(Duration::from_millis(200)));
        assert_eq!(percentile(&samples[..1], 1), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn latencies_do_not_depend_on_the_order() {
        let samples = [3, 1, 2].map(Duration::from_millis).to_vec();
        assert_eq!(Latency::of(samples), Some(Latency { p50: 2.0, p99: 3.0 }));
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[test]
    fn ratios_are_numbers() {
        assert_eq!(ratio(1.0, 2.0), 0.5);
        assert_eq!(ratio(1.0, 0.0), 0.0);
        assert_eq!(ratio(f64::NAN, 1.0), 0.0);
    }
}
