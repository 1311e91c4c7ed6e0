//! For how long others have been down, as seen from here, counted carefully: it may lead to replacing them.

use std::{collections::BTreeMap, time::Duration};

use crate::id::NodeId;

/// The longest step that counts. If the last look is longer ago, this process or its machine stood still,
/// and nobody was seen to be down meanwhile.
const STEP: Duration = Duration::from_secs(5);

/// How a member looks from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It answers.
    Up,
    /// Nothing is known of it yet.
    Unknown,
    /// It does not answer.
    Down,
}

/// The time that each member has been down without interruption.
///
/// A member that is up again starts from zero. The clocks stand still while this node, together with those
/// that are up, is not a majority of the members (then it may be this node that is cut off), and for members
/// of which nothing is known since this node started.
#[derive(Debug, Default)]
pub struct Outages {
    down: BTreeMap<NodeId, Duration>,
    last: Option<Duration>,
}

impl Outages {
    /// One look at all members but this node, at `now` (since any fixed point in time).
    pub fn look(&mut self, now: Duration, others: &[(NodeId, Standing)]) {
        let step = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last).min(STEP));
        self.last = Some(now);
        self.down.retain(|node, _| others.iter().any(|(other, _)| other == node));
        let up = 1 + others.iter().filter(|(_, standing)| *standing == Standing::Up).count();
        let is_majority = up * 2 > others.len() + 1;
        for (node, standing) in others {
            match standing {
                Standing::Up => drop(self.down.remove(node)),
                Standing::Down => {
                    // The first look at which it is down starts its clock.
                    let known = self.down.get(node).copied();
                    let counted = known.map_or(Duration::ZERO, |down| match is_majority {
                        true => down + step,
                        false => down,
                    });
                    self.down.insert(*node, counted);
                }
                Standing::Unknown => {}
            }
        }
    }

    /// For how long a member has been down; `None` if it is not.
    pub fn down_for(&self, node: &NodeId) -> Option<Duration> {
        self.down.get(node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn look(outages: &mut Outages, second: u64, standings: &[Standing]) {
        let others: Vec<_> = standings.iter().zip(1..).map(|(s, number)| (node(number), *s)).collect();
        outages.look(Duration::from_secs(second), &others);
    }

    #[test]
    fn only_uninterrupted_outages_count() {
        use Standing::{Down, Unknown, Up};
        let mut outages = Outages::default();
        look(&mut outages, 0, &[Unknown, Unknown]);
        look(&mut outages, 100, &[Up, Unknown]);
        assert_eq!(outages.down_for(&node(2)), None, "nothing is known of it yet");
        for second in 101..=111 {
            look(&mut outages, second, &[Up, Down]);
        }
        assert_eq!(outages.down_for(&node(2)), Some(Duration::from_secs(10)));
        look(&mut outages, 112, &[Up, Up]);
        look(&mut outages, 113, &[Up, Down]);
        assert_eq!(outages.down_for(&node(2)), Some(Duration::ZERO), "up for a moment: from the start");
    }

    #[test]
    fn who_is_alone_counts_nothing() {
        use Standing::{Down, Up};
        let mut outages = Outages::default();
        for second in 0..=4 {
            look(&mut outages, second, &[Up, Up, Up, Down]);
        }
        for second in 5..=1000 {
            look(&mut outages, second, &[Up, Down, Down, Down]);
        }
        assert_eq!(outages.down_for(&node(4)), Some(Duration::from_secs(4)), "two of five");
        assert_eq!(outages.down_for(&node(3)), Some(Duration::ZERO));
        look(&mut outages, 1001, &[Up, Up, Down, Down]);
        assert_eq!(outages.down_for(&node(4)), Some(Duration::from_secs(5)), "three of five: it goes on");
    }

    #[test]
    fn time_that_nobody_watched_does_not_count() {
        use Standing::{Down, Up};
        let mut outages = Outages::default();
        look(&mut outages, 0, &[Up, Down]);
        look(&mut outages, 86_400, &[Up, Down]);
        assert_eq!(outages.down_for(&node(2)), Some(STEP), "the machine was asleep");
        outages.look(Duration::from_secs(86_401), &[(node(1), Up)]);
        assert_eq!(outages.down_for(&node(2)), None, "not a member any more");
    }
}
