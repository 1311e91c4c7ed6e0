//! A world of gossiping nodes in memory: virtual time, latency, loss, cuts, deaths. One seed, one history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use pando_core::{
    gossip::{AddressEntry, Event, Gossip, News},
    id::NodeId,
    register::LayoutVersion,
};

/// What happens at some time.
enum Due {
    Wake(usize),
    Packet { to: usize, from: usize, bytes: Bytes },
}

/// The world.
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Option<Gossip>>,
    pub(crate) members: Arc<BTreeSet<NodeId>>,
    /// How long a packet travels.
    pub(crate) latency: Duration,
    /// Of a thousand packets, how many get lost.
    pub(crate) loss: u64,
    /// Packets travel only within a group.
    pub(crate) group: Vec<u8>,
    /// Packets and bytes that were sent.
    pub(crate) sent: (u64, u64),
    /// Of whom `heard` tells.
    pub(crate) watched: usize,
    /// When each node heard, for the first time since this was last cleared: that the watched one is down,
    /// that it is up, and its news.
    pub(crate) heard: Vec<[Option<Duration>; 3]>,
    due: BTreeMap<(Duration, u64), Due>,
    armed: Vec<Duration>,
    lives: u64,
    count: u64,
    seed: u64,
}

pub(crate) fn id(node: usize) -> NodeId {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&(node as u64).to_le_bytes());
    NodeId(id)
}

fn number(id: &NodeId) -> usize {
    u64::from_le_bytes(id.0[..8].try_into().expect("eight bytes")) as usize
}

pub(crate) fn news(node: usize, used: u64) -> News {
    News {
        address: AddressEntry {
            node: id(node),
            addresses: vec![([10, 0, 0, 1], 7433).into()],
            since: 1 << 40,
        },
        number: 0,
        layout: LayoutVersion(300),
        synced: LayoutVersion(300),
        used,
        capacity: 1 << 42,
        owed: 0,
    }
}

impl World {
    /// `size` nodes that start at once and know nothing but the layout.
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        let mut world = Self::empty(size, seed);
        (0..size).for_each(|node| world.start(node));
        world
    }

    /// A world whose nodes have not been started.
    pub(crate) fn empty(size: usize, seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            nodes: (0..size).map(|_| None).collect(),
            members: Arc::new((0..size).map(id).collect()),
            latency: Duration::from_millis(50),
            loss: 10,
            group: vec![0; size],
            sent: (0, 0),
            watched: 0,
            heard: vec![[None; 3]; size],
            due: BTreeMap::new(),
            armed: vec![Duration::MAX; size],
            lives: 1 << 40,
            count: 0,
            seed: seed.wrapping_add(1),
        }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Starts a node, or starts it again in a later life.
    pub(crate) fn start(&mut self, node: usize) {
        self.lives += 1000;
        let seed = self.random();
        let gossip = Gossip::new(id(node), self.lives, seed, Arc::clone(&self.members), self.now);
        self.nodes[node] = Some(gossip);
        self.armed[node] = Duration::MAX;
        self.after(node);
    }

    /// A node dies without a word.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    /// A node says something.
    pub(crate) fn tell(&mut self, node: usize, used: u64) {
        let clock = self.now.as_millis() as u64;
        self.nodes[node].as_mut().expect("it lives").tell(news(node, used), clock);
        self.after(node);
    }

    /// Everyone knows everyone, as after a while.
    pub(crate) fn introduce(&mut self) {
        let size = self.nodes.len();
        let rumours: Vec<_> =
            (0..size).filter_map(|node| self.nodes[node].as_ref()?.table().0.pop()).collect();
        for node in 0..size {
            if let Some(gossip) = &mut self.nodes[node] {
                gossip.take_table(&rumours, Vec::new(), self.now);
                self.after(node);
            }
        }
    }

    /// A full exchange between two nodes.
    pub(crate) fn exchange(&mut self, a: usize, b: usize) {
        let table = |world: &Self, node: usize| world.nodes[node].as_ref().expect("it lives").table();
        let (of_a, of_b) = (table(self, a), table(self, b));
        for (node, (rumours, news)) in [(a, of_b), (b, of_a)] {
            self.nodes[node].as_mut().expect("it lives").take_table(&rumours, news, self.now);
            self.after(node);
        }
    }

    /// Takes what a node has to say and to do.
    pub(crate) fn after(&mut self, node: usize) {
        let Some(gossip) = &mut self.nodes[node] else { return };
        let mut packets = Vec::new();
        while let Some(packet) = gossip.next_packet() {
            packets.push(packet);
        }
        while let Some(event) = gossip.next_event() {
            let heard = match &event {
                Event::Down(who) => (*who, 0),
                Event::Up(who) => (*who, 1),
                Event::News(news) => (news.node(), 2),
            };
            if heard.0 == id(self.watched) {
                self.heard[node][heard.1].get_or_insert(self.now);
            }
        }
        let deadline = gossip.deadline().max(self.now);
        for (to, bytes) in packets {
            let to = number(&to);
            self.sent = (self.sent.0 + 1, self.sent.1 + bytes.len() as u64);
            if self.group[node] == self.group[to] && self.random() % 1000 >= self.loss {
                let jitter = self.latency.mul_f64((self.random() % 1000) as f64 / 5000.0);
                self.schedule(self.now + self.latency + jitter, Due::Packet { to, from: node, bytes });
            }
        }
        if deadline < self.armed[node] {
            self.armed[node] = deadline;
            self.schedule(deadline, Due::Wake(node));
        }
    }

    fn schedule(&mut self, at: Duration, due: Due) {
        self.count += 1;
        self.due.insert((at.max(self.now), self.count), due);
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), due) = entry.remove_entry();
            self.now = at;
            let node = match due {
                Due::Wake(node) => {
                    if self.armed[node] == at {
                        self.armed[node] = Duration::MAX;
                    }
                    if let Some(gossip) = &mut self.nodes[node] {
                        gossip.tick(at);
                    }
                    node
                }
                Due::Packet { to, from, bytes } => {
                    if let Some(gossip) = &mut self.nodes[to] {
                        gossip.receive(id(from), &bytes, at);
                    }
                    to
                }
            };
            self.after(node);
        }
        self.now = end;
    }

    /// How long it took from `since` until the last one heard (0: down, 1: up, 2: news), if all did.
    pub(crate) fn all_heard(&self, what: usize, since: Duration) -> Option<Duration> {
        let others =
            (0..self.nodes.len()).filter(|node| *node != self.watched && self.nodes[*node].is_some());
        let mut last = since;
        for node in others {
            last = last.max(self.heard[node][what]?);
        }
        Some(last - since)
    }
}
