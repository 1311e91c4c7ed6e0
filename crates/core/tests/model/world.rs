//! The world: three owners, a few clients, a network that loses, repeats and reorders, and faults.
//!
//! Owns which moves there are and how they change the parts. All that was ever sent may arrive at any time, any
//! number of times; a reply arrives at once or is lost (or, if detached, any time later). A state is
//! the numbers of its interned parts, so an owner's answer to a message is computed once by the production
//! code and remembered. Which states are the same is told in `sameness.rs`.

use std::{
    collections::{BTreeMap, HashMap},
    hash::BuildHasherDefault,
};

use crate::{
    client::{Client, Effect, Phase},
    explore::{Successor, System},
    intern::{Interner, Mix},
    judge::{Attempt, History},
    node::{Message, Node, Reply},
    rules::{Broken, Config, OPS, OWNERS},
    tell,
};

/// Most clients.
pub(crate) const CLIENTS: usize = 3;
/// Not computed yet.
pub(crate) const NONE: u32 = u32::MAX;

/// A state: the numbers of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) nodes: [u32; OWNERS],
    pub(crate) clients: [u32; CLIENTS],
    pub(crate) attempts: u32,
    pub(crate) history: u32,
}

/// How an exchange ends for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The reply is heard (or, if detached, sets out).
    Heard,
    /// The reply is lost, or nobody waits for it, or the owner dies before it leaves.
    Lost,
    /// The owner's disk fails.
    DiskFails,
}

/// A move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A client begins its next operation.
    Begin(usize),
    /// A client stops waiting for the rest of a read.
    StopWaiting(usize),
    /// A client gives an attempt up.
    TimeOut(usize),
    /// A client hears that a majority refuses.
    Conflict(usize),
    /// A client hears a reply that was under way.
    Arrive(usize, usize, Reply),
    /// A client reads from an owner.
    Read(usize, usize, Reply),
    /// A message reaches an owner.
    Exchange(Message, usize, Reply, Fate),
    /// An owner dies and starts again.
    Restart(usize),
}

type Out = Vec<Successor<Action, World>>;
/// What a message does to an owner: who it is then, its reply, and whether a value was written.
type Handled = (u32, Reply, bool);

/// A configuration, being explored.
pub(crate) struct Model {
    pub(crate) config: Config,
    nodes: Interner<Node>,
    pub(crate) clients: Interner<Client>,
    pub(crate) attempts: Interner<Vec<Attempt>>,
    histories: Interner<History>,
    handled: HashMap<(u32, u8, Message, bool), Handled, BuildHasherDefault<Mix>>,
    /// For each client and each list of attempts, its number under each naming of the owners.
    pub(crate) renamed_clients: Vec<[u32; 6]>,
    pub(crate) renamed_attempts: Vec<[u32; 6]>,
    /// What happened how often, over all moves.
    pub(crate) events: BTreeMap<&'static str, u64>,
}

impl Model {
    /// The model of a configuration.
    pub(crate) fn new(config: Config) -> Self {
        assert!(config.scripts.len() <= CLIENTS && config.ops().count() <= OPS, "ids of the model are small");
        Self {
            config,
            nodes: Interner::new(),
            clients: Interner::new(),
            attempts: Interner::new(),
            histories: Interner::new(),
            handled: HashMap::default(),
            renamed_clients: Vec::new(),
            renamed_attempts: Vec::new(),
            events: BTreeMap::new(),
        }
    }

    /// What is explored.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// An owner in a state.
    pub(crate) fn node(&self, world: &World, owner: usize) -> &Node {
        self.nodes.item(world.nodes[owner])
    }

    /// A client in a state.
    pub(crate) fn client(&self, world: &World, client: usize) -> &Client {
        self.clients.item(world.clients[client])
    }

    /// What a message does to an owner, by the production code.
    pub(crate) fn handle(&mut self, node: u32, register: u8, message: Message, fails: bool) -> Handled {
        if let Some(handled) = self.handled.get(&(node, register, message, fails)) {
            return *handled;
        }
        let mut after = self.nodes.item(node).clone();
        let floor = after.floor();
        let (reply, wrote) = after.handle(register, message, fails, &self.config);
        if !fails && after.floor() > floor {
            *self.events.entry("evicted").or_default() += 1;
        }
        if let Message::Learn(_, mark, _) = message
            && &after != self.nodes.item(node)
        {
            *self.events.entry("learned").or_default() += 1;
            let past = after.promise(register).is_some_and(|promise| promise > mark.ballot());
            *self.events.entry("learned past a promise").or_default() += u64::from(past);
        }
        let handled = (self.nodes.number(after), reply, wrote);
        self.handled.insert((node, register, message, fails), handled);
        handled
    }

