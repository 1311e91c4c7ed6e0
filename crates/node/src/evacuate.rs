//! Evacuation: what this node holds and does not own (any more) goes to its owners, and is dropped once all
//! of them have confirmed, durably, that they hold it for the same versions.
//!
//! That is what is left after a layout change, what a draining node gives up, and what was taken in for
//! owners that were down or full. (Registers need none of this: their new owners sync before a transition
//! ends, and the rows here go with the layout that takes them away.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use pando_core::{
    id::{ChunkId, NodeId, Partition, WriteId},
    layout::Layout,
    name::RegisterName,
    wire::{Offer, Reply, Request},
};

use crate::{
    error::Error,
    inner::{Inner, Message},
    peers::Liveness,
    sys,
};

/// Chunks that are offered at once.
const BATCH: usize = 256;
/// References of one chunk that are handed over at once; one with more takes several rounds.
const REFERENCES: usize = 4096;
/// How long the new owners may fetch by themselves before what they lack is brought to them.
const HEAD_START: Duration = Duration::from_secs(2);
/// Between rounds while there is something to hand over, and when there is nothing.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Hands over and drops until the node stops.
pub(crate) async fn evacuate(inner: Arc<Inner>) {
    let mut layouts = inner.layouts();
    loop {
        layouts.mark_unchanged();
        let left = match round(&inner).await {
            Ok(left) => left,
            Err(error) => {
                tracing::debug!(%error, "handing over goes on later");
                1
            }
        };
        let pause = if left > 0 { PAUSE.0 } else { PAUSE.1 };
        tokio::select! {
            biased;
            changed = layouts.changed() => match changed {
                Ok(()) => sys::sleep(HEAD_START).await,
                Err(_closed) => return,
            },
            () = sys::sleep(pause + sys::jitter(pause / 4)) => {}
        }
    }
}

/// One look at everything that is not this node's; returns how many chunks are still to hand over.
async fn round(inner: &Arc<Inner>) -> Result<u64, Error> {
    let layout = inner.layout()?;
    // Who owns what is about to change once more; and previous owners are still asked.
    if layout.previous.is_some() || layout.member(&inner.id).is_none() {
        return Ok(0);
    }
    let foreign: Vec<Partition> =
        Partition::all().filter(|partition| !layout.owners(*partition).contains(&inner.id)).collect();
    let mut left = 0;
    for partition in foreign {
        left += partition_out(inner, &layout, partition).await?;
    }
    Ok(left)
}

async fn partition_out(inner: &Arc<Inner>, layout: &Arc<Layout>, partition: Partition) -> Result<u64, Error> {
    let mut left = 0;
    let mut after = None;
    loop {
        let page = inner.store.chunks_page(Some(partition), after, BATCH).await?;
        let Some((last, _)) = page.last() else { return Ok(left) };
        after = Some(*last);
        let chunks = page.into_iter().map(|(chunk, _)| chunk).collect();
        left += hand_over(inner, layout, &layout.owners(partition), chunks).await?;
    }
}

/// Offers chunks to their owners; drops those that all have, notes the others as owed. Returns how many stay.
async fn hand_over(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    owners: &[NodeId],
    chunks: Vec<ChunkId>,
) -> Result<u64, Error> {
    // All must confirm: while one is away there is nothing to do, and others' chunks don't wait for it.
    if !owners.iter().all(|owner| inner.peers.liveness(owner) == Liveness::Up) {
        return Ok(chunks.len() as u64);
    }
    let mut versions: BTreeMap<ChunkId, Vec<WriteId>> = BTreeMap::new();
    let mut offers: BTreeMap<WriteId, (RegisterName, Vec<ChunkId>)> = BTreeMap::new();
    for chunk in &chunks {
        for (version, name) in inner.store.all_references(*chunk, REFERENCES).await? {
            versions.entry(*chunk).or_default().push(version);
            offers.entry(version).or_insert_with(|| (name, Vec::new())).1.push(*chunk);
        }
    }
    let mut lacking: BTreeSet<(NodeId, ChunkId)> = BTreeSet::new();
    for (version, (name, chunks)) in offers {
        let offer = Offer { version, name, chunks: chunks.clone() };
        let message = Message::from(Request::Offer(offer));
        for owner in owners {
            match inner.ask(*owner, &message).await {
                Ok(Reply::Held(held)) if held.len() == chunks.len() => {
                    let missing = chunks.iter().zip(held).filter(|(_, held)| !held);
                    lacking.extend(missing.map(|(chunk, _)| (*owner, *chunk)));
                }
                // It is not reached: nothing is confirmed, and nothing is owed before it can be asked.
                _ => return Ok(chunks.len() as u64),
            }
        }
    }
    if !lacking.is_empty() {
        let owed: Vec<(NodeId, ChunkId)> = lacking.iter().copied().collect();
        for owed in owed.chunks(BATCH) {
            inner.store.owe(owed).await?;
        }
        inner.healing.notify_one();
    }
    let mut left = 0;
    for chunk in chunks {
        let confirmed = pando_core::mutant("drop-before-confirm")
            || !lacking.iter().any(|(_, missing)| *missing == chunk);
        // An owner again by now: it stays.
        let same_layout = inner.layout()?.version == layout.version;
        let confirmed_for = versions.remove(&chunk).unwrap_or_default();
        if !(confirmed && same_layout && inner.store.evict(chunk, &confirmed_for).await?) {
            left += 1;
        }
    }
    Ok(left)
}
