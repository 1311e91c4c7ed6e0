//! Gossip: who is alive, and what everyone says about itself, without I/O.
//!
//! The protocol is SWIM (Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group
//! Membership Protocol", DSN 2002), by the `foca` crate: each node pings one other a second, asks three more
//! to try before it suspects it, and tells by rumour; a suspect has a few seconds to object. This module
//! binds it to the layout: members take part, nobody else; and it carries everyone's [`News`].
//!
//! Packets, time and randomness are arguments; packets to send and what happened are results. Sending, and
//! the full exchange with one peer that brings a latecomer up to date ([`Gossip::table`]), are the caller's.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::{NonZeroU8, NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use foca::{Config, Foca, Member, Notification, PostcardCodec, Runtime, State, Timer};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use crate::id::NodeId;

mod news;
mod outage;
mod packet;

pub use news::{AddressEntry, News};
pub use outage::{Outages, Standing};
pub use packet::{MAX_PACKET, Name};

use news::{Board, Shared};
use packet::UNHEARD;

/// How often a node knocks at members that it does not know to be up.
const KNOCK: Duration = Duration::from_secs(2);
/// At how many at once. Two find each other again in seconds after a cut, and the dead cost little.
const KNOCKS: usize = 2;
/// The least pause between two rounds of knocking.
const KNOCK_PAUSE: Duration = Duration::from_millis(300);
/// The least number of times a rumour is passed on, however few the members: losses must not stop it.
const PASSED_ON: NonZeroU8 = NonZeroU8::new(5).expect("five is not zero");

/// What a node knows of one member's life, for full exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rumour {
    /// Who, in which life.
    pub name: Name,
    /// How often it objected to being suspected.
    pub incarnation: u16,
    /// Whether it is held to be alive.
    pub alive: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member is up: for the first time, again, or in a new life.
    Up(NodeId),
    /// A member is down.
    Down(NodeId),
    /// A member says something new about itself.
    News(News),
}

/// One node's part in the gossip.
pub struct Gossip {
    foca: Foca<Name, PostcardCodec, SmallRng, Shared>,
    board: Shared,
    members: Arc<BTreeSet<NodeId>>,
    rng: SmallRng,
    knock: Duration,
    knocked: Duration,
    outbox: Outbox,
}

/// What the protocol wants done.
#[derive(Default)]
struct Outbox {
    now: Duration,
    packets: VecDeque<(NodeId, Bytes)>,
    events: VecDeque<Event>,
    timers: BTreeMap<(Duration, u64), Timer<Name>>,
    timer: u64,
    /// Names that took another's place: whether they are up is looked at afterwards.
    renamed: Vec<Name>,
    /// This node had been declared down and came back.
    rejoined: bool,
}

impl Runtime<Name> for &mut Outbox {
    fn notify(&mut self, notification: Notification<'_, Name>) {
        match notification {
            Notification::MemberUp(name) if name.life != UNHEARD => {
                self.events.push_back(Event::Up(name.node));
            }
            Notification::MemberDown(name) => self.events.push_back(Event::Down(name.node)),
            Notification::Rename(_, name) => self.renamed.push(*name),
            Notification::Rejoin(_) => self.rejoined = true,
            _ => {}
        }
    }

