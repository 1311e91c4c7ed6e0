//! The layout: who is a member, and which members own which partition. The only thing that nodes must
//! agree on; everything about placement is a pure function of it.
//!
//! Owns the data, its encoding and its checks, and the questions asked of it (owners, quorums, council).
//! [`plan`] computes the slots of the next layout. How a layout is decided is the register protocol's
//! matter: version v + 1 is a write-once register whose owners are the council of v.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    id::{NetworkId, NodeId, PARTITIONS, Partition},
    name::RegisterName,
    register::{LayoutVersion, Quorum},
};

pub mod change;
pub mod plan;

/// Most members that a layout may list. With 1024 partitions of three owners each, more would own less
/// than three partitions each; it also bounds the layout's size to well below a frame.
pub const MAX_MEMBERS: usize = 1024;
/// Most addresses of one member.
pub const MAX_ADDRESSES: usize = 8;
/// Longest zone name, in bytes.
pub const MAX_ZONE: usize = 64;
/// Most members that decide the next version. Three failures of seven are survived, and more members
/// would only make each decision slower.
pub const MAX_COUNCIL: usize = 7;

const FORMAT: u8 = 2;

/// How many copies there are of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replicas {
    /// This many, on distinct members (fewer while there are fewer members).
    Count(u8),
    /// One on every member.
    All,
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// Owns partitions.
    Active,
    /// Still there, but gives up its partitions.
    Draining,
    /// Not a member any more; kept so that numbers of others don't change.
    Gone,
}

/// A node that the layout lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// Where it said it can be reached when its entry was written. It may have moved since: nodes keep an
    /// address book of their own.
    pub addresses: Vec<SocketAddr>,
    /// Where it stands: replicas go to distinct zones when there are enough.
    pub zone: String,
    /// How many bytes it offers.
    pub capacity: u64,
    /// What it does.
    pub state: MemberState,
}

/// Which members own each partition, by their place in the list of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slots {
    /// `width` owners for each partition, one partition after the other.
    Table {
        /// Owners of a partition.
        width: u16,
        /// `width` × 1024 member numbers.
        owners: Vec<u16>,
    },
    /// These members own every partition.
    Everyone(Vec<u16>),
    /// The owners of each partition, in different numbers: what is left of previous slots when nodes were
    /// removed by force.
    Rows(Vec<Vec<u16>>),
}

impl Slots {
    /// The owners of a partition, as member numbers.
    pub fn of(&self, partition: Partition) -> &[u16] {
        match self {
            Slots::Table { width, owners } => {
                let width = usize::from(*width);
                let start = usize::from(partition.number()) * width;
                &owners[start..start + width]
            }
            Slots::Everyone(members) => members,
            Slots::Rows(rows) => &rows[usize::from(partition.number())],
        }
    }

    /// How many slots there are: the length of [`Layout::since`].
    pub fn len(&self) -> usize {
        match self {
            Slots::Table { owners, .. } => owners.len(),
            Slots::Everyone(members) => members.len(),
            Slots::Rows(rows) => rows.iter().map(Vec::len).sum(),
        }
    }

    /// Whether nobody owns anything. Never so for slots that passed the checks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a partition's first slot is among all slots.
    fn first_slot(&self, partition: Partition) -> usize {
        let number = usize::from(partition.number());
        match self {
            Slots::Table { width, .. } => number * usize::from(*width),
            Slots::Everyone(_) => 0,
            Slots::Rows(rows) => rows[..number].iter().map(Vec::len).sum(),
        }
    }

    /// Since when `member` owns a partition, if it does.
    fn owned_since(
        &self,
        since: &[LayoutVersion],
        partition: Partition,
        member: u16,
    ) -> Option<LayoutVersion> {
        let place = self.of(partition).iter().position(|owner| *owner == member)?;
        since.get(self.first_slot(partition) + place).copied()
    }

    fn check(&self, members: usize) -> Result<(), LayoutError> {
        let right_size = match self {
            Slots::Table { width, owners } => {
                *width > 0 && owners.len() == usize::from(*width) * usize::from(PARTITIONS)
            }
            Slots::Everyone(_) => true,
            Slots::Rows(rows) => rows.len() == usize::from(PARTITIONS),
        };
        if !right_size {
            return Err(LayoutError("slot table of the wrong size".into()));
        }
        let names_members =
            |owners: &[u16]| !owners.is_empty() && owners.iter().all(|o| usize::from(*o) < members);
        if !Partition::all().all(|partition| names_members(self.of(partition))) {
            return Err(LayoutError("a slot names no member".into()));
        }
        let distinct = |owners: &[u16]| {
            let mut sorted = owners.to_vec();
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair[0] != pair[1])
        };
        if Partition::all().all(|partition| distinct(self.of(partition))) {
            Ok(())
        } else {
            Err(LayoutError("a partition has one owner twice".into()))
        }
    }
}

