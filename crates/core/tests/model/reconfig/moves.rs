//! What each move does.

use pando_core::register::acceptor::LearnOutcome;

use super::{
    Action, Model, Out, World, purge, sync,
    sync::{Page, Syncer},
};
use crate::{
    client::{Answer, Client, Effect, Phase},
    explore::Successor,
    judge::Attempt,
    layouts::NODES,
    node::{Message, Node, Reply},
    rules::{Broken, Config, Leavers, Mark, REGISTERS},
    world::CLIENTS,
};

impl Model {
    // ---- clients

    /// Lets whoever has this session take a step, and carries out what it does to the rest.
    fn step(
        &mut self,
        mut world: World,
        session: usize,
        action: Action,
        out: &mut Out,
        step: impl FnOnce(&mut Client, &Config) -> Effect,
    ) {
        let mut client = self.client(&world, session).clone();
        let Some(op) = client.op(&self.config) else { return };
        let effect = step(&mut client, &self.config);
        let version = client.version();
        let mut violation = self.carry_out(&mut world, op, version, effect);
        match session.checked_sub(CLIENTS) {
            None => world.clients[session] = self.clients.number(client),
            Some(node) => {
                let syncer = Syncer { client, ..self.syncer(&world, node).clone() };
                let found = self.after_settling(&mut world, node, syncer, op, effect);
                violation = violation.or(found);
            }
        }
        out.push(Successor { action, state: world, violation });
    }

