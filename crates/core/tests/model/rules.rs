//! What a configuration of the model says: scripts, bounds, and the rule that is broken, if one is.
//!
//! Also the compact forms that states are made of, and their way to and from the production types:
//! [`Mark`] for a ballot, [`Chain`] for a value (the writes that led to it, all of them).

use bytes::Bytes;
use pando_core::{
    id::WriteId,
    register::{Accepted, Ballot, LayoutVersion, State, Value},
};

use crate::layouts::Layouts;

/// How many owners a register has.
pub(crate) const OWNERS: usize = 3;
/// How many registers there are: the second one is there to press promises out of the table.
pub(crate) const REGISTERS: usize = 2;
/// Most operations: an id of the model has four bits, one of them for retries under a fresh id.
pub(crate) const OPS: usize = 7;

/// A ballot, packed in the order of ballots: three bits for the layout, five for the counter, three for the
/// session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mark(u16);

impl Mark {
    /// The ballot of a client.
    pub(crate) fn new(layout: u8, counter: u64, client: usize) -> Self {
        assert!(layout < 8 && counter < 32 && client < 8, "ballots of the model are small");
        Self(u16::from(layout) << 8 | (counter as u16) << 3 | client as u16)
    }

    /// Whose it is.
    pub(crate) fn client(self) -> usize {
        usize::from(self.0 & 7)
    }

    /// Its counter.
    pub(crate) fn counter(self) -> u64 {
        u64::from(self.0 >> 3 & 31)
    }

    /// Its layout version.
    pub(crate) fn layout(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// As production knows it.
    pub(crate) fn ballot(self) -> Ballot {
        let layout = LayoutVersion(u64::from(self.layout()));
        Ballot { layout, counter: self.counter(), session: self.client() as u64 }
    }

    /// From what production knows.
    pub(crate) fn of(ballot: Ballot) -> Self {
        Self::new(ballot.layout.0 as u8, ballot.counter, ballot.session as usize)
    }
}

/// A value, as the ids of all writes that led to it: four bits each, the last one lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Chain(u64);

impl Chain {
    /// How many writes.
    pub(crate) fn len(self) -> usize {
        (u64::BITS - self.0.leading_zeros()).div_ceil(4) as usize
    }

    /// The ids of the writes, oldest first.
    pub(crate) fn ids(self) -> impl DoubleEndedIterator<Item = u8> {
        (0..self.len()).rev().map(move |at| (self.0 >> (4 * at)) as u8 & 15)
    }

    /// The first `len` writes.
    pub(crate) fn cut(self, len: usize) -> Self {
        Self(self.0 >> (4 * self.len().saturating_sub(len)))
    }

    /// This, and then the writes of another.
    pub(crate) fn then(self, later: Self) -> Self {
        assert!(self.len() + later.len() <= 16, "chains of the model are short");
        if later.len() == 0 { self } else { Self(self.0 << (4 * later.len()) | later.0) }
    }

    /// Whether `later` was built on this.
    pub(crate) fn leads_to(self, later: Self) -> bool {
        self.len() <= later.len() && later.cut(self.len()) == self
    }

    /// The place of an operation's write, counted from 1.
    pub(crate) fn position(self, op: u8) -> Option<usize> {
        self.ids().position(|id| op_of(id) == op).map(|index| index + 1)
    }

    /// From what production knows.
    pub(crate) fn of(value: Option<&Value>) -> Self {
        let Some(value) = value else { return Self::default() };
        assert_eq!(value.sequence, value.recent.len() as u64, "chains of the model fit the window");
        Self(value.recent.iter().fold(0, |chain, id| chain << 4 | u64::from(id.0[0])))
    }

