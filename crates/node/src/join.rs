//! Invites and joining: one side makes a ticket and admits whoever shows it, the other shows it.
//!
//! An invite is a register: made open, consumed by compare-and-set, so that a ticket is used once whatever
//! happens. A newcomer that was cut off in the middle may use its ticket again, under the same identity.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::{
    id::{NodeId, WriteId},
    layout::{Layout, Member, MemberState, change::Change},
    name::RegisterName,
    record::InviteRecord,
    register::LayoutVersion,
    register::{State, Value},
    ticket::Ticket,
    wire::{self, JoinReply, JoinRequest, Knock},
};

use crate::{
    error::Error,
    inner::{EXCHANGE, Inner},
    register::Outcome,
    sys::{self, Instant},
};

/// How long admitting a newcomer may take: the layout change before it may have to end first.
const ADMISSION: Duration = Duration::from_secs(30);
/// How long a newcomer waits for its answer from one address.
const PATIENCE: Duration = Duration::from_secs(40);
/// For how long a newcomer asks again as long as nothing is decided, and how long it waits before it does.
const UNDECIDED: (Duration, Duration) = (Duration::from_secs(90), Duration::from_secs(1));

impl Inner {
    /// See [`crate::Node::invite`].
    pub(crate) async fn invite(
        self: &Arc<Self>,
        valid: Duration,
        addresses: Vec<SocketAddr>,
    ) -> Result<Ticket, Error> {
        let secret: [u8; 32] = sys::random();
        let expires = sys::now_ms().saturating_add(valid.as_millis() as u64);
        let name = RegisterName::invite(&Ticket::invite_id(&secret));
        let record = InviteRecord { expires, used_by: None }.encode();
        self.change(&name, WriteId(sys::random()), |_| Ok::<_, Error>(State::Present(record.clone())))
            .await?;
        let network = self.layout()?.network;
        Ok(Ticket { network, inviter: self.id, addresses, secret, expires })
    }
}

/// Answers whoever is not admitted and knocks.
pub(crate) async fn answer(inner: &Arc<Inner>, peer: NodeId, from: SocketAddr, knock: &Bytes) -> JoinReply {
    match wire::decode(knock) {
        Ok(Knock::Join(request)) => admit(inner, peer, from, request).await,
        Ok(Knock::Former { known, proof }) => was_removed(inner, peer, known, &proof),
        Err(why) => JoinReply::Refused(why.to_string()),
    }
}

/// Whether somebody who proves that it was a member is none any more. Only a layout that is newer than the one
/// it knows can tell: under an older one it may not have been a member yet.
fn was_removed(inner: &Inner, peer: NodeId, known: LayoutVersion, proof: &[u8; 32]) -> JoinReply {
    let proved = inner.key().is_ok_and(|key| {
        // Hashes are compared in constant time.
        blake3::Hash::from(key.proof_of(&peer)) == blake3::Hash::from(*proof)
    });
    match inner.layout_now() {
        Some(layout) if proved && layout.version > known && layout.member(&peer).is_none() => {
            JoinReply::Removed(layout.version)
        }
        _ => JoinReply::Refused("a removal of this node is not known here".into()),
    }
}

/// A peer does not admit this node: asks it whether this node was removed. Told so, it ends, see
/// [`crate::Node::ended`]. (Mostly a removed node hears of it when that is decided; this is for one that was
/// away then, which nobody talks to any more.)
pub(crate) async fn ask_whether_removed(inner: &Arc<Inner>, peer: NodeId) {
    let (Some(layout), Ok(key)) = (inner.layout_now(), inner.key()) else { return };
    let knock = wire::encode(&Knock::Former { known: layout.version, proof: key.proof_of(&inner.id) });
    let told = || layout.member(&peer).map(|member| member.addresses.clone());
    for address in inner.peers.addresses(&peer).or_else(told).unwrap_or_default() {
        let deadline = Instant::now() + EXCHANGE;
        let Ok(reply) = inner.endpoint().join(address, peer, knock.clone(), deadline).await else { continue };
        if let Ok(JoinReply::Removed(version)) = wire::decode(&reply)
            && version > layout.version
        {
            tracing::warn!(peer = %peer.short(), layout = version.0, "this node was removed from its network");
            inner.set_removed().await;
            return;
        }
    }
}

/// A newcomer shows a ticket's secret: admits it, or says why not.
async fn admit(inner: &Arc<Inner>, peer: NodeId, from: SocketAddr, request: JoinRequest) -> JoinReply {
    let admitted = async {
        // One that is a member already did not hear the answer. Its ticket need not be looked up, which takes a
        // majority that perhaps is there only with this node.
        if let Some(layout) = with_member(inner, &peer) {
            return Ok(layout);
        }
        match (consume(inner, peer, &request.secret).await, with_member(inner, &peer)) {
            // Another attempt of the same newcomer has made it a member meanwhile.
            (Err(_), Some(layout)) => Ok(layout),
            (Err(why), None) => Err(why),
            (Ok(()), _) => enter(inner, peer, request).await,
        }
    };
    match sys::timeout(ADMISSION, admitted).await {
        Ok(Ok(layout)) => match inner.key() {
            Ok(key) => {
                tracing::info!(node = %peer.short(), %from, "a node joined");
                JoinReply::Welcome { key: key.clone(), layout: layout.encode(), book: inner.peers.book() }
            }
            Err(error) => JoinReply::Refused(error.to_string()),
        },
        Ok(Err(Error::JoinRefused(why))) => {
            tracing::warn!(node = %peer.short(), %from, why, "refused a node that wanted to join");
            JoinReply::Refused(why)
        }
        // What was proposed may be decided yet, by whoever changes the layout next.
        undecided => {
            let why = match undecided {
                Ok(Err(error)) => error.to_string(),
                _ => "the network is too busy to decide".to_owned(),
            };
            tracing::warn!(node = %peer.short(), %from, why, "whether a node joined is undecided");
            JoinReply::Undecided(why)
        }
    }
}