    fn count(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    fn carry_out(&mut self, world: &mut World, op: u8, version: u8, effect: Effect) -> Option<String> {
        if let Some(event) = effect.event {
            self.count(event);
        }
        let tell = effect.tell.filter(|_| self.config.learn);
        if effect.prepare.is_some() || effect.accept.is_some() || tell.is_some() {
            let mut attempts = self.attempts.item(world.attempts).clone();
            if let Some(mark) = effect.prepare {
                let place = attempts.partition_point(|attempt| attempt.mark < mark);
                attempts.insert(place, Attempt::new(mark, op));
            }
            for attempt in &mut attempts {
                if let Some((_, chain)) = effect.accept.filter(|(mark, _)| *mark == attempt.mark) {
                    attempt.chain = Some(chain);
                }
                attempt.told |= u8::from(tell == Some(attempt.mark)) << version;
            }
            world.attempts = self.attempts.number(attempts);
        }
        let answer = effect.answer?;
        let found = effect.settled.and_then(|mark| self.settled(world, mark));
        if found.is_some() {
            return found;
        }
        let attempts = self.attempts.item(world.attempts);
        let mut history = self.histories.item(world.history).clone();
        if self.config.ops().count() < usize::from(op) {
            let Answer::Saw(chain) = answer else { return None };
            return history.settle(op, chain, attempts, &self.config).err();
        }
        let verdict = history.end(op, answer, attempts, &self.config);
        world.history = self.histories.number(history);
        verdict.err()
    }

    /// Someone saw that enough owners hold the value at a ballot. If these are the owners of a later layout than the
    /// ballot's, that is when it is chosen: a row that a returning owner kept may come to this.
    fn settled(&mut self, world: &mut World, mark: Mark) -> Option<String> {
        let mut attempts = self.attempts.item(world.attempts).clone();
        let attempt = attempts.iter_mut().find(|attempt| attempt.mark == mark)?;
        if !attempt.choose_late() {
            return None;
        }
        *self.events.entry("chosen late").or_default() += 1;
        let violation = self.histories.item(world.history).choose(mark, &attempts, &self.config).err();
        world.attempts = self.attempts.number(attempts);
        violation
    }

    pub(super) fn client_moves(&mut self, world: &World, client: usize, out: &mut Out) {
        let state = self.client(world, client).clone();
        let Some(op) = state.op(&self.config) else { return };
        let version = state.version();
        match state.phase() {
            Phase::Idle => {
                let mut history = self.histories.item(world.history).clone();
                history.begin(op, &self.config);
                let begun = World { history: self.histories.number(history), ..*world };
                for version in self.versions(world, version) {
                    self.step(begun, client, Action::Begin(client, version), out, |client, config| {
                        client.learn(version);
                        client.begin(config)
                    });
                }
            }
            Phase::Reading => {
                let register = self.config.op(op).register;
                let layouts = self.config.layouts.clone();
                for owner in layouts.joint(version).nodes.iter().map(|owner| usize::from(*owner)) {
                    let (after, reply, _) = self.handle(world.nodes[owner], register, Message::Read(version));
                    if state.awaits(owner) && reply != Reply::Silent {
                        let mut next = *world;
                        next.nodes[owner] = after;
                        let action = Action::Exchange(Message::Read(version), register, client, owner, reply);
                        self.step(next, client, action, out, |client, config| {
                            client.hear(owner, reply, config)
                        });
                    }
                }
                if state.heard_enough(&self.config) {
                    self.step(*world, client, Action::StopWaiting(client), out, Client::stop_waiting);
                }
                for version in self.versions(world, version + 1) {
                    self.step(*world, client, Action::Reread(client, version), out, |client, _| {
                        client.learn(version);
                        Effect::default()
                    });
                }
            }
            Phase::Preparing(_) | Phase::Accepting(..) if state.may_time_out(&self.config) => {
                let versions: Vec<u8> = self.versions(world, version).collect();
                // Giving up for good is possible even if no layout is of use any more.
                let versions = if versions.is_empty() { vec![version] } else { versions };
                for version in versions {
                    self.step(*world, client, Action::TimeOut(client, version), out, |client, config| {
                        client.learn(version);
                        client.time_out(config)
                    });
                }
            }
            Phase::Preparing(_) | Phase::Accepting(..) => {}
        }
    }

    /// Someone hears all refusals at once, if they are enough to end its attempt. Refusals change no owner and
    /// are for ever, so hearing some of them earlier would lead nowhere else.
    pub(super) fn refuse(&mut self, world: &World, session: usize, out: &mut Out) {
        let state = self.client(world, session).clone();
        let (Some(op), Some(mark)) = (state.op(&self.config), state.phase().mark()) else { return };
        let register = self.config.op(op).register;
        let attempts = self.attempts.item(world.attempts);
        let message = match state.phase() {
            Phase::Accepting(..) => {
                let sent = attempts.iter().find(|attempt| attempt.mark == mark);
                sent.and_then(|sent| sent.chain).map(|chain| Message::Accept(mark, chain))
            }
            _ => Some(Message::Prepare(mark)),
        };
        let Some(message) = message else { return };
        let layouts = self.config.layouts.clone();
        let owners = layouts.joint(mark.layout());
        let mut refusals = [None; NODES];
        for owner in owners.nodes.iter().map(|owner| usize::from(*owner)) {
            let (_, reply, _) = self.handle(world.nodes[owner], register, message);
            if state.awaits(owner) && matches!(reply, Reply::Refused(_)) {
                refusals[owner] = Some(reply);
            }
        }
        if !owners.is_met(|owner| refusals[owner].is_none()) {
            self.step(*world, session, Action::Conflict(session), out, |client, config| {
                let hear = |(owner, reply): (usize, Option<Reply>)| Some(client.hear(owner, reply?, config));
                let mut effects = refusals.into_iter().enumerate().filter_map(hear);
                effects.find(|effect| *effect != Effect::default()).unwrap_or_default()
            });
        }
    }

    /// Someone hears that what it proposed is accepted by enough. (Which of them it hears one by one does not matter.)
    pub(super) fn chosen(&mut self, world: &World, session: usize, out: &mut Out) {
        let state = self.client(world, session);
        let Phase::Accepting(mark, _) = *state.phase() else { return };
        let attempts = self.attempts.item(world.attempts);
        if !attempts.iter().any(|attempt| attempt.mark == mark && attempt.is_accepted()) {
            return;
        }
        self.step(*world, session, Action::Chosen(session), out, |client, config| {
            let mut effects = (0..NODES).map(|owner| client.hear(owner, Reply::Accepted, config));
            effects.find(|effect| *effect != Effect::default()).unwrap_or_default()
        });
    }

    // ---- messages of attempts

    pub(super) fn attempt_moves(&mut self, world: &World, attempt: &Attempt, out: &mut Out) {
        let layouts = self.config.layouts.clone();
        let waits = self.client(world, attempt.mark.client()).phase() == &Phase::Preparing(attempt.mark);
        for owner in layouts.joint(attempt.mark.layout()).nodes.iter().map(|owner| usize::from(*owner)) {
            if waits {
                self.promise(world, attempt, owner, out);
            }
            if let Some(chain) = attempt.chain {
                self.deliver(world, attempt, Message::Accept(attempt.mark, chain), owner, out);
            }
        }
        let Some(chain) = attempt.chain else { return };
        for version in (1..=layouts.last()).filter(|version| attempt.told >> version & 1 == 1) {
            for owner in &layouts.joint(version).nodes {
                let message = Message::Learn(version, attempt.mark, chain);
                self.deliver(world, attempt, message, usize::from(*owner), out);
            }
        }
    }

    /// An owner promises, and is heard. (A promise that is not heard does nothing but make its owner refuse.)
    fn promise(&mut self, world: &World, attempt: &Attempt, owner: usize, out: &mut Out) {
        let register = self.config.op(attempt.op).register;
        let (session, message) = (attempt.mark.client(), Message::Prepare(attempt.mark));
        let (after, reply, _) = self.handle(world.nodes[owner], register, message);
        if matches!(reply, Reply::Promised(_)) && self.client(world, session).awaits(owner) {
            let mut next = *world;
            next.nodes[owner] = after;
            let action = Action::Exchange(message, register, session, owner, reply);
            self.step(next, session, action, out, |client, config| client.hear(owner, reply, config));
        }
    }

    /// A message that was sent reaches an owner. Whether the reply is heard is told by [`Model::chosen`].
    fn deliver(&mut self, world: &World, attempt: &Attempt, message: Message, owner: usize, out: &mut Out) {
        let register = self.config.op(attempt.op).register;
        let node = world.nodes[owner];
        let (after, reply, wrote) = self.handle(node, register, message);
        if after == node || !wrote {
            return;
        }
        let mut next = *world;
        next.nodes[owner] = after;
        let accepted = matches!(message, Message::Accept(..));
        let violation = if accepted { self.accepted(&mut next, attempt.mark, owner) } else { None };
        let action = Action::Exchange(message, register, attempt.mark.client(), owner, reply);
        out.push(Successor { action, state: next, violation });
    }

    /// Notes that an owner accepted the value of an attempt; says what is wrong if that makes it chosen.
    fn accepted(&mut self, world: &mut World, mark: Mark, owner: usize) -> Option<String> {
        let mut attempts = self.attempts.item(world.attempts).clone();
        let history = self.histories.item(world.history);
        let attempt = attempts.iter_mut().find(|attempt| attempt.mark == mark)?;
        let mut violation = None;
        if attempt.note_accepted(owner, &self.config) {
            if self.config.breaks(Broken::GraceSinceChosen)
                && attempt.chain.is_some_and(|chain| self.config.is_tombstone(chain))
            {
                attempt.beside = history.running();
            }
            violation = history.choose(mark, &attempts, &self.config).err();
        }
        world.attempts = self.attempts.number(attempts);
        violation
    }

    // ---- syncing

    pub(super) fn sync_moves(&mut self, world: &World, node: usize, out: &mut Out) {
        if self.config.syncers >> node & 1 == 0 {
            return;
        }
        let layouts = self.config.layouts.clone();
        let syncer = self.syncer(world, node);
        let may_go_on = syncer.rounds > 0 || !syncer.client.is_last_try(&self.config);
        if may_go_on && syncer.client.phase().mark().is_some() {
            self.step(*world, sync::session(node), Action::GiveUp(node), out, |client, config| {
                client.time_out(config)
            });
        }
        for version in 1..=self.decided(world) {
            let Some(previous) = layouts.previous(version) else { continue };
            let synced = self.commons.item(world.common).synced[usize::from(version / 2)];
            if layouts.slots(version).place(node).is_none()
                || synced >> node & 1 == 1
                || self.node(world, node).known() > version
            {
                continue;
            }
            for owner in previous.nodes.iter().map(|owner| usize::from(*owner)) {
                if self.syncer(world, node).may_ask(version, owner, &self.config) {
                    self.page(world, node, version, owner, out);
                }
            }
        }
    }

    /// A node that syncs is shown what a previous owner holds, at this version.
    fn page(&mut self, world: &World, node: usize, version: u8, owner: usize, out: &mut Out) {
        let mut world = *world;
        let config = &self.config;
        for place in [node, owner] {
            let mut knows = self.nodes.item(world.nodes[place]).clone();
            if knows.fences(version, config) {
                return;
            }
            world.nodes[place] = self.nodes.number(knows);
        }
        let mut syncer = self.syncers.item(world.syncers[node]).clone();
        syncer.hear(version, owner, Page::of(self.nodes.item(world.nodes[owner])), config);
        let enough = config.breaks(Broken::SyncFromOne)
            || config
                .layouts
                .previous(version)
                .is_some_and(|owners| owners.is_met(|o| syncer.pages[o].is_some()));
        let violation = if enough {
            self.resolve(&mut world, node, syncer)
        } else {
            world.syncers[node] = self.syncers.number(syncer);
            None
        };
        out.push(Successor { action: Action::Page(node, owner), state: world, violation });
    }

    /// Enough previous owners were heard: adopts what they agree on, and goes on to settle the rest.
    fn resolve(&mut self, world: &mut World, node: usize, mut syncer: Syncer) -> Option<String> {
        let pages: Vec<Page> = syncer.pages.iter().flatten().copied().collect();
        let mut own = self.nodes.item(world.nodes[node]).clone();
        let floor = pages.iter().filter_map(|page| page.purged).max();
        let carry = self.config.leavers == Leavers::DropSometime;
        if carry {
            own.raise_purged(floor);
        }
        for register in 0..REGISTERS as u8 {
            let rows = || pages.iter().map(|page| page.rows[usize::from(register)]);
            let highest = rows().flatten().max();
            let agree = rows().all(|row| row == highest) || self.config.breaks(Broken::SyncTakesHighest);
            match highest {
                _ if !agree => {
                    self.count("sync, differed");
                    syncer.unsettled |= 1 << register;
                }
                None if carry && own.held(register).is_some_and(|(mark, _)| Some(mark) <= floor) => {
                    self.count("sync, stale row dropped");
                    own.drop_row(register);
                }
                None => {}
                Some((mark, chain)) => match own.learn(register, mark, chain) {
                    LearnOutcome::Write => self.count("sync, adopted"),
                    LearnOutcome::Already => {}
                    LearnOutcome::Refused(_) => {
                        self.count("sync, refused");
                        let skip = self.config.breaks(Broken::RefusedIsSkipped);
                        syncer.unsettled |= u8::from(!skip) << register;
                    }
                },
            }
        }
        if self.config.leavers == Leavers::DropIfAway {
            own.raise_purged(floor);
        }
        world.nodes[node] = self.nodes.number(own);
        self.go_on(world, node, syncer)
    }

    /// Settles the next register, or says that it has synced.
    fn go_on(&mut self, world: &mut World, node: usize, mut syncer: Syncer) -> Option<String> {
        let mut violation = None;
        if let Some(register) = syncer.next() {
            let heights = syncer.pages.iter().flatten().map(|page| page.heights[usize::from(register)]);
            let own = self.nodes.item(world.nodes[node]).height(register);
            let above = heights.max().unwrap_or_default().max(own);
            let version = syncer.version;
            syncer.client.learn(version);
            let effect = syncer.client.settle(register, above, &self.config);
            let op = syncer.client.op(&self.config).unwrap_or_default();
            violation = self.carry_out(world, op, version, effect);
            if effect.answer.is_some() {
                syncer.stop(&self.config);
            }
        } else {
            let mut common = self.commons.item(world.common).clone();
            common.synced[usize::from(syncer.version / 2)] |= 1 << node;
            world.common = self.commons.number(common);
            self.count("synced");
            syncer.stop(&self.config);
        }
        world.syncers[node] = self.syncers.number(syncer);
        violation
    }

    /// What a node does when settling a register came to something: it learns what was settled.
    fn after_settling(
        &mut self,
        world: &mut World,
        node: usize,
        mut syncer: Syncer,
        op: u8,
        effect: Effect,
    ) -> Option<String> {
        let register = self.config.op(op).register;
        let mut own = self.nodes.item(world.nodes[node]).clone();
        match effect.answer {
            None => {}
            Some(Answer::Saw(chain)) if !own.fences(syncer.version, &self.config) => {
                syncer.unsettled &= !(1 << register);
                // A refusal does not matter here: what is settled is held by a majority of the new owners.
                if let Some(mark) = effect.settled {
                    own.learn(register, mark, chain);
                }
                world.nodes[node] = self.nodes.number(own);
                return self.go_on(world, node, syncer);
            }
            Some(_) => syncer.stop(&self.config),
        }
        world.syncers[node] = self.syncers.number(syncer);
        None
    }

    // ---- faults

    pub(super) fn restarts(&mut self, world: &World, out: &mut Out) {
        if self.histories.item(world.history).restarts >= self.config.restarts {
            return;
        }
        let mut history = self.histories.item(world.history).clone();
        history.restarts += 1;
        let history = self.histories.number(history);
        for node in 0..NODES {
            let mut own: Node = self.node(world, node).clone();
            let mut syncer = self.syncer(world, node).clone();
            own.restart(&self.config);
            syncer.stop(&self.config);
            let mut state = World { history, ..*world };
            state.nodes[node] = self.nodes.number(own);
            state.syncers[node] = self.syncers.number(syncer);
            if (state.nodes, state.syncers) != (world.nodes, world.syncers) {
                out.push(Successor { action: Action::Restart(node), state, violation: None });
            }
        }
    }

    // ---- purging

    pub(super) fn purge_moves(&mut self, world: &World, out: &mut Out) {
        for node in 0..NODES {
            let own = self.node(world, node).clone();
            let may_drop = self.config.leavers == Leavers::DropSometime
                && !self.config.layouts.takes_part(own.known(), node);
            if may_drop {
                let mut dropped = own.clone();
                dropped.drop_rows();
                if dropped != own {
                    let mut state = *world;
                    state.nodes[node] = self.nodes.number(dropped);
                    out.push(Successor { action: Action::Drop(node), state, violation: None });
                }
            }
            for register in 0..REGISTERS as u8 {
                self.say(world, node, register, out);
                self.purge(world, node, register, out);
            }
        }
    }

    /// A node says what must be known before a tombstone is forgotten.
    fn say(&mut self, world: &World, node: usize, register: u8, out: &mut Out) {
        let config = &self.config;
        let mut own = self.nodes.item(world.nodes[node]).clone();
        let mut common = self.commons.item(world.common).clone();
        let slot = &mut common.purging[usize::from(register)];
        let held = purge::tombstone(&own, register, config);
        let owner = |version: u8| config.layouts.slots(version).place(node).is_some();
        if let Some(mark) = held
            && owner(own.known())
            && purge::may_purge(own.known(), config)
            && slot.is_none_or(|slot| (slot.version, slot.mark) < (own.known(), mark))
        {
            *slot = Some(purge::Purging::new(own.known(), mark));
        }
        let Some(purging) = slot else { return };
        if !purging.wants(node, config) || own.fences(purging.version, config) {
            return;
        }
        if !owner(purging.version) {
            own.drop_rows();
        } else if !purging.suits(&own, register, config) {
            return;
        }
        purging.note(node, self.histories.item(world.history).running(), config);
        let mut state = World { common: self.commons.number(common), ..*world };
        state.nodes[node] = self.nodes.number(own);
        out.push(Successor { action: Action::Say(register, node), state, violation: None });
    }

    /// A node is told to forget a tombstone.
    fn purge(&mut self, world: &World, node: usize, register: u8, out: &mut Out) {
        let Some(purging) = self.commons.item(world.common).purging[usize::from(register)] else { return };
        let attempts = self.attempts.item(world.attempts);
        let history = self.histories.item(world.history);
        if self.config.layouts.slots(purging.version).place(node).is_none()
            || !purging.may_go(attempts, history, &self.config)
        {
            return;
        }
        let mut own = self.nodes.item(world.nodes[node]).clone();
        let held = own.held(register);
        purge::forget(&mut own, register, purging, &self.config);
        let mut state = *world;
        if own.held(register) != held
            && let Some((mark, chain)) = held
        {
            let mut history = history.clone();
            history.purge(register, mark, chain);
            state.history = self.histories.number(history);
            self.count("purged");
        }
        state.nodes[node] = self.nodes.number(own);
        if state != *world {
            out.push(Successor { action: Action::Purge(register, node), state, violation: None });
        }
    }
}
