//! Planning: from the slots of now and the members to come, the slots of next. Pure and deterministic.
//!
//! Rules, in this order: owners of a partition are distinct members; in distinct zones while there are
//! enough; load is proportional to capacity; as little as possible moves. The method is greedy: keep what
//! may stay, take from whoever has more than its share, give what is missing to whoever lacks most.

use super::{MAX_COUNCIL, Member, MemberState, Replicas, Slots};
use crate::id::{PARTITIONS, Partition};

/// The slots for `members`, moving as little as possible from `previous`. Members must keep their numbers.
pub fn plan(previous: &Slots, members: &[Member], replicas: Replicas) -> Slots {
    let active: Vec<u16> = numbers(members, |member| member.state == MemberState::Active);
    assert!(!active.is_empty(), "a network has at least one active member");
    let width = match replicas {
        Replicas::All => return Slots::Everyone(active),
        Replicas::Count(count) => usize::from(count.max(1)).min(active.len()),
    };
    let mut planner = Planner::new(members, &active, width);
    planner.keep(previous);
    planner.give_up_surplus();
    planner.fill();
    let owners = planner.owners.concat();
    Slots::Table { width: width as u16, owners }
}

/// The council for `members`: an odd number (an even one survives no more failures than one less), at
/// most [`MAX_COUNCIL`], keeping those of `previous` that are still active.
pub fn council(previous: &[u16], members: &[Member]) -> Vec<u16> {
    let active = numbers(members, |member| member.state == MemberState::Active);
    let size = active.len().min(MAX_COUNCIL);
    let size = size - usize::from(size % 2 == 0 && size > 0);
    let mut council: Vec<u16> = previous.iter().copied().filter(|number| active.contains(number)).collect();
    council.extend(active.iter().filter(|number| !previous.contains(number)));
    council.truncate(size);
    council
}

fn numbers(members: &[Member], wanted: impl Fn(&Member) -> bool) -> Vec<u16> {
    members.iter().zip(0u16..).filter(|(member, _)| wanted(member)).map(|(_, number)| number).collect()
}

struct Planner<'a> {
    members: &'a [Member],
    active: &'a [u16],
    width: usize,
    /// How many distinct zones a partition's owners can have.
    zones: usize,
    /// How many slots each member should have, by member number.
    quota: Vec<usize>,
    load: Vec<usize>,
    owners: Vec<Vec<u16>>,
}

impl<'a> Planner<'a> {
    fn new(members: &'a [Member], active: &'a [u16], width: usize) -> Self {
        let mut zones: Vec<&str> = active.iter().map(|n| members[usize::from(*n)].zone.as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        Self {
            members,
            active,
            width,
            zones: zones.len().min(width),
            quota: quotas(members, active, width),
            load: vec![0; members.len()],
            owners: vec![Vec::new(); usize::from(PARTITIONS)],
        }
    }

    fn zone(&self, member: u16) -> &'a str {
        &self.members[usize::from(member)].zone
    }

    /// Whether `member` may join `owners` without wasting a zone that could be distinct.
    fn fits(&self, owners: &[u16], member: u16) -> bool {
        if owners.contains(&member) {
            return false;
        }
        let mut zones: Vec<&str> = owners.iter().map(|owner| self.zone(*owner)).collect();
        zones.sort_unstable();
        zones.dedup();
        let is_new = !zones.contains(&self.zone(member));
        let distinct_after = zones.len() + usize::from(is_new);
        let places_left = self.width - owners.len() - 1;
        distinct_after + places_left >= self.zones
    }

    fn keep(&mut self, previous: &Slots) {
        for partition in Partition::all() {
            let mut kept: Vec<u16> = Vec::with_capacity(self.width);
            for owner in previous.of(partition) {
                if kept.len() < self.width && self.active.contains(owner) && self.fits(&kept, *owner) {
                    kept.push(*owner);
                    self.load[usize::from(*owner)] += 1;
                }
            }
            self.owners[usize::from(partition.number())] = kept;
        }
    }

    fn give_up_surplus(&mut self) {
        for member in self.active.iter().copied() {
            let place = usize::from(member);
            if self.load[place] <= self.quota[place] {
                continue;
            }
            // First those that nobody else gave up (a member that takes over can take a partition only
            // once), spread by a hash so that neighbours don't move together.
            let mut held: Vec<usize> =
                (0..self.owners.len()).filter(|p| self.owners[*p].contains(&member)).collect();
            held.sort_by_key(|partition| {
                (self.width - self.owners[*partition].len(), spread(*partition, member))
            });
            for partition in held.into_iter().take(self.load[place] - self.quota[place]) {
                self.owners[partition].retain(|owner| *owner != member);
                self.load[place] -= 1;
            }
        }
    }

    fn fill(&mut self) {
        let mut order: Vec<usize> = (0..self.owners.len()).collect();
        order.sort_by_key(|partition| spread(*partition, u16::MAX));
        for partition in order {
            while self.owners[partition].len() < self.width {
                let owner = self.best_for(partition);
                self.owners[partition].push(owner);
                self.load[usize::from(owner)] += 1;
            }
        }
    }

