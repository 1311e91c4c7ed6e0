//! Who holds the chunks of an upload, and whether enough still do.
//!
//! A node frees chunks of a version that is not current once the grace time is over in which it heard nothing of
//! the upload. An upload that takes longer tells the nodes that it goes on; what is committed must be there, so it
//! is not enough that *some* majority heard it: of the holders of each chunk, a majority must have gone on holding it.
//!
//! Pure: times are arguments. Bounded by the sets of nodes that chunks were placed on: one for each partition, and
//! some more when nodes fail meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pando_core::id::NodeId;

use crate::sys::Instant;

/// One upload's knowledge of those who hold its chunks.
#[derive(Debug)]
pub(crate) struct Holders {
    began: Instant,
    grace: Duration,
    nodes: BTreeMap<NodeId, Heard>,
    /// Sets of nodes, each in the life it then had, on which chunks were placed; and how many of each must hold on.
    sets: BTreeSet<(Vec<(NodeId, u32)>, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// When it last heard that the upload goes on.
    at: Instant,
    /// When it was last found to have let go, or silent for so long that it may have.
    lost: Option<Instant>,
    /// How often that was: what it held in an earlier life is gone.
    life: u32,
}

/// What a node answered when it was told that the upload goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It holds on to what it holds.
    Holds,
    /// It holds nothing of this upload.
    HoldsNothing,
    /// None.
    Silent,
}

impl Holders {
    pub(crate) fn new(began: Instant, grace: Duration) -> Self {
        Self { began, grace, nodes: BTreeMap::new(), sets: BTreeSet::new() }
    }

    fn heard(&mut self, node: NodeId) -> &mut Heard {
        let new = Heard { at: self.began, lost: None, life: 0 };
        self.nodes.entry(node).or_insert(new)
    }

    /// A chunk was placed on these nodes, on each at that time or later; `needed` of them must hold on. `false`: so
    /// many let go of it since.
    pub(crate) fn placed(&mut self, on: &[(NodeId, Instant)], needed: usize) -> bool {
        let mut set = Vec::with_capacity(on.len());
        for (node, at) in on {
            let heard = self.heard(*node);
            if heard.lost.is_none_or(|lost| lost < *at) {
                set.push((*node, heard.life));
            }
        }
        set.sort_unstable();
        let enough = set.len() >= needed;
        self.sets.insert((set, needed));
        enough
    }

    /// What a node answered to a question that was sent at `asked`.
    pub(crate) fn answered(&mut self, node: NodeId, asked: Instant, answer: Answer) {
        // Its clock runs from when it heard the last one, which is not before that was sent. A quarter is left for
        // clocks that differ, and for what comes between the last answer and the commit.
        let limit = self.grace / 4 * 3;
        let heard = self.heard(node);
        let in_time = asked.saturating_duration_since(heard.at) <= limit;
        match answer {
            Answer::Holds if in_time => heard.at = heard.at.max(asked),
            Answer::Silent if in_time => {}
            Answer::Holds | Answer::HoldsNothing | Answer::Silent => {
                heard.lost = Some(asked);
                heard.life += 1;
                heard.at = heard.at.max(asked);
            }
        }
    }

    /// Whether, of each chunk, enough holders hold on, as far as is known.
    pub(crate) fn enough_hold(&self) -> bool {
        self.all_have(|_| true)
    }

    /// Whether, of each chunk, enough holders have said so since.
    pub(crate) fn enough_heard(&self, since: Instant) -> bool {
        self.all_have(|heard| heard.at >= since)
    }

    fn all_have(&self, good: impl Fn(&Heard) -> bool) -> bool {
        let holds = |(node, life): &(NodeId, u32)| {
            self.nodes.get(node).is_some_and(|heard| heard.life == *life && good(heard))
        };
        self.sets.iter().all(|(set, needed)| set.iter().filter(|one| holds(one)).count() >= *needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);
    const C: NodeId = NodeId([3; 32]);
    const GRACE: Duration = Duration::from_secs(100);

    fn start() -> (Holders, impl Fn(u64) -> Instant) {
        let began = Instant::now();
        (Holders::new(began, GRACE), move |seconds| began + Duration::from_secs(seconds))
    }

    #[test]
    fn a_majority_of_the_holders_must_hear_not_just_any() {
        let (mut holders, at) = start();
        assert!(holders.placed(&[(A, at(1)), (B, at(2))], 2));
        for time in [25, 50, 75] {
            holders.answered(A, at(time), Answer::Holds);
            holders.answered(C, at(time), Answer::Holds);
            holders.answered(B, at(time), Answer::Silent);
            assert!(holders.enough_hold() && !holders.enough_heard(at(time)));
        }
        holders.answered(B, at(90), Answer::Holds);
        assert!(!holders.enough_hold(), "it may have let go before it heard this");
    }

    #[test]
    fn one_that_let_go_says_so() {
        let (mut holders, at) = start();
        assert!(holders.placed(&[(A, at(1)), (B, at(2)), (C, at(2))], 2));
        holders.answered(A, at(10), Answer::HoldsNothing);
        assert!(holders.enough_hold());
        assert!(holders.placed(&[(A, at(20)), (B, at(20))], 2), "what comes later it may hold again");
        holders.answered(B, at(30), Answer::HoldsNothing);
        assert!(!holders.enough_hold());
    }

    #[test]
    fn what_was_on_its_way_counts_from_when_it_was_stored() {
        let (mut holders, at) = start();
        holders.answered(A, at(10), Answer::HoldsNothing);
        holders.answered(B, at(10), Answer::HoldsNothing);
        assert!(
            !holders.placed(&[(A, at(5)), (B, at(11))], 2),
            "A stored it before it said it holds nothing"
        );
        let (mut holders, at) = start();
        holders.answered(A, at(10), Answer::HoldsNothing);
        assert!(holders.placed(&[(A, at(11)), (B, at(5))], 2));
        assert!(holders.enough_hold());
    }

    #[test]
    fn who_is_silent_for_a_while_only_goes_on() {
        let (mut holders, at) = start();
        assert!(holders.placed(&[(A, at(0)), (B, at(0))], 2));
        for time in [25, 50] {
            holders.answered(A, at(time), Answer::Holds);
            holders.answered(B, at(time), Answer::Silent);
        }
        holders.answered(A, at(70), Answer::Holds);
        holders.answered(B, at(70), Answer::Holds);
        assert!(holders.enough_hold() && holders.enough_heard(at(70)));
    }
}
