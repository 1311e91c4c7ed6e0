//! What must hold: the judge of a history.
//!
//! Owns what was sent and accepted so far ([`Attempt`]), what callers were told ([`History`]), and the checks:
//! chosen values form one chain that only grows; each write is in it at most once, where its precondition
//! held, and after all that had been answered before it began; who was told of success or of a value
//! was told the truth, and who was told of failure will never see the write appear.

use crate::{
    client::Answer,
    rules::{Broken, Chain, Config, Held, Mark, REGISTERS, op_of},
};

/// One ballot: what its proposer sent, and who held it at some time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    /// The ballot.
    pub(crate) mark: Mark,
    /// The operation it serves.
    pub(crate) op: u8,
    /// The value, once accepts are sent.
    pub(crate) chain: Option<Chain>,
    /// A bit for each owner that ever accepted it, or learned it; [`CHOSEN`]; [`ACCEPTED`]. With both of these,
    /// who held it no longer matters.
    pub(crate) owners: u8,
    /// A bit for each layout under which owners are told that it is chosen.
    pub(crate) told: u8,
    /// The operations under way when it was chosen (only where a broken rule asks for that).
    pub(crate) beside: u8,
}

/// It was chosen: held by enough that no later ballot misses it.
pub(crate) const CHOSEN: u8 = 1 << 7;
/// It was accepted by so many that its proposer may answer.
pub(crate) const ACCEPTED: u8 = 1 << 6;

impl Attempt {
    /// An attempt that sent its prepares.
    pub(crate) fn new(mark: Mark, op: u8) -> Self {
        Self { mark, op, chain: None, owners: 0, told: 0, beside: 0 }
    }

    /// Whether it was chosen.
    pub(crate) fn is_chosen(&self) -> bool {
        self.owners & CHOSEN != 0
    }

    /// It is held by enough owners of a later layout. Says whether that made it chosen.
    pub(crate) fn choose_late(&mut self) -> bool {
        let before = self.is_chosen();
        self.owners |= CHOSEN;
        !before
    }

    /// Whether it was accepted by so many that its proposer may answer.
    pub(crate) fn is_accepted(&self) -> bool {
        self.owners & ACCEPTED != 0
    }

    /// Notes that `owner` accepted it. Says whether that made it chosen: a majority of the owners of its layout,
    /// of those to come if there are two groups. (No ballot that could be prepared then, under its layout or
    /// a later one, misses it. The proposer asks for more before it answers.)
    pub(crate) fn note_accepted(&mut self, owner: usize, config: &Config) -> bool {
        let before = self.is_chosen();
        let (layouts, version) = (&config.layouts, self.mark.layout());
        if self.owners == CHOSEN | ACCEPTED || layouts.joint(version).place(owner).is_none() {
            return false;
        }
        self.owners |= 1 << owner;
        let held = |owner: usize| self.owners >> owner & 1 == 1;
        let slots = layouts.slots(version).is_met(held);
        let all = config.breaks(Broken::NewMajorityOnly) && slots || layouts.joint(version).is_met(held);
        self.owners |= if slots { CHOSEN } else { 0 } | if all { ACCEPTED } else { 0 };
        if self.is_chosen() && self.is_accepted() {
            self.owners = CHOSEN | ACCEPTED;
        }
        self.is_chosen() && !before
    }
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    /// Not begun.
    Waiting,
    /// Begun. What was answered before holds at least this.
    Running(Chain),
    /// Over, and whether it took effect is open.
    Open(Chain),
    /// Over, with effect.
    Written,
    /// Over, never with effect.
    Void,
}

/// What callers know, and how many faults there were.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct History {
    ops: Vec<Status>,
    /// The longest chain that any answer told of.
    seen: [Chain; REGISTERS],
    /// The tombstone that was forgotten first: its ballot, and all that led to it.
    purged: [Option<(Mark, Chain)>; REGISTERS],
    /// Restarts so far.
    pub(crate) restarts: u8,
    /// Failed durable writes so far.
    pub(crate) failures: u8,
}

impl History {
    /// Nothing happened.
    pub(crate) fn new(config: &Config) -> Self {
        let ops = vec![Status::Waiting; config.ops().count()];
        Self { ops, seen: [Chain::default(); REGISTERS], purged: [None; REGISTERS], restarts: 0, failures: 0 }
    }

    /// An operation begins.
    pub(crate) fn begin(&mut self, op: u8, config: &Config) {
        self.ops[usize::from(op) - 1] = Status::Running(self.seen[usize::from(config.op(op).register)]);
    }

    /// The operations under way, as bits.
    pub(crate) fn running(&self) -> u8 {
        let bit = |(status, op): (&Status, u8)| u8::from(matches!(status, Status::Running(_))) << op;
        self.ops.iter().zip(0..).map(bit).sum()
    }

    /// A tombstone is forgotten by an owner.
    pub(crate) fn purge(&mut self, register: u8, mark: Mark, chain: Chain) {
        let forgotten = &mut self.purged[usize::from(register)];
        assert!(forgotten.is_none_or(|(_, other)| other == chain), "one tombstone a register is purged");
        forgotten.get_or_insert((mark, chain));
    }

    /// Someone settled a register and was told this.
    pub(crate) fn settle(
        &self,
        op: u8,
        chain: Chain,
        attempts: &[Attempt],
        config: &Config,
    ) -> Result<(), String> {
        let register = config.op(op).register;
        let known = |other: Chain| other == self.seen_by(register, chain);
        if chain.len() > 0 && !self.chosen(attempts, register, config).any(|(_, other)| known(other)) {
            return Err(format!("{} was settled, and is not chosen", name(chain)));
        }
        Ok(())
    }