    /// The member that lacks most of its share, among those that fit.
    fn best_for(&self, partition: usize) -> u16 {
        let owners = &self.owners[partition];
        let lack = |member: u16| {
            let place = usize::from(member);
            self.quota[place] as i64 - self.load[place] as i64
        };
        let best = |fits: &dyn Fn(u16) -> bool| {
            self.active
                .iter()
                .copied()
                .filter(|member| fits(*member))
                .max_by_key(|member| (lack(*member), spread(partition, *member)))
        };
        best(&|member| self.fits(owners, member))
            .or_else(|| best(&|member| !owners.contains(&member)))
            .expect("a partition is no wider than there are active members")
    }
}

/// Slots in proportion to capacity, none above one per partition; what is cut off above goes to the rest.
fn quotas(members: &[Member], active: &[u16], width: usize) -> Vec<usize> {
    let most = usize::from(PARTITIONS);
    let mut quota = vec![0; members.len()];
    let mut open: Vec<u16> = active.to_vec();
    let mut left = most * width;
    loop {
        let weight = |member: &u16| u128::from(members[usize::from(*member)].capacity.max(1));
        let total: u128 = open.iter().map(weight).sum();
        let capped: Vec<u16> = open
            .iter()
            .copied()
            .filter(|member| left as u128 * weight(member) >= most as u128 * total)
            .collect();
        if capped.is_empty() {
            let mut shared = 0;
            let mut rests: Vec<(u128, u16)> = Vec::new();
            for member in &open {
                let exact = left as u128 * weight(member);
                quota[usize::from(*member)] = (exact / total) as usize;
                shared += (exact / total) as usize;
                rests.push((exact % total, *member));
            }
            rests.sort_unstable_by(|a, b| b.cmp(a));
            for (_, member) in rests.into_iter().take(left - shared) {
                quota[usize::from(member)] += 1;
            }
            return quota;
        }
        for member in &capped {
            quota[usize::from(*member)] = most;
            left -= most;
        }
        open.retain(|member| !capped.contains(member));
        if open.is_empty() {
            return quota;
        }
    }
}

/// A fixed pseudo-random order of partitions for a member.
fn spread(partition: usize, member: u16) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(partition as u64).to_le_bytes()).update(&member.to_le_bytes());
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::id::NodeId;

    fn members(specs: &[(u64, u8)]) -> Vec<Member> {
        let member = |(number, (capacity, zone)): (usize, &(u64, u8))| Member {
            id: NodeId([number as u8; 32]),
            addresses: Vec::new(),
            zone: format!("z{zone}"),
            capacity: *capacity,
            state: MemberState::Active,
        };
        specs.iter().enumerate().map(member).collect()
    }

    fn loads(slots: &Slots, members: usize) -> Vec<usize> {
        let mut loads = vec![0; members];
        for partition in Partition::all() {
            for owner in slots.of(partition) {
                loads[usize::from(*owner)] += 1;
            }
        }
        loads
    }

    fn one() -> Slots {
        Slots::Everyone(vec![0])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn owners_are_distinct_and_so_are_zones(
            specs in proptest::collection::vec((1u64..20, 0u8..6), 1..24),
            copies in 1u8..5,
        ) {
            let members = members(&specs);
            let slots = plan(&one(), &members, Replicas::Count(copies));
            let width = usize::from(copies).min(members.len());
            let zones: BTreeSet<_> = members.iter().map(|member| &member.zone).collect();
            for partition in Partition::all() {
                let owners: BTreeSet<_> = slots.of(partition).iter().collect();
                prop_assert_eq!(owners.len(), width);
                let spread: BTreeSet<_> = owners.iter().map(|o| &members[usize::from(**o)].zone).collect();
                prop_assert_eq!(spread.len(), width.min(zones.len()));
            }
            prop_assert_eq!(plan(&one(), &members, Replicas::Count(copies)), slots, "deterministic");
        }
    }

    #[test]
    fn load_follows_capacity_and_a_join_moves_little() {
        let mut specs: Vec<(u64, u8)> = (0..10).map(|n| (10 + n, n as u8)).collect();
        let before = plan(&one(), &members(&specs), Replicas::Count(3));
        let total: u64 = specs.iter().map(|(capacity, _)| capacity).sum();
        for (load, (capacity, _)) in loads(&before, 10).iter().zip(&specs) {
            let fair = 3072.0 * *capacity as f64 / total as f64;
            assert!((*load as f64 - fair).abs() / fair < 0.05, "{load} instead of {fair}");
        }
        specs.push((15, 11));
        let after = plan(&before, &members(&specs), Replicas::Count(3));
        let joined = loads(&after, 11)[10];
        let moved: usize = Partition::all()
            .map(|p| after.of(p).iter().filter(|owner| !before.of(p).contains(owner)).count())
            .sum();
        assert!(moved <= joined + joined / 10, "{moved} moved so that one member has {joined}");
    }

    #[test]
    fn replicas_all_and_councils() {
        let members = members(&[(1, 0), (1, 0), (1, 0), (1, 0)]);
        assert_eq!(plan(&one(), &members, Replicas::All), Slots::Everyone(vec![0, 1, 2, 3]));
        assert_eq!(council(&[2], &members), [2, 0, 1], "odd, and whoever sat there stays");
        assert_eq!(council(&[0], &members[..2]), [0]);
    }
}
