//! Planning: from the slots of now and the members to come, the slots of next, and what that moves. Pure and
//! deterministic.
//!
//! Promises, held to by property tests:
//!
//! 1. The owners of a partition are distinct members, in as many zones as there can be.
//! 2. Every member owns its fair share: proportional to capacity as far as 1 and the zones permit, rounded
//!    up or down to whole slots (`shares`).
//! 3. Among all tables with these shares, none keeps more slots where they are (`assign`): movement is the
//!    minimum. Mostly that is what nobody can avoid, slots whose owner left and those above a share; more
//!    moves only where zones, or a member that owns nearly every partition, force exchanges.
//!
//! The method is that of "Optimal partition assignment in Garage" (the Garage project, 2022): flows, and
//! least cost for movement. One difference: Garage makes partitions as large as fit everywhere, Pando makes
//! the load proportional to capacity.

use std::collections::BTreeMap;

use super::{MAX_COUNCIL, Member, MemberState, Replicas, Slots};
use crate::id::{PARTITIONS, Partition};

mod assign;
mod shares;
#[cfg(test)]
mod tests;

/// The slots for `members`, moving as little as possible from `previous`. Members must keep their numbers.
pub fn plan(previous: &Slots, members: &[Member], replicas: Replicas) -> Slots {
    let width = match replicas {
        Replicas::All => return Slots::Everyone(active(members)),
        Replicas::Count(count) => usize::from(count.max(1)),
    };
    let previous: Vec<Vec<u16>> = Partition::all().map(|partition| previous.of(partition).to_vec()).collect();
    let owners = table(&previous, members, width);
    Slots::Table { width: owners[0].len() as u16, owners: owners.concat() }
}

/// As [`plan`], for any number of partitions: the owners of each, given those it has now. Layouts always
/// have 1024; this is to find out what another number would do.
pub fn table(previous: &[Vec<u16>], members: &[Member], copies: usize) -> Vec<Vec<u16>> {
    let active = active(members);
    assert!(!active.is_empty(), "a network has at least one active member");
    let width = copies.clamp(1, active.len());
    let zones = Zones::new(members, &active);
    let quota = shares::quotas(previous, members, &zones, width);
    assign::assign(previous, &zones, quota, width)
}

/// The council for `members`: an odd number (an even one survives no more failures than one less), at
/// most [`MAX_COUNCIL`], spread over zones as evenly as there are active members in them; within that,
/// those of `previous` keep their seats.
pub fn council(previous: &[u16], members: &[Member]) -> Vec<u16> {
    let active = active(members);
    let size = active.len().min(MAX_COUNCIL);
    let size = size - usize::from(size > 0 && size.is_multiple_of(2));
    let sits = |member: &u16| previous.iter().position(|sitting| sitting == member).unwrap_or(usize::MAX);
    let mut candidates: Vec<Vec<u16>> = Zones::new(members, &active).members;
    for zone in &mut candidates {
        // The best candidate last, to be popped.
        zone.sort_by_key(|member| std::cmp::Reverse((sits(member), *member)));
    }
    let mut seats: Vec<usize> = vec![0; candidates.len()];
    let mut council: Vec<u16> = Vec::with_capacity(size);
    while council.len() < size {
        let next = |zone: &usize| candidates[*zone].last().map(|member| (sits(member), *member));
        let zone = (0..candidates.len())
            .filter(|zone| next(zone).is_some())
            .min_by_key(|zone| (seats[*zone], next(zone)))
            .expect("there are at least as many active members as seats");
        council.extend(candidates[zone].pop());
        seats[zone] += 1;
    }
    council.sort_by_key(|member| (sits(member), *member));
    council
}

/// What a change of slots means for one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Slots it owns before.
    pub before: usize,
    /// Slots that it owns after and not before: what has to be copied to it.
    pub gained: usize,
    /// Slots that it owns before and not after.
    pub lost: usize,
}

impl Change {
    /// Slots it owns after.
    pub fn after(&self) -> usize {
        self.before + self.gained - self.lost
    }
}

/// What a change of slots moves. A slot is one copy of one partition, 1/1024 of all objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// By member number; members that own nothing before and after are left out.
    pub members: BTreeMap<u16, Change>,
    /// Slots whose data has to be copied to a new owner.
    pub slots: usize,
    /// Slots there are after the change.
    pub total: usize,
}

/// What becomes of everyone's slots when `after` follows `before`: for previews.
pub fn moved(before: &Slots, after: &Slots) -> Moved {
    let mut moved = Moved::default();
    for partition in Partition::all() {
        let (old, new) = (before.of(partition), after.of(partition));
        for owner in old {
            let change = moved.members.entry(*owner).or_default();
            change.before += 1;
            change.lost += usize::from(!new.contains(owner));
        }
        for owner in new.iter().filter(|owner| !old.contains(owner)) {
            moved.members.entry(*owner).or_default().gained += 1;
            moved.slots += 1;
        }
        moved.total += new.len();
    }
    moved
}

/// How many of the [`PARTITIONS`] × width slots each member owns, by member number.
pub fn loads(slots: &Slots, members: usize) -> Vec<usize> {
    let mut loads = vec![0; members];
    for owner in Partition::all().take(usize::from(PARTITIONS)).flat_map(|partition| slots.of(partition)) {
        loads[usize::from(*owner)] += 1;
    }
    loads
}

fn active(members: &[Member]) -> Vec<u16> {
    let numbered = members.iter().zip(0u16..);
    numbered.filter(|(member, _)| member.state == MemberState::Active).map(|(_, number)| number).collect()
}

/// The zones of the active members, by number.
struct Zones {
    /// The zone of each member; of those that are not active, none.
    of: Vec<Option<u16>>,
    /// The active members of each zone.
    members: Vec<Vec<u16>>,
}

impl Zones {
    fn new(members: &[Member], active: &[u16]) -> Self {
        let mut named: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
        for number in active {
            named.entry(&members[usize::from(*number)].zone).or_default().push(*number);
        }
        let zones: Vec<Vec<u16>> = named.into_values().collect();
        let mut of = vec![None; members.len()];
        for (zone, inside) in zones.iter().enumerate() {
            for member in inside {
                of[usize::from(*member)] = Some(zone as u16);
            }
        }
        Self { of, members: zones }
    }

    fn count(&self) -> usize {
        self.members.len()
    }
}
