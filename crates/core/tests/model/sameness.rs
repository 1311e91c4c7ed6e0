//! Which states are the same: those that differ only in the names of the owners, or in what was sent long
//! ago and can no longer change anything.

use std::hash::Hasher as _;

use crate::{
    intern::Mix,
    judge::{ACCEPTED, CHOSEN},
    node::Message,
    rules::OWNERS,
    world::{Model, NONE, World},
};

/// All ways to name the owners.
const ORDERS: [[usize; OWNERS]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
impl Model {
    /// The same for states that differ only in the names of the owners, or in attempts that no longer matter.
    pub(crate) fn canonical(&mut self, world: &World) -> u128 {
        let attempts = self.living_attempts(world);
        let mut least = None;
        for (order, names) in ORDERS.iter().enumerate() {
            let nodes = names.map(|owner| world.nodes[owner]);
            if !nodes.is_sorted() {
                continue;
            }
            let clients = world
                .clients
                .map(|client| if client == NONE { NONE } else { self.renamed_client(client, order) });
            let parts = (clients, self.renamed_attempts(attempts, order), nodes);
            least = Some(least.map_or(parts, |least| parts.min(least)));
        }
        let (clients, attempts, nodes) = least.expect("one of all orders is sorted");
        let mut mix = Mix::default();
        nodes.iter().chain(&clients).chain([&attempts, &world.history]).for_each(|part| mix.write_u32(*part));
        mix.wide()
    }

    /// The attempts that still matter: those chosen, those that a client waits for, and those of which a message
    /// could still change an owner. What changes none now never will, unless a rule is broken.
    fn living_attempts(&mut self, world: &World) -> u32 {
        if self.config.broken.is_some() {
            return world.attempts;
        }
        let mut attempts = self.attempts.item(world.attempts).clone();
        let before = attempts.len();
        attempts.retain(|attempt| {
            let client = self.clients.item(world.clients[attempt.mark.client()]);
            attempt.is_chosen() || client.phase().mark() == Some(attempt.mark) || {
                let register = self.config.op(attempt.op).register;
                let accept = attempt.chain.map(|chain| Message::Accept(attempt.mark, chain));
                let messages = [Some(Message::Prepare(attempt.mark)), accept];
                messages.into_iter().flatten().any(|message| {
                    world.nodes.iter().any(|node| self.handle(*node, register, message, false).0 != *node)
                })
            }
        });
        if attempts.len() == before { world.attempts } else { self.attempts.number(attempts) }
    }

    fn renamed_client(&mut self, client: u32, order: usize) -> u32 {
        let place = client as usize;
        if self.renamed_clients.len() <= place {
            self.renamed_clients.resize(place + 1, [NONE; 6]);
        }
        if self.renamed_clients[place][order] == NONE {
            let renamed = self.clients.item(client).renamed(&ORDERS[order]);
            self.renamed_clients[place][order] = self.clients.number(renamed);
        }
        self.renamed_clients[place][order]
    }

    fn renamed_attempts(&mut self, attempts: u32, order: usize) -> u32 {
        let place = attempts as usize;
        if self.renamed_attempts.len() <= place {
            self.renamed_attempts.resize(place + 1, [NONE; 6]);
        }
        if self.renamed_attempts[place][order] == NONE {
            let mut renamed = self.attempts.item(attempts).clone();
            for attempt in &mut renamed {
                let bit = |new: usize| (attempt.owners >> ORDERS[order][new] & 1) << new;
                attempt.owners = (attempt.owners & (CHOSEN | ACCEPTED)) | (0..OWNERS).map(bit).sum::<u8>();
            }
            self.renamed_attempts[place][order] = self.attempts.number(renamed);
        }
        self.renamed_attempts[place][order]
    }
}
