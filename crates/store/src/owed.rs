//! The resync queue: which chunks this node owes to others, and which it must fetch for itself.

use std::ops::Bound;

use pando_core::id::{ChunkId, NodeId};
use redb::{ReadableTable as _, ReadableTableMetadata as _};

use crate::{
    error::Error,
    index::{OWED, RESYNC},
    store::Store,
    versions::{MAX_BATCH, check_batch},
};

impl Store {
    /// Puts entries into the queue, durably. At most [`MAX_BATCH`].
    pub async fn owe(&self, entries: &[(NodeId, ChunkId)]) -> Result<(), Error> {
        check_batch("entries of the resync queue", entries.len())?;
        let entries = entries.to_vec();
        self.change(entries.len(), move |group| {
            if !entries.is_empty() {
                group.grow()?;
            }
            for (node, id) in &entries {
                group.owe(*node, id)?;
            }
            Ok(())
        })
        .await
    }

    /// Entries in order of node, then chunk: of one node or of all, after `after`, at most `limit`.
    pub async fn owed(
        &self,
        node: Option<NodeId>,
        after: Option<(NodeId, ChunkId)>,
        limit: usize,
    ) -> Result<Vec<(NodeId, ChunkId)>, Error> {
        self.look(move |_, txn| {
            let first = node.map_or([0; 32], |node| node.0);
            let last = node.map_or([0xff; 32], |node| node.0);
            let from = match &after {
                Some((node, id)) if node.0 >= first => Bound::Excluded((&node.0, &id.0)),
                _ => Bound::Included((&first, &[0; 32])),
            };
            if after.is_some_and(|(node, _)| node.0 > last) {
                return Ok(Vec::new());
            }
            let table = txn.open_table(RESYNC)?;
            let entries = table.range((from, Bound::Included((&last, &[0xff; 32]))))?;
            entries
                .take(limit.min(MAX_BATCH))
                .map(|entry| {
                    let (key, _) = entry?;
                    let (node, id) = key.value();
                    Ok((NodeId(*node), ChunkId(*id)))
                })
                .collect()
        })
        .await
    }

    /// Takes entries out of the queue, durably. At most [`MAX_BATCH`]. What this node itself needs and does not
    /// hold stays in it.
    pub async fn settle(&self, entries: &[(NodeId, ChunkId)]) -> Result<(), Error> {
        check_batch("entries of the resync queue", entries.len())?;
        let entries = entries.to_vec();
        self.change(entries.len(), move |group| {
            entries.iter().try_for_each(|(node, id)| group.settle(*node, id))
        })
        .await
    }

    /// How many entries the queue has.
    pub async fn owed_count(&self) -> Result<u64, Error> {
        self.look(|_, txn| Ok(txn.open_table(RESYNC)?.len()?)).await
    }

    /// How many entries the queue has for each node.
    pub async fn owed_counts(&self) -> Result<Vec<(NodeId, u64)>, Error> {
        self.look(|_, txn| {
            let owed = txn.open_table(OWED)?;
            let count = |row: Result<_, redb::StorageError>| {
                let (node, count): (redb::AccessGuard<'_, &[u8; 32]>, redb::AccessGuard<'_, u64>) = row?;
                Ok((NodeId(*node.value()), count.value()))
            };
            owed.iter()?.map(count).collect()
        })
        .await
    }
}
