//! Changes of the membership: what the next layout is when a node joins, changes its entry, drains or is
//! gone, and when it must not be. Pure: who is up and what is stored are arguments.

use std::net::SocketAddr;

use super::{Layout, MAX_MEMBERS, Member, MemberState, Replicas, Slots};
use crate::id::{NodeId, Partition};

/// How full the remaining nodes may get, in percent of what they offer: chunks are placed by hash, so some
/// nodes fill up before others.
const FULL: u64 = 95;

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node becomes a member.
    Join(Member),
    /// A member says otherwise where it is, in which zone it stands or how much it offers.
    Update {
        /// Who.
        id: NodeId,
        /// Where it is.
        addresses: Vec<SocketAddr>,
        /// Its zone.
        zone: String,
        /// Bytes it offers.
        capacity: u64,
    },
    /// A member gives up what it owns, to leave when it is empty.
    Drain(NodeId),
    /// A draining member stays after all.
    Stay(NodeId),
    /// A drained member leaves: it holds nothing any more.
    Leave(NodeId),
    /// A member is gone, with what it holds.
    Remove {
        /// Who.
        id: NodeId,
        /// What is not asked before.
        force: Force,
    },
}

/// What the removal of a member does not stop at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Force {
    /// Only one that is down is removed, and only if the others can hold what it held.
    #[default]
    None,
    /// Even one that is up, and even if there may be no room; nothing is lost.
    EvenUp,
    /// Even if what only it, and others that are down now, held is lost.
    EvenLost,
}

/// What a change rests on, besides the layout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Members that don't answer.
    pub down: &'a [NodeId],
    /// Bytes of chunks on all members together, as far as they said.
    pub used: u64,
}

/// Why a change can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another change is under way: later.
    #[error("another change of the layout is under way; wait until it is done (`pando status`)")]
    InTransition,
    /// It is so already.
    #[error("it is so already")]
    Already,
    /// No such member.
    #[error("{0} is not a member of this network")]
    NotAMember(String),
    /// The network is full.
    #[error("the network has {MAX_MEMBERS} members, the most")]
    TooMany,
    /// It is the only one.
    #[error("it is the only node that owns anything: add another one first")]
    Last,
    /// Fewer would remain than there are copies.
    #[error(
        "{left} nodes would remain for {copies} copies of everything: add a node first, or use --force to keep fewer copies"
    )]
    TooFew {
        /// Nodes that would remain.
        left: usize,
        /// Copies wanted.
        copies: usize,
    },
    /// The others have no room for what it holds.
    #[error(
        "the nodes that remain offer {capacity} bytes and would have to hold {needed}: add a node or raise --capacity first"
    )]
    NoRoom {
        /// Bytes to hold.
        needed: u64,
        /// Bytes offered.
        capacity: u64,
    },
    /// It answers.
    #[error("the node is up: drain it first, or use --force to remove it as it is")]
    Up,
    /// It does not drain.
    #[error("the node is not draining")]
    NotDraining,
    /// Without it, too few of some partition's owners remain.
    #[error(
        "of some data too few copies are on nodes that answer: start the others first, or use --accept-loss if they are lost for good; what only they hold is then lost too"
    )]
    Majority,
}

impl Layout {
    /// The next version after a change, or why there is none.
    pub fn change(&self, change: &Change, facts: Facts<'_>) -> Result<Layout, Refused> {
        if self.previous.is_some() {
            return Err(Refused::InTransition);
        }
        let mut members = self.members.clone();
        match change {
            Change::Join(member) => self.enter(&mut members, member)?,
            Change::Update { id, addresses, zone, capacity } => {
                let own = &mut members[self.number(id)?];
                let next = Member {
                    addresses: addresses.clone(),
                    zone: zone.clone(),
                    capacity: *capacity,
                    ..own.clone()
                };
                if *own == next {
                    return Err(Refused::Already);
                }
                *own = next;
            }
            Change::Drain(id) => {
                set_state(&mut members[self.number(id)?], MemberState::Draining)?;
                self.check_remaining(&members, facts)?;
            }
            Change::Stay(id) => set_state(&mut members[self.number(id)?], MemberState::Active)?,
            Change::Leave(id) => {
                let member = &mut members[self.number(id)?];
                if member.state != MemberState::Draining {
                    return Err(Refused::NotDraining);
                }
                member.state = MemberState::Gone;
            }
            Change::Remove { id, force } => return self.remove(members, id, *force, facts),
        }
        Ok(self.with_members(members))
    }

    fn number(&self, id: &NodeId) -> Result<usize, Refused> {
        let present = |member: &Member| member.id == *id && member.state != MemberState::Gone;
        self.members.iter().position(present).ok_or_else(|| Refused::NotAMember(id.short()))
    }

