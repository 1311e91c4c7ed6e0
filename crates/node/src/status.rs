//! Status: the network at a glance, as this node sees it.

use std::{sync::Arc, time::Duration};

use pando_core::{
    id::{NodeId, Partition},
    layout::Owners,
    name::RegisterName,
    seal::CHUNK,
};
use pando_store::Paged;

use crate::{
    api::{Consistency, Healing, NodeStatus, ObjectCount, Status},
    error::Error,
    inner::Inner,
    peers::Liveness,
    sys::{self, Instant},
};

/// How long counting objects may take; then what was counted is said to be the least.
const COUNTING: Duration = Duration::from_secs(2);

impl Inner {
    /// See [`crate::Node::status`].
    pub(crate) async fn status(self: &Arc<Self>, count: bool) -> Result<Status, Error> {
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
                down_for: if me { None } else { self.peers.down_for(&member.id) },
            }
        };
        Ok(Status {
            network: layout.network,
            layout: layout.version.0,
            in_transition: layout.previous.is_some(),
            replicas: layout.replicas,
            nodes: layout.present().map(node).collect(),
            objects: if count { self.count_objects().await } else { None },
            healing: self.healing_status().await?,
        })
    }

    /// See [`crate::Node::health`].
    pub(crate) fn health(&self) -> Result<(), Error> {
        let layout = self.layout()?;
        let is_up = |node: &NodeId| *node == self.id || self.peers.liveness(node) == Liveness::Up;
        let is_served = |partition| {
            let Owners { nodes, quorum } = layout.partition_quorum(partition);
            quorum.is_met(|owner| is_up(&nodes[usize::from(owner)]))
        };
        let Some(lost) = Partition::all().find(|partition| !is_served(*partition)) else { return Ok(()) };
        let Owners { nodes, quorum } = layout.partition_quorum(lost);
        let down: Vec<String> = nodes.iter().filter(|node| !is_up(node)).map(|node| node.short()).collect();
        Err(Error::NotEnoughNodes {
            what: "some of the data".to_owned(),
            needed: quorum.needed(),
            owners: nodes.len(),
            reachable: nodes.len() - down.len(),
            missing: format!("{} do not answer", down.join(", ")),
        })
    }

    /// What this node does to mend things.
    async fn healing_status(&self) -> Result<Healing, Error> {
        let owed = self.store.owed_counts().await?;
        let count = |mine: bool| -> u64 {
            owed.iter().filter(|(node, _)| (*node == self.id) == mine).map(|(_, count)| count).sum()
        };
        let chunks = self.store.chunk_count().await?;
        let (lacking, rate) = (count(true), self.pace.rate());
        // A chunk that is not here yet is as long as those that are, on average.
        let each = self.store.used_bytes().checked_div(chunks).unwrap_or(CHUNK as u64);
        let done_in = (lacking > 0 && rate > 0).then(|| Duration::from_secs(lacking * each / rate));
        Ok(Healing {
            lacking,
            owing: count(false),
            misplaced: self.misplaced().await?,
            rate,
            done_in,
            scrub: self.scrub_status(chunks),
        })
    }

    /// How many references there are to chunks that belong elsewhere.
    async fn misplaced(&self) -> Result<u64, Error> {
        let layout = self.layout()?;
        let Paged::Page { entries, .. } = self.store.fingerprints(None).await? else { return Ok(0) };
        let foreign = entries.iter().filter(|(partition, ..)| !layout.owners(*partition).contains(&self.id));
        Ok(foreign.map(|(_, _, references)| references.count()).sum())
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
            at_least += page.entries.iter().filter(|(_, shown)| !shown.deleted).count() as u64;
            match page.next {
                Some(next) => after = Some(next),
                None => return Some(ObjectCount { at_least, exact: true }),
            }
        }
    }
}
