//! News: what each node says about itself, and how it spreads.
//!
//! Owns the newest word of every member and decides which of two is newer. How the words travel is
//! `foca`'s matter: they ride on the packets of the failure detector.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use foca::{BroadcastHandler, Invalidates};
use serde::{Deserialize, Serialize};

use super::packet::Name;
use crate::{id::NodeId, layout::MAX_ADDRESSES, register::LayoutVersion};

/// Where a node is, as it says itself. The highest `since` is the latest word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressEntry {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: Vec<SocketAddr>,
    /// When it said so (Unix milliseconds by its own clock).
    pub since: u64,
}

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Who says so, and where it is.
    pub address: AddressEntry,
    /// The highest is the newest word.
    pub number: u64,
    /// The layout it knows.
    pub layout: LayoutVersion,
    /// The newest layout for which it has synced all its partitions.
    pub synced: LayoutVersion,
    /// Bytes of chunks it holds.
    pub used: u64,
    /// Bytes it offers.
    pub capacity: u64,
    /// Chunks it still has to send to others or to fetch for itself.
    pub owed: u64,
}

impl News {
    /// Who says so.
    pub fn node(&self) -> NodeId {
        self.address.node
    }

    /// Whether it may be believed as far as its size goes.
    pub fn is_bounded(&self) -> bool {
        self.address.addresses.len() <= MAX_ADDRESSES
    }
}

/// Which word is newer: what `foca` needs to know of an item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    node: NodeId,
    number: u64,
}

impl Invalidates for Item {
    fn invalidates(&self, other: &Self) -> bool {
        self.node == other.node && self.number >= other.number
    }
}

/// An item that is no news.
#[derive(Debug, thiserror::Error)]
#[error("malformed news")]
pub(super) struct Malformed;

/// The newest word of every member.
pub(super) struct Board {
    me: NodeId,
    members: Arc<BTreeSet<NodeId>>,
    table: BTreeMap<NodeId, News>,
    /// What came since this was last emptied.
    fresh: Vec<News>,
    /// The highest number under which others know a word of this node.
    own: u64,
}

impl Board {
    pub(super) fn new(me: NodeId, members: Arc<BTreeSet<NodeId>>) -> Self {
        Self { me, members, table: BTreeMap::new(), fresh: Vec::new(), own: 0 }
    }

    pub(super) fn set_members(&mut self, members: Arc<BTreeSet<NodeId>>) {
        self.table.retain(|node, _| members.contains(node));
        self.members = members;
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &News> {
        self.table.values()
    }

    pub(super) fn take_fresh(&mut self) -> Vec<News> {
        std::mem::take(&mut self.fresh)
    }

    /// This node's own word, if others know a later one than itself does: of an earlier life, by a clock that
    /// was ahead.
    pub(super) fn overtaken(&self) -> Option<News> {
        self.table.get(&self.me).filter(|news| news.number < self.own).cloned()
    }

    /// The number of this node's next word.
    pub(super) fn next_number(&self, clock: u64) -> u64 {
        let last = self.table.get(&self.me).map_or(0, |news| news.number);
        clock.max(last.max(self.own).saturating_add(1))
    }

    /// Takes in a word, if it is news. `told` says that it came from another node.
    pub(super) fn take(&mut self, news: News, told: bool) -> bool {
        let (node, number) = (news.node(), news.number);
        if !self.members.contains(&node) && node != self.me || !news.is_bounded() {
            return false;
        }
        if node == self.me && told {
            self.own = self.own.max(number);
            return false;
        }
        if self.table.get(&node).is_some_and(|known| known.number >= number) {
            return false;
        }
        if told {
            self.fresh.push(news.clone());
        }
        self.table.insert(node, news);
        true
    }
}

/// The board, shared with the protocol, which takes its handler in and never shows it again.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Board>>);

impl Shared {
    pub(super) fn new(board: Board) -> Self {
        Self(Arc::new(Mutex::new(board)))
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Board) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl BroadcastHandler<Name> for Shared {
    type Key = Item;
    type Error = Malformed;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Name>) -> Result<Option<Item>, Malformed> {
        let news: News = postcard::from_bytes(data).map_err(|_| Malformed)?;
        let item = Item { node: news.node(), number: news.number };
        Ok(self.with(|board| board.take(news, sender.is_some())).then_some(item))
    }
}