    /// As production knows it.
    pub(crate) fn value(self, config: &Config) -> Option<Value> {
        self.ids().fold(None, |value, id| {
            let op = op_of(id);
            Some(Value::after(value.as_ref(), write_id(id), config.written(op)))
        })
    }
}

/// The operation whose write has this id; a retry under a fresh id has the fourth bit set.
pub(crate) fn op_of(id: u8) -> u8 {
    id & 7
}

/// An id of the model as a production id.
pub(crate) fn write_id(id: u8) -> WriteId {
    WriteId([id; 16])
}

/// What an owner has accepted.
pub(crate) type Held = Option<(Mark, Chain)>;

/// The production form of what an owner has accepted.
pub(crate) fn accepted(held: Held, config: &Config) -> Option<Accepted> {
    let (mark, chain) = held?;
    Some(Accepted { ballot: mark.ballot(), value: chain.value(config)? })
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes.
    Put,
    /// Writes if there is nothing.
    PutIfAbsent,
    /// Writes if the last write was that of this operation.
    PutIf(u8),
    /// Writes a tombstone.
    Delete,
    /// Reads.
    Read,
}

/// One operation of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    /// On which register.
    pub(crate) register: u8,
    /// What.
    pub(crate) kind: Kind,
}

/// A rule that is broken, to see the model notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A restarted acceptor starts at ceiling 0.
    RestartForgets,
    /// Accepts are judged without what was accepted before.
    AcceptsBelow,
    /// What was proposed is taught as if it had been chosen.
    LearnsUnchosen,
    /// A read believes the first reply.
    ReadTrustsOne,
    /// A promise leaves the table and the floor stays.
    EvictsSilently,
    /// A retry has a new write id.
    FreshWriteId,
    /// One owner is a majority.
    MajorityOfOne,
    /// A promise leaves before the ceiling is durable.
    LateCeiling,
    /// A read takes the highest of a majority that differs.
    ReadTakesHighest,
    /// A retry that declines trusts a settled value without writing it back.
    DeclinesLightly,
    /// A retry that declines on nothing says so.
    DeclinesOnNothing,
    /// After a failed write the acceptor goes on with what it had in memory.
    FailedWriteGoesOn,
    /// A new owner syncs from one previous owner.
    SyncFromOne,
    /// Where the previous owners differ, a new owner takes the highest.
    SyncTakesHighest,
    /// Owners that stay say at once that they have synced.
    StayersSkipSync,
    /// A transition ends when one new owner has synced.
    EndsEarly,
    /// A node handles messages of older layouts than the one that it knows.
    NoFence,
    /// A restarted node knows the first layout.
    LayoutLost,
    /// During a transition a majority of the new owners is enough.
    NewMajorityOnly,
    /// A tombstone is forgotten when a majority holds it.
    PurgeByMajority,
    /// A tombstone is forgotten and the purge floor stays.
    PurgeWithoutFloor,
    /// A tombstone is forgotten while an operation from before it goes on.
    PurgeWithoutGrace,
    /// A tombstone is forgotten when the operations from before it was chosen are over, though not those from before
    /// all owners held it.
    GraceSinceChosen,
    /// A tombstone is forgotten during a transition, when the new owners hold it.
    PurgeInTransition,
    /// What a new owner may not adopt, because of its purge floor, it does without.
    RefusedIsSkipped,
}

/// What becomes of the rows of a node that is no owner (any more), which come to light if it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leavers {
    /// They may be dropped while it knows that it is no owner; when it syncs as an owner that returns, it takes
    /// over the purge floor and drops rows at or below it that all those asked lack.
    DropSometime,
    /// They are dropped durably with the first layout it knows in which it is a newcomer, or no owner.
    DropWhenNew,
    /// As the one before, but also when it was away between two layouts that it knows. A sync raises the purge
    /// floor to the highest of those asked, and an owner that holds nothing, at or above which its floor is,
    /// does not stand in the way of a purge.
    DropIfAway,
    /// Nothing is purged until every former owner has said that it dropped them.
    GatePurge,
}