    /// All chosen values of a register, by ballot, each with all that led to it.
    fn chosen(
        &self,
        attempts: &[Attempt],
        register: u8,
        config: &Config,
    ) -> impl Iterator<Item = (Mark, Chain)> {
        attempts
            .iter()
            .filter(move |attempt| attempt.is_chosen() && config.op(attempt.op).register == register)
            .filter_map(move |attempt| {
                Some((attempt.mark, self.whole(register, attempt.mark, attempt.chain?)))
            })
    }

    /// What was built above a purged tombstone on nothing was built on the tombstone.
    fn whole(&self, register: u8, mark: Mark, chain: Chain) -> Chain {
        match self.purged[usize::from(register)] {
            Some((purged, before)) if mark > purged && !before.leads_to(chain) => before.then(chain),
            _ => chain,
        }
    }

    /// As [`History::whole`], for what someone saw without its ballot.
    fn seen_by(&self, register: u8, chain: Chain) -> Chain {
        match self.purged[usize::from(register)] {
            Some((_, before)) if chain.len() == 0 || !chain.leads_to(before) && !before.leads_to(chain) => {
                before.then(chain)
            }
            _ => chain,
        }
    }

    /// An operation ends with an answer: is it true?
    pub(crate) fn end(
        &mut self,
        op: u8,
        answer: Answer,
        attempts: &[Attempt],
        config: &Config,
    ) -> Result<(), String> {
        let Status::Running(floor) = self.ops[usize::from(op) - 1] else {
            return Err(format!("operation {op} ends without having begun"));
        };
        let register = config.op(op).register;
        let answer = match answer {
            Answer::Saw(chain) => Answer::Saw(self.seen_by(register, chain)),
            answer => answer,
        };
        let chosen = || self.chosen(attempts, register, config);
        let taken = chosen().any(|(_, chain)| chain.position(op).is_some());
        let (status, told) = match answer {
            Answer::Written => {
                let Some((place, chain)) =
                    chosen().find_map(|(_, chain)| chain.position(op).map(|place| (place, chain)))
                else {
                    return Err(format!("operation {op} is acknowledged and not chosen"));
                };
                (Status::Written, chain.cut(place))
            }
            Answer::Saw(chain) => {
                if taken {
                    return Err(format!("operation {op} is told that it failed, and its write is chosen"));
                }
                if chain.len() > 0 && !chosen().any(|(_, other)| other == chain) {
                    return Err(format!("operation {op} saw {}, never chosen", name(chain)));
                }
                if !floor.leads_to(chain) {
                    let (saw, floor) = (name(chain), name(floor));
                    return Err(format!("operation {op} saw {saw} after {floor} was known to others"));
                }
                (Status::Void, chain)
            }
            Answer::Unknown => (Status::Open(floor), Chain::default()),
            Answer::Failed if taken => return Err(format!("operation {op} never began to write, and did")),
            Answer::Failed => (Status::Void, Chain::default()),
        };
        self.ops[usize::from(op) - 1] = status;
        let seen = &mut self.seen[usize::from(register)];
        if told.len() > seen.len() {
            if !seen.leads_to(told) {
                return Err(format!("{} was told, then {}", name(*seen), name(told)));
            }
            *seen = told;
        }
        Ok(())
    }

    /// A value was just chosen: may it be?
    pub(crate) fn choose(&self, mark: Mark, attempts: &[Attempt], config: &Config) -> Result<(), String> {
        let Some((register, chain)) = attempts
            .iter()
            .find(|attempt| attempt.mark == mark)
            .and_then(|attempt| Some((config.op(attempt.op).register, attempt.chain?)))
        else {
            return Err("chosen without having been sent".to_string());
        };
        let chain = self.whole(register, mark, chain);
        for (other, theirs) in self.chosen(attempts, register, config) {
            let fits = if other < mark { theirs.leads_to(chain) } else { chain.leads_to(theirs) };
            if !fits {
                return Err(format!(
                    "{} is chosen, and it does not follow from {} ({})",
                    told(Some((mark, chain))),
                    told(Some((other, theirs))),
                    if other < mark { "chosen at a lower ballot" } else { "chosen at a higher ballot" },
                ));
            }
        }
        for (id, place) in chain.ids().zip(1..) {
            let (op, before) = (op_of(id), chain.cut(place - 1));
            if chain.ids().filter(|other| op_of(*other) == op).count() > 1 {
                return Err(format!("operation {op} took effect twice in {}", name(chain)));
            }
            if config.decide(op, before.value(config).as_ref()).is_err() {
                return Err(format!(
                    "operation {op} took effect where its precondition fails: {}",
                    name(chain)
                ));
            }
            match self.ops[usize::from(op) - 1] {
                Status::Void => {
                    return Err(format!(
                        "operation {op} was told that it failed, and {} is chosen",
                        name(chain)
                    ));
                }
                Status::Running(floor) | Status::Open(floor) if !floor.leads_to(before) => {
                    return Err(format!("operation {op} began after {} and is put before it", name(floor)));
                }
                Status::Waiting => return Err(format!("operation {op} took effect before it began")),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A chain in words.
pub(crate) fn name(chain: Chain) -> String {
    let ids: Vec<String> = chain.ids().map(|id| id.to_string()).collect();
    format!("[{}]", ids.join(" "))
}

/// An accepted value in words.
pub(crate) fn told(held: Held) -> String {
    match held {
        None => "nothing".to_string(),
        Some((mark, chain)) => format!("{}@{}", name(chain), ballot(mark)),
    }
}

/// A ballot in words.
pub(crate) fn ballot(mark: Mark) -> String {
    format!("{}.{}.{}", mark.layout(), mark.counter(), mark.client())
}
