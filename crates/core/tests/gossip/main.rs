//! Gossip among nodes in memory, in virtual time.

mod world;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pando_core::gossip::{Gossip, MAX_PACKET, Standing};
use proptest::prelude::*;
use world::{World, id, news};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    /// How a node looks from another.
    pub(crate) fn standing(&self, from: usize, node: usize) -> Standing {
        let standings = self.nodes[from].as_ref().expect("it lives").standings();
        standings
            .iter()
            .find(|(who, _)| *who == id(node))
            .map_or(Standing::Unknown, |(_, standing)| *standing)
    }

    /// Whether a node looks so from all others that live.
    pub(crate) fn agree(&self, node: usize, standing: Standing) -> bool {
        let others = (0..self.nodes.len()).filter(|other| *other != node && self.nodes[*other].is_some());
        others.into_iter().all(|other| self.standing(other, node) == standing)
    }
}

fn grown(size: usize, seed: u64) -> World {
    let mut world = World::new(size, seed);
    world.run(seconds(20));
    assert!((0..size).all(|node| world.agree(node, Standing::Up)), "all are up (seed {seed})");
    world
}

/// Clears what was heard of a node, from now on.
fn watch(world: &mut World, node: usize) -> Duration {
    world.watched = node;
    world.heard.iter_mut().for_each(|heard| *heard = [None; 3]);
    world.now
}

#[test]
fn a_small_network_knows_of_a_death_in_seconds() {
    for seed in 0..20 {
        for size in [2, 3, 5, 10] {
            let mut world = grown(size, seed);
            let since = watch(&mut world, 1);
            world.kill(1);
            world.run(seconds(20));
            let took = world.all_heard(0, since);
            let took = took.unwrap_or_else(|| panic!("{size} nodes, seed {seed}: {:?}", world.heard));
            assert!(took > seconds(3) && took < seconds(10), "{size} nodes took {took:?} (seed {seed})");
            assert!(world.agree(1, Standing::Down));
        }
    }
}

#[test]
fn losses_alone_kill_nobody() {
    let mut world = World::new(12, 3);
    world.introduce();
    world.loss = 100;
    for _ in 0..300 {
        world.run(seconds(1));
        assert!((0..12).all(|node| world.agree(node, Standing::Up)));
    }
}

#[test]
fn who_starts_again_is_up_again_at_once() {
    for seed in 0..20 {
        let mut world = grown(5, seed);
        // Before the others noticed: the new life replaces the old one.
        world.kill(2);
        world.run(seconds(1));
        world.start(2);
        world.run(seconds(15));
        assert!(world.agree(2, Standing::Up) && (0..5).all(|node| world.standing(2, node) != Standing::Down));
        // After they did.
        world.kill(2);
        world.run(seconds(60));
        assert!(world.agree(2, Standing::Down));
        let since = watch(&mut world, 2);
        world.start(2);
        world.run(seconds(10));
        let took = world.all_heard(1, since).expect("all know");
        assert!(took < seconds(6), "{took:?} (seed {seed})");
        assert!(world.agree(2, Standing::Up));
    }
}

#[test]
fn a_cut_heals_by_itself() {
    for (size, apart) in [(2, 1), (7, 3), (30, 10)] {
        let mut world = grown(size, 5);
        world.group[..apart].fill(1);
        world.run(seconds(60));
        assert_eq!(world.standing(0, size - 1), Standing::Down);
        assert_eq!(world.standing(size - 1, 0), Standing::Down);
        world.group.fill(0);
        world.run(seconds(40));
        assert!((0..size).all(|node| world.agree(node, Standing::Up)), "{size} nodes are one again");
    }
}

#[test]
fn news_spread_and_the_newest_wins() {
    let mut world = grown(20, 9);
    let since = watch(&mut world, 4);
    world.tell(4, 1);
    world.tell(4, 2);
    world.run(seconds(10));
    let took = world.all_heard(2, since).expect("all heard");
    assert!(took < seconds(2), "{took:?}");
    let used = |world: &World, node: usize| {
        let (_, news) = world.nodes[node].as_ref().unwrap().table();
        news.iter().find(|news| news.node() == id(4)).map(|news| news.used)
    };
    assert!((0..20).all(|node| used(&world, node) == Some(2)));
    // A new life with a clock that went back: the others' word of it is older, though its number is higher.
    world.kill(4);
    world.start(4);
    world.nodes[4].as_mut().unwrap().tell(news(4, 3), 1);
    world.run(seconds(5));
    world.exchange(4, 5);
    world.run(seconds(10));
    assert!((0..20).all(|node| used(&world, node) == Some(3)));
}