    /// A newcomer takes the number of one that is gone, if nothing refers to it any more.
    fn enter(&self, members: &mut Vec<Member>, member: &Member) -> Result<(), Refused> {
        if self.member(&member.id).is_some() {
            return Err(Refused::Already);
        }
        let owns = |number: usize| {
            Partition::all().any(|p| self.slots.of(p).iter().any(|owner| usize::from(*owner) == number))
        };
        let free = (0..members.len()).find(|number| {
            let sits = self.council.iter().any(|seat| usize::from(*seat) == *number);
            members[*number].state == MemberState::Gone && !sits && !owns(*number)
        });
        match free {
            Some(number) => members[number] = member.clone(),
            None if members.len() >= MAX_MEMBERS => return Err(Refused::TooMany),
            None => members.push(member.clone()),
        }
        Ok(())
    }

    fn remove(
        &self,
        mut members: Vec<Member>,
        id: &NodeId,
        force: Force,
        facts: Facts<'_>,
    ) -> Result<Layout, Refused> {
        let number = self.number(id)?;
        if force == Force::None && !facts.down.contains(id) {
            return Err(Refused::Up);
        }
        members[number].state = MemberState::Gone;
        if !members.iter().any(|member| member.state == MemberState::Active) {
            return Err(Refused::Last);
        }
        let is_lost = |owner: &u16| {
            let owner = &self.members[usize::from(*owner)];
            owner.id == *id || facts.down.contains(&owner.id)
        };
        let left = |partition: Partition| {
            let owners = self.slots.of(partition).iter().copied();
            owners.filter(|owner| !is_lost(owner)).collect::<Vec<u16>>()
        };
        let majority = |owners: usize| owners / 2 + 1;
        let has_majority =
            |partition: Partition| left(partition).len() >= majority(self.slots.of(partition).len());
        if !Partition::all().all(has_majority) {
            // Whatever a majority of all owners had acknowledged, a majority of those left has heard of.
            let covers = |partition: Partition| {
                let (owners, left) = (self.slots.of(partition).len(), left(partition).len());
                left > 0 && majority(left) + majority(owners) > owners
            };
            if force < Force::EvenLost && !Partition::all().all(|p| has_majority(p) || covers(p)) {
                return Err(Refused::Majority);
            }
        }
        if force == Force::None {
            check_room(self, &members, facts)?;
        }
        let mut next = self.with_members(members);
        if Partition::all().all(has_majority) {
            return Ok(next);
        }
        // The new owners sync from those that are left.
        let before = |partition: Partition| match left(partition) {
            _ if has_majority(partition) => self.slots.of(partition).to_vec(),
            owners if owners.is_empty() => next.slots.of(partition).to_vec(),
            owners => owners,
        };
        let rows = Slots::Rows(Partition::all().map(before).collect());
        next.previous_since = self.since_of(&rows, next.version);
        next.previous = Some(rows);
        Ok(next)
    }

    fn check_remaining(&self, members: &[Member], facts: Facts<'_>) -> Result<(), Refused> {
        if !members.iter().any(|member| member.state == MemberState::Active) {
            return Err(Refused::Last);
        }
        check_room(self, members, facts)
    }

    /// How many copies there are of everything with `members`.
    pub fn copies(&self, members: &[Member]) -> usize {
        let active = members.iter().filter(|member| member.state == MemberState::Active).count();
        match self.replicas {
            Replicas::Count(count) => usize::from(count).min(active),
            Replicas::All => active,
        }
    }

    /// Whether as many copies as wanted can be kept with `members`.
    pub fn keeps_copies(&self, members: &[Member]) -> Result<(), Refused> {
        let left = members.iter().filter(|member| member.state == MemberState::Active).count();
        match self.replicas {
            Replicas::Count(count) if left < usize::from(count) => {
                Err(Refused::TooFew { left, copies: usize::from(count) })
            }
            _ => Ok(()),
        }
    }
}

fn set_state(member: &mut Member, state: MemberState) -> Result<(), Refused> {
    if member.state == state {
        return Err(Refused::Already);
    }
    member.state = state;
    Ok(())
}

