//! One node's part in every register it owns: what it promises, accepts, learns and refuses.
//!
//! Owns: the table of promises in memory, the floor, the ceiling. Leaves to its caller: the durable
//! state of each register (passed in as `accepted`), and making an outcome's effects durable
//! *before* the reply leaves. One acceptor serves all registers of a node; calls for one register
//! must be made one after the other, each seeing the effects of those before it, and a reply waits for the
//! effects of all calls before it (a later promise may rest on an earlier call's ceiling). If an effect
//! can't be made durable, the acceptor is ahead of the disk: it must not go on, but start anew at its own
//! [`Acceptor::ceiling`], or with the process.
//!
//! An accepted ballot stands for a promise of the same height, so the table holds only promises
//! whose accept has not come (yet). Promises are forgotten at a restart, and evicted when the table
//! is full; the rule that makes this safe is: *at or below the floor, only a promise that is still in
//! memory counts*. At a restart the floor is the ceiling found on disk, which is durably above
//! every counter that was ever promised.

use std::collections::{BTreeMap, BTreeSet};

use super::{Accepted, Ballot, COUNTER_LIMIT};

/// How many promises are kept in memory. A promise is short-lived (its accept follows in a round trip
/// and removes it), so this bounds the changes in flight through one node; at about 200 bytes each
/// the table stays below 16 MiB. Overflow is safe: the lowest promise is evicted and the floor rises.
pub const PROMISE_TABLE: usize = 65_536;

/// How far above a promised counter the ceiling is raised, in counter units (microseconds): one
/// durable write covers two seconds of promises, and a restarted acceptor refuses ballots of the
/// last two seconds at most.
pub const CEILING_STEP: u64 = 2_000_000;

/// What the disk holds of one register: the part of it that decisions rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// A value (or tombstone) accepted at this ballot.
    Value(Ballot),
    /// Nothing. If `purged` is given, tombstones of this register's partition were forgotten, none of them
    /// above that ballot: this register may be one of them, so nothing at or below it may come (back).
    Absent {
        /// The partition's purge floor.
        purged: Option<Ballot>,
    },
}

impl Stored {
    /// The ballot at or below which nothing new is taken.
    pub fn height(self) -> Option<Ballot> {
        match self {
            Stored::Value(ballot) => Some(ballot),
            Stored::Absent { purged } => purged,
        }
    }
}

/// For a partition in which nothing was ever purged.
impl From<Option<Ballot>> for Stored {
    fn from(accepted: Option<Ballot>) -> Self {
        accepted.map_or(Stored::Absent { purged: None }, Stored::Value)
    }
}

/// The answer to being told of a chosen value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnOutcome {
    /// The value must be written durably, at its ballot, before the reply leaves.
    Write,
    /// This or something later is stored.
    Already,
    /// Nothing is stored, and the value is not above what was purged: it may be a deleted one, or one that
    /// this node missed. Whoever wants it here settles the register at a ballot above.
    Refused(Refusal),
}

/// Why an acceptor said no, and how high to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// A new ballot of the same layout must have a counter above this to stand a chance here.
    pub above: u64,
}

/// The answer to a prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// Promised. If `raise_ceiling` is given, that number must be durable before the reply leaves.
    Promised {
        /// The new ceiling.
        raise_ceiling: Option<u64>,
    },
    /// Refused; nothing changed.
    Refused(Refusal),
}

/// The answer to an accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptOutcome {
    /// The value must be written durably, at its ballot, before the reply leaves.
    Write,
    /// This very ballot was accepted before: a duplicate, nothing to write.
    Already,
    /// Refused; nothing changed.
    Refused(Refusal),
}

/// The promises of one node. `K` names a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor<K> {
    /// At or below this counter, only promises still in `promises` count.
    floor: u64,
    /// The ceiling that is durable, or will be before any reply that rests on it.
    ceiling: u64,
    capacity: usize,
    step: u64,
    promises: BTreeMap<K, Ballot>,
    /// The same promises by height, to evict the lowest.
    by_height: BTreeSet<(Ballot, K)>,
}

impl<K: Clone + Ord> Acceptor<K> {
    /// The acceptor of a process that just started and found `ceiling` on disk (0 on a new disk).
    pub fn restarted(ceiling: u64) -> Self {
        Self::with_limits(ceiling, PROMISE_TABLE, CEILING_STEP)
    }

