//! Registers, driven: the pure state machines of `pando_core::register`, their messages carried by the RPC
//! lane, with retries, deadlines and the telling of owners that missed something.

use std::{sync::Arc, time::Duration};

use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt as _},
};
use pando_core::{
    id::{NodeId, WriteId},
    layout::{Layout, Owners},
    name::RegisterName,
    register::{
        Accepted, Change, Proposer, Read, State, Value, Verdict, proposer::Step as ProposerStep,
        read::Step as ReadStep,
    },
    wire::{Reply, Request},
};
use tokio::sync::oneshot;

use crate::{
    error::Error,
    inner::{EXCHANGE, Inner, Message, PATIENCE, Unanswered},
    sys::{self, Instant},
};

/// First pause after a conflict; doubles, with jitter.
const BACKOFF: Duration = Duration::from_millis(2);
/// Longest pause after a conflict.
const BACKOFF_MOST: Duration = Duration::from_millis(250);
/// How long a read whose majority disagrees waits for the others before it settles.
const HEDGE: Duration = Duration::from_millis(150);
/// How long who asked the nearest majority waits before it asks the other owners too: what a busy machine on a local
/// network may take at the least, a round trip around the world at the most.
const SPARE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(250));

/// How a change is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// It starts above this counter.
    pub(crate) above: u64,
    /// What a declining change found is written back even if a majority holds it already, which makes sure that
    /// nothing older can ever be chosen.
    pub(crate) rewrite: bool,
    /// Nothing is tried after this: by then others may have taken it for given up.
    pub(crate) by: Option<Instant>,
}

/// What a change led to.
pub(crate) enum Outcome<E> {
    /// It took effect, once.
    Written(Written),
    /// It was declined; this is what was found, settled.
    Declined(E, Option<Accepted>),
}

/// A change that took effect.
pub(crate) struct Written {
    /// How many owners hold it at least.
    pub(crate) copies: Copies,
    /// Whether a write with this id was found there, by this change or another one: what was written may not be what
    /// this change would have written.
    pub(crate) already: bool,
}

/// How many owners hold a value: known at once to be a majority, soon to be more.
pub(crate) struct Copies {
    at_least: usize,
    later: Option<oneshot::Receiver<usize>>,
}

impl Copies {
    /// Waits a moment for the owners that have not answered yet.
    pub(crate) async fn settle(self, patience: Duration) -> usize {
        match self.later {
            Some(later) => match sys::timeout(patience, later).await {
                Ok(Ok(count)) => count,
                _ => self.at_least,
            },
            None => self.at_least,
        }
    }
}

/// How one attempt ended.
enum Attempt<E> {
    Over(Outcome<E>),
    Conflict { above: u64 },
    NewLayout,
    TooFew(Error),
    Unknown,
}

/// What one round of a read found.
enum Seen {
    /// The register's value.
    Value(Option<Accepted>),
    /// The owners don't agree: it must be settled above this counter.
    Differs { above: u64 },
}

type Answer = (u16, Result<Reply, Unanswered>);
type Pending = FuturesUnordered<BoxFuture<'static, Answer>>;

/// Exchanges under way with owners, and with whom more would be begun.
struct Asked {
    pending: Pending,
    spare: Option<Spare>,
}

/// Owners that are asked only if those that were asked first do not do.
struct Spare {
    ask: Box<dyn FnOnce() -> Pending + Send>,
    by: Instant,
}

impl Asked {
    /// The next answer; `None` when all have answered. The spare owners are asked when the first have answered and
    /// that was not enough, or took too long.
    async fn next(&mut self) -> Option<Answer> {
        loop {
            let Some(spare) = &self.spare else { return self.pending.next().await };
            match sys::timeout_at(spare.by, self.pending.next()).await {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) | Err(_) => self.ask_spare(),
            }
        }
    }

    /// Asks the spare owners now.
    fn ask_spare(&mut self) {
        if let Some(spare) = self.spare.take() {
            self.pending.extend((spare.ask)());
        }
    }
}

/// Who did not answer in one phase, for the error's text.
#[derive(Default)]
struct Missing {
    why: Vec<String>,
    full: usize,
}

impl Missing {
    fn note(&mut self, node: &NodeId, why: &Unanswered) {
        self.why.push(format!("{}: {why}", node.short()));
        self.full += usize::from(matches!(why, Unanswered::NoSpace));
    }

