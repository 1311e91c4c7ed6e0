//! The world in which layouts change: nodes that know different versions, new owners that sync, tombstones that
//! are forgotten, and clients that work under layouts long gone.
//!
//! Owns its states and which moves there are; what a move does is in `moves.rs`. As in the world of one layout,
//! all that was ever sent may arrive at any time, any number of times, and a reply arrives at once or is lost.
//! Being fenced is not told to a client: it may learn any decided layout whenever it begins anew, so being fenced
//! is to it as if the reply were lost. The line of layouts comes from elsewhere (a write-once register each):
//! a version counts as decided as soon as it may be, as that changes nothing until someone knows it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher as _},
};

use crate::{
    client::Client,
    explore::{Successor, System},
    intern::{Interner, Mix},
    judge::{Attempt, History},
    layouts::NODES,
    node::{Message, Node, Reply},
    rules::{Broken, Config, OPS, REGISTERS, Scene},
    world::{CLIENTS, NONE},
};

pub(crate) mod cases;
mod moves;
mod purge;
mod sync;
mod tell;

use purge::Purging;
use sync::Syncer;

/// A state: the numbers of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct World {
    nodes: [u32; NODES],
    clients: [u32; CLIENTS],
    syncers: [u32; NODES],
    attempts: u32,
    history: u32,
    common: u32,
}

/// What everyone may hear of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Common {
    /// For each transition, by half its version, a bit for each node that said that it has synced.
    synced: [u8; 4],
    /// For each register, the tombstone on its way out.
    purging: [Option<Purging>; REGISTERS],
}

/// A move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A client begins its next operation under a layout.
    Begin(usize, u8),
    /// A client gives an attempt up, and goes on under a layout.
    TimeOut(usize, u8),
    /// A client starts a read again under a newer layout.
    Reread(usize, u8),
    /// A client stops waiting for the rest of a read.
    StopWaiting(usize),
    /// Whoever has this session hears that too many refuse.
    Conflict(usize),
    /// Whoever has this session hears that what it proposed is chosen.
    Chosen(usize),
    /// A message about a register, of a session, reaches a node. Replies to reads and prepares are heard.
    Exchange(Message, u8, usize, usize, Reply),
    /// A node that syncs is shown what a previous owner holds.
    Page(usize, usize),
    /// A node gives up to settle a register.
    GiveUp(usize),
    /// A node dies and starts again.
    Restart(usize),
    /// A node that is no owner drops its rows.
    Drop(usize),
    /// A node says that it holds a register's tombstone, or that it has dropped its rows.
    Say(u8, usize),
    /// A node is told to forget a register's tombstone.
    Purge(u8, usize),
}

type Out = Vec<Successor<Action, World>>;
/// What a message does to an owner: who it is then, its reply, and whether a value was written.
type Handled = (u32, Reply, bool);

