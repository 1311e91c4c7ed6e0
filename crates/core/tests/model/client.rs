//! One client: its script, and the driving of the production `Read`, `Proposer` and `Change` through it.
//!
//! Owns what a client does with a reply or when its patience ends, step for step as the node's own driver
//! does. A proposer is a function of the replies it heard, so those are the state, and it is made
//! anew from them for each reply: states that differ only in the order of replies are one.

use pando_core::register::{
    Change, Proposer, Quorum, Read, Refusal, Verdict, proposer::Step as ProposerStep, read::Step as ReadStep,
};

use crate::{
    layouts::{NODES, Owners},
    node::Reply,
    rules::{Broken, Chain, Config, Kind, Mark, OWNERS, accepted, write_id},
};

/// What was heard from each owner in this phase.
type Heard = [Option<Reply>; NODES];

/// What a client is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Between operations.
    Idle,
    /// Asked all owners what they accepted.
    Reading,
    /// Asked all owners for a promise.
    Preparing(Mark),
    /// Asked all owners to accept; once chosen, the answer is this.
    Accepting(Mark, Answer),
}

impl Phase {
    /// The ballot of the attempt under way.
    pub(crate) fn mark(&self) -> Option<Mark> {
        match self {
            Phase::Preparing(mark) | Phase::Accepting(mark, _) => Some(*mark),
            Phase::Idle | Phase::Reading => None,
        }
    }
}

/// How an operation ends for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// It took effect, once.
    Written,
    /// It saw this and wrote nothing: a read, or a precondition that failed.
    Saw(Chain),
    /// It may have taken effect, or may yet.
    Unknown,
    /// It never took effect and never will.
    Failed,
}

/// What a client's step does to the rest of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// It sends Prepare.
    pub(crate) prepare: Option<Mark>,
    /// It sends Accept.
    pub(crate) accept: Option<(Mark, Chain)>,
    /// It tells owners that this is chosen.
    pub(crate) tell: Option<Mark>,
    /// Its operation is over.
    pub(crate) answer: Option<Answer>,
    /// It ends having seen that the value at this ballot is settled.
    pub(crate) settled: Option<Mark>,
    /// Worth counting, so that a test can see that it happened.
    pub(crate) event: Option<&'static str>,
}

impl Effect {
    fn answer(answer: Answer) -> Self {
        Self { answer: Some(answer), ..Self::default() }
    }

    fn event(self, event: &'static str) -> Self {
        Self { event: Some(event), ..self }
    }
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    me: u8,
    /// The layout under which it works.
    version: u8,
    /// The operation under way, or the next one.
    at: u8,
    phase: Phase,
    heard: Heard,
    /// Replies under way, where they travel by themselves.
    inbox: Vec<(u8, Reply)>,
    change: Option<Change>,
    tries: u8,
    /// The highest counter used.
    last: u64,
    /// The highest counter heard of in this operation.
    above: u64,
}

impl Client {
    /// A client before its script.
    pub(crate) fn new(me: usize, config: &Config) -> Self {
        Self {
            me: me as u8,
            version: 1,
            at: 0,
            phase: Phase::Idle,
            heard: [None; NODES],
            inbox: Vec::new(),
            change: None,
            tries: 0,
            last: config.clocks.get(me).copied().unwrap_or_default(),
            above: 0,
        }
    }

    /// The same, with owner `i` named as owner `order[i]` was.
    pub(crate) fn renamed(&self, order: &[usize; OWNERS]) -> Self {
        let mut renamed = self.clone();
        order.iter().enumerate().for_each(|(new, old)| renamed.heard[new] = self.heard[*old]);
        for (owner, _) in &mut renamed.inbox {
            *owner = order.iter().position(|old| *old == usize::from(*owner)).expect("all are named") as u8;
        }
        renamed.inbox.sort_unstable();
        renamed
    }

    /// What it is doing.
    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The layout under which it works.
    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    /// From now on it works under this layout. A read that is under way starts again.
    pub(crate) fn learn(&mut self, version: u8) {
        self.version = version;
        if self.phase == Phase::Reading {
            self.heard = [None; NODES];
        }
    }

