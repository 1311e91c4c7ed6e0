//! Anti-entropy: owners of the same partition compare what they hold, and whoever lacks something gets it.
//!
//! Registers and chunks are reconciled the same way: fingerprints of all partitions first, then of a
//! partition's buckets, then the entries of buckets that differ. What differs is decided elsewhere: a register
//! is *read* (an accepted value seen on one node is not known to be chosen), a chunk is owed to this node
//! once the version that needs it was seen to live, and [`crate::heal`] fetches it.
//!
//! One peer after the other, each compared about twice a minute in a small network, less often in a large one;
//! in a hurry after this node started and after the layout changed, which is how a new owner fills up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{self, StreamExt as _};
use pando_core::{
    fingerprint::{BUCKETS, Fingerprint},
    id::{ChunkId, NodeId, Partition, WriteId},
    layout::Layout,
    name::RegisterName,
    register::{Ballot, LayoutVersion, State},
    wire::{MAX_PAGE, ReferencesRequest, Reply, Request},
};
use pando_store::{Learn, Paged};

use crate::{
    collect::{self, Standing},
    error::Error,
    inner::{Inner, Message, Unanswered},
    peers::Liveness,
    register::How,
    sync,
    sys::{self, Instant},
};

/// The least time between two rounds over all peers.
const ROUND: Duration = Duration::from_secs(30);
/// The least time from one peer to the next, which bounds the traffic in a large network.
const EACH: Duration = Duration::from_millis(500);
/// Between rounds in a hurry; doubles up to [`ROUND`].
const HURRY: Duration = Duration::from_millis(500);
/// How long a change may be under way before the owners' not agreeing is more than that, mostly.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// Registers that are read, and versions that are looked at, at once.
const PARALLEL: usize = 8;

/// Compares with one peer after the other until the node stops.
pub(crate) async fn reconcile(inner: Arc<Inner>) {
    let mut layouts = inner.layouts();
    let mut pause = HURRY;
    loop {
        layouts.mark_unchanged();
        match round(&inner, pause < ROUND).await {
            // Nothing was missing, or nothing more can be done now.
            Ok(0) => pause = (pause * 2).min(ROUND),
            Ok(found) => {
                tracing::debug!(found, "reconciled");
                inner.healing.notify_one();
                pause = HURRY;
            }
            Err(error) => {
                tracing::debug!(%error, "reconciling goes on later");
                pause = (pause * 2).min(ROUND);
            }
        }
        tokio::select! {
            biased;
            changed = layouts.changed() => match changed {
                Ok(()) => pause = HURRY,
                Err(_closed) => return,
            },
            () = inner.reconciling.notified() => pause = HURRY,
            () = sys::sleep(pause + sys::jitter(pause / 4)) => {}
        }
    }
}

/// Compares with every peer that is up; returns how many differences there were.
async fn round(inner: &Arc<Inner>, hurry: bool) -> Result<usize, Error> {
    let layout = inner.layout()?;
    let mut found = 0;
    let others = layout.present().map(|member| member.id).filter(|id| *id != inner.id);
    for peer in others.filter(|id| is_up(inner, *id)) {
        let began = Instant::now();
        match with_peer(inner, &layout, peer).await {
            Ok(differences) => found += differences,
            Err(error) => tracing::debug!(peer = %peer.short(), %error, "not compared"),
        }
        if inner.layout()?.version != layout.version {
            return Ok(found.max(1));
        }
        if !hurry {
            sys::sleep(EACH.saturating_sub(began.elapsed())).await;
        }
    }
    Ok(found)
}

async fn with_peer(inner: &Arc<Inner>, layout: &Arc<Layout>, peer: NodeId) -> Result<usize, Error> {
    let version = layout.version;
    let Reply::Prints(theirs) = ask(inner, layout, peer, Request::Prints(version)).await? else {
        return Err(nonsense(peer));
    };
    let own = match inner.store.fingerprints(Some(version)).await? {
        Paged::Page { entries, .. } => entries,
        Paged::Fenced(_) => return Err(moved_on()),
    };
    let own: BTreeMap<Partition, (Fingerprint, Fingerprint)> = own
        .into_iter()
        .map(|(partition, registers, references)| (partition, (registers, references)))
        .collect();
    let theirs: BTreeMap<Partition, (Fingerprint, Fingerprint)> = theirs
        .into_iter()
        .map(|(partition, registers, references)| (partition, (registers, references)))
        .collect();
    let mut found = 0;
    for partition in Partition::all() {
        let owners = layout.owners(partition);
        if !owners.contains(&inner.id) {
            continue;
        }
        let (mine, other) = (own.get(&partition).copied(), theirs.get(&partition).copied());
        let (mine, other) = (mine.unwrap_or_default(), other.unwrap_or_default());
        // While a transition runs, new owners sync registers, under its own rules.
        let share_registers = owners.contains(&peer) && layout.previous.is_none();
        let registers_differ = share_registers && mine.0 != other.0;
        let lacks_chunks = other.1 != mine.1 && other.1 != Fingerprint::default();
        if !(registers_differ || lacks_chunks) {
            continue;
        }
        match partition_with(inner, layout, peer, partition, registers_differ, lacks_chunks).await {
            Ok(differences) => found += differences,
            // What can't be compared now is not in the way of the rest, unless all of it can't.
            Err(error) if inner.layout()?.version != version || !is_up(inner, peer) => return Err(error),
            Err(error) => {
                tracing::debug!(peer = %peer.short(), partition = partition.number(), %error, "not compared");
            }
        }
    }
    Ok(found)
}

