//! Layout changes: proposing the next version, and bringing the registers of new owners up to date.
//!
//! While a layout has `previous` slots, quorums are joint. Every owner of the current slots (those that
//! stay included) syncs each of its partitions from a majority of the previous owners, all fenced at the
//! new version: where these agree on a register's ballot it adopts the value, where they differ it settles
//! the register. When a majority of each partition's owners has synced, the previous slots are dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use pando_core::{
    fingerprint::{BUCKETS, Fingerprint},
    id::{NodeId, Partition, WriteId},
    layout::{Layout, Owners},
    name::RegisterName,
    register::{Ballot, State},
    wire::{Reply, Request, SyncRequest},
};

use pando_store::Paged;

use crate::{
    error::Error,
    inner::{EXCHANGE, Inner, Message, Unanswered},
    reconcile::{moved_on, own_ballots, own_buckets},
    register::Outcome,
    sys,
};

/// How many partitions are synced at once.
const PARALLEL: usize = 16;
/// How long to wait before trying again what failed.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a decided layout waits for those that are told of it.
const ANNOUNCE: Duration = Duration::from_millis(500);
/// How many times a layout change starts again because another one won.
const ROUNDS: usize = 32;

/// Follows the layout: syncs and ends transitions, until the node stops.
pub(crate) async fn follow(inner: Arc<Inner>) {
    let mut layouts = inner.layouts();
    loop {
        let Some(layout) = layouts.borrow_and_update().clone() else { return };
        if layout.previous.is_none() {
            inner.synced.store(layout.version.0, Ordering::SeqCst);
            if layouts.changed().await.is_err() {
                return;
            }
            continue;
        }
        if inner.synced.load(Ordering::SeqCst) < layout.version.0 {
            match sync_all(&inner, &layout).await {
                Ok(()) => {
                    tracing::info!(version = layout.version.0, "synced");
                    inner.synced.store(layout.version.0, Ordering::SeqCst);
                    // The others wait for this.
                    inner.beat.notify_one();
                }
                Err(error) => tracing::debug!(%error, "sync goes on later"),
            }
        }
        if may_end(&inner, &layout)
            && let Err(error) = propose(&inner, |known| {
                let same = known.version == layout.version;
                same.then(|| known.without_previous()).ok_or(Error::Stopping)
            })
            .await
        {
            tracing::debug!(%error, "ending the transition goes on later");
        }
        let pause = PAUSE + sys::jitter(PAUSE);
        tokio::select! {
            biased;
            _ = layouts.changed() => {}
            () = inner.transition.notified() => {}
            () = sys::sleep(pause) => {}
        }
    }
}

/// Decides the next layout: `next` makes it from the known one, as often as another change wins.
pub(crate) async fn propose(
    inner: &Arc<Inner>,
    next: impl Fn(&Layout) -> Result<Layout, Error>,
) -> Result<Arc<Layout>, Error> {
    for _ in 0..ROUNDS {
        let known = inner.layout()?;
        let proposed = next(&known)?;
        let name = RegisterName::layout(proposed.version);
        let bytes = proposed.encode();
        let outcome = inner
            .change(&name, WriteId(sys::random()), |found| match found.and_then(|value| value.present()) {
                None => Ok(State::Present(bytes.clone())),
                Some(decided) => Err(decided.clone()),
            })
            .await;
        let (decided, mine) = match outcome {
            Ok(Outcome::Written(_)) => (proposed, true),
            Ok(Outcome::Declined(bytes, _)) => {
                let decided = Layout::decode(&bytes).map_err(|why| Error::Setup(why.to_string()))?;
                (decided, false)
            }
            Err(error) if inner.layout()?.version > known.version => {
                let decided = inner.layout()?;
                if *decided == proposed {
                    return Ok(decided);
                }
                tracing::debug!(%error, "another layout was decided meanwhile");
                continue;
            }
            Err(error) => return Err(error),
        };
        if decided.member(&inner.id).is_some() {
            inner.install_layout(decided.clone()).await?;
            announce(inner, &known, &decided, ANNOUNCE).await;
        } else {
            // This node ends as soon as it takes that layout in. If nobody else knew it, nobody might ever ask.
            let told = announce(inner, &known, &decided, EXCHANGE).await;
            let stay = decided.present().count();
            if told <= stay / 2 {
                let why = format!("telling the others that this node has left ({told} of {stay} heard it)");
                return Err(Error::Timeout(why));
            }
            inner.install_layout(decided.clone()).await?;
        }
        if mine {
            return Ok(Arc::new(decided));
        }
    }
    Err(Error::Busy("the layout changes all the time".into()))
}