    fn too_few(&self, name: &RegisterName, owners: &Owners) -> Error {
        let reachable = owners.nodes.len().saturating_sub(self.why.len());
        if self.full > 0 && reachable + self.full >= owners.quorum.needed() {
            return Error::NoSpace(format!("the owners of {name} are full ({})", self.why.join("; ")));
        }
        Error::NotEnoughNodes {
            what: name.to_string(),
            needed: owners.quorum.needed(),
            owners: owners.nodes.len(),
            reachable,
            missing: self.why.join("; "),
        }
    }
}

impl Inner {
    /// Changes a register: `f` sees what is there and gives the new state, or declines. It is applied at
    /// most once. A change to the identity is an `f` that declines: what it found is then settled.
    pub(crate) async fn change<E>(
        self: &Arc<Self>,
        name: &RegisterName,
        id: WriteId,
        f: impl FnMut(Option<&Value>) -> Result<State, E>,
    ) -> Result<Outcome<E>, Error> {
        self.change_as(name, id, How::default(), f).await
    }

    /// See [`Inner::change`].
    pub(crate) async fn change_as<E>(
        self: &Arc<Self>,
        name: &RegisterName,
        id: WriteId,
        how: How,
        f: impl FnMut(Option<&Value>) -> Result<State, E>,
    ) -> Result<Outcome<E>, Error> {
        let _turn = self.turn(name).await?;
        self.change_in_turn(name, id, how, f).await
    }

    /// As [`Inner::change_as`], for who has its turn.
    pub(crate) async fn change_in_turn<E>(
        self: &Arc<Self>,
        name: &RegisterName,
        id: WriteId,
        How { mut above, rewrite, by }: How,
        mut f: impl FnMut(Option<&Value>) -> Result<State, E>,
    ) -> Result<Outcome<E>, Error> {
        if by.is_some_and(|by| Instant::now() >= by) {
            return Err(Error::Timeout(format!("a change of {name} (it began too late)")));
        }
        let deadline = by.into_iter().fold(Instant::now() + PATIENCE, Instant::min);
        let last = by.into_iter().fold(deadline + EXCHANGE, Instant::min);
        let mut change = Change::new(id);
        let mut backoff = BACKOFF;
        loop {
            let layout = self.layout()?;
            // A layout is decided by the council of the one before it, and by no other: a later council may have
            // forgotten, or never heard, what that one decided.
            if name.layout_version().is_some_and(|version| version != layout.next_version()) {
                return Err(Error::Busy("the layout changed".into()));
            }
            let attempt = self.attempt(&layout, name, &mut change, above, rewrite, &mut f);
            let attempt = match sys::timeout_at(last, attempt).await {
                Ok(attempt) => attempt?,
                // No operation outlasts this: purging and collecting rely on it.
                Err(_elapsed) => Attempt::TooFew(Error::Timeout(format!("a change of {name}"))),
            };
            let why = match attempt {
                Attempt::Over(outcome) => return Ok(outcome),
                Attempt::Conflict { above: higher } => {
                    above = above.max(higher);
                    Error::Timeout(format!("a change of {name} (others change it all the time)"))
                }
                Attempt::NewLayout => Error::Timeout(format!("a change of {name} (the layout is changing)")),
                Attempt::TooFew(error) => {
                    backoff = BACKOFF_MOST;
                    error
                }
                Attempt::Unknown => {
                    let why =
                        format!("it can't be told whether an earlier attempt to change {name} took effect");
                    return Err(Error::Unknown(why));
                }
            };
            if Instant::now() + backoff >= deadline {
                return Err(if change.attempted() { Error::Unknown(why.to_string()) } else { why });
            }
            sys::sleep(backoff / 2 + sys::jitter(backoff / 2)).await;
            backoff = (backoff * 2).min(BACKOFF_MOST);
        }
    }

