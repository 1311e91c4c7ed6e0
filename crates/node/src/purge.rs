//! Purge: forgetting tombstones. A tombstone that is forgotten too early lets a deleted object come back, so:
//!
//! it is forgotten at ballot b when its grace time is over, no transition runs, and *every* owner of its
//! partition either holds it at exactly b, or holds nothing and has purged up to b or higher (its floor).
//! Once true this stays true: who holds it can only go above b, and who holds nothing takes nothing at or
//! below its floor. Each owner then removes the row and raises its floor to b in one durable step.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use pando_core::{
    id::NodeId,
    layout::Layout,
    name::RegisterName,
    register::{Ballot, LayoutVersion},
    wire::{MAX_TOMBS, Reply, Request},
};
use pando_store::Purge;

use crate::{
    error::Error,
    inner::{Inner, Message, PATIENCE},
    peers::Liveness,
    reconcile::moved_on,
    sys,
};

/// Bounds of the pause between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(600));

/// How many tombstones are asked about in one round: about a megabyte.
const ROUND: usize = 4096;
/// How many are looked at for that, with those whose owners are not all there.
const LOOKED_AT: usize = 65_536;

/// Tombstones by the owners they have.
type Groups = BTreeMap<Vec<NodeId>, Vec<(RegisterName, Ballot)>>;

/// Forgets tombstones until the node stops.
pub(crate) async fn purge(inner: Arc<Inner>) {
    let pause = (inner.grace / 8).clamp(PAUSE.0, PAUSE.1);
    let mut more = false;
    loop {
        if !more {
            sys::sleep(pause + sys::jitter(pause / 4)).await;
        }
        more = round(&inner).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "purging goes on later");
            false
        });
    }
}

/// Returns whether something was forgotten and there was more to look at than one round does.
async fn round(inner: &Arc<Inner>) -> Result<bool, Error> {
    let layout = inner.layout()?;
    if layout.previous.is_some() {
        return Ok(false);
    }
    let (groups, more) = due(inner, &layout).await?;
    let (mut sure, mut silent) = (Vec::new(), BTreeSet::new());
    for (owners, tombs) in groups {
        let tombs = held_by_all(inner, &layout, &owners, tombs, &mut silent).await;
        if !tombs.is_empty() {
            sure.push((owners, tombs));
        }
    }
    if sure.is_empty() {
        return Ok(false);
    }
    // Whatever the clocks say: whoever began before all owners held the tombstone, and heard of what was before
    // it, or might find nothing after it is forgotten and do its work again, has given up by then (a change
    // takes [`PATIENCE`] and one exchange at most).
    sys::sleep(if pando_core::mutant("purge-without-grace") { Duration::ZERO } else { PATIENCE * 2 }).await;
    for (owners, tombs) in sure {
        let tombs = held_by_all(inner, &layout, &owners, tombs, &mut silent).await;
        for owner in owners.iter().filter(|_| !tombs.is_empty()) {
            if let Err(error) = ask(inner, &layout, *owner, &tombs, true).await {
                tracing::debug!(owner = %owner.short(), %error, "it will forget later");
            }
        }
        tracing::debug!(tombstones = tombs.len(), "forgotten");
    }
    Ok(more)
}

/// Tombstones whose time is over, by their owners: the oldest first, a bounded number; and whether there are more.
/// Those of owners that are down wait, and are not in the way.
async fn due(inner: &Arc<Inner>, layout: &Layout) -> Result<(Groups, bool), Error> {
    // Counters follow the clock, in microseconds.
    let grace = if pando_core::mutant("purge-without-grace") { 0 } else { inner.grace.as_micros() as u64 };
    let before = sys::now_us().saturating_sub(grace);
    let is_down = |owner: &NodeId| *owner != inner.id && inner.peers.liveness(owner) == Liveness::Down;
    let mut groups = Groups::new();
    let mut after: Option<(u64, RegisterName)> = None;
    let (mut taken, mut more) = (0, false);
    for _ in 0..LOOKED_AT / MAX_TOMBS {
        let tombs = inner.store.tombs(before, after, MAX_TOMBS).await?;
        let Some((name, ballot)) = tombs.last() else { return Ok((groups, more)) };
        after = Some((ballot.counter, name.clone()));
        for (name, ballot) in tombs {
            let owners = layout.owners(name.partition());
            let Some(place) = owners.iter().position(|owner| *owner == inner.id) else { continue };
            // The first owner begins; the others wait longer, so that not all do the same work.
            let late = grace / 4 * place as u64;
            if ballot.counter >= before.saturating_sub(late) || who_must_hold(&owners).iter().any(is_down) {
                continue;
            }
            let group = groups.entry(owners).or_default();
            match group.len() < MAX_TOMBS && taken < ROUND {
                true => {
                    group.push((name, ballot));
                    taken += 1;
                }
                false => more = true,
            }
        }
    }
    Ok((groups, true))
}

