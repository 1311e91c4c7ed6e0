//! Whose answers speak for every partition: a majority of the owners of each (of both sets during a transition).
//!
//! A listing asks about all partitions at once. Many of them have the same owners, so each set is looked at once, and
//! what was found out for a layout is kept as long as that layout.

use std::sync::{Arc, Mutex, PoisonError};

use pando_core::{
    id::{NodeId, Partition},
    layout::{Layout, Owners},
    register::LayoutVersion,
};

/// In larger networks everyone is asked: to find out who need not be would take longer than their answers.
const SMALL: usize = 16;

/// The sets of owners of one layout.
pub(crate) struct Cover {
    version: LayoutVersion,
    quorums: Vec<Owners>,
    /// Members in the order in which they were last given to [`Cover::nearest`], and how many were chosen of them.
    nearest: Mutex<(Vec<NodeId>, Choice)>,
}

/// Members to ask, and those that need not be.
pub(crate) type Choice = (Vec<NodeId>, Vec<NodeId>);

impl Cover {
    fn of(layout: &Layout) -> Self {
        let mut quorums: Vec<Owners> =
            Partition::all().map(|partition| layout.partition_quorum(partition)).collect();
        if layout.previous.is_none() {
            // In whichever order: a majority is one.
            let sorted = |owners: &Owners| {
                let mut nodes = owners.nodes.clone();
                nodes.sort_unstable();
                nodes
            };
            quorums.sort_by_cached_key(sorted);
            quorums.dedup_by_key(|owners| sorted(owners));
        }
        Self { version: layout.version, quorums, nearest: Mutex::default() }
    }

    /// Whether those who answered are a majority of each partition's owners.
    pub(crate) fn is_met(&self, answered: impl Fn(&NodeId) -> bool) -> bool {
        self.quorums
            .iter()
            .all(|Owners { nodes, quorum }| quorum.is_met(|owner| answered(&nodes[usize::from(owner)])))
    }

    /// Of members, the nearest first: those that are enough, and the others.
    pub(crate) fn nearest(&self, members: Vec<NodeId>) -> Choice {
        if members.len() > SMALL {
            return (members, Vec::new());
        }
        let mut last = self.nearest.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != members {
            let (mut chosen, mut spare) = (members.clone(), Vec::new());
            for member in members.iter().rev() {
                if self.is_met(|node| node != member && chosen.contains(node)) {
                    chosen.retain(|node| node != member);
                    spare.push(*member);
                }
            }
            *last = (members, (chosen, spare));
        }
        last.1.clone()
    }
}

/// The last layout's cover.
#[derive(Default)]
pub(crate) struct Covers(Mutex<Option<Arc<Cover>>>);

impl Covers {
    /// The cover of a layout.
    pub(crate) fn of(&self, layout: &Layout) -> Arc<Cover> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(cover) if cover.version == layout.version => Arc::clone(cover),
            _ => Arc::clone(last.insert(Arc::new(Cover::of(layout)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use pando_core::{
        id::NetworkId,
        layout::{Member, MemberState, Replicas},
    };

    use super::*;

    fn layout_of(count: u8) -> Layout {
        let member = |number: u8| Member {
            id: NodeId([number; 32]),
            addresses: vec!["127.0.0.1:7433".parse().unwrap()],
            zone: "default".to_owned(),
            capacity: 1 << 40,
            state: MemberState::Active,
        };
        let first = Layout::first(NetworkId([1; 16]), Replicas::Count(3), member(0));
        (1..count).fold(first, |layout, number| {
            let members = [layout.members.clone(), vec![member(number)]].concat();
            layout.with_members(members).without_previous()
        })
    }

    #[test]
    fn of_three_nodes_with_three_copies_two_are_enough() {
        let layout = layout_of(3);
        let cover = Cover::of(&layout);
        assert_eq!(cover.quorums.len(), 1, "the same three own everything");
        let members: Vec<NodeId> = layout.present().map(|member| member.id).collect();
        let (chosen, spare) = cover.nearest(members.clone());
        assert_eq!((chosen.as_slice(), spare.as_slice()), (&members[..2], &members[2..]));
        assert!(cover.is_met(|node| chosen.contains(node)));
        assert!(!cover.is_met(|node| *node == members[0]));
    }

    #[test]
    fn who_is_chosen_speaks_for_every_partition() {
        for nodes in 1..=9 {
            let layout = layout_of(nodes);
            let cover = Cover::of(&layout);
            let members: Vec<NodeId> = layout.present().map(|member| member.id).collect();
            let (chosen, spare) = cover.nearest(members.clone());
            assert_eq!(chosen.len() + spare.len(), members.len());
            for partition in Partition::all() {
                let Owners { nodes, quorum } = layout.partition_quorum(partition);
                assert!(quorum.is_met(|owner| chosen.contains(&nodes[usize::from(owner)])));
            }
        }
    }
}