    /// Whether it may try again should this attempt fail.
    pub(crate) fn is_last_try(&self, config: &Config) -> bool {
        !self.may_attempt(config)
    }

    /// Whether those heard are enough to stop waiting.
    pub(crate) fn heard_enough(&self, config: &Config) -> bool {
        config.layouts.joint(self.version).is_met(|owner| self.heard[owner].is_some())
    }

    /// Settles a register, as a node does that syncs.
    pub(crate) fn settle(&mut self, register: u8, above: u64, config: &Config) -> Effect {
        (self.at, self.tries, self.above) = (register, config.tries, above);
        self.change = Some(Change::new(write_id(15)));
        self.attempt(config)
    }

    /// It forgets what it was doing.
    pub(crate) fn abandon(&mut self, config: &Config) {
        self.enter(Phase::Idle);
        (self.at, self.change, self.tries, self.above) = (0, None, 0, 0);
        debug_assert!(usize::from(self.me) >= config.scripts.len(), "scripts are not abandoned");
    }

    /// What is left of a client whose script is over.
    pub(crate) fn rested(&self, config: &Config) -> Option<Self> {
        let over = self.phase == Phase::Idle && self.op(config).is_none();
        (over && (self.last, self.version) != (0, 1)).then(|| Self { last: 0, version: 1, ..self.clone() })
    }

    /// The number of the operation under way or next, if there is one.
    pub(crate) fn op(&self, config: &Config) -> Option<u8> {
        config.number(usize::from(self.me), self.at)
    }

    /// Whether a reply of `owner` would be heard: none was in this phase.
    pub(crate) fn awaits(&self, owner: usize) -> bool {
        self.heard[owner].is_none()
    }

    /// How many owners were heard in this phase.
    pub(crate) fn heard_count(&self) -> usize {
        self.heard.iter().flatten().count()
    }

    /// Replies under way.
    pub(crate) fn inbox(&self) -> &[(u8, Reply)] {
        &self.inbox
    }

    /// A reply sets out.
    pub(crate) fn post(&mut self, owner: usize, reply: Reply) {
        if let Err(place) = self.inbox.binary_search(&(owner as u8, reply)) {
            self.inbox.insert(place, (owner as u8, reply));
        }
    }

    /// Starts the next operation.
    pub(crate) fn begin(&mut self, config: &Config) -> Effect {
        let op = self.op(config).expect("a script that goes on");
        self.tries = config.tries;
        self.above = 0;
        self.change = Some(Change::new(write_id(op)));
        if config.op(op).kind == Kind::Read {
            self.enter(Phase::Reading);
            return Effect::default();
        }
        self.attempt(config)
    }

    /// A reply arrives.
    pub(crate) fn hear(&mut self, owner: usize, reply: Reply, config: &Config) -> Effect {
        match self.phase.clone() {
            Phase::Idle => Effect::default(),
            Phase::Reading => self.hear_read(owner, reply, config),
            Phase::Preparing(mark) => {
                let mut proposer = self.proposer(mark, config);
                let step = feed(&mut proposer, owner, reply, config);
                self.heard[owner] = Some(reply);
                match step {
                    ProposerStep::Decide { found, settled } => {
                        self.above = self.heard_refusals();
                        let found =
                            found.map(|found| (Mark::of(found.ballot), Chain::of(Some(&found.value))));
                        let effect = self.decide(mark, found.map(|(_, chain)| chain), settled, config);
                        match effect.answer {
                            Some(Answer::Saw(_) | Answer::Written) => {
                                Effect { settled: found.map(|(mark, _)| mark), ..effect }
                            }
                            _ => effect,
                        }
                    }
                    step => self.ended(step, config),
                }
            }
            Phase::Accepting(mark, answer) => {
                let mut proposer = self.proposer(mark, config);
                let step = feed(&mut proposer, owner, reply, config);
                self.heard[owner] = Some(reply);
                if step == ProposerStep::Chosen {
                    return Effect { tell: Some(mark), settled: Some(mark), ..self.end(answer) };
                }
                self.ended(step, config)
            }
        }
    }

