//! One owner: the production acceptor, and what is durable beside it.
//!
//! Owns what a message does to an owner: the decision is the acceptor's; the durable effect comes before
//! the reply. A message that is handled and whose reply is lost is also the crash between the two.

use pando_core::register::{
    Acceptor, Ballot,
    acceptor::{AcceptOutcome, LearnOutcome, Prepared},
};

use crate::rules::{Broken, Chain, Config, Held, Mark, REGISTERS};

/// What reaches an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    /// A proposer asks for a promise.
    Prepare(Mark),
    /// A proposer asks to accept.
    Accept(Mark, Chain),
    /// Someone says that this was chosen.
    Learn(Mark, Chain),
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
    /// To a learn, or nothing.
    Silent,
}

/// One owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    acceptor: Acceptor<u8>,
    held: [Held; REGISTERS],
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
    pub(crate) fn new(config: &Config) -> Self {
        Self { acceptor: acceptor(0, config), held: [None; REGISTERS], ceiling: 0, late: None }
    }

    /// The process dies and starts again: only what is durable remains.
    pub(crate) fn restart(&mut self, config: &Config) {
        let ceiling = if config.breaks(Broken::RestartForgets) { 0 } else { self.ceiling };
        self.acceptor = acceptor(ceiling, config);
        self.late = None;
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
        let held = self.held[usize::from(register)];
        Reply::Value(held, self.acceptor.height(&register, held.map(|(mark, _)| mark.ballot())))
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
        let before = (self.ceiling, self.held);
        let reply = match message {
            Message::Prepare(mark) => self.prepare(register, mark, config),
            Message::Accept(mark, chain) => self.accept(register, mark, chain, config),
            Message::Learn(mark, chain) => self.learn(register, mark, chain),
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
        let accepted = held.map(|(mark, _)| mark.ballot());
        let floor = self.acceptor.floor();
        let prepared = self.acceptor.prepare(&register, mark.ballot(), accepted);
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
        let held = &mut self.held[usize::from(register)];
        let mut accepted = held.map(|(mark, _)| mark.ballot());
        if config.breaks(Broken::AcceptsBelow) {
            accepted = None;
        }
        match self.acceptor.accept(&register, mark.ballot(), accepted) {
            AcceptOutcome::Write => {
                *held = Some((mark, chain));
                Reply::Accepted
            }
            AcceptOutcome::Already => Reply::Accepted,
            AcceptOutcome::Refused(refusal) => Reply::Refused(refusal.above),
        }
    }

    fn learn(&mut self, register: u8, mark: Mark, chain: Chain) -> Reply {
        let held = &mut self.held[usize::from(register)];
        let stored = held.map(|(mark, _)| mark.ballot());
        if self.acceptor.learn(&register, mark.ballot(), stored) == LearnOutcome::Write {
            *held = Some((mark, chain));
        }
        Reply::Silent
    }
}
