//! The pulse: once a second every node tells every other that it is there, where it is, and what it knows.
//!
//! It carries the layout's version (whoever is behind fetches the newer one), the address book (a node that
//! moved is found again), and the figures that `pando status` shows. It never moves data.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pando_core::{
    id::NodeId,
    layout::Layout,
    register::LayoutVersion,
    wire::{AddressEntry, Pulse, Reply, Request},
};

use crate::{
    inner::{Inner, Message},
    sys::{self, Instant},
};

/// How often.
const PERIOD: Duration = Duration::from_secs(1);
/// Where the address book is kept in the store.
const BOOK: &str = "address-book";

/// What this node says about itself and the others.
pub(crate) async fn own(inner: &Inner) -> Pulse {
    Pulse {
        layout: inner.layout_now().map_or(LayoutVersion(0), |layout| layout.version),
        synced: LayoutVersion(inner.synced.load(Ordering::SeqCst)),
        used: inner.store.used_bytes(),
        capacity: inner.capacity,
        owed: inner.store.owed_count().await.unwrap_or_default(),
        book: inner.peers.book(),
    }
}

/// A pulse came in: takes what is new from it and answers with the own one.
pub(crate) async fn hear(inner: &Arc<Inner>, peer: NodeId, pulse: Pulse) -> Pulse {
    take(inner, peer, &pulse, None);
    own(inner).await
}

fn take(inner: &Arc<Inner>, peer: NodeId, pulse: &Pulse, round_trip: Option<Duration>) {
    let Some(layout) = inner.layout_now() else { return };
    inner.peers.heard(peer, pulse, round_trip);
    if layout.previous.is_some() {
        inner.transition.notify_one();
    }
    inner.peers.insist(inner.id, &pulse.book);
    let others: Vec<AddressEntry> =
        pulse.book.iter().filter(|entry| entry.node != inner.id).cloned().collect();
    let news = inner.peers.learn_addresses(&layout, &others);
    for entry in &news {
        tracing::debug!(node = %entry.node.short(), addresses = ?entry.addresses, "a node's addresses");
        inner.endpoint().set_addresses(entry.node, entry.addresses.clone());
    }
    let (keeper, changed) = (Arc::clone(inner), !news.is_empty());
    let behind = pulse.layout > layout.version;
    if behind || changed {
        inner.spawn_until_stopped(async move {
            if changed {
                keep_book(&keeper).await;
            }
            if behind {
                keeper.fetch_layout(peer).await;
            }
        });
    }
}

async fn keep_book(inner: &Inner) {
    let bytes = postcard::to_stdvec(&inner.peers.book()).expect("an address book is plain data");
    if let Err(error) = inner.store.meta_put(BOOK, Some(bytes.into())).await {
        tracing::warn!(%error, "the address book was not kept");
    }
}

/// Loads the address book of last time and enters this node's own addresses.
pub(crate) async fn open_book(inner: &Inner, layout: &Layout, own: Vec<SocketAddr>) {
    let kept = inner.store.meta_get(BOOK).await.ok().flatten();
    let entries: Vec<AddressEntry> =
        kept.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
    inner.peers.learn_addresses(layout, &entries);
    inner.peers.enter_own(inner.id, own, sys::now_ms());
    for member in layout.present().filter(|member| member.id != inner.id) {
        let addresses = inner.peers.addresses(&member.id).unwrap_or_else(|| member.addresses.clone());
        inner.endpoint().set_addresses(member.id, addresses);
    }
    keep_book(inner).await;
}

/// Beats until the node stops.
pub(crate) async fn beat(inner: Arc<Inner>) {
    loop {
        let Some(layout) = inner.layout_now() else { return };
        let message = Message::from(Request::Pulse(own(&inner).await));
        for member in layout.present().filter(|member| member.id != inner.id) {
            let (inner, message, peer) = (Arc::clone(&inner), message.clone(), member.id);
            let teller = Arc::clone(&inner);
            inner.spawn_until_stopped(async move {
                let asked = Instant::now();
                if let Ok(Reply::Pulse(pulse)) = teller.ask(peer, &message).await {
                    take(&teller, peer, &pulse, Some(asked.elapsed()));
                    teller.healing.notify_one();
                }
            });
        }
        let _ = sys::timeout(PERIOD, inner.beat.notified()).await;
    }
}