    /// Carries out what a client's step does to the rest.
    fn carry_out(&mut self, world: &mut World, op: u8, effect: Effect) -> Option<String> {
        if let Some(event) = effect.event {
            *self.events.entry(event).or_default() += 1;
        }
        let tell = effect.tell.filter(|_| self.config.learn);
        let accept = effect.accept.map(|(mark, _)| mark);
        if effect.prepare.is_some() || accept.is_some() || tell.is_some() {
            let mut attempts = self.attempts.item(world.attempts).clone();
            if let Some(mark) = effect.prepare {
                let place = attempts.partition_point(|attempt| attempt.mark < mark);
                attempts.insert(place, Attempt::new(mark, op));
            }
            for attempt in &mut attempts {
                if let Some((mark, chain)) = effect.accept
                    && attempt.mark == mark
                {
                    attempt.chain = Some(chain);
                    attempt.told |= u8::from(self.config.breaks(Broken::LearnsUnchosen)) << 1;
                }
                attempt.told |= u8::from(tell == Some(attempt.mark)) << 1;
            }
            world.attempts = self.attempts.number(attempts);
        }
        let answer = effect.answer?;
        let mut history = self.histories.item(world.history).clone();
        let verdict = history.end(op, answer, self.attempts.item(world.attempts), &self.config);
        world.history = self.histories.number(history);
        verdict.err()
    }

    /// Lets a client take a step, and carries it out.
    fn step(
        &mut self,
        mut world: World,
        client: usize,
        action: Action,
        out: &mut Out,
        step: impl FnOnce(&mut Client, &Config) -> Effect,
    ) {
        let mut stepped = self.clients.item(world.clients[client]).clone();
        let Some(op) = stepped.op(&self.config) else { return };
        let effect = step(&mut stepped, &self.config);
        world.clients[client] = self.clients.number(stepped);
        let violation = self.carry_out(&mut world, op, effect);
        out.push(Successor { action, state: world, violation });
    }

    fn client_moves(&mut self, world: &World, client: usize, out: &mut Out) {
        let state = self.clients.item(world.clients[client]).clone();
        for (owner, reply) in state.inbox() {
            let owner = usize::from(*owner);
            if state.awaits(owner) {
                let action = Action::Arrive(client, owner, *reply);
                self.step(*world, client, action, out, |client, config| client.hear(owner, *reply, config));
            }
        }
        match state.phase() {
            Phase::Idle => {
                let Some(op) = state.op(&self.config) else { return };
                let mut history = self.histories.item(world.history).clone();
                history.begin(op, &self.config);
                let begun = World { history: self.histories.number(history), ..*world };
                self.step(begun, client, Action::Begin(client), out, Client::begin);
            }
            Phase::Reading => {
                let Some(op) = state.op(&self.config) else { return };
                let register = self.config.op(op).register;
                for owner in (0..OWNERS).filter(|owner| state.awaits(*owner)) {
                    let reply = self.nodes.item(world.nodes[owner]).read(register);
                    self.reply(*world, client, owner, reply, Action::Read(client, owner, reply), out);
                }
                if state.heard_count() * 2 > OWNERS {
                    self.step(*world, client, Action::StopWaiting(client), out, Client::stop_waiting);
                }
            }
            Phase::Preparing(_) | Phase::Accepting(..) if state.may_time_out(&self.config) => {
                self.step(*world, client, Action::TimeOut(client), out, Client::time_out);
                self.refuse(world, client, &state, out);
            }
            Phase::Preparing(_) | Phase::Accepting(..) => {}
        }
    }

    /// A client hears all refusals at once, if they are enough to end its attempt. Refusals change no owner and
    /// are for ever, so hearing some of them earlier would lead nowhere else.
    fn refuse(&mut self, world: &World, client: usize, state: &Client, out: &mut Out) {
        let Some(op) = state.op(&self.config).filter(|_| !self.config.detached) else { return };
        let register = self.config.op(op).register;
        let attempts = self.attempts.item(world.attempts);
        let message = match state.phase() {
            Phase::Preparing(mark) => Some(Message::Prepare(*mark)),
            Phase::Accepting(mark, _) => {
                let sent = attempts.iter().find(|attempt| attempt.mark == *mark);
                sent.and_then(|sent| sent.chain).map(|chain| Message::Accept(*mark, chain))
            }
            Phase::Idle | Phase::Reading => None,
        };
        let Some(message) = message else { return };
        let mut refusals = Vec::new();
        for owner in (0..OWNERS).filter(|owner| state.awaits(*owner)) {
            let (_, reply, _) = self.handle(world.nodes[owner], register, message, false);
            if matches!(reply, Reply::Refused(_)) {
                refusals.push((owner, reply));
            }
        }
        if refusals.len() * 2 > OWNERS {
            self.step(*world, client, Action::Conflict(client), out, |client, config| {
                let hear = |(owner, reply)| client.hear(owner, reply, config);
                refusals.into_iter().map(hear).find(|effect| *effect != Effect::default()).unwrap_or_default()
            });
        }
    }

    /// A reply reaches its client, or sets out.
    fn reply(
        &mut self,
        world: World,
        client: usize,
        owner: usize,
        reply: Reply,
        action: Action,
        out: &mut Out,
    ) {
        let detached = self.config.detached;
        self.step(world, client, action, out, |client, config| {
            if detached {
                client.post(owner, reply);
                return Effect::default();
            }
            client.hear(owner, reply, config)
        });
    }

