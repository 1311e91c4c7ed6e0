//! Registers: named, linearizable, replicated values, changed by the CASPaxos protocol
//! (Rystsov, "CASPaxos: Replicated State Machines without logs", arXiv 1802.07000).
//!
//! This module owns what a register is made of ([`Ballot`], [`Value`], [`Accepted`]) and the three
//! pure state machines: [`acceptor`] (one node's promises and refusals), [`proposer`] (one change)
//! and [`read`] (one read). [`change`] decides what a retried write may do. None of them sends,
//! stores or waits: messages in, decisions out. The model checker in `tests/` runs this same code.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::WriteId;

pub mod acceptor;
pub mod change;
pub mod proposer;
pub mod quorum;
pub mod read;

pub use acceptor::{Acceptor, Refusal, Stored};
pub use change::{Change, Verdict};
pub use proposer::Proposer;
pub use quorum::Quorum;
pub use read::Read;

/// The version of a layout. Version 0 is "none"; the first layout is version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayoutVersion(pub u64);

/// The order in which changes to one register take effect. Compared field by field, in this order.
///
/// A ballot is used under its layout version only, and by one proposer only: sessions are random
/// and a session never uses a counter twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The layout under which the proposer counted its quorum.
    pub layout: LayoutVersion,
    /// Follows the proposer's clock (microseconds), and is above every counter it has seen.
    pub counter: u64,
    /// Random for each start of a process.
    pub session: u64,
}

/// Counters at or above this are refused as malformed: it leaves room above every honest clock
/// (2^62 µs is 146,000 years), so that a hostile peer can't use up the number space.
pub const COUNTER_LIMIT: u64 = 1 << 62;

/// How many recent writes a value remembers. A retry can tell whether it took effect as long as at
/// most this many writes came after it; 16 costs 256 bytes per register.
pub const WRITE_WINDOW: usize = 16;

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Deleted: a tombstone.
    Absent,
    /// Present, with bytes that mean something to the layer above.
    Present(Bytes),
}

/// A register's value: its state, how many writes made it, and the ids of the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Value {
    /// How many writes led here; 1 for the first.
    pub sequence: u64,
    /// The ids of the last writes, oldest first, at most [`WRITE_WINDOW`]; the last one made `state`.
    pub recent: Vec<WriteId>,
    /// What it holds now.
    pub state: State,
}

impl Value {
    /// The value after the write `id` sets `state` on top of `found`.
    pub fn after(found: Option<&Value>, id: WriteId, state: State) -> Value {
        let mut recent = found.map(|value| value.recent.clone()).unwrap_or_default();
        if recent.len() >= WRITE_WINDOW {
            recent.drain(..=recent.len() - WRITE_WINDOW);
        }
        recent.push(id);
        Value { sequence: found.map_or(0, |value| value.sequence) + 1, recent, state }
    }

    /// The bytes, if present.
    pub fn present(&self) -> Option<&Bytes> {
        match &self.state {
            State::Present(bytes) => Some(bytes),
            State::Absent => None,
        }
    }

    /// The id of the write that made this value.
    pub fn write_id(&self) -> Option<WriteId> {
        self.recent.last().copied()
    }

    /// Whether a value from the wire keeps the rules that honest writers keep.
    pub fn is_well_formed(&self) -> bool {
        !self.recent.is_empty()
            && self.recent.len() <= WRITE_WINDOW
            && self.sequence >= self.recent.len() as u64
            && self.sequence < COUNTER_LIMIT
    }
}

/// A value and the ballot it was accepted at: what an acceptor stores durably for one register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Accepted {
    /// When.
    pub ballot: Ballot,
    /// What.
    pub value: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_remembers_its_last_writes() {
        let mut value = None;
        for n in 0..40u8 {
            value = Some(Value::after(value.as_ref(), WriteId([n; 16]), State::Absent));
        }
        let value = value.unwrap();
        assert_eq!(value.sequence, 40);
        assert_eq!(value.recent.len(), WRITE_WINDOW);
        assert_eq!(value.recent[0], WriteId([24; 16]));
        assert_eq!(value.write_id(), Some(WriteId([39; 16])));
        assert!(value.is_well_formed());
    }

    #[test]
    fn ballots_order_by_layout_then_counter_then_session() {
        let ballot = |layout, counter, session| Ballot { layout: LayoutVersion(layout), counter, session };
        assert!(ballot(2, 0, 0) > ballot(1, 9, 9));
        assert!(ballot(1, 2, 0) > ballot(1, 1, 9));
        assert!(ballot(1, 1, 2) > ballot(1, 1, 1));
    }
}