    fn send_to(&mut self, to: Name, data: &[u8]) {
        self.packets.push_back((to.node, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Name>, after: Duration) {
        self.timer += 1;
        self.timers.insert((self.now + after, self.timer), event);
    }
}

impl Gossip {
    /// A node that starts. `life` must be above that of its last start: Unix milliseconds will do. `members`
    /// are those of the layout.
    pub fn new(me: NodeId, life: u64, seed: u64, members: Arc<BTreeSet<NodeId>>, now: Duration) -> Self {
        let name = Name { node: me, life: life.max(UNHEARD + 1) };
        let mut rng = SmallRng::seed_from_u64(seed);
        let board = Shared::new(Board::new(me, Arc::clone(&members)));
        let foca = Foca::with_custom_broadcast(
            name,
            config(members.len()),
            SmallRng::from_rng(&mut rng),
            PostcardCodec,
            board.clone(),
        );
        let outbox = Outbox { now, ..Outbox::default() };
        let mut gossip = Self {
            foca,
            board,
            members: Arc::new(BTreeSet::new()),
            rng,
            knock: now,
            knocked: now.saturating_sub(KNOCK_PAUSE),
            outbox,
        };
        gossip.set_members(members, now);
        gossip
    }

    /// The layout changed.
    pub fn set_members(&mut self, members: Arc<BTreeSet<NodeId>>, now: Duration) {
        self.outbox.now = now;
        let me = self.foca.identity().node;
        let new: Vec<Member<Name>> = members
            .difference(&self.members)
            .filter(|node| **node != me)
            .map(|node| Member::alive(Name { node: *node, life: UNHEARD }))
            .collect();
        let gone: Vec<Name> = self
            .foca
            .iter_membership_state()
            .map(|member| *member.id())
            .filter(|name| !members.contains(&name.node))
            .collect();
        let resized = self.foca.set_config(config(members.len()));
        debug_assert!(resized.is_ok(), "periods don't depend on the size");
        self.members = members;
        let out = &mut self.outbox;
        let downs = gone.iter().map(|name| Member::down(*name));
        // Neither is a rumour: everyone has the layout.
        let applied = self.foca.apply_many(new.into_iter().chain(downs), false, &mut *out);
        debug_assert!(applied.is_ok(), "names have an encoding");
        for name in gone {
            let _ = self.foca.handle_timer(Timer::RemoveDown(name), &mut *out);
        }
        self.board.with(|board| board.set_members(Arc::clone(&self.members)));
        self.settle();
    }

    /// Takes in a packet from a peer whose identity the transport has verified.
    pub fn receive(&mut self, from: NodeId, packet: &[u8], now: Duration) {
        self.outbox.now = now;
        let Some(admitted) = packet::admit(packet, &from, self.foca.identity(), &self.members) else {
            return;
        };
        if let Some(life) = admitted.later_life {
            self.outlive(life);
        }
        // What a peer got wrong concerns nobody else; what was good of it is taken.
        let _ = self.foca.handle_data(&admitted.bytes, &mut self.outbox);
        self.settle();
    }

    /// Does what is due. To be called again at [`Gossip::deadline`].
    pub fn tick(&mut self, now: Duration) {
        self.outbox.now = now;
        while let Some(entry) = self.outbox.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let timer = entry.remove();
            // An error says that timers came late: the protocol goes on by itself.
            let _ = self.foca.handle_timer(timer, &mut self.outbox);
        }
        if self.knock <= now {
            self.knock_at_some();
        }
        self.settle();
    }

    /// When the next thing is due.
    pub fn deadline(&self) -> Duration {
        let timer = self.outbox.timers.first_key_value().map(|((due, _), _)| *due);
        timer.map_or(self.knock, |due| due.min(self.knock))
    }

    /// The next packet to send, and to whom. Packets may be lost.
    pub fn next_packet(&mut self) -> Option<(NodeId, Bytes)> {
        self.outbox.packets.pop_front()
    }

    /// What happened next. Events about those that are not members any more are left out.
    pub fn next_event(&mut self) -> Option<Event> {
        while let Some(event) = self.outbox.events.pop_front() {
            let node = match &event {
                Event::Up(node) | Event::Down(node) => *node,
                Event::News(news) => news.node(),
            };
            if self.members.contains(&node) {
                return Some(event);
            }
        }
        None
    }

    /// Spreads this node's word. Its number is chosen here, from the clock (Unix milliseconds) and what was
    /// said before.
    pub fn tell(&mut self, news: News, clock: u64) {
        let number = self.board.with(|board| board.next_number(clock));
        self.spread(&News { number, ..news });
    }

    /// Everything this node knows, for a full exchange with one peer.
    pub fn table(&self) -> (Vec<Rumour>, Vec<News>) {
        let rumours = self.foca.iter_membership_state().filter(|member| member.id().life != UNHEARD);
        let rumours = rumours.map(|member| Rumour {
            name: *member.id(),
            incarnation: member.incarnation(),
            alive: !is_down(member),
        });
        let own = Rumour { name: *self.foca.identity(), incarnation: 0, alive: true };
        let news = self.board.with(|board| board.all().cloned().collect());
        (rumours.chain([own]).collect(), news)
    }

    /// Takes in what a peer knows. It is not passed on: everyone asks sooner or later.
    pub fn take_table(&mut self, rumours: &[Rumour], news: Vec<News>, now: Duration) {
        self.outbox.now = now;
        let me = *self.foca.identity();
        let later =
            rumours.iter().filter(|rumour| rumour.name.node == me.node).map(|rumour| rumour.name.life);
        if let Some(life) = later.max().filter(|life| *life > me.life) {
            self.outlive(life);
        }
        let others = rumours.iter().filter(|rumour| {
            rumour.name.node != me.node
                && rumour.name.life != UNHEARD
                && self.members.contains(&rumour.name.node)
        });
        let updates: Vec<Member<Name>> = others
            .map(|rumour| {
                let state = if rumour.alive { State::Alive } else { State::Down };
                Member::new(rumour.name, rumour.incarnation, state)
            })
            .collect();
        let applied = self.foca.apply_many(updates.into_iter(), false, &mut self.outbox);
        debug_assert!(applied.is_ok(), "names have an encoding");
        self.board.with(|board| {
            for news in news {
                board.take(news, true);
            }
        });
        self.settle();
    }

    /// How every other member looks from here.
    pub fn standings(&self) -> Vec<(NodeId, Standing)> {
        let standing = |member: &Member<Name>| match member.id().life {
            _ if is_down(member) => Standing::Down,
            UNHEARD => Standing::Unknown,
            _ => Standing::Up,
        };
        self.foca.iter_membership_state().map(|member| (member.id().node, standing(member))).collect()
    }

    /// Goes on in a life above one that others know: of an earlier start, by a clock that was ahead.
    fn outlive(&mut self, life: u64) {
        let node = self.foca.identity().node;
        let later = Name { node, life: life.saturating_add(1) };
        if self.foca.change_identity(later, &mut self.outbox).is_ok() {
            self.outbox.rejoined = true;
        }
    }

    fn spread(&mut self, news: &News) {
        let bytes = postcard::to_stdvec(news).expect("news are plain data");
        let told = self.foca.add_broadcast(&bytes);
        debug_assert!(told.is_ok(), "news fit into a packet");
    }

    /// Asks some members that are not known to be up to take this node in.
    fn knock_at_some(&mut self) {
        self.knock = self.outbox.now + KNOCK;
        self.knocked = self.outbox.now;
        let mut chosen: Vec<Name> = Vec::with_capacity(KNOCKS);
        let away = |member: &&Member<Name>| is_down(member) || member.id().life == UNHEARD;
        for (seen, member) in self.foca.iter_membership_state().filter(away).enumerate() {
            // Reservoir sampling: each with the same chance.
            if seen < KNOCKS {
                chosen.push(*member.id());
            } else if let Some(place) = chosen.get_mut(self.rng.random_range(0..=seen)) {
                *place = *member.id();
            }
        }
        for name in chosen {
            let _ = self.foca.announce(Name { life: UNHEARD, ..name }, &mut self.outbox);
        }
    }

    /// Follows up on what the protocol did.
    fn settle(&mut self) {
        if let Some(own) = self.board.with(|board| board.overtaken()) {
            self.tell(own, 0);
        }
        for news in self.board.with(Board::take_fresh) {
            self.outbox.events.push_back(Event::News(news));
        }
        if !self.outbox.renamed.is_empty() {
            let renamed: BTreeSet<NodeId> =
                std::mem::take(&mut self.outbox.renamed).iter().map(|name| name.node).collect();
            let active = self.foca.iter_members().map(|member| member.id());
            let up = active.filter(|name| name.life != UNHEARD && renamed.contains(&name.node));
            self.outbox.events.extend(up.map(|name| Event::Up(name.node)));
        }
        if std::mem::take(&mut self.outbox.rejoined) {
            // Those that held this node dead were held dead by it, perhaps: find out soon.
            self.knock = self.knock.min(self.knocked + KNOCK_PAUSE);
        }
    }
}

fn is_down(member: &Member<Name>) -> bool {
    member.state() == State::Down
}

/// A second from ping to ping, four seconds and more to object: a dead node is known within about six seconds
/// among ten, and some seconds later among a thousand.
fn config(members: usize) -> Config {
    let size = NonZeroU32::new(members as u32).unwrap_or(NonZeroU32::MIN);
    let lan = Config::new_lan(size);
    Config {
        max_packet_size: NonZeroUsize::new(MAX_PACKET).expect("a packet has a size"),
        max_transmissions: lan.max_transmissions.max(PASSED_ON),
        // Members are forgotten when they leave the layout, and not before.
        remove_down_after: None,
        // Knocking does this, also while nobody else is up.
        periodic_announce_to_down_members: None,
        ..lan
    }
}
