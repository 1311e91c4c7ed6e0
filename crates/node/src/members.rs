//! Membership changes that people (or `dead_after`) ask for: drain, stay, leave, remove, update, and what
//! they would move. What the next layout is, and whether it may be, `pando_core::layout::change` decides.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pando_core::{
    id::NodeId,
    layout::{
        Layout, Member, MemberState, Slots,
        change::{Change, Facts, Refused},
        plan,
    },
};

use crate::{
    api::{Plan, PlanQuery, PlannedMember},
    error::Error,
    inner::Inner,
    peers::Liveness,
    sync,
    sys::{self, Instant},
};

/// How long a change waits for another one that is under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before trying again to change the own entry.
const AGAIN: Duration = Duration::from_secs(2);

/// What this node was told about itself when it started.
pub(crate) struct Said {
    pub(crate) addresses: Option<Vec<SocketAddr>>,
    pub(crate) zone: Option<String>,
    pub(crate) capacity: u64,
}

/// Makes this member's entry in the layout say what it was told at its start, until that is so.
pub(crate) async fn update_own(inner: Arc<Inner>, said: Said) {
    loop {
        let Some(layout) = inner.layout_now() else { return };
        let Some(me) = layout.member(&inner.id) else { return };
        let change = Change::Update {
            id: inner.id,
            addresses: said.addresses.clone().unwrap_or_else(|| me.addresses.clone()),
            zone: said.zone.clone().unwrap_or_else(|| me.zone.clone()),
            capacity: said.capacity,
        };
        match layout.change(&change, Facts::default()) {
            Err(Refused::Already) => return,
            Err(Refused::InTransition) | Ok(_) => {}
            Err(why) => {
                tracing::warn!(%why, "this node's entry in the layout stays as it was");
                return;
            }
        }
        if let Err(error) = inner.change_members(&change).await {
            tracing::debug!(%error, "this node's entry in the layout will be changed later");
            sys::sleep(AGAIN + sys::jitter(AGAIN)).await;
        }
    }
}

impl Inner {
    /// The member whose id starts with `text` (hexadecimal).
    pub(crate) fn find_member(&self, text: &str) -> Result<NodeId, Error> {
        let layout = self.layout()?;
        let fits = |id: &NodeId| !text.is_empty() && id.to_string().starts_with(&text.to_lowercase());
        let mut found = layout.present().map(|member| member.id).filter(fits);
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => {
                Err(Error::Membership(format!("{text:?} fits several nodes: give more of the id")))
            }
            (None, _) => Err(Error::Membership(format!(
                "no node of this network has an id that starts with {text:?}: `pando status` shows them"
            ))),
        }
    }

    /// See [`crate::Node::drain`].
    pub(crate) async fn drain(self: &Arc<Self>, id: NodeId, force: bool) -> Result<(), Error> {
        let keeps_copies = |known: &Layout| {
            let mut members = known.members.clone();
            members.retain(|member| member.id != id);
            if force { Ok(()) } else { known.keeps_copies(&members) }
        };
        self.change_members_if(&Change::Drain(id), keeps_copies).await
    }

    /// Decides a change of the membership, after the one that is under way.
    pub(crate) async fn change_members(self: &Arc<Self>, change: &Change) -> Result<(), Error> {
        self.change_members_if(change, |_| Ok(())).await
    }

    /// As [`Inner::change_members`], if the layout that is changed allows it.
    async fn change_members_if(
        self: &Arc<Self>,
        change: &Change,
        allows: impl Fn(&Layout) -> Result<(), Refused>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut layouts = self.layouts();
        loop {
            let settled =
                layouts.wait_for(|layout| layout.as_ref().is_some_and(|layout| layout.previous.is_none()));
            match sys::timeout_at(deadline, settled).await {
                Ok(Ok(_)) => {}
                Ok(Err(_closed)) => return Err(Error::Stopping),
                Err(_elapsed) => return Err(refused(Refused::InTransition)),
            }
            let down = self.down();
            let facts = Facts { down: &down, used: self.used_in_all() };
            let decided =
                sync::propose(self, |known| match allows(known).and_then(|()| known.change(change, facts)) {
                    Err(Refused::InTransition) => Err(Error::Busy(Refused::InTransition.to_string())),
                    other => other.map_err(refused),
                });
            match decided.await {
                Ok(_) => return Ok(()),
                Err(Error::Busy(_)) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Members that don't answer.
    fn down(&self) -> Vec<NodeId> {
        let Some(layout) = self.layout_now() else { return Vec::new() };
        let is_down = |id: &NodeId| *id != self.id && self.peers.liveness(id) == Liveness::Down;
        layout.present().map(|member| member.id).filter(is_down).collect()
    }

    /// Bytes of chunks on all members, as far as they said.
    fn used_in_all(&self) -> u64 {
        let Some(layout) = self.layout_now() else { return 0 };
        let used = |member: &Member| match member.id == self.id {
            true => self.store.used_bytes(),
            false => self.peers.said(&member.id).map_or(0, |said| said.used),
        };
        layout.present().map(used).sum()
    }

    /// See [`crate::Node::plan`].
    pub(crate) fn plan(&self, query: &PlanQuery) -> Result<Plan, Error> {
        let layout = self.layout()?;
        let mut members = layout.members.clone();
        for id in &query.without {
            match members.iter_mut().find(|member| member.id == *id) {
                Some(member) => member.state = MemberState::Gone,
                None => return Err(refused(Refused::NotAMember(id.short()))),
            }
        }
        let newcomers = query.with.iter().zip(0u8..).map(|((capacity, zone), number)| Member {
            // No node has such an id; it is never seen.
            id: NodeId([number; 32]),
            addresses: Vec::new(),
            zone: zone.clone(),
            capacity: *capacity,
            state: MemberState::Active,
        });
        let known = members.len();
        members.extend(newcomers);
        if !members.iter().any(|member| member.state == MemberState::Active) {
            return Err(refused(Refused::Last));
        }
        let slots = plan::plan(&layout.slots, &members, layout.replicas);
        Ok(self.preview(&layout, &members, &slots, known))
    }

    fn preview(&self, layout: &Layout, members: &[Member], slots: &Slots, known: usize) -> Plan {
        let moved = plan::moved(&layout.slots, slots);
        let change = |number: usize| moved.members.get(&(number as u16)).copied().unwrap_or_default();
        let before: u64 = moved.members.values().map(|change| change.before as u64).sum();
        let slot_bytes = self.used_in_all().checked_div(before).unwrap_or(0);
        let planned = |(number, member): (usize, &Member)| PlannedMember {
            id: (number < known).then_some(member.id),
            zone: member.zone.clone(),
            capacity: member.capacity,
            slots_before: change(number).before as u64,
            slots_after: change(number).after() as u64,
            bytes_in: change(number).gained as u64 * slot_bytes,
        };
        let present = members.iter().enumerate().filter(|(number, member)| {
            member.state != MemberState::Gone || (*number < known && change(*number).before > 0)
        });
        Plan {
            members: present.map(planned).collect(),
            moved: moved.slots as u64,
            slots: moved.total as u64,
            bytes: moved.slots as u64 * slot_bytes,
            copies: layout.copies(members),
        }
    }
}

pub(crate) fn refused(why: Refused) -> Error {
    Error::Membership(why.to_string())
}
