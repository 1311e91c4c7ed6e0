//! Requests that change the membership: which node is meant, and what a refusal is for the one who asked.

use pando_core::{
    id::NodeId,
    layout::{MemberState, change::Force},
};
use pando_node::{Error, Node, PlanQuery};

use super::report::Member;
use crate::exit::{Failure, Kind};

/// The member whose id starts with `text`.
pub(super) fn find(node: &Node, text: &str) -> Result<NodeId, Failure> {
    node.find_member(text).map_err(|error| {
        let members = node.plan(&PlanQuery::default()).map(|plan| plan.members).unwrap_or_default();
        let ids = members.iter().filter_map(|member| member.id);
        let several = ids.filter(|id| id.to_string().starts_with(text)).count() > 1;
        Failure::new(if several { Kind::Usage } else { Kind::NotFound }, error.to_string())
    })
}

/// Whether the member is in this state: what was asked for may be so already.
async fn is_already(node: &Node, id: NodeId, state: MemberState) -> bool {
    let status = node.status().await;
    status.is_ok_and(|status| status.nodes.iter().any(|member| member.id == id && member.state == state))
}

/// Starts a drain. One that drains already goes on: whoever asks again wants to follow it.
pub(super) async fn drain(node: &Node, text: &str, force: bool) -> Result<Member, Failure> {
    let id = find(node, text)?;
    match node.drain(id, force).await {
        Err(Error::Membership(_)) if is_already(node, id, MemberState::Draining).await => Ok(id.into()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(id.into()),
    }
}

/// Ends a drain.
pub(super) async fn stay(node: &Node, text: &str) -> Result<Member, Failure> {
    let id = find(node, text)?;
    match node.stay(id).await {
        Err(Error::Membership(_)) if is_already(node, id, MemberState::Active).await => {
            Err(Failure::new(Kind::Precondition, format!("node {} is not draining", id.short())))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(id.into()),
    }
}

/// Removes a node.
pub(super) async fn remove(node: &Node, text: &str, force: Force) -> Result<Member, Failure> {
    let id = find(node, text)?;
    if id == node.id() {
        let why = "this is the node that was asked: let it leave with `pando drain`, or if its data is lost, \
                   remove it from another node";
        return Err(Failure::new(Kind::Precondition, why));
    }
    node.remove_node(id, force).await?;
    Ok(id.into())
}