/// One configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Its name.
    pub(crate) name: &'static str,
    /// What each client does, one after the other. Operations are numbered from 1 through all scripts.
    pub(crate) scripts: Vec<Vec<Op>>,
    /// The counter after which each client starts.
    pub(crate) clocks: Vec<u64>,
    /// Whether it starts after client 0's first operation, which two of the owners took part in.
    pub(crate) written: bool,
    /// Attempts per operation.
    pub(crate) tries: u8,
    /// The highest counter.
    pub(crate) counters: u64,
    /// Restarts in all.
    pub(crate) restarts: u8,
    /// Failed durable writes in all.
    pub(crate) failures: u8,
    /// Promises in an acceptor's table.
    pub(crate) capacity: usize,
    /// By how much ceilings are raised.
    pub(crate) step: u64,
    /// Whether chosen values are told to those that missed them.
    pub(crate) learn: bool,
    /// Whether replies travel by themselves, instead of arriving at once or never.
    pub(crate) detached: bool,
    /// The layouts, one after the other.
    pub(crate) layouts: Layouts,
    /// A bit for each node that syncs.
    pub(crate) syncers: u8,
    /// How often a node begins to sync one version.
    pub(crate) rounds: u8,
    /// Whether tombstones are purged.
    pub(crate) purges: bool,
    /// What becomes of the rows of those that leave.
    pub(crate) leavers: Leavers,
    /// What has happened at the start.
    pub(crate) prelude: Vec<Scene>,
    /// The broken rule.
    pub(crate) broken: Option<Broken>,
}

/// What has happened at the start; nodes are given as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// A client did its next operation under a layout, heard by these nodes.
    Op(usize, u8, u8),
    /// A client began its next operation under a layout, was promised by some nodes, and accepted by others.
    Part(usize, u8, u8, u8),
    /// A client gave its operation up.
    GaveUp(usize),
    /// A node synced from these nodes.
    Sync(usize, u8),
    /// These nodes took what was proposed for a register, and said what they must for its tombstone to be forgotten.
    Ready(u8, u8),
    /// These nodes forgot a tombstone.
    Purged(u8),
}

impl Config {
    /// Whether this rule is broken.
    pub(crate) fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// The operations in the order of their numbers; the first is number 1.
    pub(crate) fn ops(&self) -> impl Iterator<Item = Op> + '_ {
        self.scripts.iter().flatten().copied()
    }

    /// The operation with this number. Above those of the scripts: settling a register.
    pub(crate) fn op(&self, number: u8) -> Op {
        if let Some(register) = (number - 1).checked_sub(OPS as u8) {
            return Op { register, kind: Kind::Read };
        }
        self.ops().nth(usize::from(number) - 1).expect("an operation of a script")
    }

    /// The number of the operation at `at` in a client's script; of a client without one, settling register `at`.
    pub(crate) fn number(&self, client: usize, at: u8) -> Option<u8> {
        if client >= self.scripts.len() {
            return Some(OPS as u8 + 1 + at);
        }
        let before: usize = self.scripts[..client].iter().map(Vec::len).sum();
        (usize::from(at) < self.scripts[client].len()).then(|| before as u8 + at + 1)
    }

    /// The state that an operation writes.
    fn written(&self, op: u8) -> State {
        match self.op(op).kind {
            Kind::Delete => State::Absent,
            _ => State::Present(Bytes::copy_from_slice(&[op])),
        }
    }

    /// Whether a value is a tombstone.
    pub(crate) fn is_tombstone(&self, chain: Chain) -> bool {
        chain.ids().next_back().is_some_and(|id| self.op(op_of(id)).kind == Kind::Delete)
    }

    /// What an operation does to what it finds, as production's callers do it.
    pub(crate) fn decide(&self, op: u8, found: Option<&Value>) -> Result<State, ()> {
        let holds = match self.op(op).kind {
            Kind::Put | Kind::Delete => true,
            Kind::PutIfAbsent => found.and_then(Value::present).is_none(),
            Kind::PutIf(other) => found.and_then(Value::write_id) == Some(write_id(other)),
            Kind::Read => false,
        };
        if holds { Ok(self.written(op)) } else { Err(()) }
    }
}
