//! Status: the network at a glance, as this node sees it.

use std::{sync::Arc, time::Duration};

use pando_core::name::RegisterName;

use crate::{
    api::{Consistency, NodeStatus, ObjectCount, Status},
    error::Error,
    inner::Inner,
    peers::Liveness,
    sys::{self, Instant},
};

/// How long counting objects may take; then what was counted is said to be the least.
const COUNTING: Duration = Duration::from_secs(2);

impl Inner {
    /// See [`crate::Node::status`].
    pub(crate) async fn status(self: &Arc<Self>) -> Result<Status, Error> {
        let layout = self.layout()?;
        let owed = self.store.owed_count().await?;
        let node = |member: &pando_core::layout::Member| {
            let me = member.id == self.id;
            let said = self.peers.said(&member.id);
            NodeStatus {
                id: member.id,
                state: member.state,
                zone: member.zone.clone(),
                addresses: self.peers.addresses(&member.id).unwrap_or_else(|| member.addresses.clone()),
                up: me || self.peers.liveness(&member.id) == Liveness::Up,
                me,
                used: if me { Some(self.store.used_bytes()) } else { said.map(|said| said.used) },
                capacity: if me { self.capacity } else { said.map_or(member.capacity, |said| said.capacity) },
                owed: if me { Some(owed) } else { said.map(|said| said.owed) },
                down_for: None,
            }
        };
        Ok(Status {
            network: layout.network,
            layout: layout.version.0,
            in_transition: layout.previous.is_some(),
            replicas: layout.replicas,
            nodes: layout.present().map(node).collect(),
            objects: self.count_objects().await,
            healing: crate::api::Healing::default(),
        })
    }

    /// Counts objects, as far as that goes in a short time. `None`: too few nodes answer.
    async fn count_objects(self: &Arc<Self>) -> Option<ObjectCount> {
        let deadline = Instant::now() + COUNTING;
        let prefix: bytes::Bytes = RegisterName::all_objects_prefix().into();
        let mut at_least = 0;
        let mut after = None;
        loop {
            let page = self.page(prefix.clone(), after, usize::MAX, Consistency::Linearizable);
            let page = match sys::timeout_at(deadline, page).await {
                Ok(Ok(page)) => page,
                Ok(Err(_)) => return None,
                Err(_elapsed) if at_least == 0 => return None,
                Err(_elapsed) => return Some(ObjectCount { at_least, exact: false }),
            };
            at_least += page.entries.len() as u64;
            match page.next {
                Some(next) => after = Some(next),
                None => return Some(ObjectCount { at_least, exact: true }),
            }
        }
    }
}