/// Tells a decided layout to those that were members before, and waits for them so long at most: a newcomer is
/// then known where it knocks. Who does not hear it is told by gossip. Returns how many of those that are members
/// now have it.
async fn announce(inner: &Arc<Inner>, before: &Layout, decided: &Layout, patience: Duration) -> usize {
    let message = &Message::from(Request::PutLayout(decided.encode()));
    let others = before.present().filter(|member| member.id != inner.id);
    let mut told: FuturesUnordered<_> =
        others.map(|member| async move { (member.id, inner.ask(member.id, message).await) }).collect();
    let mut heard = 0;
    let all = async {
        while let Some((member, reply)) = told.next().await {
            heard += usize::from(matches!(reply, Ok(Reply::Ok)) && decided.member(&member).is_some());
        }
    };
    let _ = sys::timeout(patience, all).await;
    heard
}

/// Whether a majority of the owners of each partition has said that it synced this layout.
fn may_end(inner: &Inner, layout: &Layout) -> bool {
    if pando_core::mutant("transition-ends-before-sync") {
        return true;
    }
    let has_synced = |node: &NodeId| {
        if *node == inner.id {
            return inner.synced.load(Ordering::SeqCst) >= layout.version.0;
        }
        inner.peers.said(node).is_some_and(|said| said.synced >= layout.version)
    };
    Partition::all().all(|partition| {
        let owners = layout.current_quorum(partition);
        owners.quorum.is_met(|owner| has_synced(&owners.nodes[usize::from(owner)]))
    })
}

async fn sync_all(inner: &Arc<Inner>, layout: &Arc<Layout>) -> Result<(), Error> {
    let theirs = prints_of_previous(inner, layout).await;
    let Paged::Page { entries, .. } = inner.store.fingerprints(Some(layout.version)).await? else {
        return Err(moved_on());
    };
    let own: Prints = entries.into_iter().map(|(partition, registers, _)| (partition, registers)).collect();
    let print = |prints: &Prints, partition| prints.get(&partition).copied().unwrap_or_default();
    // The common case: a majority of the previous owners holds just what this node holds.
    let differs = |partition: &Partition| {
        let owners = layout.previous_quorum(*partition).expect("a transition has previous owners");
        let agrees = |owner: u16| {
            let prints = theirs.get(&owners.nodes[usize::from(owner)]);
            prints.is_some_and(|prints| print(prints, *partition) == print(&own, *partition))
        };
        !owners.quorum.is_met(agrees)
    };
    let mine = Partition::all().filter(|partition| layout.owners(*partition).contains(&inner.id));
    let mine = mine.filter(|p| {
        !(pando_core::mutant("stayers-do-not-sync") && layout.previous_owners(*p).contains(&inner.id))
    });
    stream::iter(mine.filter(differs).map(Ok))
        .try_for_each_concurrent(PARALLEL, |partition| sync_partition(inner, layout, partition))
        .await
}

/// Fingerprints of the registers of each partition.
type Prints = BTreeMap<Partition, Fingerprint>;

/// The fingerprints of the previous owners that answer, all at this layout.
async fn prints_of_previous(inner: &Arc<Inner>, layout: &Arc<Layout>) -> BTreeMap<NodeId, Prints> {
    let nodes: BTreeSet<NodeId> = Partition::all().flat_map(|p| layout.previous_owners(p)).collect();
    let message = &Message::from(Request::Prints(layout.version));
    let asked = nodes.into_iter().map(|node| async move {
        match inner.ask_owner(layout, node, message).await {
            Ok(Reply::Prints(prints)) => Some((node, prints.into_iter().map(|(p, r, _)| (p, r)).collect())),
            _ => None,
        }
    });
    stream::iter(asked).buffer_unordered(PARALLEL).filter_map(|answer| async { answer }).collect().await
}

