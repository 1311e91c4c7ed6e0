//! What this node knows of the others: where they are, when they were last heard, what they said.
//!
//! Owns the address book and the table of pulses. Leaves sending to [`crate::pulse`], and who is a member
//! to the layout.

use std::{collections::BTreeMap, net::SocketAddr, sync::Mutex, time::Duration};

use pando_core::{
    id::NodeId,
    layout::{Layout, MAX_ADDRESSES},
    register::LayoutVersion,
    wire::{AddressEntry, Pulse},
};

use crate::sys::Instant;

/// A node not heard of for so long counts as down: five pulses.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// What one node last said.
#[derive(Clone, Debug, Default)]
struct Peer {
    entry: Option<AddressEntry>,
    heard: Option<Instant>,
    /// Since when calls to it fail, if they do.
    failing: Option<Instant>,
    /// Smoothed round trip of its pulses.
    round_trip: Option<Duration>,
    said: Option<Said>,
}

/// The part of a pulse that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) synced: LayoutVersion,
    pub(crate) used: u64,
    pub(crate) capacity: u64,
    pub(crate) owed: u64,
}

/// How a node can be expected to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Liveness {
    /// It answered lately.
    Up,
    /// Nothing is known yet.
    Unknown,
    /// It did not answer.
    Down,
}

/// The table of peers. Bounded by the layout: entries of others are not taken.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    table: Mutex<BTreeMap<NodeId, Peer>>,
}

impl Peers {
    fn with<T>(&self, read: impl FnOnce(&mut BTreeMap<NodeId, Peer>) -> T) -> T {
        read(&mut self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Says where this node itself is; whatever others remember of it, this is the latest word.
    pub(crate) fn enter_own(&self, me: NodeId, addresses: Vec<SocketAddr>, now: u64) {
        self.with(|table| {
            let peer = table.entry(me).or_default();
            let known = peer.entry.as_ref().map_or(0, |entry| entry.since);
            let since = now.max(known.saturating_add(1));
            peer.entry = Some(AddressEntry { node: me, addresses, since });
        });
    }

    /// Another node remembers this one elsewhere, with a later word than this node's (whose clock went
    /// back, say): the own word is made the latest again.
    pub(crate) fn insist(&self, me: NodeId, entries: &[AddressEntry]) {
        let Some(theirs) = entries.iter().find(|entry| entry.node == me) else { return };
        self.with(|table| {
            if let Some(own) = table.get_mut(&me).and_then(|peer| peer.entry.as_mut())
                && theirs.addresses != own.addresses
                && theirs.since >= own.since
            {
                own.since = theirs.since.saturating_add(1);
            }
        });
    }

    /// Takes in address entries of members. Returns those that are news.
    pub(crate) fn learn_addresses(&self, layout: &Layout, entries: &[AddressEntry]) -> Vec<AddressEntry> {
        let news = |table: &mut BTreeMap<NodeId, Peer>, entry: &AddressEntry| {
            let peer = table.entry(entry.node).or_default();
            let newer = peer.entry.as_ref().is_none_or(|known| known.since < entry.since);
            if newer {
                peer.entry = Some(entry.clone());
            }
            newer
        };
        self.with(|table| {
            let members = entries.iter().filter(|entry| layout.member(&entry.node).is_some());
            let sane = members.filter(|e| !e.addresses.is_empty() && e.addresses.len() <= MAX_ADDRESSES);
            sane.filter(|entry| news(table, entry)).cloned().collect()
        })
    }

    /// The address book.
    pub(crate) fn book(&self) -> Vec<AddressEntry> {
        self.with(|table| table.values().filter_map(|peer| peer.entry.clone()).collect())
    }

    /// Where a node said it is.
    pub(crate) fn addresses(&self, node: &NodeId) -> Option<Vec<SocketAddr>> {
        self.with(|table| Some(table.get(node)?.entry.as_ref()?.addresses.clone()))
    }

    /// A pulse came from `node`, in answer to ours if `round_trip` is given.
    pub(crate) fn heard(&self, node: NodeId, pulse: &Pulse, round_trip: Option<Duration>) {
        self.with(|table| {
            let peer = table.entry(node).or_default();
            if let Some(new) = round_trip {
                // It answers us: it is up. (That we hear from it does not mean that it hears us.)
                peer.heard = Some(Instant::now());
                peer.failing = None;
                peer.round_trip = Some(peer.round_trip.map_or(new, |old| (old * 7 + new) / 8));
            }
            peer.said = Some(Said {
                synced: pulse.synced,
                used: pulse.used,
                capacity: pulse.capacity,
                owed: pulse.owed,
            });
        });
    }

    /// A call to `node` failed before any answer.
    pub(crate) fn failed(&self, node: NodeId) {
        self.with(|table| {
            let peer = table.entry(node).or_default();
            peer.failing.get_or_insert_with(Instant::now);
        });
    }

    /// Whether a node is worth asking.
    pub(crate) fn liveness(&self, node: &NodeId) -> Liveness {
        self.with(|table| match table.get(node) {
            None => Liveness::Unknown,
            Some(peer) if peer.failing.is_some() => Liveness::Down,
            Some(Peer { heard: Some(heard), .. }) if heard.elapsed() < SILENCE => Liveness::Up,
            Some(Peer { heard: Some(_), .. }) => Liveness::Down,
            Some(_) => Liveness::Unknown,
        })
    }

    /// For how long a node has been unreachable, as far as this one can tell.
    pub(crate) fn down_for(&self, node: &NodeId) -> Option<Duration> {
        self.with(|table| {
            let peer = table.get(node)?;
            let silent = peer.heard?.elapsed();
            (silent >= SILENCE).then_some(silent)
        })
    }

    /// The smoothed round trip to a node, if it ever answered.
    pub(crate) fn round_trip(&self, node: &NodeId) -> Option<Duration> {
        self.with(|table| table.get(node)?.round_trip)
    }

    /// What a node last said about itself.
    pub(crate) fn said(&self, node: &NodeId) -> Option<Said> {
        self.with(|table| table.get(node)?.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_word_about_oneself_is_the_latest_whatever_the_clock_says() {
        let (peers, me) = (Peers::default(), NodeId([1; 32]));
        let at = |port: u16| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        peers.enter_own(me, at(1), 1000);
        peers.enter_own(me, at(2), 500);
        assert_eq!(peers.book()[0].since, 1001, "the clock went back");
        peers.insist(me, &[AddressEntry { node: me, addresses: at(9), since: 7000 }]);
        assert_eq!((peers.book()[0].since, peers.addresses(&me)), (7001, Some(at(2))));
        peers.insist(me, &[AddressEntry { node: me, addresses: at(9), since: 10 }]);
        assert_eq!(peers.book()[0].since, 7001, "an old word changes nothing");
    }
}