/// A configuration, being explored.
pub(crate) struct Model {
    config: Config,
    nodes: Interner<Node>,
    clients: Interner<Client>,
    syncers: Interner<Syncer>,
    attempts: Interner<Vec<Attempt>>,
    histories: Interner<History>,
    commons: Interner<Common>,
    handled: HashMap<(u32, u8, Message), Handled, BuildHasherDefault<Mix>>,
    rested: HashMap<u32, u32, BuildHasherDefault<Mix>>,
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
            syncers: Interner::new(),
            attempts: Interner::new(),
            histories: Interner::new(),
            commons: Interner::new(),
            handled: HashMap::default(),
            rested: HashMap::default(),
            events: BTreeMap::new(),
        }
    }

    /// What is explored.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    fn node(&self, world: &World, node: usize) -> &Node {
        self.nodes.item(world.nodes[node])
    }

    fn syncer(&self, world: &World, node: usize) -> &Syncer {
        self.syncers.item(world.syncers[node])
    }

    /// Whoever has this session.
    fn client(&self, world: &World, session: usize) -> &Client {
        match session.checked_sub(CLIENTS) {
            Some(node) => &self.syncer(world, node).client,
            None => self.clients.item(world.clients[session]),
        }
    }

    fn sessions(&self) -> impl Iterator<Item = usize> + use<> {
        let syncers = self.config.syncers;
        (0..self.config.scripts.len())
            .chain((0..NODES).filter(move |node| syncers >> node & 1 == 1).map(sync::session))
    }

    /// The newest version that may have been decided: a transition ends when a majority of its new owners has synced.
    fn decided(&self, world: &World) -> u8 {
        let common = self.commons.item(world.common);
        let layouts = &self.config.layouts;
        let mut version = 1;
        while version < layouts.last() {
            if let Some(previous) = layouts.previous(version) {
                let skip = self.config.breaks(Broken::StayersSkipSync);
                let stays = |node: usize| skip && previous.place(node).is_some();
                let synced =
                    |node: usize| common.synced[usize::from(version / 2)] >> node & 1 == 1 || stays(node);
                let early = self.config.breaks(Broken::EndsEarly) && (0..NODES).any(synced);
                if !early && !layouts.slots(version).is_met(synced) {
                    break;
                }
            }
            version += 1;
        }
        version
    }

    /// The versions from one on under which someone could still do something.
    fn versions(&self, world: &World, from: u8) -> impl Iterator<Item = u8> + use<> {
        let blind = self.config.breaks(Broken::NoFence) || self.config.breaks(Broken::LayoutLost);
        let useful = |version: &u8| {
            let owners = self.config.layouts.joint(*version);
            blind || owners.is_met(|node| self.node(world, node).known() <= *version)
        };
        let versions: Vec<u8> = (from..=self.decided(world)).filter(useful).collect();
        versions.into_iter()
    }

    /// What a message does to a node, by the production code.
    fn handle(&mut self, node: u32, register: u8, message: Message) -> Handled {
        if let Some(handled) = self.handled.get(&(node, register, message)) {
            return *handled;
        }
        let mut after = self.nodes.item(node).clone();
        let (reply, wrote) = after.handle(register, message, false, &self.config);
        let handled = (self.nodes.number(after), reply, wrote);
        self.handled.insert((node, register, message), handled);
        handled
    }

    /// The attempts that still matter: those chosen, waited for, held or shown somewhere, and those of which a message
    /// could still change an owner. What changes none now never will, unless a rule is broken.
    fn living_attempts(&mut self, world: &World) -> u32 {
        if self.config.broken.is_some() {
            return world.attempts;
        }
        let layouts = self.config.layouts.clone();
        let mut attempts = self.attempts.item(world.attempts).clone();
        let before = attempts.len();
        attempts.retain(|attempt| {
            let register = self.config.op(attempt.op).register;
            let place = usize::from(register);
            attempt.is_chosen()
                || self.client(world, attempt.mark.client()).phase().mark() == Some(attempt.mark)
                || (0..NODES).any(|node| {
                    let is = |held: crate::rules::Held| held.is_some_and(|(mark, _)| mark == attempt.mark);
                    let pages = &self.syncer(world, node).pages;
                    is(self.node(world, node).held(register))
                        || pages.iter().flatten().any(|page| is(page.rows[place]))
                })
                || {
                    let accept = attempt.chain.map(|chain| Message::Accept(attempt.mark, chain));
                    let owners = &layouts.joint(attempt.mark.layout()).nodes;
                    accept.is_some_and(|accept| {
                        owners.iter().any(|owner| {
                            let node = world.nodes[usize::from(*owner)];
                            self.handle(node, register, accept).2
                        })
                    })
                }
        });
        if attempts.len() == before { world.attempts } else { self.attempts.number(attempts) }
    }

    fn rested(&mut self, client: u32) -> u32 {
        if let Some(rested) = self.rested.get(&client) {
            return *rested;
        }
        let rested = self.clients.item(client).rested(&self.config);
        let number = rested.map_or(client, |rested| self.clients.number(rested));
        self.rested.insert(client, number);
        number
    }

    /// The state after what has happened at the start.
    fn after_scene(&mut self, mut world: World, scene: Scene) -> World {
        let mut out = Vec::new();
        let ends = |model: &Self, world: &World| match scene {
            Scene::Op(client, ..) => Some(model.client(world, client).op(&model.config).unwrap_or_default()),
            Scene::Sync(node, _) => {
                let synced = model.commons.item(world.common).synced;
                Some(synced.iter().map(|synced| synced >> node & 1).sum())
            }
            _ => None,
        };
        let begun = ends(self, &world);
        for _ in 0..100 {
            out.clear();
            self.successors(&world, &mut out);
            let among = |nodes: u8, node: usize| nodes >> node & 1 == 1;
            let next = out.iter().find(|next| match (scene, next.action) {
                (Scene::Op(client, version, _), Action::Begin(other, begun)) => {
                    client == other && version == begun
                }
                (Scene::Op(client, _, nodes), Action::Exchange(_, _, session, node, _)) => {
                    client == session && among(nodes, node)
                }
                (Scene::Op(client, ..), Action::Chosen(session)) => client == session,
                (Scene::Sync(node, _), Action::Chosen(session)) => session == sync::session(node),
                (Scene::Part(client, version, ..), Action::Begin(other, begun)) => {
                    client == other && version == begun
                }
                (
                    Scene::Part(client, _, nodes, _),
                    Action::Exchange(Message::Prepare(mark), _, _, node, _),
                ) => mark.client() == client && among(nodes, node),
                (
                    Scene::Part(client, _, _, nodes),
                    Action::Exchange(Message::Accept(mark, _), _, _, node, _),
                ) => mark.client() == client && among(nodes, node),
                (Scene::GaveUp(client), Action::TimeOut(other, _)) => client == other,
                (Scene::Ready(of, nodes), Action::Exchange(Message::Accept(..), register, _, node, _)) => {
                    of == register && among(nodes, node)
                }
                (Scene::Ready(of, nodes), Action::Say(register, node)) => {
                    of == register && among(nodes, node)
                }
                (Scene::Purged(nodes), Action::Purge(_, node)) => among(nodes, node),
                (Scene::Sync(node, nodes), Action::Page(other, owner)) => {
                    node == other && among(nodes, owner)
                }
                (Scene::Sync(node, nodes), Action::Exchange(_, _, session, owner, _)) => {
                    session == sync::session(node) && among(nodes, owner)
                }
                _ => false,
            });
            let Some(next) = next else { break };
            assert!(next.violation.is_none(), "{:?}", next.violation);
            world = next.state;
            if ends(self, &world) != begun {
                return world;
            }
        }
        assert!(begun.is_none(), "{scene:?} could not be played");
        world
    }
}

