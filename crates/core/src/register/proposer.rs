//! One attempt to change one register: prepare, decide, accept.
//!
//! Owns: counting promises and accepts against the quorum, and finding the value to build on. Leaves
//! to its caller: sending, waiting, deciding the new value (see [`super::change`]), and starting
//! another attempt with a higher counter after a conflict.

use super::{Accepted, Ballot, Quorum, Refusal, acceptor::Promise};

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for more replies.
    Wait,
    /// A majority promised. `found` is the value to build on; `settled` says that a majority was seen to
    /// hold it already (or that nothing was ever chosen), so that it need not be written back.
    /// The caller answers with [`Proposer::propose`], or ends here.
    Decide {
        /// The accepted value with the highest ballot among the promises.
        found: Option<Accepted>,
        /// Whether `found` is known to be chosen as it is.
        settled: bool,
    },
    /// The value proposed is chosen. Owners that have not said so should be told.
    Chosen,
    /// Too many refused: try again with a counter above this.
    Conflict {
        /// The highest counter heard of.
        above: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Preparing,
    Deciding,
    Accepting,
    Over,
}

/// The proposer of one ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    ballot: Ballot,
    quorum: Quorum,
    phase: Phase,
    promises: Vec<Option<Promise>>,
    accepts: Vec<bool>,
    /// Refused in the current phase, or out of reach.
    lost: Vec<bool>,
    above: u64,
}

impl Proposer {
    /// An attempt at `ballot` among `owners` nodes, of which `quorum` must agree. The caller sends
    /// Prepare(ballot) to a quorum of them at least, and to the others if that is not enough.
    pub fn new(ballot: Ballot, owners: usize, quorum: Quorum) -> Self {
        Self {
            ballot,
            quorum,
            phase: Phase::Preparing,
            promises: vec![None; owners],
            accepts: vec![false; owners],
            lost: vec![false; owners],
            above: ballot.counter,
        }
    }

    /// The ballot of this attempt.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Owners that have not said that they accepted: those to tell once the value is chosen.
    pub fn not_accepted(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.accepts.len() as u16).filter(|owner| !self.accepts[usize::from(*owner)])
    }

    /// How many owners said that they accepted.
    pub fn accepted_count(&self) -> usize {
        self.accepts.iter().filter(|accepted| **accepted).count()
    }

    /// `owner` promised, having accepted `accepted`.
    pub fn on_promise(&mut self, owner: u16, accepted: Promise) -> Step {
        if self.phase != Phase::Preparing {
            return Step::Wait;
        }
        if let Some(slot) = self.promises.get_mut(usize::from(owner)) {
            slot.get_or_insert(accepted);
        }
        if !self.quorum.is_met(|owner| self.promises[usize::from(owner)].is_some()) {
            return Step::Wait;
        }
        self.phase = Phase::Deciding;
        self.lost.fill(false);
        let found = self.promises.iter().flatten().flatten().max_by_key(|accepted| accepted.ballot).cloned();
        let settled = found.as_ref().is_none_or(|found| {
            self.quorum.is_met(|owner| {
                matches!(&self.promises[usize::from(owner)], Some(Some(own)) if own.ballot == found.ballot)
            })
        });
        Step::Decide { found, settled }
    }

    /// The caller decided: it now sends Accept(ballot, value) to all owners.
    pub fn propose(&mut self) {
        assert!(self.phase == Phase::Deciding, "propose follows Decide, once");
        self.phase = Phase::Accepting;
    }

    /// `owner` accepted, durably.
    pub fn on_accepted(&mut self, owner: u16) -> Step {
        if let Some(slot) = self.accepts.get_mut(usize::from(owner))
            && matches!(self.phase, Phase::Accepting | Phase::Over)
        {
            *slot = true;
        }
        if self.phase == Phase::Accepting && self.quorum.is_met(|owner| self.accepts[usize::from(owner)]) {
            self.phase = Phase::Over;
            return Step::Chosen;
        }
        Step::Wait
    }

    /// `owner` refused a prepare or an accept.
    pub fn on_refusal(&mut self, owner: u16, refusal: Refusal) -> Step {
        self.above = self.above.max(refusal.above);
        self.on_lost(owner)
    }

    /// `owner` is out of reach, or answered nothing that helps, in the current phase.
    pub fn on_lost(&mut self, owner: u16) -> Step {
        if !matches!(self.phase, Phase::Preparing | Phase::Accepting) {
            return Step::Wait;
        }
        if let Some(slot) = self.lost.get_mut(usize::from(owner)) {
            *slot = true;
        }
        if self.quorum.is_possible(|owner| self.lost[usize::from(owner)]) {
            return Step::Wait;
        }
        self.phase = Phase::Over;
        Step::Conflict { above: self.above }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::WriteId,
        register::{LayoutVersion, State, Value},
    };

    fn ballot(counter: u64) -> Ballot {
        Ballot { layout: LayoutVersion(1), counter, session: 1 }
    }

    fn accepted(counter: u64) -> Option<Accepted> {
        let value = Value::after(None, WriteId([counter as u8; 16]), State::Absent);
        Some(Accepted { ballot: ballot(counter), value })
    }

    fn proposer() -> Proposer {
        Proposer::new(ballot(9), 3, Quorum::majority(3))
    }

    #[test]
    fn builds_on_the_highest_ballot_of_a_majority() {
        let mut proposer = proposer();
        assert_eq!(proposer.on_promise(0, accepted(3)), Step::Wait);
        assert_eq!(proposer.on_promise(0, accepted(8)), Step::Wait, "a duplicate counts once");
        assert_eq!(proposer.on_promise(2, accepted(4)), Step::Decide { found: accepted(4), settled: false });
        proposer.propose();
        assert_eq!(proposer.on_promise(1, accepted(8)), Step::Wait, "too late to matter");
        assert_eq!(proposer.on_accepted(1), Step::Wait);
        assert_eq!(proposer.on_accepted(2), Step::Chosen);
        assert_eq!(proposer.on_accepted(0), Step::Wait, "told once");
        assert_eq!(proposer.not_accepted().count(), 0);
    }

    #[test]
    fn knows_what_a_majority_already_holds() {
        let mut proposer = proposer();
        proposer.on_promise(0, accepted(3));
        assert_eq!(proposer.on_promise(2, accepted(3)), Step::Decide { found: accepted(3), settled: true });
        let mut proposer = self::proposer();
        proposer.on_promise(0, None);
        assert_eq!(proposer.on_promise(2, None), Step::Decide { found: None, settled: true });
    }

    #[test]
    fn a_lost_majority_is_a_conflict_that_says_how_high_to_go() {
        let mut proposer = proposer();
        assert_eq!(proposer.on_refusal(0, Refusal { above: 50 }), Step::Wait);
        assert_eq!(proposer.on_lost(1), Step::Conflict { above: 50 });
        assert_eq!(proposer.on_promise(2, None), Step::Wait, "it is over");
    }
}