fn is_up(inner: &Inner, peer: NodeId) -> bool {
    inner.peers.liveness(&peer) == Liveness::Up
}

async fn partition_with(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    peer: NodeId,
    partition: Partition,
    registers: bool,
    chunks: bool,
) -> Result<usize, Error> {
    let version = layout.version;
    let reply = ask(inner, layout, peer, Request::Buckets(version, partition)).await?;
    let Reply::Buckets { buckets: theirs, .. } = reply else { return Err(nonsense(peer)) };
    let own = own_buckets(inner, version, partition).await?;
    let mut found = 0;
    for bucket in 0..BUCKETS {
        let (mine, other) = (own[usize::from(bucket)], theirs[usize::from(bucket)]);
        if registers && mine.0 != other.0 {
            found += registers_of(inner, layout, peer, partition, bucket).await?;
        }
        if chunks && mine.1 != other.1 && other.1 != Fingerprint::default() {
            found += references_of(inner, layout, peer, partition, bucket).await?;
        }
    }
    Ok(found)
}

/// The fingerprints of a partition's buckets here: of registers and of references.
pub(crate) async fn own_buckets(
    inner: &Inner,
    version: LayoutVersion,
    partition: Partition,
) -> Result<Vec<(Fingerprint, Fingerprint)>, Error> {
    match inner.store.bucket_fingerprints(Some(version), partition).await? {
        Paged::Page { entries, .. } => Ok(entries),
        Paged::Fenced(_) => Err(moved_on()),
    }
}

/// All ballots of one bucket here.
pub(crate) async fn own_ballots(
    inner: &Inner,
    version: LayoutVersion,
    partition: Partition,
    bucket: u8,
) -> Result<BTreeMap<RegisterName, Ballot>, Error> {
    let mut ballots = BTreeMap::new();
    let mut after = None;
    loop {
        let page = inner.store.page_of_bucket(Some(version), partition, bucket, after, MAX_PAGE).await?;
        let Paged::Page { entries, more } = page else { return Err(moved_on()) };
        after = entries.last().map(|(name, _)| name.clone());
        ballots.extend(entries);
        if !more {
            return Ok(ballots);
        }
    }
}