/// A layout that can't be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed layout: {0}")]
pub struct LayoutError(String);

/// One version of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Of which network.
    pub network: NetworkId,
    /// Versions form one line.
    pub version: LayoutVersion,
    /// How many copies.
    pub replicas: Replicas,
    /// All that ever were members and whose number is still in use.
    pub members: Vec<Member>,
    /// Who owns what.
    pub slots: Slots,
    /// For each slot, in the order of the partitions and of [`Slots::of`]: since which version its member
    /// has owned the partition without a break.
    pub since: Vec<LayoutVersion>,
    /// While a transition runs: who owned what before. Quorums are then joint.
    pub previous: Option<Slots>,
    /// As `since`, for the previous slots.
    pub previous_since: Vec<LayoutVersion>,
    /// The members that decide the next version, by number.
    pub council: Vec<u16>,
}

/// A layout of format 1, which did not say since when a member owns a partition.
#[derive(Deserialize)]
struct Layout1 {
    network: NetworkId,
    version: LayoutVersion,
    replicas: Replicas,
    members: Vec<Member>,
    slots: Slots,
    previous: Option<Slots>,
    council: Vec<u16>,
}

impl From<Layout1> for Layout {
    fn from(old: Layout1) -> Self {
        // In networks of that time no owner ever left a partition and came back.
        let always = |slots: &Slots| vec![LayoutVersion(0); slots.len()];
        Self {
            network: old.network,
            version: old.version,
            replicas: old.replicas,
            members: old.members,
            since: always(&old.slots),
            previous_since: old.previous.as_ref().map(always).unwrap_or_default(),
            slots: old.slots,
            previous: old.previous,
            council: old.council,
        }
    }
}

/// The owners of a register and which of them must agree.
#[derive(Clone, Debug)]
pub struct Owners {
    /// Everyone to ask.
    pub nodes: Vec<NodeId>,
    /// What is enough.
    pub quorum: Quorum,
}

impl Layout {
    /// The first layout: a network of one.
    pub fn first(network: NetworkId, replicas: Replicas, member: Member) -> Self {
        let slots = match replicas {
            Replicas::Count(_) => Slots::Table { width: 1, owners: vec![0; usize::from(PARTITIONS)] },
            Replicas::All => Slots::Everyone(vec![0]),
        };
        Self {
            network,
            version: LayoutVersion(1),
            replicas,
            members: vec![member],
            since: vec![LayoutVersion(1); slots.len()],
            slots,
            previous: None,
            previous_since: Vec::new(),
            council: vec![0],
        }
    }

    /// The next version with other members: a transition from the slots of this one.
    pub fn with_members(&self, members: Vec<Member>) -> Self {
        let slots = plan::plan(&self.slots, &members, self.replicas);
        let council = plan::council(&self.council, &members);
        let next = Self { version: self.next_version(), members, council, ..self.clone() };
        if slots == self.slots {
            return next;
        }
        Self {
            since: self.since_of(&slots, next.version),
            slots,
            previous: Some(self.slots.clone()),
            previous_since: self.since.clone(),
            ..next
        }
    }

    /// Since when the owners in `slots`, which come with `version`, own their partitions.
    fn since_of(&self, slots: &Slots, version: LayoutVersion) -> Vec<LayoutVersion> {
        let since = |partition: Partition, owner: &u16| {
            self.slots.owned_since(&self.since, partition, *owner).unwrap_or(version)
        };
        if let Slots::Everyone(members) = slots {
            // The same for all partitions, if it was so before; else the shortest.
            let shortest = |owner: &u16| Partition::all().map(|p| since(p, owner)).max().unwrap_or(version);
            return members.iter().map(shortest).collect();
        }
        let of = |partition: Partition| slots.of(partition).iter().map(move |owner| since(partition, owner));
        Partition::all().flat_map(of).collect()
    }

    /// The next version that ends the transition.
    pub fn without_previous(&self) -> Self {
        Self { version: self.next_version(), previous: None, previous_since: Vec::new(), ..self.clone() }
    }

    /// Whether what `node` holds of a partition's registers still counts, if `known` is the last layout that it
    /// knew before this one: only if it has owned the partition ever since. If not, its rows may be older than
    /// what others have forgotten since (deleted, and purged), and must go before it answers anything under
    /// this layout.
    pub fn keeps_registers(&self, partition: Partition, node: &NodeId, known: LayoutVersion) -> bool {
        if crate::mutant("old-rows-kept") {
            return true;
        }
        let Some(number) = self.members.iter().zip(0u16..).find(|(m, _)| m.id == *node).map(|(_, n)| n)
        else {
            return false;
        };
        let current = self.slots.owned_since(&self.since, partition, number);
        let before = self.previous.as_ref();
        let before = before.and_then(|slots| slots.owned_since(&self.previous_since, partition, number));
        current.is_some_and(|since| since <= known) || before.is_some_and(|since| since <= known)
    }