    /// Settles a register above a counter and returns what it holds.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        name: &RegisterName,
        above: u64,
    ) -> Result<Option<Accepted>, Error> {
        let id = WriteId(sys::random());
        match self.change_as(name, id, How { above, ..How::default() }, |_| Err(())).await? {
            Outcome::Declined((), found) => Ok(found),
            Outcome::Written(_) => unreachable!("it declines whatever it finds"),
        }
    }

    /// As [`Inner::settle`], but writes what it found again at a ballot above, even if all is settled.
    pub(crate) async fn settle_anew(
        self: &Arc<Self>,
        name: &RegisterName,
        above: u64,
    ) -> Result<Option<Accepted>, Error> {
        let id = WriteId(sys::random());
        match self.change_as(name, id, How { above, rewrite: true, by: None }, |_| Err(())).await? {
            Outcome::Declined((), found) => Ok(found),
            Outcome::Written(_) => unreachable!("it declines whatever it finds"),
        }
    }

    /// Reads a register: the last acknowledged write, or one under way.
    pub(crate) async fn read(self: &Arc<Self>, name: &RegisterName) -> Result<Option<Accepted>, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let layout = self.layout()?;
            let owners = layout.quorum(name);
            let why = match self.read_once(&layout, name, &owners).await {
                Ok(Seen::Value(value)) => return Ok(value),
                Ok(Seen::Differs { above }) => return self.settle(name, above).await,
                Err(Some(too_few)) => too_few,
                Err(None) => Error::Timeout(format!("a read of {name} (the layout is changing)")),
            };
            if Instant::now() + BACKOFF_MOST >= deadline {
                return Err(why);
            }
            sys::sleep(sys::jitter(BACKOFF_MOST)).await;
        }
    }

    /// One round of a read. `Err(None)`: the layout changed.
    async fn read_once(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        name: &RegisterName,
        owners: &Owners,
    ) -> Result<Seen, Option<Error>> {
        let mut read = Read::new(owners.nodes.len(), owners.quorum.clone());
        let mut asked = self.ask_nearest(layout, owners, Request::Read(layout.version, name.clone()));
        let mut missing = Missing::default();
        let mut answered = vec![false; owners.nodes.len()];
        let mut hedge = None;
        let until = Instant::now() + EXCHANGE * 2 + SPARE.1;
        loop {
            let next = sys::timeout_at(hedge.unwrap_or(until), asked.next()).await;
            let step = match next {
                Err(_elapsed) => read.on_impatience(),
                Ok(None) => return Err(Some(missing.too_few(name, owners))),
                Ok(Some((owner, Ok(Reply::Value(accepted, height))))) => {
                    answered[usize::from(owner)] = true;
                    if asked.spare.is_none() && owners.quorum.is_met(|owner| answered[usize::from(owner)]) {
                        hedge.get_or_insert_with(|| Instant::now() + HEDGE);
                    }
                    read.on_reply(owner, accepted, height)
                }
                Ok(Some((_, Err(Unanswered::NewLayout)))) => return Err(None),
                Ok(Some((owner, Err(why)))) => {
                    missing.note(&owners.nodes[usize::from(owner)], &why);
                    read.on_lost(owner)
                }
                Ok(Some((owner, Ok(_)))) => read.on_lost(owner),
            };
            match step {
                ReadStep::Wait => {}
                ReadStep::TooFew => return Err(Some(missing.too_few(name, owners))),
                ReadStep::Settle { above } => {
                    tracing::trace!(%name, above, ?answered, "read differs");
                    return Ok(Seen::Differs { above });
                }
                ReadStep::Value(value) => {
                    tracing::trace!(%name, ballot = ?value.as_ref().map(|v| v.ballot), ?answered, "read");
                    if let Some(accepted) = &value {
                        self.tell_those_behind(layout, name, owners, read, asked.pending, accepted.clone());
                    }
                    return Ok(Seen::Value(value));
                }
            }
        }
    }

    /// Hears the remaining replies to a read and tells what is chosen to owners that don't have it.
    fn tell_those_behind(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        name: &RegisterName,
        owners: &Owners,
        mut read: Read,
        mut pending: Pending,
        chosen: Accepted,
    ) {
        if pending.is_empty() && read.behind(chosen.ballot).next().is_none() {
            return;
        }
        let (inner, layout, name) = (Arc::clone(self), Arc::clone(layout), name.clone());
        let nodes = owners.nodes.clone();
        self.spawn_until_stopped(async move {
            while let Some((owner, reply)) = pending.next().await {
                if let Ok(Reply::Value(accepted, height)) = reply {
                    read.on_reply(owner, accepted, height);
                }
            }
            let behind: Vec<NodeId> = read.behind(chosen.ballot).map(|o| nodes[usize::from(o)]).collect();
            inner.tell_chosen(&layout, &name, chosen, behind).await;
        });
    }

    async fn tell_chosen(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        name: &RegisterName,
        chosen: Accepted,
        nodes: Vec<NodeId>,
    ) {
        if nodes.is_empty() {
            return;
        }
        let message = Message::from(Request::Learn(layout.version, name.clone(), chosen));
        for node in nodes {
            let _ = self.ask_owner(layout, node, &message).await;
        }
    }

    /// Asks all owners at once.
    fn ask_all(self: &Arc<Self>, layout: &Arc<Layout>, owners: &Owners, request: Request) -> Asked {
        let all: Vec<u16> = (0..owners.nodes.len() as u16).collect();
        let ask = self.asker(layout, owners, request);
        Asked { pending: ask(&all), spare: None }
    }

    /// Asks the nearest owners that are a quorum, and the others if these do not do.
    fn ask_nearest(self: &Arc<Self>, layout: &Arc<Layout>, owners: &Owners, request: Request) -> Asked {
        let (first, spare, patience) = self.nearest(owners);
        let ask = self.asker(layout, owners, request);
        let pending = ask(&first);
        if spare.is_empty() {
            return Asked { pending, spare: None };
        }
        let by = Instant::now() + patience;
        Asked { pending, spare: Some(Spare { ask: Box::new(move || ask(&spare)), by }) }
    }

    fn asker(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        owners: &Owners,
        request: Request,
    ) -> impl Fn(&[u16]) -> Pending + Send + use<> {
        let message = Arc::new(Message::from(request));
        let (inner, layout, nodes) = (Arc::clone(self), Arc::clone(layout), owners.nodes.clone());
        move |which| {
            let ask = |owner: &u16| -> BoxFuture<'static, Answer> {
                let (owner, node) = (*owner, nodes[usize::from(*owner)]);
                let (inner, layout, message) =
                    (Arc::clone(&inner), Arc::clone(&layout), Arc::clone(&message));
                Box::pin(async move { (owner, inner.ask_owner(&layout, node, &message).await) })
            };
            which.iter().map(ask).collect()
        }
    }

    /// The nearest owners that are a quorum (this node, then those that answer, the faster ones first), the others, and
    /// how long to wait before these are asked too. Of those that are about as fast, now one and now another is asked:
    /// that spreads the load, and sooner or later everyone is, so that who lags behind is told.
    fn nearest(&self, owners: &Owners) -> (Vec<u16>, Vec<u16>, Duration) {
        let far = |owner: &u16| {
            let node = &owners.nodes[usize::from(*owner)];
            let is_other = *node != self.id;
            // Within a factor of two.
            let about = |time: Duration| time.as_micros().max(1).ilog2();
            let [lot] = sys::random::<1>();
            let speed = || (self.peers.liveness(node), self.peers.round_trip(node).map(about), lot);
            (is_other, is_other.then(speed))
        };
        let mut all: Vec<u16> = (0..owners.nodes.len() as u16).collect();
        all.sort_by_cached_key(far);
        let met = |first: &[u16]| owners.quorum.is_met(|owner| first.contains(&owner));
        let needed = (1..all.len()).find(|count| met(&all[..*count])).unwrap_or(all.len());
        let spare = all.split_off(needed);
        let slowest =
            all.iter().filter_map(|owner| self.peers.round_trip(&owners.nodes[usize::from(*owner)]));
        let patience = slowest.max().unwrap_or(SPARE.1) * 3;
        (all, spare, patience.clamp(SPARE.0, SPARE.1))
    }

    async fn attempt<E>(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        name: &RegisterName,
        change: &mut Change,
        above: u64,
        rewrite: bool,
        f: &mut impl FnMut(Option<&Value>) -> Result<State, E>,
    ) -> Result<Attempt<E>, Error> {
        let owners = layout.quorum(name);
        let ballot = self.next_ballot(layout.version, above);
        let mut proposer = Proposer::new(ballot, owners.nodes.len(), owners.quorum.clone());
        let asked = self.ask_nearest(layout, &owners, Request::Prepare(layout.version, name.clone(), ballot));
        let (found, settled) = match drive(&mut proposer, asked, name, &owners).await {
            Ok((ProposerStep::Decide { found, settled }, _)) => (found, settled && !rewrite),
            Ok((ProposerStep::Conflict { above }, _)) => return Ok(Attempt::Conflict { above }),
            Ok(_) => unreachable!("the first phase ends in a decision or a conflict"),
            Err(ended) => return Ok(ended),
        };
        let found_value = found.as_ref().map(|accepted| &accepted.value);
        let (value, outcome) = match change.apply(found_value, f) {
            Verdict::Unknown => return Ok(Attempt::Unknown),
            Verdict::Write(value) => (value, None),
            Verdict::Declined(reason) => match found {
                // An earlier attempt of this very change may sit, at a higher ballot than what was found, on
                // an owner that was not heard: only a write at this ballot rules it out.
                Some(found)
                    if (!settled || change.attempted())
                        && !pando_core::mutant("decline-without-settling") =>
                {
                    (found.value, Some(Err(reason)))
                }
                // The same, where nothing was found: nothing is written, by a write of its own.
                None if change.attempted() => {
                    (Value::after(None, WriteId(sys::random()), State::Absent), Some(Err(reason)))
                }
                found => return Ok(Attempt::Over(Outcome::Declined(reason, found))),
            },
            Verdict::Done => {
                let found = found.expect("a value that holds the write's id");
                if settled {
                    let copies = Copies { at_least: owners.quorum.needed(), later: None };
                    return Ok(Attempt::Over(Outcome::Written(Written { copies, already: true })));
                }
                (found.value, Some(Ok(())))
            }
        };
        let accepted = Accepted { ballot, value };
        proposer.propose();
        let request = Request::Accept(layout.version, name.clone(), accepted.clone());
        let asked = self.ask_all(layout, &owners, request);
        let pending = match drive(&mut proposer, asked, name, &owners).await {
            Ok((ProposerStep::Chosen, pending)) => pending,
            Ok((ProposerStep::Conflict { above }, _)) => return Ok(Attempt::Conflict { above }),
            Ok(_) => unreachable!("the second phase ends chosen or in a conflict"),
            Err(ended) => return Ok(ended),
        };
        let copies = self.finish(layout, name, owners, proposer, pending, accepted.clone());
        Ok(Attempt::Over(match outcome {
            Some(Err(reason)) => Outcome::Declined(reason, Some(accepted)),
            Some(Ok(())) => Outcome::Written(Written { copies, already: true }),
            None => Outcome::Written(Written { copies, already: false }),
        }))
    }

    /// Once chosen: hears the owners that have not answered yet, tells those that refused or were missed,
    /// and counts who holds the value.
    fn finish(
        self: &Arc<Self>,
        layout: &Arc<Layout>,
        name: &RegisterName,
        owners: Owners,
        mut proposer: Proposer,
        mut pending: Pending,
        chosen: Accepted,
    ) -> Copies {
        let at_least = proposer.accepted_count();
        if at_least == owners.nodes.len() {
            return Copies { at_least, later: None };
        }
        // Anti-entropy brings what is not heard here.
        let Ok(place) = Arc::clone(&self.limits.following).try_acquire_owned() else {
            return Copies { at_least, later: None };
        };
        let (sender, later) = oneshot::channel();
        let (inner, layout, name) = (Arc::clone(self), Arc::clone(layout), name.clone());
        self.spawn_until_stopped(async move {
            let _place = place;
            while let Some((owner, reply)) = pending.next().await {
                if let Ok(Reply::Accepted) = reply {
                    proposer.on_accepted(owner);
                }
            }
            let _ = sender.send(proposer.accepted_count());
            let missed = proposer.not_accepted().map(|owner| owners.nodes[usize::from(owner)]).collect();
            inner.tell_chosen(&layout, &name, chosen, missed).await;
        });
        Copies { at_least, later: Some(later) }
    }
}

