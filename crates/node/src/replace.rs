//! Members that leave the layout without anyone asking: one that is unreachable for `dead_after` is removed,
//! one that drains leaves once it is empty.
//!
//! Gossip alone never moves data. A member that flaps is not down for `dead_after` in one piece; one change
//! is made at a time, each is decided by the council, and none that the remaining nodes have no room for.

use std::{sync::Arc, time::Duration};

use pando_core::{
    id::NodeId,
    layout::{
        Layout, MemberState,
        change::{Change, Force},
    },
};

use crate::{error::Error, inner::Inner, sys};

/// How often a node looks, at most and at least.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Removes members that are down for too long, until the node stops.
pub(crate) async fn replace(inner: Arc<Inner>, dead_after: Duration) {
    let pause = (dead_after / 8).clamp(LOOK.0, LOOK.1);
    loop {
        // Not all council members at the same moment; the layout's register would settle it anyway.
        sys::sleep(pause + sys::jitter(pause)).await;
        let Some(layout) = inner.layout_now() else { return };
        for dead in dead_members(&inner, &layout, dead_after) {
            tracing::warn!(node = %dead.short(), after = ?dead_after, "unreachable for too long: being replaced");
            match inner.change_members(&Change::Remove { id: dead, force: Force::None }).await {
                Ok(()) => {
                    tracing::info!(node = %dead.short(), "replaced: the others take over what it held");
                    break;
                }
                // Perhaps there is room for what another dead member held.
                Err(error) => tracing::warn!(node = %dead.short(), %error, "it is not replaced now"),
            }
        }
    }
}

/// The members to remove, the longest dead first; none if this node is not among those that decide.
fn dead_members(inner: &Inner, layout: &Layout, dead_after: Duration) -> Vec<NodeId> {
    let sits = layout.council.iter().any(|seat| layout.members[usize::from(*seat)].id == inner.id);
    if !sits || layout.previous.is_some() {
        return Vec::new();
    }
    let down = |id: &NodeId| inner.peers.down_for(id).filter(|down| *down >= dead_after);
    let others = layout.present().map(|member| member.id).filter(|id| *id != inner.id);
    let mut dead: Vec<(Duration, NodeId)> = others.filter_map(|id| Some((down(&id)?, id))).collect();
    dead.sort_unstable_by(|a, b| b.cmp(a));
    dead.into_iter().map(|(_, id)| id).collect()
}

/// Leaves the network once this node drains and is empty.
pub(crate) async fn leave_when_empty(inner: Arc<Inner>) {
    loop {
        sys::sleep(LOOK.0 + sys::jitter(LOOK.0)).await;
        let Some(layout) = inner.layout_now() else { return };
        let drains = layout.member(&inner.id).is_some_and(|me| me.state == MemberState::Draining);
        if !drains || layout.previous.is_some() {
            continue;
        }
        match is_empty(&inner).await {
            Ok(true) => match inner.change_members(&Change::Leave(inner.id)).await {
                Ok(()) => tracing::info!("drained: this node holds nothing any more and has left"),
                Err(error) => tracing::warn!(%error, "this node is empty but can't leave now"),
            },
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "whether this node is empty is not known"),
        }
    }
}

async fn is_empty(inner: &Inner) -> Result<bool, Error> {
    Ok(inner.store.chunk_count().await? == 0)
}
