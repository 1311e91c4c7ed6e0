//! Layout changes: proposing the next version, and bringing the registers of new owners up to date.
//!
//! While a layout has `previous` slots, quorums are joint. Every owner of the current slots (those that
//! stay included) syncs each of its partitions from a majority of the previous owners, all fenced at the
//! new version: where these agree on a register's ballot it adopts the value, where they differ it settles
//! the register. When a majority of each partition's owners has synced, the previous slots are dropped.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use pando_core::{
    id::{NodeId, Partition, WriteId},
    layout::{Layout, Owners},
    name::RegisterName,
    register::{Accepted, Ballot, State},
    wire::{Reply, Request, SyncRequest},
};

use crate::{
    error::Error,
    inner::{Inner, Message, Unanswered},
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
                tracing::debug!(%error, "another layout was decided meanwhile");
                continue;
            }
            Err(error) => return Err(error),
        };
        inner.install_layout(decided.clone()).await?;
        announce(inner, &known, &decided).await;
        if mine {
            return Ok(Arc::new(decided));
        }
    }
    Err(Error::Busy("the layout changes all the time".into()))
}

/// Tells a decided layout to those that were members before, and waits a moment for them: a newcomer is
/// then known where it knocks. Who does not hear it is told by the next pulse.
async fn announce(inner: &Arc<Inner>, before: &Layout, decided: &Layout) {
    let message = &Message::from(Request::PutLayout(decided.encode()));
    let others = before.present().filter(|member| member.id != inner.id);
    let mut told: FuturesUnordered<_> = others.map(|member| inner.ask(member.id, message)).collect();
    let all = async { while told.next().await.is_some() {} };
    let _ = sys::timeout(ANNOUNCE, all).await;
}

/// Whether a majority of the owners of each partition has said that it synced this layout.
fn may_end(inner: &Inner, layout: &Layout) -> bool {
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
    let own = Partition::all().filter(|partition| layout.owners(*partition).contains(&inner.id));
    stream::iter(own.map(Ok))
        .try_for_each_concurrent(PARALLEL, |partition| sync_partition(inner, layout, partition))
        .await
}

async fn sync_partition(inner: &Arc<Inner>, layout: &Arc<Layout>, partition: Partition) -> Result<(), Error> {
    let owners = layout.previous_quorum(partition).expect("a transition has previous owners");
    let mut after: Option<RegisterName> = None;
    loop {
        let pages = previous_pages(inner, layout, &owners, partition, after.clone()).await?;
        // Names above the smallest last name of a page that was cut may be missing from it.
        let cut = pages.iter().filter(|page| page.more).filter_map(|page| page.last()).min().cloned();
        let mut ballots: BTreeMap<&RegisterName, Vec<Option<Ballot>>> = BTreeMap::new();
        for (place, page) in pages.iter().enumerate() {
            for (name, ballot) in &page.entries {
                if cut.as_ref().is_none_or(|cut| name <= cut) {
                    ballots.entry(name).or_insert_with(|| vec![None; pages.len()])[place] = Some(*ballot);
                }
            }
        }
        // A layout's register belongs to a council, not to a partition.
        for (name, held) in ballots.into_iter().filter(|(name, _)| name.layout_version().is_none()) {
            let agreed = held.iter().all(|ballot| *ballot == held[0]).then_some(held[0]).flatten();
            sync_register(inner, layout, name, agreed, pages[0].from).await?;
        }
        let Some(cut) = cut else { return Ok(()) };
        after = Some(cut);
    }
}

struct BallotPage {
    from: NodeId,
    entries: Vec<(RegisterName, Ballot)>,
    more: bool,
}

impl BallotPage {
    fn last(&self) -> Option<&RegisterName> {
        self.entries.last().map(|(name, _)| name)
    }
}

/// One page of a partition from each of a majority of its previous owners, all at this layout.
async fn previous_pages(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    owners: &Owners,
    partition: Partition,
    after: Option<RegisterName>,
) -> Result<Vec<BallotPage>, Error> {
    let request = SyncRequest { layout: layout.version, partition, after };
    let message = &Message::from(Request::SyncPage(request));
    let mut pending: FuturesUnordered<_> = owners
        .nodes
        .iter()
        .zip(0u16..)
        .map(|(node, owner)| async move { (owner, inner.ask_owner(layout, *node, message).await) })
        .collect();
    let mut pages: BTreeMap<u16, BallotPage> = BTreeMap::new();
    let mut missing = Vec::new();
    while let Some((owner, reply)) = pending.next().await {
        let from = owners.nodes[usize::from(owner)];
        match reply {
            Ok(Reply::Ballots { entries, more }) => {
                pages.insert(owner, BallotPage { from, entries, more });
            }
            Err(Unanswered::NewLayout) => return Err(Error::Busy("the layout changed".into())),
            Err(Unanswered::Lost(why)) => missing.push(format!("{}: {why}", from.short())),
            Ok(_) => missing.push(format!("{}: an answer to something else", from.short())),
        }
        if owners.quorum.is_met(|owner| pages.contains_key(&owner)) {
            return Ok(pages.into_values().collect());
        }
    }
    Err(Error::NotEnoughNodes {
        what: format!("syncing partition {}", partition.number()),
        needed: owners.quorum.needed(),
        owners: owners.nodes.len(),
        reachable: pages.len(),
        missing: missing.join("; "),
    })
}

/// Makes sure that this node holds what was chosen for one register.
async fn sync_register(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    name: &RegisterName,
    agreed: Option<Ballot>,
    holder: NodeId,
) -> Result<(), Error> {
    let own = inner.store.peek(name.clone()).await?;
    if agreed.is_some() && own.as_ref().map(|own| own.ballot) == agreed {
        return Ok(());
    }
    let chosen: Option<Accepted> = match agreed {
        Some(ballot) => {
            let read = Message::from(Request::Read(layout.version, name.clone()));
            match inner.ask_owner(layout, holder, &read).await {
                Ok(Reply::Value(Some(accepted), _)) if accepted.ballot == ballot => Some(accepted),
                // It has moved on since: find out where to.
                _ => inner.settle(name, 0).await?,
            }
        }
        None => inner.settle(name, 0).await?,
    };
    if let Some(chosen) = chosen {
        inner.store.learn(layout.version, name.clone(), chosen).await?;
    }
    Ok(())
}