    /// As [`Acceptor::restarted`], with other limits.
    pub fn with_limits(ceiling: u64, capacity: usize, step: u64) -> Self {
        assert!(capacity > 0, "an acceptor that can't remember one promise can't work");
        Self {
            floor: ceiling,
            ceiling,
            capacity,
            step,
            promises: BTreeMap::new(),
            by_height: BTreeSet::new(),
        }
    }

    /// The floor: see the module's text.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The ceiling: durable, or about to be.
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// The promise in memory for `key`.
    pub fn promise(&self, key: &K) -> Option<Ballot> {
        self.promises.get(key).copied()
    }

    /// A proposer asks for a promise at `ballot`.
    pub fn prepare(&mut self, key: &K, ballot: Ballot, stored: impl Into<Stored>) -> Prepared {
        let (promised, height) = (self.promise(key), stored.into().height());
        if promised == Some(ballot) && height < Some(ballot) {
            return Prepared::Promised { raise_ceiling: None };
        }
        if ballot.counter >= COUNTER_LIMIT
            || promised >= Some(ballot)
            || height >= Some(ballot)
            || ballot.counter <= self.floor
        {
            return Prepared::Refused(self.refusal(promised, height));
        }
        self.remember(key, ballot);
        let raise_ceiling = (ballot.counter >= self.ceiling).then(|| {
            self.ceiling = ballot.counter.saturating_add(self.step);
            self.ceiling
        });
        Prepared::Promised { raise_ceiling }
    }

    /// A proposer asks to accept a value at `ballot`.
    pub fn accept(&mut self, key: &K, ballot: Ballot, stored: impl Into<Stored>) -> AcceptOutcome {
        let stored = stored.into();
        if stored == Stored::Value(ballot) {
            return AcceptOutcome::Already;
        }
        let (promised, height) = (self.promise(key), stored.height());
        if crate::mutant("accept-below") {
            return AcceptOutcome::Write;
        }
        let exactly_promised = promised == Some(ballot);
        if ballot.counter >= COUNTER_LIMIT
            || promised > Some(ballot)
            || height >= Some(ballot)
            || (ballot.counter <= self.floor && !exactly_promised)
        {
            return AcceptOutcome::Refused(self.refusal(promised, height));
        }
        self.forget_up_to(key, ballot);
        AcceptOutcome::Write
    }

    /// Someone who knows says that the value of `ballot` was chosen. Chosen values are taken even past a
    /// promise: the promise stays, and whoever holds it learned of this value from the majority that
    /// accepted it.
    pub fn learn(&mut self, key: &K, ballot: Ballot, stored: impl Into<Stored>) -> LearnOutcome {
        let stored = stored.into();
        if ballot.counter >= COUNTER_LIMIT {
            return LearnOutcome::Refused(self.refusal(self.promise(key), stored.height()));
        }
        match stored {
            Stored::Value(held) if held >= ballot => LearnOutcome::Already,
            Stored::Absent { purged } if purged >= Some(ballot) => {
                LearnOutcome::Refused(self.refusal(self.promise(key), purged))
            }
            _ => {
                self.forget_up_to(key, ballot);
                LearnOutcome::Write
            }
        }
    }

    /// What a reader is told besides the accepted value: how high a settling ballot must go to be
    /// taken here.
    pub fn height(&self, key: &K, stored: impl Into<Stored>) -> u64 {
        self.refusal(self.promise(key), stored.into().height()).above
    }

    fn refusal(&self, promised: Option<Ballot>, height: Option<Ballot>) -> Refusal {
        let counter = |ballot: Option<Ballot>| ballot.map_or(0, |ballot| ballot.counter);
        Refusal { above: self.floor.max(counter(promised)).max(counter(height)) }
    }

    fn remember(&mut self, key: &K, ballot: Ballot) {
        if let Some(old) = self.promises.insert(key.clone(), ballot) {
            self.by_height.remove(&(old, key.clone()));
        }
        self.by_height.insert((ballot, key.clone()));
        while self.promises.len() > self.capacity {
            let (lowest, evicted) = self.by_height.pop_first().expect("as many entries as promises");
            self.promises.remove(&evicted);
            self.floor = self.floor.max(lowest.counter);
        }
    }

    fn forget_up_to(&mut self, key: &K, ballot: Ballot) {
        if let Some(promised) = self.promise(key)
            && promised <= ballot
        {
            self.promises.remove(key);
            self.by_height.remove(&(promised, key.clone()));
        }
    }
}

