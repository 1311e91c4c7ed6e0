//! One owner: the production acceptor, and what is durable beside it.
//!
//! Owns what a message does to an owner: the decision is the acceptor's; the durable effect comes before
//! the reply. A message that is handled and whose reply is lost is also the crash between the two.

use pando_core::register::{
    Acceptor, Ballot, Stored,
    acceptor::{AcceptOutcome, LearnOutcome, Prepared},
};

use crate::rules::{Broken, Chain, Config, Held, Leavers, Mark, REGISTERS};

/// What reaches an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    /// A proposer asks for a promise.
    Prepare(Mark),
    /// A proposer asks to accept.
    Accept(Mark, Chain),
    /// Someone says, under this layout, that this was chosen.
    Learn(u8, Mark, Chain),
    /// Someone reads under this layout.
    Read(u8),
}

impl Message {
    /// The ballot of the attempt that it serves.
    pub(crate) fn mark(self) -> Option<Mark> {
        match self {
            Message::Prepare(mark) | Message::Accept(mark, _) | Message::Learn(_, mark, _) => Some(mark),
            Message::Read(_) => None,
        }
    }

    /// The layout under which it is sent.
    fn layout(self) -> u8 {
        match self {
            Message::Prepare(mark) | Message::Accept(mark, _) => mark.layout(),
            Message::Learn(layout, ..) | Message::Read(layout) => layout,
        }
    }
}

/// What an owner says, or how the exchange ends for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reply {
    /// To a read: what is accepted, and the height.
    Value(Held, u64),
    /// To a prepare.
    Promised(Held),
    /// To an accept: durable.
    Accepted,
    /// To a prepare or an accept: go above this.
    Refused(u64),
    /// To a learn, or to what is asked under an older layout, or nothing.
    Silent,
}

/// One owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// Its number, where nodes differ by it.
    me: u8,
    /// The layout that it knows, durably.
    known: u8,
    acceptor: Acceptor<u8>,
    held: [Held; REGISTERS],
    /// The purge floor.
    purged: Option<Mark>,
    /// The durable ceiling.
    ceiling: u64,
    /// A ceiling that is not durable yet (only where that rule is broken).
    late: Option<u64>,
}

fn acceptor(ceiling: u64, config: &Config) -> Acceptor<u8> {
    Acceptor::with_limits(ceiling, config.capacity, config.step)
}

impl Node {
    /// A new disk.
    pub(crate) fn new(me: usize, config: &Config) -> Self {
        Self {
            me: me as u8,
            known: 1,
            acceptor: acceptor(0, config),
            held: [None; REGISTERS],
            purged: None,
            ceiling: 0,
            late: None,
        }
    }

    /// The process dies and starts again: only what is durable remains.
    pub(crate) fn restart(&mut self, config: &Config) {
        let ceiling = if config.breaks(Broken::RestartForgets) { 0 } else { self.ceiling };
        self.acceptor = acceptor(ceiling, config);
        self.late = None;
        if config.breaks(Broken::LayoutLost) {
            self.known = 1;
        }
    }

    /// The layout that it knows.
    pub(crate) fn known(&self) -> u8 {
        self.known
    }

    /// The purge floor.
    pub(crate) fn purged(&self) -> Option<Mark> {
        self.purged
    }

    /// Something comes under a layout: an older one than that known is refused, a newer one is learned first.
    pub(crate) fn fences(&mut self, version: u8, config: &Config) -> bool {
        if self.known < version {
            let before = std::mem::replace(&mut self.known, version);
            let me = usize::from(self.me);
            let layouts = &config.layouts;
            let newcomer = match config.leavers {
                Leavers::DropSometime | Leavers::GatePurge => false,
                Leavers::DropWhenNew => {
                    let previous = layouts.previous(version);
                    previous.map_or_else(
                        || layouts.slots(version).place(me).is_none(),
                        |previous| previous.place(me).is_none(),
                    )
                }
                Leavers::DropIfAway => layouts
                    .since(version, me)
                    .map_or_else(|| !layouts.takes_part(version, me), |since| since > before),
            };
            if newcomer {
                self.drop_rows();
            }
        }
        self.known > version && !config.breaks(Broken::NoFence)
    }

    /// Drops all rows.
    pub(crate) fn drop_rows(&mut self) {
        self.held = [None; REGISTERS];
    }

    /// Drops the row of one register.
    pub(crate) fn drop_row(&mut self, register: u8) {
        self.held[usize::from(register)] = None;
    }

