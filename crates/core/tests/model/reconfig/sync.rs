//! How a new owner syncs: what it was shown by the previous owners, and what it still has to settle.
//!
//! Owns one node's work on one transition. The settling itself is a [`Client`] with the node's session.

use crate::{
    client::{Client, Phase},
    layouts::NODES,
    node::Node,
    rules::{Config, Held, Mark, REGISTERS},
};

/// What a previous owner shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Page {
    /// Its rows.
    pub(crate) rows: [Held; REGISTERS],
    /// How high a settling ballot must go there.
    pub(crate) heights: [u64; REGISTERS],
    /// Its purge floor.
    pub(crate) purged: Option<Mark>,
}

impl Page {
    /// What a node shows.
    pub(crate) fn of(node: &Node) -> Self {
        let registers = std::array::from_fn(|register| register as u8);
        Self {
            rows: registers.map(|register| node.held(register)),
            heights: registers.map(|register| node.height(register)),
            purged: node.purged(),
        }
    }
}

/// One node, syncing or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Syncer {
    /// The transition that it works on; 0 before the first.
    pub(crate) version: u8,
    /// How often it may still begin this one.
    pub(crate) rounds: u8,
    /// What was shown to it.
    pub(crate) pages: [Option<Page>; NODES],
    /// The registers that it has to settle, as bits.
    pub(crate) unsettled: u8,
    /// It settles with this.
    pub(crate) client: Client,
}

/// The session of a node's settling: those below are the clients'.
pub(crate) fn session(node: usize) -> usize {
    crate::world::CLIENTS + node
}

impl Syncer {
    /// Before anything.
    pub(crate) fn new(node: usize, config: &Config) -> Self {
        Self {
            version: 0,
            rounds: 0,
            pages: [None; NODES],
            unsettled: 0,
            client: Client::new(session(node), config),
        }
    }

    /// Whether it could hear a previous owner's page for this transition.
    pub(crate) fn may_ask(&self, version: u8, owner: usize, config: &Config) -> bool {
        if self.version < version {
            return *self.client.phase() == Phase::Idle && config.rounds > 0;
        }
        let asking = self.pages.iter().any(Option::is_some) || self.rounds > 0;
        self.version == version && asking && self.unsettled == 0 && self.pages[owner].is_none()
    }

    /// It hears a page.
    pub(crate) fn hear(&mut self, version: u8, owner: usize, page: Page, config: &Config) {
        if self.version != version {
            (self.version, self.rounds) = (version, config.rounds);
            self.pages = [None; NODES];
        }
        if self.pages.iter().all(Option::is_none) {
            self.rounds -= 1;
        }
        self.pages[owner] = Some(page);
    }

    /// It forgets how far it was: it died, gave up, or is done.
    pub(crate) fn stop(&mut self, config: &Config) {
        self.pages = [None; NODES];
        self.unsettled = 0;
        self.client.abandon(config);
    }

    /// The register to settle next.
    pub(crate) fn next(&self) -> Option<u8> {
        (0..REGISTERS as u8).find(|register| self.unsettled >> register & 1 == 1)
    }
}