    /// The version after this one.
    pub fn next_version(&self) -> LayoutVersion {
        LayoutVersion(self.version.0 + 1)
    }

    /// The member with this id, if it is one.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == *id && member.state != MemberState::Gone)
    }

    /// All that are members.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state != MemberState::Gone)
    }

    /// The owners of a partition in the current slots.
    pub fn owners(&self, partition: Partition) -> Vec<NodeId> {
        self.slots.of(partition).iter().map(|owner| self.id_of(*owner)).collect()
    }

    /// The owners of a partition before the transition, if one runs.
    pub fn previous_owners(&self, partition: Partition) -> Vec<NodeId> {
        let owners = self.previous.as_ref().map(|slots| slots.of(partition)).unwrap_or_default();
        owners.iter().map(|owner| self.id_of(*owner)).collect()
    }

    /// Who holds a register, and who must agree: the council for a layout, else the owners of its
    /// partition; during a transition the old and the new ones.
    pub fn quorum(&self, name: &RegisterName) -> Owners {
        if name.layout_version().is_some() {
            return self.owners_of(&[&self.council]);
        }
        self.partition_quorum(name.partition())
    }

    /// As [`Layout::quorum`], for the registers of a partition.
    pub fn partition_quorum(&self, partition: Partition) -> Owners {
        match &self.previous {
            None => self.owners_of(&[self.slots.of(partition)]),
            Some(previous) => self.owners_of(&[self.slots.of(partition), previous.of(partition)]),
        }
    }

    /// A majority of the owners before the transition: whom a new owner asks when it syncs.
    pub fn previous_quorum(&self, partition: Partition) -> Option<Owners> {
        self.previous.as_ref().map(|previous| self.owners_of(&[previous.of(partition)]))
    }

    /// A majority of the current slots' owners alone: who must have synced before a transition ends.
    pub fn current_quorum(&self, partition: Partition) -> Owners {
        self.owners_of(&[self.slots.of(partition)])
    }

    fn owners_of(&self, groups: &[&[u16]]) -> Owners {
        let mut members: Vec<u16> = Vec::new();
        let mut numbered = |owner: u16| {
            let place = members.iter().position(|member| *member == owner).unwrap_or_else(|| {
                members.push(owner);
                members.len() - 1
            });
            place as u16
        };
        let groups = groups.iter().map(|group| group.iter().map(|o| numbered(*o)).collect()).collect();
        Owners {
            nodes: members.iter().map(|owner| self.id_of(*owner)).collect(),
            quorum: Quorum::joint(groups),
        }
    }

    fn id_of(&self, number: u16) -> NodeId {
        self.members[usize::from(number)].id
    }

    /// The layout's bytes.
    pub fn encode(&self) -> Bytes {
        postcard::to_extend(self, vec![FORMAT]).expect("a layout is plain data").into()
    }

    /// A layout from the disk or the wire, with everything checked that later code relies on.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let bad = |why: &str| LayoutError(why.to_owned());
        let layout: Layout = match bytes.split_first() {
            Some((&FORMAT, rest)) => {
                postcard::from_bytes(rest).map_err(|why| LayoutError(why.to_string()))?
            }
            Some((1, rest)) => {
                postcard::from_bytes::<Layout1>(rest).map_err(|why| LayoutError(why.to_string()))?.into()
            }
            Some((format, _)) => return Err(LayoutError(format!("format {format}: upgrade this node"))),
            None => return Err(bad("empty")),
        };
        if layout.version.0 == 0 {
            return Err(bad("version 0"));
        }
        if layout.members.is_empty() || layout.members.len() > MAX_MEMBERS {
            return Err(bad("too few or too many members"));
        }
        for member in &layout.members {
            if member.addresses.len() > MAX_ADDRESSES || member.zone.len() > MAX_ZONE {
                return Err(bad("a member with too many addresses or too long a zone"));
            }
        }
        layout.slots.check(layout.members.len())?;
        if let Some(previous) = &layout.previous {
            previous.check(layout.members.len())?;
        }
        let previous_slots = layout.previous.as_ref().map_or(0, Slots::len);
        if layout.since.len() != layout.slots.len() || layout.previous_since.len() != previous_slots {
            return Err(bad("a slot without the time since when it is owned"));
        }
        let council_is_good = !layout.council.is_empty()
            && layout.council.len() <= MAX_COUNCIL
            && layout.council.iter().all(|number| usize::from(*number) < layout.members.len());
        if council_is_good { Ok(layout) } else { Err(bad("a council that can't decide")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8) -> Member {
        Member {
            id: NodeId([number; 32]),
            addresses: vec!["127.0.0.1:7433".parse().unwrap()],
            zone: format!("zone-{number}"),
            capacity: 1 << 40,
            state: MemberState::Active,
        }
    }

    fn grown(count: u8) -> Layout {
        let mut layout = Layout::first(NetworkId([1; 16]), Replicas::Count(3), member(0));
        for number in 1..count {
            let mut members = layout.members.clone();
            members.push(member(number));
            layout = layout.with_members(members).without_previous();
        }
        layout
    }

    #[test]
    fn a_transition_needs_both_majorities() {
        let first = grown(1);
        let mut members = first.members.clone();
        members.push(member(1));
        let second = first.with_members(members);
        assert_eq!(second.version, LayoutVersion(2));
        let owners = second.partition_quorum(Partition::new(5).unwrap());
        assert_eq!(owners.nodes.len(), 2);
        assert!(!owners.quorum.is_met(|owner| owner == 0) && owners.quorum.is_met(|_| true));
        let name = RegisterName::layout(LayoutVersion(3));
        assert_eq!(second.quorum(&name).nodes, [member(0).id], "a council of an odd number");
    }

    #[test]
    fn the_layout_of_format_1_still_reads() {
        let layout = Layout::first(NetworkId([1; 16]), Replicas::All, member(2));
        let old = [
            "01",
            &"01".repeat(16),
            "01",
            "01",
            "01",
            &"02".repeat(32),
            "01",
            "00",
            "7f000001",
            "893a",
            "067a6f6e652d32",
            "808080808020",
            "00",
            "01",
            "01",
            "00",
            "00",
            "01",
            "00",
        ];
        let old = data_encoding::HEXLOWER.decode(old.concat().as_bytes()).unwrap();
        let read = Layout::decode(&old).unwrap();
        assert_eq!(read, Layout { since: vec![LayoutVersion(0)], ..layout });
    }

    #[test]
    fn the_layout_of_format_2_still_reads() {
        let layout = Layout::first(NetworkId([1; 16]), Replicas::All, member(2));
        let head = ["02", &"01".repeat(16), "01", "01", "01", &"02".repeat(32), "01", "00", "7f000001"];
        let tail = ["893a", "067a6f6e652d32", "808080808020", "00", "01", "01", "00", "01", "01", "00", "00"];
        let old = [head.concat(), tail.concat(), "0100".into()].concat();
        let old = data_encoding::HEXLOWER.decode(old.as_bytes()).unwrap();
        assert_eq!(Layout::decode(&old).unwrap(), layout);
        assert_eq!(layout.encode(), old);
    }

    #[test]
    fn who_left_a_partition_and_came_back_must_not_show_what_it_held() {
        let with_state = |layout: &Layout, number: usize, state| {
            let mut members = layout.members.clone();
            members[number].state = state;
            layout.with_members(members)
        };
        let first = grown(4);
        let leaves = with_state(&first, 1, MemberState::Draining);
        let left = leaves.without_previous();
        let returns = with_state(&left, 1, MemberState::Active);
        let returned = returns.without_previous();
        let me = member(1).id;
        let owned = |layout: &Layout, p: Partition| layout.owners(p).contains(&me);
        let partition = Partition::all().find(|p| owned(&first, *p) && owned(&returned, *p)).unwrap();
        let keeps = |layout: &Layout, known: &Layout| layout.keeps_registers(partition, &me, known.version);
        assert!(keeps(&leaves, &first), "a previous owner is still asked");
        assert!(!keeps(&left, &leaves) && !keeps(&left, &first));
        assert!(!keeps(&returns, &left) && !keeps(&returns, &first) && !keeps(&returned, &leaves));
        assert!(keeps(&returned, &returns), "it has owned it since");
        let stays = member(0).id;
        let always = Partition::all().find(|p| first.owners(*p).contains(&stays)).unwrap();
        let through = |layout: &Layout| layout.owners(always).contains(&stays);
        if through(&left) && through(&returned) {
            assert!(returned.keeps_registers(always, &stays, first.version));
        }
    }

    #[test]
    fn layouts_survive_encoding_and_are_checked() {
        let layout = grown(5);
        assert_eq!(Layout::decode(&layout.encode()).unwrap(), layout);
        let mut bad = layout.clone();
        bad.council = vec![9];
        assert!(Layout::decode(&bad.encode()).is_err());
        let mut bad = layout;
        bad.slots = Slots::Everyone(vec![0, 0]);
        assert!(Layout::decode(&bad.encode()).is_err());
        assert!(Layout::decode(&[9, 1, 2]).unwrap_err().to_string().contains("upgrade"));
    }
}
