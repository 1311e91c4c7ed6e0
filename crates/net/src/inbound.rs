//! Lanes taken from peers: how many each has, and which tasks serve them, so that one peer can't take all
//! connections and can be cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pando_core::id::NodeId;

use crate::tasks::TaskId;

/// Cloneable handle. An entry lives as long as the peer has a lane here.
#[derive(Clone, Default)]
pub(crate) struct Inbound(Arc<Mutex<BTreeMap<NodeId, BTreeSet<TaskId>>>>);

impl Inbound {
    /// Enters a lane that `task` serves, unless the peer has `most` already.
    pub(crate) fn enter(&self, peer: NodeId, task: TaskId, most: usize) -> Option<Entered> {
        let mut lanes = self.lock();
        let tasks = lanes.entry(peer).or_default();
        if tasks.len() >= most {
            return None;
        }
        tasks.insert(task);
        Some(Entered { inbound: self.clone(), peer, task })
    }

    /// The tasks that serve a peer.
    pub(crate) fn of(&self, peer: &NodeId) -> Vec<TaskId> {
        self.lock().get(peer).into_iter().flatten().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, BTreeSet<TaskId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One lane's entry, while it lasts.
pub(crate) struct Entered {
    inbound: Inbound,
    peer: NodeId,
    task: TaskId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut lanes = self.inbound.lock();
        if let Some(tasks) = lanes.get_mut(&self.peer) {
            tasks.remove(&self.task);
            if tasks.is_empty() {
                lanes.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Tasks;

    #[tokio::test]
    async fn a_peer_has_so_many_and_no_more() {
        let (inbound, tasks, peer) = (Inbound::default(), Tasks::default(), NodeId([7; 32]));
        let ids: Vec<_> = (0..3).map(|_| tasks.spawn(|_| async {})).collect();
        let first = inbound.enter(peer, ids[0], 2).unwrap();
        let _second = inbound.enter(peer, ids[1], 2).unwrap();
        assert!(inbound.enter(peer, ids[2], 2).is_none());
        drop(first);
        assert_eq!(inbound.of(&peer), [ids[1]]);
        let third = inbound.enter(peer, ids[2], 2).unwrap();
        drop((_second, third));
        assert!(inbound.lock().is_empty());
    }
}