    /// A message that was sent reaches an owner.
    fn deliver(&mut self, world: &World, attempt: &Attempt, message: Message, owner: usize, out: &mut Out) {
        let register = self.config.op(attempt.op).register;
        let node = world.nodes[owner];
        let (after, reply, wrote) = self.handle(node, register, message, false);
        let mut next = *world;
        next.nodes[owner] = after;
        let mut violation = None;
        if wrote {
            let mut attempts = self.attempts.item(world.attempts).clone();
            let noted = attempts.iter_mut().find(|other| other.mark == attempt.mark);
            if noted.is_some_and(|attempt| attempt.note_accepted(owner, &self.config)) {
                let history = self.histories.item(world.history);
                violation = history.choose(attempt.mark, &attempts, &self.config).err();
            }
            next.attempts = self.attempts.number(attempts);
        }
        if after != node || violation.is_some() {
            let action = Action::Exchange(message, owner, reply, Fate::Lost);
            out.push(Successor { action, state: next, violation });
        }
        let client = attempt.mark.client();
        let waiting = self.clients.item(world.clients[client]);
        let wanted = waiting.phase().mark() == Some(attempt.mark)
            && match message {
                Message::Prepare(_) => matches!(waiting.phase(), Phase::Preparing(_)),
                Message::Accept(..) => matches!(waiting.phase(), Phase::Accepting(..)),
                Message::Learn(..) | Message::Read(_) => false,
            };
        let heard_together = matches!(reply, Reply::Refused(_)) && !self.config.detached;
        if wanted && waiting.awaits(owner) && !heard_together {
            let action = Action::Exchange(message, owner, reply, Fate::Heard);
            self.reply(next, client, owner, reply, action, out);
        }
        if after != node && self.histories.item(world.history).failures < self.config.failures {
            let (failed, ..) = self.handle(node, register, message, true);
            let mut history = self.histories.item(world.history).clone();
            history.failures += 1;
            let mut state = World { history: self.histories.number(history), ..*world };
            state.nodes[owner] = failed;
            let action = Action::Exchange(message, owner, Reply::Silent, Fate::DiskFails);
            out.push(Successor { action, state, violation: None });
        }
    }

    /// The state after client 0 alone did its first operation with owners 0 and 1.
    fn first_written(&mut self, mut world: World) -> World {
        let mut out = Vec::new();
        while self.client(&world, 0).op(&self.config) == Some(1) {
            out.clear();
            self.successors(&world, &mut out);
            let next = out.iter().find(|next| match next.action {
                Action::Begin(client) => client == 0,
                Action::Exchange(.., fate) => fate == Fate::Heard,
                _ => false,
            });
            world = next.expect("nothing stands in its way").state;
        }
        world
    }
}

impl System for Model {
    type State = World;
    type Action = Action;

    fn initial(&mut self) -> World {
        let node = self.nodes.number(Node::new(0, &self.config));
        let mut clients = [NONE; CLIENTS];
        for (client, number) in clients.iter_mut().enumerate().take(self.config.scripts.len()) {
            *number = self.clients.number(Client::new(client, &self.config));
        }
        let history = self.histories.number(History::new(&self.config));
        let attempts = self.attempts.number(Vec::new());
        let world = World { nodes: [node; OWNERS], clients, attempts, history };
        if self.config.written { self.first_written(world) } else { world }
    }

    fn fingerprint(&mut self, world: &World) -> u128 {
        self.canonical(world)
    }

    fn successors(&mut self, world: &World, out: &mut Out) {
        for client in 0..self.config.scripts.len() {
            self.client_moves(world, client, out);
        }
        for attempt in &self.attempts.item(world.attempts).clone() {
            for owner in 0..OWNERS {
                self.deliver(world, attempt, Message::Prepare(attempt.mark), owner, out);
                if let Some(chain) = attempt.chain {
                    self.deliver(world, attempt, Message::Accept(attempt.mark, chain), owner, out);
                    if attempt.told != 0 {
                        self.deliver(world, attempt, Message::Learn(1, attempt.mark, chain), owner, out);
                    }
                }
            }
        }
        if self.histories.item(world.history).restarts < self.config.restarts {
            let mut history = self.histories.item(world.history).clone();
            history.restarts += 1;
            let history = self.histories.number(history);
            for owner in 0..OWNERS {
                let mut node = self.nodes.item(world.nodes[owner]).clone();
                node.restart(&self.config);
                let mut state = World { history, ..*world };
                state.nodes[owner] = self.nodes.number(node);
                if state.nodes[owner] != world.nodes[owner] {
                    out.push(Successor { action: Action::Restart(owner), state, violation: None });
                }
            }
        }
    }

    fn describe(&self, before: &World, action: Action, after: &World) -> String {
        tell::tell(self, before, action, after)
    }
}