async fn sync_partition(inner: &Arc<Inner>, layout: &Arc<Layout>, partition: Partition) -> Result<(), Error> {
    let owners = layout.previous_quorum(partition).expect("a transition has previous owners");
    let mut replies =
        ask_majority(inner, layout, &owners, Request::Buckets(layout.version, partition)).await?;
    if pando_core::mutant("sync-from-one") {
        replies.truncate(1);
    }
    let mut sources = Vec::new();
    let mut floor = None;
    for (node, reply) in replies {
        let Reply::Buckets { purged, buckets } = reply else { return Err(nonsense(node)) };
        floor = floor.max(purged);
        sources.push((node, buckets));
    }
    let own = own_buckets(inner, layout.version, partition).await?;
    for bucket in 0..BUCKETS {
        let place = usize::from(bucket);
        if sources.iter().any(|(_, theirs)| theirs[place].0 != own[place].0) {
            let sources: Vec<NodeId> = sources.iter().map(|(node, _)| *node).collect();
            sync_bucket(inner, layout, partition, bucket, &sources).await?;
        }
    }
    if let Some(floor) = floor {
        // What was forgotten there must not come here: who missed the purge can then be told to forget, too.
        // Last, or what was adopted above would have been refused.
        inner.store.raise_purge_floor(layout.version, partition, floor).await?;
    }
    Ok(())
}

/// Brings one bucket's registers up to date from `sources`, a majority of the previous owners.
async fn sync_bucket(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    partition: Partition,
    bucket: u8,
    sources: &[NodeId],
) -> Result<(), Error> {
    let own = own_ballots(inner, layout.version, partition, bucket).await?;
    let mut after: Option<RegisterName> = None;
    loop {
        let mut pages = Vec::new();
        for node in sources {
            pages.push(page(inner, layout, *node, partition, bucket, after.clone()).await?);
        }
        // Names above the smallest last name of a page that was cut may be missing from it.
        let cut = pages.iter().filter(|page| page.more).filter_map(|page| page.last()).min().cloned();
        let within = |name: &RegisterName| {
            after.as_ref().is_none_or(|after| name > after) && cut.as_ref().is_none_or(|cut| name <= cut)
        };
        let mut ballots: BTreeMap<&RegisterName, Vec<Option<Ballot>>> = BTreeMap::new();
        for (place, page) in pages.iter().enumerate() {
            for (name, ballot) in page.entries.iter().filter(|(name, _)| within(name)) {
                ballots.entry(name).or_insert_with(|| vec![None; pages.len()])[place] = Some(*ballot);
            }
        }
        for name in own.keys().filter(|name| within(name)) {
            ballots.entry(name).or_insert_with(|| vec![None; pages.len()]);
        }
        for (name, held) in ballots {
            let own = own.get(name).copied();
            match (held[0], held.iter().all(|ballot| *ballot == held[0])) {
                (agreed, true) if agreed == own => {}
                (Some(agreed), true) => adopt(inner, layout, name, agreed, sources[0]).await?,
                // What this node alone has was never chosen. (Nor can it be a leftover of what the others have
                // purged: that went when this layout came, see `Layout::keeps_registers`.)
                (None, true) => {}
                (_, false) => settle(inner, layout, name).await?,
            }
        }
        let Some(cut) = cut else { return Ok(()) };
        after = Some(cut);
    }
}

/// Names and ballots of a bucket, in order, all after what was asked for.
pub(crate) struct BallotPage {
    pub(crate) entries: Vec<(RegisterName, Ballot)>,
    /// Whether there are more after the last of these.
    pub(crate) more: bool,
}

impl BallotPage {
    pub(crate) fn last(&self) -> Option<&RegisterName> {
        self.entries.last().map(|(name, _)| name)
    }
}

