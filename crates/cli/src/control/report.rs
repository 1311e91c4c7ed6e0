//! What goes over the control socket about the network itself: status, plans, checks. As in [`super::message`],
//! ids travel as text, and conversions from the node's types are here.

use std::{net::SocketAddr, time::Duration};

use pando_core::{
    id::NodeId,
    layout::{MemberState, Replicas},
};
use serde::{Deserialize, Serialize};

/// A member's id, whole and as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) short: String,
}

/// The network at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) network: String,
    pub(crate) layout: u64,
    pub(crate) in_transition: bool,
    /// `None` is one copy on every node.
    pub(crate) replicas: Option<u8>,
    pub(crate) nodes: Vec<NodeStatus>,
    /// How many, and whether that is all of them.
    pub(crate) objects: Option<(u64, bool)>,
    pub(crate) healing: Healing,
    pub(crate) scrub: Scrub,
}

/// A node, as the one that was asked sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) id: String,
    pub(crate) short: String,
    pub(crate) zone: String,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) draining: bool,
    pub(crate) up: bool,
    pub(crate) me: bool,
    pub(crate) used: Option<u64>,
    pub(crate) capacity: u64,
    pub(crate) owed: Option<u64>,
    pub(crate) down_for: Option<Duration>,
}

/// What the node that was asked does to mend things; chunks, and bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Healing {
    pub(crate) lacking: u64,
    pub(crate) owing: u64,
    pub(crate) misplaced: u64,
    pub(crate) rate: u64,
    pub(crate) done_in: Option<Duration>,
}

/// How the verification of the asked node's chunks goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scrub {
    pub(crate) now: bool,
    pub(crate) verified: u64,
    pub(crate) total: u64,
    pub(crate) damaged: u64,
    /// Unix milliseconds.
    pub(crate) finished: Option<u64>,
}

/// What a change of the membership would move; slots are copies of partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) members: Vec<PlannedMember>,
    pub(crate) moved: u64,
    pub(crate) slots: u64,
    pub(crate) bytes: u64,
    pub(crate) copies: u64,
}

/// A member in a plan; without an id it would join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedMember {
    pub(crate) member: Option<Member>,
    pub(crate) zone: String,
    pub(crate) capacity: u64,
    pub(crate) slots_before: u64,
    pub(crate) slots_after: u64,
    pub(crate) bytes_in: u64,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckProgress {
    pub(crate) objects: u64,
    pub(crate) copies: u64,
    pub(crate) problems: u64,
}

/// What a check found; the problems themselves travel apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) objects: u64,
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    pub(crate) clean: bool,
    pub(crate) problem_count: u64,
    pub(crate) unreachable: Vec<Member>,
    pub(crate) in_transition: bool,
}

/// One copy that is missing, outdated or damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) object: String,
    /// `None`: the object's record.
    pub(crate) chunk: Option<String>,
    pub(crate) node: Member,
    pub(crate) what: String,
}

impl From<NodeId> for Member {
    fn from(id: NodeId) -> Self {
        Self { id: id.to_string(), short: id.short() }
    }
}

impl From<pando_node::NodeStatus> for NodeStatus {
    fn from(node: pando_node::NodeStatus) -> Self {
        Self {
            id: node.id.to_string(),
            short: node.id.short(),
            zone: node.zone,
            addresses: node.addresses,
            draining: node.state == MemberState::Draining,
            up: node.up,
            me: node.me,
            used: node.used,
            capacity: node.capacity,
            owed: node.owed,
            down_for: node.down_for,
        }
    }
}

impl From<pando_node::Status> for Status {
    fn from(status: pando_node::Status) -> Self {
        let healing = status.healing;
        Self {
            network: status.network.to_string(),
            layout: status.layout,
            in_transition: status.in_transition,
            replicas: match status.replicas {
                Replicas::Count(count) => Some(count),
                Replicas::All => None,
            },
            nodes: status.nodes.into_iter().map(NodeStatus::from).collect(),
            objects: status.objects.map(|count| (count.at_least, count.exact)),
            healing: Healing {
                lacking: healing.lacking,
                owing: healing.owing,
                misplaced: healing.misplaced,
                rate: healing.rate,
                done_in: healing.done_in,
            },
            scrub: Scrub {
                now: healing.scrub.now,
                verified: healing.scrub.verified,
                total: healing.scrub.total,
                damaged: healing.scrub.damaged,
                finished: healing.scrub.finished,
            },
        }
    }
}

impl From<pando_node::Plan> for Plan {
    fn from(plan: pando_node::Plan) -> Self {
        let member = |member: pando_node::PlannedMember| PlannedMember {
            member: member.id.map(Member::from),
            zone: member.zone,
            capacity: member.capacity,
            slots_before: member.slots_before,
            slots_after: member.slots_after,
            bytes_in: member.bytes_in,
        };
        Self {
            members: plan.members.into_iter().map(member).collect(),
            moved: plan.moved,
            slots: plan.slots,
            bytes: plan.bytes,
            copies: plan.copies as u64,
        }
    }
}

impl From<pando_node::CheckProgress> for CheckProgress {
    fn from(progress: pando_node::CheckProgress) -> Self {
        Self { objects: progress.objects, copies: progress.copies, problems: progress.problems }
    }
}

impl From<pando_node::CheckProblem> for Problem {
    fn from(problem: pando_node::CheckProblem) -> Self {
        Self {
            object: problem.object,
            chunk: problem.chunk.map(|chunk| chunk.to_string()),
            node: problem.node.into(),
            what: problem.what,
        }
    }
}

impl From<&pando_node::CheckReport> for Check {
    fn from(report: &pando_node::CheckReport) -> Self {
        Self {
            objects: report.objects,
            chunks: report.chunks,
            bytes: report.bytes,
            clean: report.is_clean(),
            problem_count: report.problem_count,
            unreachable: report.unreachable.iter().copied().map(Member::from).collect(),
            in_transition: report.in_transition,
        }
    }
}
