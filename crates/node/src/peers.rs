//! What this node knows of the others: where they are, whether they answer, what they said.
//!
//! Owns the address book and the table of standings. Leaves finding out to [`crate::pulse`], and who is a
//! member to the layout.

use std::{collections::BTreeMap, net::SocketAddr, sync::Mutex, time::Duration};

pub(crate) use pando_core::gossip::Standing as Liveness;
use pando_core::{
    gossip::{News, Outages},
    id::NodeId,
    layout::{Layout, MAX_ADDRESSES},
    register::LayoutVersion,
    wire::AddressEntry,
};

use crate::sys::Instant;

/// For how long an answer of a node proves that it is up, whatever is said of it: gossip needs about so
/// long to notice that a node is back.
const PROOF: Duration = Duration::from_secs(5);

/// What is known of one node.
#[derive(Clone, Debug)]
struct Peer {
    entry: Option<AddressEntry>,
    /// What gossip says.
    standing: Liveness,
    /// When it last answered this node.
    answered: Option<Instant>,
    /// Since when calls to it fail, if they do.
    failing: Option<Instant>,
    /// Smoothed round trip of small exchanges.
    round_trip: Option<Duration>,
    said: Option<Said>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            entry: None,
            standing: Liveness::Unknown,
            answered: None,
            failing: None,
            round_trip: None,
            said: None,
        }
    }
}

impl Peer {
    fn liveness(&self) -> Liveness {
        match (self.failing, self.standing, self.answered) {
            (Some(_), ..) => Liveness::Down,
            (None, Liveness::Up, _) => Liveness::Up,
            (None, _, Some(answered)) if answered.elapsed() < PROOF => Liveness::Up,
            (None, Liveness::Unknown, Some(_)) => Liveness::Down,
            (None, standing, _) => standing,
        }
    }
}

/// The part of a node's news that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) synced: LayoutVersion,
    pub(crate) used: u64,
    pub(crate) capacity: u64,
    pub(crate) owed: u64,
}

/// The table of peers. Bounded by the layout: entries of others are not taken.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    table: Mutex<BTreeMap<NodeId, Peer>>,
    outages: Mutex<Outages>,
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

    /// Where a node said it is, and when.
    pub(crate) fn entry(&self, node: &NodeId) -> Option<AddressEntry> {
        self.with(|table| table.get(node)?.entry.clone())
    }

    /// A node's news came. Returns whether it has synced another layout than before.
    pub(crate) fn heard(&self, news: &News) -> bool {
        let said = Said { synced: news.synced, used: news.used, capacity: news.capacity, owed: news.owed };
        self.with(|table| {
            let before = table.entry(news.node()).or_default().said.replace(said);
            before.is_none_or(|before| before.synced != said.synced)
        })
    }

    /// Gossip says how a node is. Whoever is said to be up is given another try.
    pub(crate) fn stands(&self, node: NodeId, standing: Liveness) {
        self.with(|table| {
            let peer = table.entry(node).or_default();
            peer.standing = standing;
            match standing {
                Liveness::Up => peer.failing = None,
                _ => peer.answered = None,
            }
        });
    }

    /// A small exchange with `node` came to its end in this time. (That we hear from it would not mean that
    /// it hears us; this does.) Returns whether that is a surprise.
    pub(crate) fn answered(&self, node: NodeId, round_trip: Duration) -> bool {
        self.with(|table| {
            let peer = table.entry(node).or_default();
            let surprise = peer.liveness() != Liveness::Up;
            peer.answered = Some(Instant::now());
            peer.failing = None;
            peer.round_trip = Some(peer.round_trip.map_or(round_trip, |old| (old * 7 + round_trip) / 8));
            surprise
        })
    }

    /// A call to `node` failed before any answer.
    pub(crate) fn failed(&self, node: NodeId) {
        self.with(|table| {
            let peer = table.entry(node).or_default();
            peer.failing.get_or_insert_with(Instant::now);
        });
    }

    /// Nodes that failed to answer this node while gossip holds them alive, or knows nothing.
    pub(crate) fn doubtful(&self) -> Vec<NodeId> {
        let doubtful = |peer: &Peer| peer.failing.is_some() && peer.standing != Liveness::Down;
        self.with(|table| table.iter().filter(|(_, peer)| doubtful(peer)).map(|(node, _)| *node).collect())
    }

    /// Whether a node is worth asking.
    pub(crate) fn liveness(&self, node: &NodeId) -> Liveness {
        self.with(|table| table.get(node).map_or(Liveness::Unknown, Peer::liveness))
    }

    /// Looks at all members, for [`Peers::down_for`]. `now` counts from any fixed point in time.
    pub(crate) fn look(&self, now: Duration, layout: &Layout, me: &NodeId) {
        let others = layout.present().filter(|member| member.id != *me);
        let standings: Vec<_> = others.map(|member| (member.id, self.liveness(&member.id))).collect();
        self.outages.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).look(now, &standings);
    }

    /// For how long a node has been down without interruption, as seen from here; `None` if it is not.
    /// Counted carefully, see [`Outages`]: not while this node is cut off from most others, and from the
    /// start when this node starts.
    pub(crate) fn down_for(&self, node: &NodeId) -> Option<Duration> {
        self.outages.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).down_for(node)
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

    #[test]
    fn answers_and_failures_outweigh_rumours() {
        let (peers, node) = (Peers::default(), NodeId([1; 32]));
        assert_eq!(peers.liveness(&node), Liveness::Unknown);
        peers.stands(node, Liveness::Down);
        assert!(peers.answered(node, Duration::from_millis(8)), "a surprise");
        assert_eq!(peers.liveness(&node), Liveness::Up, "it answers, whatever is said");
        peers.failed(node);
        assert_eq!(peers.liveness(&node), Liveness::Down);
        assert!(peers.doubtful().is_empty(), "others doubt it too");
        peers.stands(node, Liveness::Up);
        assert_eq!(peers.liveness(&node), Liveness::Up, "another try");
        peers.failed(node);
        assert_eq!((peers.liveness(&node), peers.doubtful()), (Liveness::Down, vec![node]));
        assert!(peers.answered(node, Duration::from_millis(16)));
        assert_eq!(peers.round_trip(&node), Some(Duration::from_millis(9)));
        peers.stands(node, Liveness::Down);
        assert_eq!(peers.liveness(&node), Liveness::Down);
    }
}
