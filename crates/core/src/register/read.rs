//! One read of one register: a single round trip when a majority agrees.
//!
//! A majority that holds the same ballot holds a chosen value, and no later one was chosen before the
//! read began, or some of that majority would hold it. If no majority agrees the caller changes the
//! register by the identity, which settles it.

use super::{Accepted, Ballot, Quorum};

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for more replies.
    Wait,
    /// This is the register's value (`None`: never written).
    Value(Option<Accepted>),
    /// The owners don't agree: settle with a counter above this.
    Settle {
        /// The highest counter that any owner reported.
        above: u64,
    },
    /// Too few owners can be reached.
    TooFew,
}

/// The replies to one read so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    quorum: Quorum,
    replies: Vec<Option<Option<Accepted>>>,
    lost: Vec<bool>,
    above: u64,
    over: bool,
}

impl Read {
    /// A read among `owners` nodes, of which `quorum` must agree.
    pub fn new(owners: usize, quorum: Quorum) -> Self {
        Self { quorum, replies: vec![None; owners], lost: vec![false; owners], above: 0, over: false }
    }

    /// `owner` has `accepted`, and would refuse ballots at or below the counter `height`.
    pub fn on_reply(&mut self, owner: u16, accepted: Option<Accepted>, height: u64) -> Step {
        if let Some(slot) = self.replies.get_mut(usize::from(owner)) {
            slot.get_or_insert(accepted);
        }
        self.above = self.above.max(height);
        self.step()
    }

    /// `owner` is out of reach.
    pub fn on_lost(&mut self, owner: u16) -> Step {
        if let Some(slot) = self.lost.get_mut(usize::from(owner)) {
            *slot = true;
        }
        self.step()
    }

    /// Stops waiting for those that have not answered (a hedge ran out).
    pub fn on_impatience(&mut self) -> Step {
        for (lost, reply) in self.lost.iter_mut().zip(&self.replies) {
            *lost |= reply.is_none();
        }
        self.step()
    }

    /// Owners whose reply was below `chosen`: those to tell.
    pub fn behind(&self, chosen: Ballot) -> impl Iterator<Item = u16> + '_ {
        self.replies.iter().zip(0u16..).filter_map(move |(reply, owner)| match reply {
            Some(accepted) if accepted.as_ref().map(|accepted| accepted.ballot) < Some(chosen) => Some(owner),
            _ => None,
        })
    }

    /// Whether every owner answered or is lost.
    pub fn all_heard(&self) -> bool {
        self.replies.iter().zip(&self.lost).all(|(reply, lost)| reply.is_some() || *lost)
    }

    fn step(&mut self) -> Step {
        if self.over {
            return Step::Wait;
        }
        if let Some(value) = self.agreed() {
            self.over = true;
            return Step::Value(value);
        }
        if !self.all_heard() {
            return Step::Wait;
        }
        self.over = true;
        if self.quorum.is_met(|owner| self.replies[usize::from(owner)].is_some()) {
            if crate::mutant("learn-unchosen") {
                return Step::Value(
                    self.replies.iter().flatten().flatten().max_by_key(|accepted| accepted.ballot).cloned(),
                );
            }
            Step::Settle { above: self.above }
        } else {
            Step::TooFew
        }
    }

    /// The value that a majority agrees on, if there is one.
    fn agreed(&self) -> Option<Option<Accepted>> {
        let ballot = |accepted: &Option<Accepted>| accepted.as_ref().map(|accepted| accepted.ballot);
        self.replies.iter().flatten().find_map(|candidate| {
            let agrees = |owner: u16| {
                self.replies[usize::from(owner)]
                    .as_ref()
                    .is_some_and(|reply| ballot(reply) == ballot(candidate))
            };
            (crate::mutant("read-trusts-one") || self.quorum.is_met(agrees)).then(|| candidate.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::WriteId,
        register::{LayoutVersion, State, Value},
    };

    fn accepted(counter: u64) -> Option<Accepted> {
        let value = Value::after(None, WriteId([counter as u8; 16]), State::Absent);
        Some(Accepted { ballot: Ballot { layout: LayoutVersion(1), counter, session: 1 }, value })
    }

    fn read() -> Read {
        Read::new(3, Quorum::majority(3))
    }

    #[test]
    fn one_round_trip_when_a_majority_agrees() {
        let mut read = read();
        assert_eq!(read.on_reply(0, accepted(5), 5), Step::Wait);
        assert_eq!(read.on_reply(1, accepted(3), 3), Step::Wait);
        assert_eq!(read.on_reply(2, accepted(5), 5), Step::Value(accepted(5)));
        let behind: Vec<_> = read.behind(accepted(5).unwrap().ballot).collect();
        assert_eq!(behind, [1]);
    }

    #[test]
    fn a_duplicate_reply_is_one_reply() {
        let mut read = read();
        assert_eq!(read.on_reply(0, accepted(5), 5), Step::Wait);
        assert_eq!(read.on_reply(0, accepted(5), 5), Step::Wait);
    }

    #[test]
    fn disagreement_is_settled_above_every_height() {
        let mut read = read();
        read.on_reply(0, accepted(5), 5);
        read.on_reply(1, None, 70);
        assert_eq!(read.on_lost(2), Step::Settle { above: 70 });
    }

    #[test]
    fn too_few() {
        let mut read = read();
        read.on_reply(0, accepted(5), 5);
        assert_eq!(read.on_impatience(), Step::TooFew);
    }

    #[test]
    fn never_written_is_an_answer() {
        let mut read = read();
        read.on_reply(0, None, 0);
        assert_eq!(read.on_reply(2, None, 0), Step::Value(None));
    }
}