    /// Patience ends while reading: what is missing is given up.
    pub(crate) fn stop_waiting(&mut self, config: &Config) -> Effect {
        let mut read = self.read(config);
        let step = read.on_impatience();
        self.after_read(step, config)
    }

    /// Patience ends in a change: another attempt, or the end.
    pub(crate) fn time_out(&mut self, config: &Config) -> Effect {
        if config.breaks(Broken::FreshWriteId)
            && let Some(op) = self.op(config)
        {
            self.change = Some(Change::new(write_id(op | 8)));
        }
        self.attempt(config)
    }

    /// Whether giving up would change anything: something comes after.
    pub(crate) fn may_time_out(&self, config: &Config) -> bool {
        self.may_attempt(config) || config.number(usize::from(self.me), self.at + 1).is_some()
    }

    fn may_attempt(&self, config: &Config) -> bool {
        self.tries > 0 && self.last.max(self.above) < config.counters
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.heard = [None; NODES];
        self.inbox.clear();
    }

    fn end(&mut self, answer: Answer) -> Effect {
        self.enter(Phase::Idle);
        self.at += 1;
        (self.change, self.tries, self.above) = (None, 0, 0);
        Effect::answer(answer)
    }

    /// Another attempt, if there may be one.
    fn attempt(&mut self, config: &Config) -> Effect {
        if !self.may_attempt(config) {
            let attempted = self.change.as_ref().is_some_and(Change::attempted);
            return self.end(if attempted { Answer::Unknown } else { Answer::Failed });
        }
        self.tries -= 1;
        self.last = self.last.max(self.above) + 1;
        let mark = Mark::new(self.version, self.last, usize::from(self.me));
        self.enter(Phase::Preparing(mark));
        Effect { prepare: Some(mark), ..Effect::default() }
    }

    fn ended(&mut self, step: ProposerStep, config: &Config) -> Effect {
        match step {
            ProposerStep::Conflict { above } => {
                self.above = self.above.max(above);
                self.time_out(config).event("conflict")
            }
            _ => Effect::default(),
        }
    }

    fn heard_refusals(&self) -> u64 {
        let above = |reply: &Reply| if let Reply::Refused(above) = reply { *above } else { 0 };
        self.heard.iter().flatten().map(above).max().unwrap_or(0).max(self.above)
    }

    /// The production proposer, having heard what was heard in this phase.
    fn proposer(&self, mark: Mark, config: &Config) -> Proposer {
        let owners = owners(mark.layout(), config);
        let (count, quorum) = match config.broken {
            Some(Broken::MajorityOfOne) => (1, Quorum::majority(1)),
            _ => (owners.nodes.len(), owners.quorum.clone()),
        };
        let mut proposer = Proposer::new(mark.ballot(), count, quorum);
        if matches!(self.phase, Phase::Accepting(..)) {
            // Which promises led here no longer matters.
            for owner in 0..NODES {
                feed(&mut proposer, owner, Reply::Promised(None), config);
            }
            proposer.propose();
        }
        for (owner, reply) in self.heard.iter().enumerate() {
            if let Some(reply) = reply {
                feed(&mut proposer, owner, *reply, config);
            }
        }
        proposer
    }

