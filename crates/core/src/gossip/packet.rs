//! Packets: who may say what, before the protocol hears it.
//!
//! Owns the names under which nodes take part, and the checks of a packet from a peer: its sender is who the
//! transport says it is, and nobody but members is talked of. Everything else in a packet is `foca`'s.

use std::collections::BTreeSet;

use foca::{Codec as _, Header, Identity, Member, Message, PostcardCodec};
use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// Most bytes of a packet: an Ethernet frame after the transport's own framing.
pub const MAX_PACKET: usize = 1200;
/// The life of a member that has not been heard of yet, see [`Name`].
pub(super) const UNHEARD: u64 = 0;

/// A node in one of its lives. A node that was declared dead can't take that back; it comes back under the
/// same id in a later life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Who.
    pub node: NodeId,
    /// Rises with each start and each return. 0 stands for whatever life the node is in: what the layout
    /// alone tells.
    pub life: u64,
}

impl Identity for Name {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { life: self.life.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// A packet that may be given to the protocol.
pub(super) struct Admitted {
    /// Its bytes, without what is said of strangers.
    pub(super) bytes: Vec<u8>,
    /// A later life in which others know this node.
    pub(super) later_life: Option<u64>,
}

/// Checks a packet that `from` sent to `me`. `None`: it is not to be heard.
pub(super) fn admit(packet: &[u8], from: &NodeId, me: &Name, members: &BTreeSet<NodeId>) -> Option<Admitted> {
    if packet.len() > MAX_PACKET || !members.contains(from) {
        return None;
    }
    let mut rest = packet;
    let mut header: Header<Name> = PostcardCodec.decode_header(&mut rest).ok()?;
    let known = |name: &Name| name.node == me.node || members.contains(&name.node);
    let third = match &header.message {
        Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
        Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => Some(origin),
        _ => None,
    };
    let spoken_by = header.src.node == *from && header.src.life != UNHEARD && from != &me.node;
    if !spoken_by || header.dst.node != me.node || !third.is_none_or(known) {
        return None;
    }
    let mut later_life = Some(header.dst.life).filter(|life| *life > me.life);
    if header.dst.life == UNHEARD {
        header.dst = *me;
    }
    let mut bytes = Vec::with_capacity(MAX_PACKET + 16);
    PostcardCodec.encode_header(&header, &mut bytes).ok()?;
    if !matches!(header.message, Message::Announce | Message::Broadcast) && rest.len() >= 2 {
        let count = u16::from_be_bytes([rest[0], rest[1]]);
        rest = &rest[2..];
        let mut kept: Vec<Member<Name>> = Vec::new();
        for _ in 0..count {
            let member: Member<Name> = PostcardCodec.decode_member(&mut rest).ok()?;
            let name = member.id();
            if name.node == me.node && name.life > me.life {
                later_life = later_life.max(Some(name.life));
            } else if known(name) && name.life != UNHEARD {
                kept.push(member);
            }
        }
        bytes.extend_from_slice(&(kept.len() as u16).to_be_bytes());
        for member in &kept {
            PostcardCodec.encode_member(member, &mut bytes).ok()?;
        }
    }
    if bytes.len() + rest.len() <= MAX_PACKET {
        bytes.extend_from_slice(rest);
    }
    Some(Admitted { bytes, later_life })
}