/// What is stored must fit what the remaining nodes offer.
fn check_room(before: &Layout, members: &[Member], facts: Facts<'_>) -> Result<(), Refused> {
    let copies = before.copies(&before.members).max(1) as u128;
    let needed = u128::from(facts.used) * before.copies(members) as u128 / copies;
    let active = members.iter().filter(|member| member.state == MemberState::Active);
    let capacity: u128 = active.map(|member| u128::from(member.capacity)).sum();
    if needed * 100 <= capacity * u128::from(FULL) {
        return Ok(());
    }
    let small = |bytes: u128| u64::try_from(bytes).unwrap_or(u64::MAX);
    Err(Refused::NoRoom { needed: small(needed), capacity: small(capacity) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::NetworkId, register::LayoutVersion};

    fn member(number: u8) -> Member {
        Member {
            id: NodeId([number; 32]),
            addresses: vec!["127.0.0.1:7433".parse().unwrap()],
            zone: format!("z{number}"),
            capacity: 1000,
            state: MemberState::Active,
        }
    }

    fn settled(layout: Layout) -> Layout {
        if layout.previous.is_some() { layout.without_previous() } else { layout }
    }

    fn of(count: u8) -> Layout {
        let first = Layout::first(NetworkId([1; 16]), Replicas::Count(3), member(0));
        let join = |layout: Layout, number| {
            settled(layout.change(&Change::Join(member(number)), Facts::default()).unwrap())
        };
        (1..count).fold(first, join)
    }

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn a_drained_member_owns_nothing_and_its_number_is_used_again() {
        let layout = of(4);
        let drained = layout.change(&Change::Drain(id(1)), Facts::default()).unwrap();
        assert!(drained.previous.is_some());
        assert!(Partition::all().all(|p| !drained.owners(p).contains(&id(1))));
        assert!(!drained.council.contains(&1));
        assert!(drained.member(&id(1)).is_some(), "still there");
        assert_eq!(drained.change(&Change::Leave(id(1)), Facts::default()), Err(Refused::InTransition));
        let left = settled(drained).change(&Change::Leave(id(1)), Facts::default()).unwrap();
        assert!(left.member(&id(1)).is_none() && left.previous.is_none());
        let joined = left.change(&Change::Join(member(9)), Facts::default()).unwrap();
        assert_eq!((joined.members.len(), joined.members[1].id), (4, id(9)));
    }

    #[test]
    fn what_must_not_be_is_refused() {
        let layout = of(3);
        let change = |change, facts| layout.change(&change, facts).unwrap_err();
        let down = [id(2)];
        let facts = Facts { down: &down, used: 0 };
        assert_eq!(change(Change::Join(member(1)), facts), Refused::Already);
        assert_eq!(change(Change::Drain(id(9)), facts), Refused::NotAMember(id(9).short()));
        assert_eq!(change(Change::Leave(id(1)), facts), Refused::NotDraining);
        assert_eq!(change(Change::Remove { id: id(1), force: Force::None }, facts), Refused::Up);
        let full = Facts { down: &down, used: 2980 };
        let refused = change(Change::Remove { id: id(2), force: Force::None }, full);
        assert_eq!(refused, Refused::NoRoom { needed: 1986, capacity: 2000 }.clone());
        let two_down = [id(1), id(2)];
        let facts = Facts { down: &two_down, used: 0 };
        for force in [Force::None, Force::EvenUp] {
            assert_eq!(change(Change::Remove { id: id(2), force }, facts), Refused::Majority);
        }
        assert_eq!(of(1).change(&Change::Drain(id(0)), Facts::default()), Err(Refused::Last));
        assert!(of(2).keeps_copies(&of(2).members).is_err() && layout.keeps_copies(&layout.members).is_ok());
    }

    #[test]
    fn a_removed_member_still_counts_among_those_before_unless_forced() {
        let layout = of(3);
        let down = [id(2)];
        let facts = Facts { down: &down, used: 0 };
        let removed = layout.change(&Change::Remove { id: id(2), force: Force::None }, facts).unwrap();
        let partition = Partition::all().next().unwrap();
        assert_eq!(removed.previous_owners(partition).len(), 3);
        assert_eq!(removed.owners(partition).len(), 2);
        let two_down = [id(1), id(2)];
        let facts = Facts { down: &two_down, used: 0 };
        let forced = layout.change(&Change::Remove { id: id(2), force: Force::EvenLost }, facts).unwrap();
        assert_eq!(forced.previous_owners(partition), [id(0)]);
        assert_eq!(Layout::decode(&forced.encode()).unwrap(), forced);
        assert_eq!(forced.version, LayoutVersion(layout.version.0 + 1));
    }

    #[test]
    fn of_two_owners_either_has_all_that_was_acknowledged() {
        let (layout, down) = (of(2), [id(1)]);
        let facts = Facts { down: &down, used: 0 };
        let removed = layout.change(&Change::Remove { id: id(1), force: Force::None }, facts).unwrap();
        assert!(Partition::all().all(|partition| removed.previous_owners(partition) == [id(0)]));
        assert!(Partition::all().all(|partition| removed.owners(partition) == [id(0)]));
    }

    #[test]
    fn an_update_moves_what_it_must() {
        let layout = of(4);
        let update = |zone: &str, capacity| Change::Update {
            id: id(1),
            addresses: member(1).addresses,
            zone: zone.into(),
            capacity,
        };
        assert_eq!(layout.change(&update("z1", 1000), Facts::default()), Err(Refused::Already));
        let smaller = layout.change(&update("z1", 500), Facts::default()).unwrap();
        let load = |layout: &Layout| Partition::all().filter(|p| layout.owners(*p).contains(&id(1))).count();
        assert!(load(&smaller) < load(&layout));
    }
}