#[test]
fn a_full_exchange_brings_a_latecomer_up_to_date() {
    let mut world = grown(10, 2);
    world.tell(3, 77);
    world.run(seconds(30));
    world.kill(9);
    world.kill(8);
    world.run(seconds(30));
    world.start(9);
    world.exchange(9, 0);
    assert!((0..8).all(|node| world.standing(9, node) == Standing::Up));
    assert_eq!(world.standing(9, 8), Standing::Down, "of whom it never heard");
    let (_, news) = world.nodes[9].as_ref().unwrap().table();
    assert!(news.iter().any(|news| news.node() == id(3) && news.used == 77));
}

#[test]
fn strangers_are_not_heard_and_who_left_is_forgotten() {
    let mut world = grown(4, 1);
    let stranger_members: BTreeSet<_> = (0..6).map(id).collect();
    let mut stranger = Gossip::new(id(5), 1 << 41, 1, Arc::new(stranger_members), world.now);
    let now = world.now;
    stranger.tick(now);
    let mut said = 0;
    while let Some((to, packet)) = stranger.next_packet() {
        if let Some(node) = (0..4).find(|node| id(*node) == to) {
            world.nodes[node].as_mut().unwrap().receive(id(5), &packet, now);
            // Nor may it speak in the name of a member, nor a member in another's.
            world.nodes[node].as_mut().unwrap().receive(id((node + 1) % 4), &packet, now);
            said += 1;
        }
    }
    assert!(said > 0);
    world.run(seconds(5));
    for node in 0..4 {
        let (rumours, _) = world.nodes[node].as_ref().unwrap().table();
        assert_eq!(rumours.len(), 4);
    }
    // One more joins, one leaves: only some know yet, and nobody is disturbed.
    world.members = Arc::new((1..4).map(id).collect());
    world.kill(0);
    for node in 1..4 {
        let (members, now) = (Arc::clone(&world.members), world.now);
        world.nodes[node].as_mut().unwrap().set_members(members, now);
        world.run(seconds(1));
    }
    world.run(seconds(20));
    for node in 1..4 {
        assert_eq!(world.nodes[node].as_ref().unwrap().standings().len(), 2);
        assert!(world.agree(node, Standing::Up));
    }
}

#[test]
fn one_seed_one_history() {
    let history = |seed| {
        let mut world = grown(9, seed);
        world.kill(3);
        world.tell(4, 1);
        world.run(seconds(20));
        (world.sent, world.heard)
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1).0, history(2).0);
}

/// A packet that one node really sent to another.
fn real_packet() -> Vec<u8> {
    let members: Arc<BTreeSet<_>> = Arc::new((0..3).map(id).collect());
    let mut gossip = Gossip::new(id(1), 50, 1, members, Duration::ZERO);
    gossip.tell(news(1, 5), 1);
    gossip.tick(seconds(1));
    gossip.tick(seconds(2));
    let mut longest = Vec::new();
    while let Some((to, packet)) = gossip.next_packet() {
        if to == id(0) && packet.len() > longest.len() {
            longest = packet.to_vec();
        }
    }
    longest
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..MAX_PACKET + 10),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let members: Arc<BTreeSet<_>> = Arc::new((0..3).map(id).collect());
        let mut gossip = Gossip::new(id(0), 60, 1, members, Duration::ZERO);
        let mut changed = real_packet();
        prop_assert!(!changed.is_empty());
        for (place, byte) in &changes {
            let place = place.index(changed.len());
            changed[place] = *byte;
        }
        let cut = cut.index(changed.len());
        let mut extended = changed[..cut].to_vec();
        extended.extend_from_slice(&bytes);
        for packet in [&bytes, &changed, &extended] {
            gossip.receive(id(1), packet, seconds(1));
            gossip.tick(seconds(3));
            while gossip.next_packet().is_some() || gossip.next_event().is_some() {}
        }
        prop_assert!(gossip.standings().len() == 2, "nobody but members");
    }
}
