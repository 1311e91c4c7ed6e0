//! The pulse: finding out who is alive, and telling everyone what this node knows of itself.
//!
//! One task drives [`Gossip`], which decides; this file carries its packets over the RPC lane, keeps its time,
//! and passes on what it found: to the table of peers, to whoever follows a transition, to healing. It never
//! moves data. Besides gossip there is a full exchange with one peer now and then, for who comes late or
//! missed something.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use pando_core::{
    gossip::{Event, Gossip, News},
    id::NodeId,
    layout::Layout,
    register::LayoutVersion,
    wire::{AddressEntry, Pulse, Reply, Request},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    inner::{Inner, Message},
    peers::Liveness,
    sys::{self, Instant},
};

/// How often the table of peers is looked after.
const PERIOD: Duration = Duration::from_secs(1);
/// Packets and tables that wait for the task. A packet is 1200 bytes; more than a few hundred behind, they
/// are old, and what is dropped comes again.
const WAITING: usize = 256;
/// Packets under way at once. A node sends about 20 a second when there is news; a peer that does not answer
/// holds one for three seconds.
const UNDER_WAY: usize = 64;
/// How often everything is exchanged with one peer.
const EXCHANGE: Duration = Duration::from_secs(10);
/// With how many it is, at the start.
const FIRST_EXCHANGES: usize = 3;
/// How many doubtful peers are asked again at once.
const ASKED_AGAIN: usize = 8;
/// The least time between two words of this node about its layout or its place: one round of gossip.
const PAUSE: Duration = Duration::from_millis(200);
/// The least time between two words about its figures, and from a word to its repetition. Both grow with
/// the network, so that all words together stay at a few a second.
const FIGURES: Duration = Duration::from_secs(2);
const REPEAT: Duration = Duration::from_secs(10);
const PER_MEMBER: Duration = Duration::from_millis(200);
/// Where the address book is kept in the store.
const BOOK: &str = "address-book";

/// What comes in for the task.
pub(crate) enum Word {
    /// A packet of gossip.
    Packet(NodeId, Bytes),
    /// Everything a peer knows; it wants the same back, if there is someone to give it to.
    Table(NodeId, Pulse, Option<oneshot::Sender<Pulse>>),
}

/// Where words wait for the task that takes them.
pub(crate) struct Mailbox {
    sender: mpsc::Sender<Word>,
    receiver: Mutex<Option<mpsc::Receiver<Word>>>,
}

impl Default for Mailbox {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl Mailbox {
    /// Leaves a word, or drops it if there are too many.
    pub(crate) fn take_in(&self, word: Word) -> bool {
        self.sender.try_send(word).is_ok()
    }