    /// A majority promised: what the change does to the value found, as the node's driver does it.
    fn decide(&mut self, mark: Mark, found: Option<Chain>, settled: bool, config: &Config) -> Effect {
        let op = self.op(config).expect("an operation is under way");
        let change = self.change.as_mut().expect("an operation is under way");
        // What an earlier attempt left somewhere could still pass a settled value: only a write at this
        // ballot shuts it out.
        let shut_out = change.attempted() && !config.breaks(Broken::DeclinesLightly);
        let value = found.and_then(|chain| chain.value(config));
        let verdict = change.apply(value.as_ref(), |found| config.decide(op, found));
        let read = config.op(op).kind == Kind::Read;
        let (chain, answer, event) = match (verdict, found) {
            (Verdict::Unknown, None) if config.breaks(Broken::DeclinesOnNothing) => {
                return self.end(Answer::Saw(Chain::default()));
            }
            (Verdict::Unknown, _) => return self.end(Answer::Unknown).event("unknown by verdict"),
            (Verdict::Write(value), _) => (Chain::of(Some(&value)), Answer::Written, "propose"),
            (Verdict::Done, Some(chain)) if !settled => (chain, Answer::Written, "done, written back"),
            (Verdict::Done, _) => return self.end(Answer::Written).event("done, settled"),
            (Verdict::Declined(()), Some(chain)) if !settled || shut_out => {
                let event = if read { "settle, written back" } else { "declined, written back" };
                (chain, Answer::Saw(chain), event)
            }
            (Verdict::Declined(()), found) => {
                let event = if read { "settle, settled" } else { "declined, settled" };
                return self.end(Answer::Saw(found.unwrap_or_default())).event(event);
            }
        };
        self.enter(Phase::Accepting(mark, answer));
        Effect { accept: Some((mark, chain)), ..Effect::default() }.event(event)
    }

    fn hear_read(&mut self, owner: usize, reply: Reply, config: &Config) -> Effect {
        let Reply::Value(held, height) = reply else { return Effect::default() };
        let step = if config.breaks(Broken::ReadTrustsOne) {
            Read::new(1, Quorum::majority(1)).on_reply(0, accepted(held, config), height)
        } else {
            let Some(place) = owners(self.version, config).place(owner) else { return Effect::default() };
            self.read(config).on_reply(place, accepted(held, config), height)
        };
        self.heard[owner] = Some(reply);
        self.after_read(step, config)
    }

    /// The production read, having heard what was heard.
    fn read(&self, config: &Config) -> Read {
        let owners = owners(self.version, config);
        let mut read = Read::new(owners.nodes.len(), owners.quorum.clone());
        for (owner, reply) in self.heard.iter().enumerate() {
            if let Some(Reply::Value(held, height)) = reply
                && let Some(place) = owners.place(owner)
            {
                read.on_reply(place, accepted(*held, config), *height);
            }
        }
        read
    }

    fn after_read(&mut self, step: ReadStep, config: &Config) -> Effect {
        match step {
            ReadStep::Value(value) => {
                let tell = value.as_ref().map(|value| Mark::of(value.ballot));
                let chain = Chain::of(value.as_ref().map(|value| &value.value));
                Effect { tell, settled: tell, ..self.end(Answer::Saw(chain)) }.event("read, agreed")
            }
            ReadStep::Settle { .. } if config.breaks(Broken::ReadTakesHighest) => {
                let held = |reply: &Reply| if let Reply::Value(held, _) = reply { *held } else { None };
                let highest = self.heard.iter().flatten().filter_map(held).max();
                self.end(Answer::Saw(highest.map(|(_, chain)| chain).unwrap_or_default()))
            }
            ReadStep::Settle { above } => {
                self.above = above;
                self.attempt(config).event("read, differed")
            }
            ReadStep::Wait | ReadStep::TooFew => Effect::default(),
        }
    }
}

/// Whom a client asks under a version, and who must agree.
fn owners(version: u8, config: &Config) -> &Owners {
    match config.broken {
        Some(Broken::NewMajorityOnly) => config.layouts.slots(version),
        _ => config.layouts.joint(version),
    }
}

fn feed(proposer: &mut Proposer, owner: usize, reply: Reply, config: &Config) -> ProposerStep {
    let place = match config.broken {
        Some(Broken::MajorityOfOne) => Some(0),
        _ => owners(proposer.ballot().layout.0 as u8, config).place(owner),
    };
    let Some(owner) = place else { return ProposerStep::Wait };
    match reply {
        Reply::Promised(held) => proposer.on_promise(owner, accepted(held, config)),
        Reply::Accepted => proposer.on_accepted(owner),
        Reply::Refused(above) => proposer.on_refusal(owner, Refusal { above }),
        Reply::Value(..) | Reply::Silent => ProposerStep::Wait,
    }
}