/// Uses the invite up for `peer`, or finds that it did so before.
async fn consume(inner: &Arc<Inner>, peer: NodeId, secret: &[u8; 32]) -> Result<(), Error> {
    let refused = |why: &str| Error::JoinRefused(why.to_owned());
    let name = RegisterName::invite(&Ticket::invite_id(secret));
    // Strangers may try secrets; what was never made must not leave a trace.
    if inner.read(&name).await?.is_none() {
        return Err(refused("this network made no such ticket"));
    }
    let decide = |found: Option<&Value>| {
        let Some(bytes) = found.and_then(|value| value.present()) else {
            return Err(Err(refused("this network made no such ticket")));
        };
        let invite = InviteRecord::decode(bytes).map_err(|why| Err(why.into()))?;
        match invite.used_by {
            Some(user) if user == peer => return Err(Ok(())),
            Some(_) => {
                return Err(Err(refused(
                    "this ticket was used already: a ticket admits one node; make another with `pando invite`",
                )));
            }
            None if invite.expires < sys::now_ms() => {
                return Err(Err(refused("this ticket has expired: make another with `pando invite`")));
            }
            None => {}
        }
        Ok(State::Present(InviteRecord { used_by: Some(peer), ..invite }.encode()))
    };
    match inner.change(&name, WriteId(sys::random()), decide).await? {
        Outcome::Written(_) => Ok(()),
        Outcome::Declined(answer, _) => answer,
    }
}

/// The layout, if this node is a member by it.
fn with_member(inner: &Inner, peer: &NodeId) -> Option<Arc<Layout>> {
    inner.layout_now().filter(|layout| layout.member(peer).is_some())
}

/// Makes the newcomer a member by the next layout version.
async fn enter(inner: &Arc<Inner>, peer: NodeId, request: JoinRequest) -> Result<Arc<Layout>, Error> {
    let member = Member {
        id: peer,
        addresses: request.addresses,
        zone: request.zone,
        capacity: request.capacity,
        state: MemberState::Active,
    };
    let entered = inner.change_members(&Change::Join(member)).await;
    // Whatever became of this change: another attempt of the same newcomer may have made it a member.
    match (with_member(inner, &peer), entered) {
        (Some(layout), _) => Ok(layout),
        (None, Err(Error::Membership(why))) => Err(Error::JoinRefused(why)),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::JoinRefused("the node was removed again at once".into())),
    }
}

/// Shows a ticket to the one who made it, until that one said yes or no. Once it may have said yes, it is not given up
/// for a no: a network that counts on a newcomer which never comes may have no majority.
pub(crate) async fn ask_to_join(
    inner: &Arc<Inner>,
    ticket: &Ticket,
    request: JoinRequest,
) -> Result<JoinReply, Error> {
    let until = Instant::now() + UNDECIDED.0;
    let mut undecided = None;
    loop {
        match (ask_once(inner, ticket, request.clone()).await, undecided) {
            (Ok(JoinReply::Undecided(why)), _) => {
                tracing::warn!(why, "the network has not decided yet whether this node joins");
                undecided = Some(why);
            }
            // Whom it asked is gone, or knows less than before.
            (Err(error), Some(_)) => undecided = Some(error.to_string()),
            (answer, _) => return answer,
        }
        if Instant::now() >= until {
            return Err(Error::JoinUndecided(undecided.unwrap_or_default()));
        }
        sys::sleep(UNDECIDED.1 + sys::jitter(UNDECIDED.1)).await;
    }
}

/// One time, at each of its addresses.
async fn ask_once(inner: &Arc<Inner>, ticket: &Ticket, request: JoinRequest) -> Result<JoinReply, Error> {
    if ticket.inviter == inner.id {
        return Err(Error::JoinRefused(
            "this is a ticket of this very node: use it on another machine".into(),
        ));
    }
    if ticket.expires < sys::now_ms() {
        return Err(Error::JoinRefused("this ticket has expired: make another with `pando invite`".into()));
    }
    let request = wire::encode(&Knock::Join(request));
    let mut why = Vec::new();
    for address in &ticket.addresses {
        let deadline = Instant::now() + PATIENCE;
        match inner.endpoint().join(*address, ticket.inviter, request.clone(), deadline).await {
            Ok(reply) => return Ok(wire::decode(&reply)?),
            // It may have heard the request, and what it proposed may be decided yet.
            Err(error) if error.maybe_delivered() => {
                return Ok(JoinReply::Undecided(format!("{address}: {error}")));
            }
            Err(error) => why.push(format!("{address}: {error}")),
        }
    }
    Err(Error::JoinRefused(format!(
        "the node that made the ticket can't be reached; is it running? ({})",
        why.join("; ")
    )))
}
