//! Forgetting tombstones: who was seen to hold one, and whether it may go.

use crate::{
    judge::{Attempt, History},
    layouts::NODES,
    node::Node,
    rules::{Broken, Config, Leavers, Mark},
};

/// A tombstone on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Purging {
    /// The layout under which its owners are asked.
    pub(crate) version: u8,
    /// Its ballot.
    pub(crate) mark: Mark,
    /// A bit for each node that said what it must say: an owner that it holds exactly this, another that it
    /// has dropped its rows.
    said: u8,
    /// The operations under way when the last of them said so.
    beside: u8,
}

impl Purging {
    /// Someone means to purge what a node holds.
    pub(crate) fn new(version: u8, mark: Mark) -> Self {
        Self { version, mark, said: 0, beside: 0 }
    }

    /// A node said what it must say, while these operations were under way.
    pub(crate) fn note(&mut self, node: usize, running: u8, config: &Config) {
        self.said |= 1 << node;
        if self.is_known(config) {
            self.beside = running;
        }
    }

    /// Whether a node still has to say something.
    pub(crate) fn wants(&self, node: usize, config: &Config) -> bool {
        self.said >> node & 1 == 0 && self.must_say(node, config)
    }

    fn must_say(&self, node: usize, config: &Config) -> bool {
        let owner = config.layouts.slots(self.version).place(node).is_some();
        let left = config.leavers == Leavers::GatePurge && config.layouts.ever_owned(self.version, node);
        owner || left
    }

    /// Whether an owner holds exactly this; or, where sync raises the purge floor, nothing, and can't get it any more.
    pub(crate) fn suits(&self, node: &Node, register: u8, config: &Config) -> bool {
        let gone = node.held(register).is_none() && node.purged() >= Some(self.mark);
        tombstone(node, register, config) == Some(self.mark) || gone && config.leavers == Leavers::DropIfAway
    }

    /// Whether all that must be known is known.
    fn is_known(&self, config: &Config) -> bool {
        let said = |node: usize| self.said >> node & 1 == 1;
        if config.breaks(Broken::PurgeByMajority) {
            return config.layouts.slots(self.version).is_met(said);
        }
        (0..NODES).all(|node| said(node) || !self.must_say(node, config))
    }

    /// Whether all that must be known is known, and all operations begun before that are over.
    pub(crate) fn may_go(&self, attempts: &[Attempt], history: &History, config: &Config) -> bool {
        let chosen =
            || attempts.iter().find(|attempt| attempt.mark == self.mark).map(|attempt| attempt.beside);
        let beside = match config.broken {
            Some(Broken::PurgeWithoutGrace) => 0,
            Some(Broken::GraceSinceChosen) => chosen().unwrap_or_default(),
            _ => self.beside,
        };
        self.is_known(config) && beside & history.running() == 0
    }
}

/// Whether tombstones are purged under a layout.
pub(crate) fn may_purge(version: u8, config: &Config) -> bool {
    config.purges && (config.layouts.previous(version).is_none() || config.breaks(Broken::PurgeInTransition))
}

/// The tombstone that a node holds.
pub(crate) fn tombstone(node: &Node, register: u8, config: &Config) -> Option<Mark> {
    node.held(register).filter(|(_, chain)| config.is_tombstone(*chain)).map(|(mark, _)| mark)
}

/// A node is told to forget a tombstone: it does if it holds exactly that.
pub(crate) fn forget(node: &mut Node, register: u8, purging: Purging, config: &Config) {
    if node.fences(purging.version, config) || tombstone(node, register, config) != Some(purging.mark) {
        return;
    }
    node.drop_row(register);
    if !config.breaks(Broken::PurgeWithoutFloor) {
        node.raise_purged(Some(purging.mark));
    }
}