impl System for Model {
    type State = World;
    type Action = Action;

    fn initial(&mut self) -> World {
        let config = &self.config;
        let nodes = std::array::from_fn(|node| self.nodes.number(Node::new(node, config)));
        let syncers = std::array::from_fn(|node| self.syncers.number(Syncer::new(node, config)));
        let mut clients = [NONE; CLIENTS];
        for (client, number) in clients.iter_mut().enumerate().take(config.scripts.len()) {
            *number = self.clients.number(Client::new(client, config));
        }
        let world = World {
            nodes,
            clients,
            syncers,
            attempts: self.attempts.number(Vec::new()),
            history: self.histories.number(History::new(config)),
            common: self.commons.number(Common::default()),
        };
        let prelude = self.config.prelude.clone();
        prelude.into_iter().fold(world, |world, scene| self.after_scene(world, scene))
    }

    fn fingerprint(&mut self, world: &World) -> u128 {
        let mut mix = Mix::default();
        let attempts = self.living_attempts(world);
        for client in world.clients {
            let client = if client == NONE { NONE } else { self.rested(client) };
            mix.write_u32(client);
        }
        let parts =
            world.nodes.iter().chain(&world.syncers).chain([&attempts, &world.history, &world.common]);
        parts.for_each(|part| mix.write_u32(*part));
        mix.wide()
    }

    fn successors(&mut self, world: &World, out: &mut Out) {
        let sessions: Vec<usize> = self.sessions().collect();
        for session in &sessions {
            let before = out.len();
            self.chosen(world, *session, out);
            // An answer that comes sooner allows more afterwards, and is judged no less.
            let only_answers = *session < CLIENTS && !self.config.learn;
            if only_answers && out.len() > before && self.client(world, *session).is_last_try(&self.config) {
                out.drain(..before);
                return;
            }
        }
        for client in 0..self.config.scripts.len() {
            self.client_moves(world, client, out);
        }
        for session in sessions {
            if !self.client(world, session).is_last_try(&self.config) {
                self.refuse(world, session, out);
            }
        }
        for attempt in &self.attempts.item(world.attempts).clone() {
            self.attempt_moves(world, attempt, out);
        }
        for node in 0..NODES {
            self.sync_moves(world, node, out);
        }
        self.restarts(world, out);
        if self.config.purges {
            self.purge_moves(world, out);
        }
    }

    fn describe(&self, before: &World, action: Action, after: &World) -> String {
        tell::tell(self, before, action, after)
    }
}