/// Reads every register of a bucket that the peer and this node hold at different ballots. Returns how many were
/// behind here; where the peer is, that is the peer's to find.
async fn registers_of(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    peer: NodeId,
    partition: Partition,
    bucket: u8,
) -> Result<usize, Error> {
    let version = layout.version;
    let own = own_ballots(inner, version, partition, bucket).await?;
    let mut theirs: BTreeMap<RegisterName, Ballot> = BTreeMap::new();
    loop {
        let after = theirs.last_key_value().map(|(name, _)| name.clone());
        let page = sync::page(inner, layout, peer, partition, bucket, after).await?;
        theirs.extend(page.entries);
        if !page.more {
            break;
        }
    }
    let names: BTreeSet<&RegisterName> = own.keys().chain(theirs.keys()).collect();
    let names = names.into_iter().filter(|name| own.get(*name) != theirs.get(*name));
    let differ: Vec<(RegisterName, Option<Ballot>)> =
        names.map(|name| (name.clone(), own.get(name).copied())).collect();
    let caught_up: Vec<bool> = stream::iter(differ)
        .map(|(name, held)| async move {
            catch_up(inner, layout, &name, held).await.unwrap_or_else(|error| {
                tracing::debug!(%name, %error, "a register is compared later");
                false
            })
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    Ok(caught_up.into_iter().filter(|changed| *changed).count())
}

/// Makes sure that this node holds what was chosen for a register, having held `own`. Reading it tells the other
/// owners. Returns whether something changed here.
async fn catch_up(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    name: &RegisterName,
    own: Option<Ballot>,
) -> Result<bool, Error> {
    let chosen = inner.read(name).await?;
    let ballot = chosen.as_ref().map(|accepted| accepted.ballot);
    if own > ballot {
        return settle_above(inner, name, own).await;
    }
    let Some(chosen) = chosen else { return Ok(false) };
    inner.take_chosen(layout.version, name, chosen).await?;
    Ok(own < ballot)
}

/// This node alone holds something, above what the others agree on: it was accepted here and never chosen, or is a
/// change under way. If it stays so the register is settled above it, or the owners would differ for ever.
async fn settle_above(inner: &Arc<Inner>, name: &RegisterName, own: Option<Ballot>) -> Result<bool, Error> {
    sys::sleep(UNDER_WAY).await;
    let Some(held) = inner.store.peek(name.clone()).await?.filter(|held| Some(held.ballot) == own) else {
        return Ok(false);
    };
    let chosen = inner.read(name).await?;
    let is_behind = chosen.as_ref().is_none_or(|chosen| chosen.ballot < held.ballot);
    // A tombstone that the others have forgotten already goes the same way by itself.
    if !is_behind || (chosen.is_none() && held.value.present().is_none()) {
        return Ok(false);
    }
    let id = WriteId(sys::random());
    let how = How { above: held.ballot.counter, rewrite: true, by: None };
    let settled = inner.change_as(name, id, how, |found| match found {
        None => Ok(State::Absent),
        Some(_) => Err(()),
    });
    settled.await.map(|_| true)
}

/// Takes what the peer's references of a bucket say this node should hold too.
async fn references_of(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    peer: NodeId,
    partition: Partition,
    bucket: u8,
) -> Result<usize, Error> {
    let mut after: Option<(ChunkId, WriteId)> = None;
    let mut found = 0;
    if pando_core::mutant("references-lost") {
        return Ok(found);
    }
    loop {
        let request = ReferencesRequest { layout: layout.version, partition, bucket, after };
        let reply = ask(inner, layout, peer, Request::References(request)).await?;
        let Reply::References { entries, names, more } = reply else { return Err(nonsense(peer)) };
        let references: Vec<(ChunkId, WriteId)> =
            entries.into_iter().map(|(chunk, _, version)| (chunk, version)).collect();
        if !sync::is_next_page(after.as_ref(), references.iter(), more) {
            return Err(nonsense(peer));
        }
        after = references.last().copied();
        found += adopt(inner, peer, references, names).await?;
        if !more {
            return Ok(found);
        }
    }
}

/// Of references that a peer has: those to chunks that are here are claimed, the others' chunks are owed to
/// this node, if the version lives. A peer that keeps a dead version is told to look at it.
async fn adopt(
    inner: &Arc<Inner>,
    peer: NodeId,
    references: Vec<(ChunkId, WriteId)>,
    names: Vec<(WriteId, RegisterName)>,
) -> Result<usize, Error> {
    let lacking = inner.store.lacking(&references).await?;
    let mut wanted: BTreeMap<WriteId, Vec<ChunkId>> = BTreeMap::new();
    for ((chunk, version), _) in references.into_iter().zip(lacking).filter(|(_, lacking)| *lacking) {
        wanted.entry(version).or_default().push(chunk);
    }
    let names: BTreeMap<WriteId, RegisterName> = names.into_iter().collect();
    let named = wanted.into_iter().filter_map(|(version, chunks)| {
        let name = names.get(&version)?.clone();
        Some((version, name, chunks))
    });
    let adopted: Vec<usize> = stream::iter(named)
        .map(|(version, name, chunks)| async move {
            let object = name.clone();
            adopt_version(inner, peer, version, name, chunks).await.unwrap_or_else(|error| {
                tracing::debug!(%object, %error, "a version is compared later");
                0
            })
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    Ok(adopted.into_iter().sum())
}

async fn adopt_version(
    inner: &Arc<Inner>,
    peer: NodeId,
    version: WriteId,
    name: RegisterName,
    chunks: Vec<ChunkId>,
) -> Result<usize, Error> {
    match collect::stands(inner, version, &name).await? {
        Standing::Lives => {}
        // Dead; or on its way, or left by a dead upload, or so long dead that its register was forgotten: the
        // peer finds out, once the grace time that it gave the upload is over.
        Standing::Replaced | Standing::Condemned | Standing::NoTrace => {
            let _ = inner.ask(peer, &Request::Recheck(vec![version]).into()).await;
            return Ok(0);
        }
    }
    let due = inner.after_grace();
    let held = inner.store.claim(version, name, &chunks, due).await?;
    let missing: Vec<(NodeId, ChunkId)> =
        chunks.iter().zip(&held).filter(|(_, held)| !**held).map(|(chunk, _)| (inner.id, *chunk)).collect();
    inner.store.owe(&missing).await?;
    Ok(chunks.len())
}

async fn ask(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    peer: NodeId,
    request: Request,
) -> Result<Reply, Error> {
    match inner.ask_owner(layout, peer, &Message::from(request)).await {
        Ok(reply) => Ok(reply),
        Err(Unanswered::NewLayout) => Err(moved_on()),
        Err(why) => Err(Error::Timeout(format!("comparing with {}: {why}", peer.short()))),
    }
}

pub(crate) fn moved_on() -> Error {
    Error::Busy("the layout changed".into())
}

fn nonsense(peer: NodeId) -> Error {
    Error::Timeout(format!("comparing with {}: an answer to something else", peer.short()))
}

impl Inner {
    /// Stores what was chosen for a register. Where it is not above what this partition purged, the register
    /// is written again at a ballot that is.
    pub(crate) async fn take_chosen(
        self: &Arc<Self>,
        version: LayoutVersion,
        name: &RegisterName,
        chosen: pando_core::register::Accepted,
    ) -> Result<(), Error> {
        match self.store.learn(version, name.clone(), chosen).await? {
            Learn::Learned => Ok(()),
            Learn::Fenced(_) => Err(moved_on()),
            Learn::Refused(refusal) => self.settle_anew(name, refusal.above).await.map(|_| ()),
        }
    }
}