    /// The purge floor rises.
    pub(crate) fn raise_purged(&mut self, floor: Option<Mark>) {
        self.purged = self.purged.max(floor);
    }

    fn stored(&self, register: u8) -> Stored {
        let purged = self.purged.map(Mark::ballot);
        let held = self.held[usize::from(register)];
        held.map_or(Stored::Absent { purged }, |(mark, _)| Stored::Value(mark.ballot()))
    }

    /// How high a settling ballot must go.
    pub(crate) fn height(&self, register: u8) -> u64 {
        self.acceptor.height(&register, self.stored(register))
    }

    /// The acceptor's floor.
    pub(crate) fn floor(&self) -> u64 {
        self.acceptor.floor()
    }

    /// The acceptor's promise in memory.
    pub(crate) fn promise(&self, register: u8) -> Option<Ballot> {
        self.acceptor.promise(&register)
    }

    /// What is accepted.
    pub(crate) fn held(&self, register: u8) -> Held {
        self.held[usize::from(register)]
    }

    /// Answers a read.
    pub(crate) fn read(&self, register: u8) -> Reply {
        Reply::Value(self.held[usize::from(register)], self.height(register))
    }

    /// Handles a message; says also whether a value was written. If the disk `fails`, the durable effect
    /// is missing, there is no reply, and the acceptor starts anew at its ceiling.
    pub(crate) fn handle(
        &mut self,
        register: u8,
        message: Message,
        fails: bool,
        config: &Config,
    ) -> (Reply, bool) {
        self.ceiling = self.late.take().unwrap_or(self.ceiling);
        if self.fences(message.layout(), config) {
            return (Reply::Silent, false);
        }
        let before = (self.ceiling, self.held);
        let reply = match message {
            Message::Prepare(mark) => self.prepare(register, mark, config),
            Message::Accept(mark, chain) => self.accept(register, mark, chain, config),
            Message::Learn(_, mark, chain) => {
                self.learn(register, mark, chain);
                Reply::Silent
            }
            Message::Read(_) => self.read(register),
        };
        if fails {
            (self.ceiling, self.held) = before;
            if !config.breaks(Broken::FailedWriteGoesOn) {
                self.acceptor = acceptor(self.acceptor.ceiling(), config);
            }
            return (Reply::Silent, false);
        }
        (reply, self.held != before.1)
    }

    fn prepare(&mut self, register: u8, mark: Mark, config: &Config) -> Reply {
        let held = self.held[usize::from(register)];
        let floor = self.acceptor.floor();
        let prepared = self.acceptor.prepare(&register, mark.ballot(), self.stored(register));
        if config.breaks(Broken::EvictsSilently) && self.acceptor.floor() > floor {
            let mut silent = acceptor(floor, config);
            for kept in 0..REGISTERS as u8 {
                if let Some(promise) = self.acceptor.promise(&kept) {
                    silent.prepare(&kept, promise, None);
                }
            }
            self.acceptor = silent;
        }
        match prepared {
            Prepared::Promised { raise_ceiling } => {
                match raise_ceiling {
                    Some(ceiling) if config.breaks(Broken::LateCeiling) => self.late = Some(ceiling),
                    Some(ceiling) => self.ceiling = ceiling,
                    None => {}
                }
                Reply::Promised(held)
            }
            Prepared::Refused(refusal) => Reply::Refused(refusal.above),
        }
    }

    fn accept(&mut self, register: u8, mark: Mark, chain: Chain, config: &Config) -> Reply {
        let mut stored = self.stored(register);
        if config.breaks(Broken::AcceptsBelow) {
            stored = None.into();
        }
        match self.acceptor.accept(&register, mark.ballot(), stored) {
            AcceptOutcome::Write => {
                self.held[usize::from(register)] = Some((mark, chain));
                Reply::Accepted
            }
            AcceptOutcome::Already => Reply::Accepted,
            AcceptOutcome::Refused(refusal) => Reply::Refused(refusal.above),
        }
    }

    /// Learns what was chosen.
    pub(crate) fn learn(&mut self, register: u8, mark: Mark, chain: Chain) -> LearnOutcome {
        let outcome = self.acceptor.learn(&register, mark.ballot(), self.stored(register));
        if outcome == LearnOutcome::Write {
            self.held[usize::from(register)] = Some((mark, chain));
        }
        outcome
    }
}