/// The ballots of one bucket on another node. What is out of order is refused: the pages must come to an end.
pub(crate) async fn page(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    node: NodeId,
    partition: Partition,
    bucket: u8,
    after: Option<RegisterName>,
) -> Result<BallotPage, Error> {
    let request = SyncRequest { layout: layout.version, partition, bucket, after: after.clone() };
    match inner.ask_owner(layout, node, &Request::SyncPage(request).into()).await {
        Ok(Reply::Ballots { entries, more }) => {
            let names = entries.iter().map(|(name, _)| name);
            match is_next_page(after.as_ref(), names, more) {
                true => Ok(BallotPage { entries, more }),
                false => Err(nonsense(node)),
            }
        }
        Err(Unanswered::NewLayout) => Err(moved_on()),
        Ok(_) => Err(nonsense(node)),
        Err(why) => Err(Error::Timeout(format!("syncing from {}: {why}", node.short()))),
    }
}

/// Whether these come after `after`, in order, and are not empty if there are more.
pub(crate) fn is_next_page<'a, T: Ord + 'a>(
    after: Option<&'a T>,
    keys: impl Iterator<Item = &'a T> + Clone,
    more: bool,
) -> bool {
    after.into_iter().chain(keys.clone()).is_sorted_by(|a, b| a < b) && !(more && keys.count() == 0)
}

/// The answers of a majority of `owners`, all at this layout.
async fn ask_majority(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    owners: &Owners,
    request: Request,
) -> Result<Vec<(NodeId, Reply)>, Error> {
    let what = "syncing a partition".to_owned();
    let message = &Message::from(request);
    let mut pending: FuturesUnordered<_> = owners
        .nodes
        .iter()
        .zip(0u16..)
        .map(|(node, owner)| async move { (owner, inner.ask_owner(layout, *node, message).await) })
        .collect();
    let mut answers: BTreeMap<u16, Reply> = BTreeMap::new();
    let mut missing = Vec::new();
    while let Some((owner, reply)) = pending.next().await {
        let from = owners.nodes[usize::from(owner)];
        match reply {
            Ok(reply) => {
                answers.insert(owner, reply);
            }
            Err(Unanswered::NewLayout) => return Err(moved_on()),
            Err(why) => missing.push(format!("{}: {why}", from.short())),
        }
        if owners.quorum.is_met(|owner| answers.contains_key(&owner)) {
            let node = |owner: u16| owners.nodes[usize::from(owner)];
            return Ok(answers.into_iter().map(|(owner, reply)| (node(owner), reply)).collect());
        }
    }
    Err(Error::NotEnoughNodes {
        what,
        needed: owners.quorum.needed(),
        owners: owners.nodes.len(),
        reachable: answers.len(),
        missing: missing.join("; "),
    })
}

fn nonsense(node: NodeId) -> Error {
    Error::Timeout(format!("syncing: {} answered something else", node.short()))
}

/// Takes the value that a majority of the previous owners holds at the same ballot.
async fn adopt(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    name: &RegisterName,
    agreed: Ballot,
    holder: NodeId,
) -> Result<(), Error> {
    let read = Message::from(Request::Read(layout.version, name.clone()));
    match inner.ask_owner(layout, holder, &read).await {
        Ok(Reply::Value(Some(accepted), _)) if accepted.ballot == agreed => {
            inner.take_chosen(layout.version, name, accepted).await
        }
        // It has moved on since: find out where to.
        _ => settle(inner, layout, name).await,
    }
}

/// Settles a register that the previous owners differ on, and takes what was settled.
async fn settle(inner: &Arc<Inner>, layout: &Arc<Layout>, name: &RegisterName) -> Result<(), Error> {
    match inner.settle(name, 0).await? {
        Some(chosen) => inner.take_chosen(layout.version, name, chosen).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::is_next_page;

    #[test]
    fn pages_go_on_and_end() {
        let good = |after: Option<u32>, keys: &[u32], more| is_next_page(after.as_ref(), keys.iter(), more);
        assert!(good(None, &[], false) && good(None, &[1, 2], true) && good(Some(1), &[2], false));
        assert!(!good(None, &[], true), "nothing, and more of it");
        assert!(!good(Some(2), &[2, 3], true), "what was there before");
        assert!(!good(None, &[2, 1], false) && !good(None, &[2, 2], false), "out of order");
    }
}