    fn open(&self) -> Option<mpsc::Receiver<Word>> {
        self.receiver.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

/// A peer tells all it knows: takes it in and answers with the same.
pub(crate) async fn exchange(inner: &Inner, peer: NodeId, pulse: Pulse) -> Option<Pulse> {
    let (answer, answered) = oneshot::channel();
    inner.gossip.take_in(Word::Table(peer, pulse, Some(answer))).then_some(())?;
    answered.await.ok()
}

async fn keep_book(inner: &Inner) {
    let bytes = postcard::to_stdvec(&inner.peers.book()).expect("an address book is plain data");
    if let Err(error) = inner.store.meta_put(BOOK, Some(bytes.into())).await {
        tracing::warn!(%error, "the address book was not kept");
    }
}

/// Loads the address book of last time and enters this node's own addresses.
pub(crate) async fn open_book(inner: &Inner, layout: &Layout, own: Vec<SocketAddr>) {
    let kept = inner.store.meta_get(BOOK).await.ok().flatten();
    let entries: Vec<AddressEntry> =
        kept.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
    inner.peers.learn_addresses(layout, &entries);
    inner.peers.enter_own(inner.id, own, sys::now_ms());
    for member in layout.present().filter(|member| member.id != inner.id) {
        let addresses = inner.peers.addresses(&member.id).unwrap_or_else(|| member.addresses.clone());
        inner.endpoint().set_addresses(member.id, addresses);
    }
    keep_book(inner).await;
}

/// Beats until the node stops.
pub(crate) async fn beat(inner: Arc<Inner>) {
    let Some(mut words) = inner.gossip.open() else { return };
    let Some(mut task) = Task::new(&inner) else { return };
    let mut layouts = inner.layouts();
    loop {
        task.say();
        task.carry_out();
        let wake = task.wake();
        tokio::select! {
            biased;
            () = sys::sleep(wake.saturating_sub(task.now())) => {}
            _ = layouts.changed() => task.follow_layout(),
            () = inner.beat.notified() => {}
            word = words.recv() => match word {
                Some(word) => task.take_in(word),
                None => return,
            },
        }
        let now = task.now();
        task.gossip.tick(now);
        if task.next_period <= now {
            task.next_period = now + PERIOD;
            task.look_after_peers();
        }
    }
}

/// The task's own state.
struct Task {
    inner: Arc<Inner>,
    gossip: Gossip,
    start: Instant,
    layout: Arc<Layout>,
    /// What this node last said, and when.
    said: Option<(News, Duration)>,
    /// The newest layout that anyone said to know.
    newest: LayoutVersion,
    next_period: Duration,
    next_exchange: Duration,
    /// Whether anyone has told this node what it knows.
    introduced: bool,
    under_way: Arc<Semaphore>,
    fetching: Arc<Semaphore>,
    /// Chunks owed, counted now and then beside this task: the store may be slow, pings must not be.
    owed: Arc<AtomicU64>,
}

impl Task {
    fn new(inner: &Arc<Inner>) -> Option<Self> {
        let layout = inner.layout_now()?;
        let seed = u64::from_le_bytes(sys::random());
        let members = members(&layout);
        Some(Self {
            gossip: Gossip::new(inner.id, sys::now_ms(), seed, members, Duration::ZERO),
            inner: Arc::clone(inner),
            start: Instant::now(),
            newest: layout.version,
            layout,
            said: None,
            next_period: Duration::ZERO,
            next_exchange: Duration::ZERO,
            introduced: false,
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
            fetching: Arc::new(Semaphore::new(1)),
            owed: Arc::default(),
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wake(&self) -> Duration {
        let next = self.gossip.deadline().min(self.next_period);
        match &self.said {
            Some((said, at)) if is_important(said, &self.word()) => next.min(*at + PAUSE),
            _ => next,
        }
    }

    fn others(&self) -> Vec<NodeId> {
        self.layout.present().map(|member| member.id).filter(|node| *node != self.inner.id).collect()
    }

    fn follow_layout(&mut self) {
        if let Some(layout) = self.inner.layout_now() {
            self.gossip.set_members(members(&layout), self.now());
            self.layout = layout;
        }
    }

    // ---- what this node says

    /// What this node would say now.
    fn word(&self) -> News {
        let unknown = || AddressEntry { node: self.inner.id, addresses: Vec::new(), since: 0 };
        News {
            address: self.inner.peers.entry(&self.inner.id).unwrap_or_else(unknown),
            number: 0,
            layout: self.layout.version,
            synced: LayoutVersion(self.inner.synced.load(Ordering::SeqCst)),
            used: self.inner.store.used_bytes(),
            capacity: self.inner.capacity,
            owed: self.owed.load(Ordering::Relaxed),
        }
    }

    /// Says what is new about this node, or after a while the same again.
    fn say(&mut self) {
        let (now, word) = (self.now(), self.word());
        let of_all = PER_MEMBER * self.layout.members.len() as u32;
        let due = self.said.as_ref().is_none_or(|(said, at)| {
            let pause = match said {
                said if is_important(said, &word) => PAUSE,
                said if *said != word => FIGURES.max(of_all),
                _ => REPEAT.max(of_all),
            };
            now >= *at + pause
        });
        if due {
            self.gossip.tell(word.clone(), sys::now_ms());
            self.said = Some((word, now));
        }
    }

    fn pulse(&self) -> Pulse {
        let (rumours, news) = self.gossip.table();
        let told: BTreeSet<(NodeId, u64)> =
            news.iter().map(|news| (news.node(), news.address.since)).collect();
        let mut book = self.inner.peers.book();
        book.retain(|entry| !told.contains(&(entry.node, entry.since)));
        Pulse { rumours, news, book }
    }

    // ---- what others say

    fn take_in(&mut self, word: Word) {
        match word {
            Word::Packet(peer, packet) => self.gossip.receive(peer, &packet, self.now()),
            Word::Table(peer, pulse, answer) => {
                if let Some(answer) = answer {
                    // Gone, if the peer did not wait.
                    let _ = answer.send(self.pulse());
                }
                if self.layout.member(&peer).is_none() {
                    return;
                }
                self.introduced = true;
                let told = pulse.news.iter().map(|news| news.address.clone());
                let entries: Vec<AddressEntry> = told.chain(pulse.book).collect();
                self.learn_addresses(&entries);
                self.gossip.take_table(&pulse.rumours, pulse.news, self.now());
            }
        }
    }

    fn learn_addresses(&self, entries: &[AddressEntry]) {
        self.inner.peers.insist(self.inner.id, entries);
        let others: Vec<_> = entries.iter().filter(|entry| entry.node != self.inner.id).cloned().collect();
        let news = self.inner.peers.learn_addresses(&self.layout, &others);
        for entry in &news {
            tracing::debug!(node = %entry.node.short(), addresses = ?entry.addresses, "a node's addresses");
            self.inner.endpoint().set_addresses(entry.node, entry.addresses.clone());
        }
        if !news.is_empty() {
            let inner = Arc::clone(&self.inner);
            self.inner.spawn_until_stopped(async move { keep_book(&inner).await });
        }
    }

    /// Sends what gossip wants sent, and passes on what it found.
    fn carry_out(&mut self) {
        while let Some(event) = self.gossip.next_event() {
            match event {
                Event::Up(node) => {
                    tracing::debug!(node = %node.short(), "up");
                    self.inner.peers.stands(node, Liveness::Up);
                    self.inner.healing.notify_one();
                }
                Event::Down(node) => {
                    tracing::debug!(node = %node.short(), "down");
                    self.inner.peers.stands(node, Liveness::Down);
                }
                Event::News(news) => self.hear(&news),
            }
        }
        while let Some((peer, packet)) = self.gossip.next_packet() {
            self.send(peer, packet);
        }
    }

    fn hear(&mut self, news: &News) {
        if self.inner.peers.heard(news) && self.layout.previous.is_some() {
            self.inner.transition.notify_one();
        }
        self.learn_addresses(std::slice::from_ref(&news.address));
        if news.layout > self.layout.version {
            self.newest = self.newest.max(news.layout);
            self.catch_up(news.node());
        }
    }

    /// Fetches a layout from a peer that knows a newer one, unless that is under way.
    fn catch_up(&self, peer: NodeId) {
        let Ok(place) = Arc::clone(&self.fetching).try_acquire_owned() else { return };
        let inner = Arc::clone(&self.inner);
        self.inner.spawn_until_stopped(async move {
            inner.fetch_layout(peer).await;
            drop(place);
        });
    }

    // ---- asking

    fn send(&self, peer: NodeId, packet: Bytes) {
        // With too many under way this one is lost, as packets may be.
        let Ok(place) = Arc::clone(&self.under_way).try_acquire_owned() else { return };
        let inner = Arc::clone(&self.inner);
        self.inner.spawn_until_stopped(async move {
            let asked = Instant::now();
            if let Ok(Reply::Ok) = inner.ask(peer, &Request::Gossip(packet).into()).await
                && inner.peers.answered(peer, asked.elapsed())
            {
                inner.healing.notify_one();
            }
            drop(place);
        });
    }

    fn look_after_peers(&mut self) {
        let now = self.now();
        self.inner.peers.look(now, &self.layout, &self.inner.id);
        for peer in choose(self.inner.peers.doubtful(), ASKED_AGAIN) {
            if self.layout.member(&peer).is_some() {
                self.send(peer, Bytes::new());
            }
        }
        if self.newest > self.layout.version {
            // Whoever was asked first did not give it: any other who knows it may.
            let (_, news) = self.gossip.table();
            let ahead = news.iter().filter(|news| news.layout > self.layout.version).map(News::node);
            choose(ahead.collect(), 1).into_iter().for_each(|peer| self.catch_up(peer));
        }
        if self.next_exchange <= now || !self.introduced {
            self.next_exchange = now + EXCHANGE / 2 + sys::jitter(EXCHANGE);
            self.start_exchanges();
        }
        let (inner, owed) = (Arc::clone(&self.inner), Arc::clone(&self.owed));
        self.inner.spawn_until_stopped(async move {
            if let Ok(count) = inner.store.owed_count().await {
                owed.store(count, Ordering::Relaxed);
            }
        });
    }

    /// Full exchanges: with one peer that is up, or with a few whatever they are while nobody answered yet.
    fn start_exchanges(&self) {
        let others = self.others();
        let chosen = if self.introduced {
            let is_up = |node: &NodeId| self.inner.peers.liveness(node) == Liveness::Up;
            choose(others.into_iter().filter(is_up).collect(), 1)
        } else {
            choose(others, FIRST_EXCHANGES)
        };
        if chosen.is_empty() {
            return;
        }
        let message = Message::from(Request::Pulse(self.pulse()));
        for peer in chosen {
            let Ok(place) = Arc::clone(&self.under_way).try_acquire_owned() else { return };
            let (inner, message) = (Arc::clone(&self.inner), message.clone());
            self.inner.spawn_until_stopped(async move {
                let asked = Instant::now();
                if let Ok(Reply::Pulse(pulse)) = inner.ask(peer, &message).await {
                    if inner.peers.answered(peer, asked.elapsed()) {
                        inner.healing.notify_one();
                    }
                    inner.gossip.take_in(Word::Table(peer, pulse, None));
                }
                drop(place);
            });
        }
    }
}

fn members(layout: &Layout) -> Arc<BTreeSet<NodeId>> {
    Arc::new(layout.present().map(|member| member.id).collect())
}

/// Whether others act on the difference.
fn is_important(said: &News, word: &News) -> bool {
    (&said.address, said.layout, said.synced) != (&word.address, word.layout, word.synced)
}

/// Some of these, at random.
fn choose(mut nodes: Vec<NodeId>, count: usize) -> Vec<NodeId> {
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count && !nodes.is_empty() {
        let place = u64::from_le_bytes(sys::random()) % nodes.len() as u64;
        chosen.push(nodes.swap_remove(place as usize));
    }
    chosen
}