/// What an acceptor tells a proposer that it promised: the value it accepted last.
pub type Promise = Option<Accepted>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::LayoutVersion;

    fn ballot(counter: u64) -> Ballot {
        Ballot { layout: LayoutVersion(1), counter, session: 7 }
    }

    fn promised(outcome: Prepared) -> bool {
        matches!(outcome, Prepared::Promised { .. })
    }

    #[test]
    fn a_promise_refuses_what_is_lower_and_repeats_what_is_equal() {
        let mut acceptor = Acceptor::with_limits(0, 8, 100);
        assert_eq!(acceptor.prepare(&1, ballot(10), None), Prepared::Promised { raise_ceiling: Some(110) });
        assert_eq!(acceptor.prepare(&1, ballot(10), None), Prepared::Promised { raise_ceiling: None });
        assert_eq!(acceptor.prepare(&1, ballot(9), None), Prepared::Refused(Refusal { above: 10 }));
        assert_eq!(acceptor.accept(&1, ballot(9), None), AcceptOutcome::Refused(Refusal { above: 10 }));
        assert_eq!(acceptor.accept(&1, ballot(10), None), AcceptOutcome::Write);
        assert_eq!(acceptor.promise(&1), None);
        assert_eq!(acceptor.accept(&1, ballot(10), Some(ballot(10))), AcceptOutcome::Already);
        assert!(!promised(acceptor.prepare(&1, ballot(10), Some(ballot(10)))));
    }

    #[test]
    fn after_a_restart_nothing_below_the_ceiling_passes() {
        let mut acceptor = Acceptor::restarted(110);
        assert_eq!(acceptor.prepare(&1, ballot(50), None), Prepared::Refused(Refusal { above: 110 }));
        assert_eq!(acceptor.accept(&1, ballot(110), None), AcceptOutcome::Refused(Refusal { above: 110 }));
        assert_eq!(acceptor.accept(&1, ballot(111), None), AcceptOutcome::Write);
    }

    #[test]
    fn eviction_raises_the_floor() {
        let mut acceptor = Acceptor::with_limits(0, 2, 1000);
        for key in 1..=3 {
            assert!(promised(acceptor.prepare(&key, ballot(key), None)));
        }
        assert_eq!(acceptor.floor(), 1);
        assert_eq!(acceptor.promise(&1), None);
        assert_eq!(acceptor.accept(&1, ballot(1), None), AcceptOutcome::Refused(Refusal { above: 1 }));
        assert_eq!(acceptor.accept(&2, ballot(2), None), AcceptOutcome::Write, "still in memory");
    }

    #[test]
    fn learning_goes_past_a_promise_and_keeps_it() {
        let mut acceptor = Acceptor::restarted(0);
        acceptor.prepare(&1, ballot(20), None);
        assert_eq!(acceptor.learn(&1, ballot(10), None), LearnOutcome::Write);
        assert_eq!(acceptor.promise(&1), Some(ballot(20)));
        assert_eq!(acceptor.learn(&1, ballot(10), Some(ballot(10))), LearnOutcome::Already);
        assert_eq!(acceptor.height(&1, Some(ballot(10))), 20);
    }

    #[test]
    fn what_was_purged_does_not_come_back() {
        let mut acceptor = Acceptor::restarted(0);
        let purged = Stored::Absent { purged: Some(ballot(10)) };
        let refusal = Refusal { above: 10 };
        assert_eq!(acceptor.prepare(&1, ballot(10), purged), Prepared::Refused(refusal));
        assert_eq!(acceptor.accept(&1, ballot(10), purged), AcceptOutcome::Refused(refusal));
        assert_eq!(acceptor.learn(&1, ballot(10), purged), LearnOutcome::Refused(refusal));
        assert_eq!(acceptor.height(&1, purged), 10);
        assert_eq!(acceptor.learn(&1, ballot(11), purged), LearnOutcome::Write);
        assert_eq!(acceptor.accept(&1, ballot(12), purged), AcceptOutcome::Write);
        assert!(
            promised(acceptor.prepare(&1, ballot(5), Stored::Value(ballot(4)))),
            "what is there stays usable"
        );
    }

    #[test]
    fn absurd_counters_are_refused() {
        let mut acceptor = Acceptor::restarted(0);
        assert!(!promised(acceptor.prepare(&1, ballot(COUNTER_LIMIT), None)));
        assert!(matches!(acceptor.learn(&1, ballot(COUNTER_LIMIT), None), LearnOutcome::Refused(_)));
    }
}