/// Feeds replies to a proposer until its phase ends. Returns the step and the exchanges still under way.
async fn drive<E>(
    proposer: &mut Proposer,
    mut asked: Asked,
    name: &RegisterName,
    owners: &Owners,
) -> Result<(ProposerStep, Pending), Attempt<E>> {
    let mut missing = Missing::default();
    let mut refused = false;
    while let Some((owner, reply)) = asked.next().await {
        let step = match reply {
            Ok(Reply::Promised(accepted)) => proposer.on_promise(owner, accepted),
            Ok(Reply::Accepted) => proposer.on_accepted(owner),
            Ok(Reply::Refused(refusal)) => {
                refused = true;
                proposer.on_refusal(owner, refusal)
            }
            Err(Unanswered::NewLayout) => return Err(Attempt::NewLayout),
            Err(why) => {
                missing.note(&owners.nodes[usize::from(owner)], &why);
                proposer.on_lost(owner)
            }
            Ok(_) => proposer.on_lost(owner),
        };
        match step {
            ProposerStep::Wait => {
                if refused || !missing.why.is_empty() {
                    asked.ask_spare();
                }
            }
            ProposerStep::Conflict { .. } if !refused => {
                return Err(Attempt::TooFew(missing.too_few(name, owners)));
            }
            step => return Ok((step, asked.pending)),
        }
    }
    Err(Attempt::TooFew(missing.too_few(name, owners)))
}
