//! The line of layouts that a configuration goes through, as the production `Layout` answers for it: who owns
//! the registers at each version, whose majorities count, and whom a new owner asks.
//!
//! All registers of the model are in one partition; a node is known by its number.

use std::sync::Arc;

use pando_core::{
    id::{NetworkId, NodeId, Partition},
    layout::{self, Layout, Member, MemberState, Replicas, Slots},
    register::{LayoutVersion, Quorum},
};

/// Most nodes.
pub(crate) const NODES: usize = 5;
/// Most versions: a ballot of the model has three bits for one.
pub(crate) const VERSIONS: u8 = 7;

/// Some nodes and which of them must agree.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    /// Their numbers; a quorum knows them by their places here.
    pub(crate) nodes: Vec<u8>,
    /// What is enough.
    pub(crate) quorum: Quorum,
}

impl Owners {
    fn of(owners: layout::Owners) -> Self {
        let nodes = owners.nodes.iter().map(|node| node.0[0]).collect();
        Self { nodes, quorum: owners.quorum }
    }

    /// The place of a node among them.
    pub(crate) fn place(&self, node: usize) -> Option<u16> {
        self.nodes.iter().position(|owner| usize::from(*owner) == node).map(|place| place as u16)
    }

    /// Whether those nodes for which `answered` holds are enough.
    pub(crate) fn is_met(&self, answered: impl Fn(usize) -> bool) -> bool {
        self.quorum.is_met(|place| answered(usize::from(self.nodes[usize::from(place)])))
    }
}

/// One version.
#[derive(Clone, Debug)]
struct Version {
    joint: Owners,
    slots: Owners,
    previous: Option<Owners>,
}

/// All versions there will ever be, in their order; which are decided yet is the world's to know.
#[derive(Clone, Debug)]
pub(crate) struct Layouts(Arc<[Version]>);

impl Layouts {
    /// One version, of nodes 0, 1 and 2.
    pub(crate) fn one() -> Self {
        Self::line(&[&[0, 1, 2]], true)
    }

    /// The versions that lead from one set of owners to the next: each but the first is reached by a version
    /// with the previous ones, and then one without; or `unended`, if the last of these does not come.
    pub(crate) fn line(sets: &[&[u16]], unended: bool) -> Self {
        let member = |number: u8| Member {
            id: NodeId([number; 32]),
            addresses: Vec::new(),
            zone: String::new(),
            capacity: 1,
            state: MemberState::Active,
        };
        let mut layout = Layout::first(NetworkId([0; 16]), Replicas::All, member(0));
        layout.members = (0..NODES as u8).map(member).collect();
        let mut versions = Vec::new();
        for set in sets {
            let slots = Slots::Everyone(set.to_vec());
            if versions.is_empty() {
                layout.slots = slots;
                versions.push(layout.clone());
                continue;
            }
            let previous = Some(layout.slots.clone());
            layout = Layout { version: layout.next_version(), slots, previous, ..layout };
            versions.push(layout.clone());
            layout = layout.without_previous();
            versions.push(layout.clone());
        }
        if unended && versions.len() > 1 {
            versions.pop();
        }
        assert!(versions.len() <= usize::from(VERSIONS), "versions of the model are few");
        assert!(versions.iter().zip(1..).all(|(layout, version)| layout.version == LayoutVersion(version)));
        let partition = Partition::all().next().expect("there are partitions");
        let version = |layout: &Layout| Version {
            joint: Owners::of(layout.partition_quorum(partition)),
            slots: Owners::of(layout.current_quorum(partition)),
            previous: layout.previous_quorum(partition).map(Owners::of),
        };
        Self(versions.iter().map(version).collect())
    }

    fn at(&self, version: u8) -> &Version {
        &self.0[usize::from(version) - 1]
    }

    /// The last version.
    pub(crate) fn last(&self) -> u8 {
        self.0.len() as u8
    }

    /// Who holds the registers, and who must agree.
    pub(crate) fn joint(&self, version: u8) -> &Owners {
        &self.at(version).joint
    }

    /// The owners to come, alone.
    pub(crate) fn slots(&self, version: u8) -> &Owners {
        &self.at(version).slots
    }

    /// The owners that were, while a transition runs.
    pub(crate) fn previous(&self, version: u8) -> Option<&Owners> {
        self.at(version).previous.as_ref()
    }

    /// Since which version a node has been among the owners to come.
    pub(crate) fn since(&self, version: u8, node: usize) -> Option<u8> {
        let owns = |version: &u8| self.slots(*version).place(node).is_some();
        (1..=version).rev().take_while(owns).last()
    }

    /// Whether a node was an owner at this version or before it.
    pub(crate) fn ever_owned(&self, version: u8, node: usize) -> bool {
        (1..=version).any(|version| self.joint(version).place(node).is_some())
    }

    /// Whether a node takes part in this version.
    pub(crate) fn takes_part(&self, version: u8, node: usize) -> bool {
        self.joint(version).place(node).is_some()
    }
}