/// All owners.
fn who_must_hold(owners: &[NodeId]) -> &[NodeId] {
    if pando_core::mutant("purge-on-majority") { &owners[..owners.len() / 2 + 1] } else { owners }
}

/// Of tombstones with the same owners, those that all these hold, or are past: none if one of them is `silent`,
/// or turns out to be. One node that is down must not keep the tombstones of others.
async fn held_by_all(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    owners: &[NodeId],
    mut tombs: Vec<(RegisterName, Ballot)>,
    silent: &mut BTreeSet<NodeId>,
) -> Vec<(RegisterName, Ballot)> {
    let owners = who_must_hold(owners);
    if owners.iter().any(|owner| silent.contains(owner)) {
        return Vec::new();
    }
    for owner in owners {
        if tombs.is_empty() {
            break;
        }
        let held = match ask(inner, layout, *owner, &tombs, false).await {
            Ok(held) => held,
            Err(error) => {
                tracing::debug!(owner = %owner.short(), %error, "its tombstones are forgotten later");
                silent.insert(*owner);
                return Vec::new();
            }
        };
        let (kept, behind): (Vec<_>, Vec<_>) = tombs.into_iter().zip(held).partition(|(_, held)| *held);
        tombs = kept.into_iter().map(|(tomb, _)| tomb).collect();
        for ((name, _), _) in behind {
            // Reading it brings whoever missed it up to date, for the next time.
            if let Err(error) = inner.read(&name).await {
                tracing::debug!(%error, "a tombstone that an owner lacks is read later");
            }
        }
    }
    tombs
}

async fn ask(
    inner: &Arc<Inner>,
    layout: &Arc<Layout>,
    owner: NodeId,
    tombs: &[(RegisterName, Ballot)],
    purge: bool,
) -> Result<Vec<bool>, Error> {
    let request = Request::Tombs { layout: layout.version, tombs: tombs.to_vec(), purge };
    match inner.ask_owner(layout, owner, &Message::from(request)).await {
        Ok(Reply::Held(held)) if held.len() == tombs.len() => Ok(held),
        Ok(_) => Err(Error::Timeout(format!("purging: {} answered something else", owner.short()))),
        Err(why) => Err(Error::Timeout(format!("purging: {}: {why}", owner.short()))),
    }
}

/// An owner's side: whether it is so, for each tombstone; or has forgotten it now.
pub(crate) async fn serve(
    inner: &Inner,
    version: LayoutVersion,
    tombs: Vec<(RegisterName, Ballot)>,
    purge: bool,
) -> Result<Reply, Error> {
    let layout = inner.layout()?;
    if layout.version != version {
        return Ok(Reply::Fenced(layout.version));
    }
    if layout.previous.is_some() {
        return Err(moved_on());
    }
    let mut answers = Vec::with_capacity(tombs.len());
    for (name, ballot) in tombs {
        answers.push(match purge {
            true => match inner.store.purge(version, name, ballot).await? {
                Purge::Purged => true,
                Purge::Differs => false,
                Purge::Fenced(known) => return Ok(Reply::Fenced(known)),
            },
            false => is_past(inner, &name, ballot).await?,
        });
    }
    Ok(Reply::Held(answers))
}

/// Whether this node holds the tombstone at exactly this ballot, or nothing, and never again anything at or
/// below it.
async fn is_past(inner: &Inner, name: &RegisterName, ballot: Ballot) -> Result<bool, Error> {
    // In this order: a floor seen before the register was seen empty stood while it was.
    let floor = inner.store.purge_floor(name.partition()).await?;
    Ok(match inner.store.peek(name.clone()).await? {
        Some(held) => held.ballot == ballot && held.value.present().is_none(),
        None => floor >= Some(ballot),
    })
}
