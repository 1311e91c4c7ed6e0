//! `pando drain`: a node gives up what it holds and leaves; the command follows until it has.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::json;

use super::progress::Progress;
use crate::{
    args,
    control::{
        Client,
        message::Request,
        report::{Member, Status},
    },
    exit::{Failure, Kind},
    output::Output,
    signals::Signals,
    units,
};

/// How often the node is asked how far it is; counting objects for the answer takes it longer than that.
const POLL: Duration = Duration::from_millis(500);

pub(crate) async fn run(drain: args::Drain, data: &Path, out: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::connect(data).await?;
    let node = drain.node;
    if drain.undo {
        let what = || format!("can't let node {node} stay");
        let member = client.membership(&Request::Stay { node: node.clone() }).await.with_context(what)?;
        return say(&member, "active", "stays", out);
    }
    let mut signals = Signals::new()?;
    let request = Request::Drain { node: node.clone(), force: drain.force };
    let member = tokio::select! {
        member = client.membership(&request) => member.with_context(|| format!("can't drain node {node}"))?,
        _ = signals.next() => {
            let why = "interrupted before the node answered; `pando status` shows whether it drains";
            return Err(Failure::new(Kind::Unknown, why).into());
        }
    };
    if drain.no_wait {
        let what = "drains: it hands over what it holds and then leaves; `pando status` shows how far it is";
        return say(&member, "draining", what, out);
    }
    tracing::info!(node = member.short, "following the drain");
    tokio::select! {
        left = follow(&mut client, &member) => left?,
        _ = signals.next() => {
            let why = format!(
                "interrupted: node {0} goes on draining; `pando status` shows how far it is, \
                 `pando drain {0} --undo` lets it stay",
                member.short
            );
            return Err(Failure::new(Kind::Failed, why).into());
        }
    }
    say(&member, "left", "holds nothing any more and has left the network", out)
}

fn say(member: &Member, state: &str, what: &str, out: &mut Output) -> anyhow::Result<()> {
    out.either(&json!({ "id": member.id, "state": state }), format!("node {} {what}", member.short))
}

/// Where a drain is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// It holds so many bytes, if it said so, and owes others so many chunks.
    Draining { used: Option<u64>, owed: u64, up: bool, in_transition: bool },
    /// It is no member any more.
    Left,
    /// Someone let it stay.
    Undone,
}

impl Stage {
    fn of(status: &Status, member: &Member) -> Self {
        match status.nodes.iter().find(|node| node.id == member.id) {
            None => Stage::Left,
            Some(node) if !node.draining => Stage::Undone,
            Some(node) => Stage::Draining {
                used: node.used,
                owed: node.owed.unwrap_or(0),
                up: node.up,
                in_transition: status.in_transition,
            },
        }
    }

    /// Whether nothing keeps the node from leaving at any moment.
    fn is_empty(&self) -> bool {
        matches!(self, Stage::Draining { used: Some(0), in_transition: false, .. })
    }

    fn words(&self) -> String {
        let Stage::Draining { used, owed, in_transition, .. } = self else { return String::new() };
        let mut parts = Vec::new();
        parts.extend(used.map(|used| format!("{} left", units::size(used))));
        if *owed > 0 {
            parts.push(format!("{} to hand over", units::count(*owed, "chunk")));
        }
        if *in_transition {
            parts.push("the layout changes".to_owned());
        }
        parts.join(", ")
    }
}

/// Looks how far the drain is until the node has left.
async fn follow(client: &mut Client, member: &Member) -> anyhow::Result<()> {
    let progress = Progress::show(format!("draining {}", member.short), Some(0));
    let mut most = 0;
    let mut may_end = false;
    let mut said_down = false;
    loop {
        let status = match client.status().await {
            Ok(status) => status,
            // A node that drains itself ends by itself when it has left, and the answer to "how far are you?"
            // may be that nobody is there any more. That is the success that is waited for, if there was
            // nothing left to hand over; else the node died in the middle.
            Err(_) if may_end => return Ok(()),
            Err(error) => {
                let what = format!(
                    "node {} was told to drain, but can't be followed any more: look on another node with \
                     `pando status` whether it has left",
                    member.short
                );
                return Err(error).context(what);
            }
        };
        let stage = Stage::of(&status, member);
        match &stage {
            Stage::Left => return Ok(()),
            Stage::Undone => {
                let why = format!("node {} stays: its drain was undone meanwhile", member.short);
                return Err(Failure::new(Kind::Failed, why).into());
            }
            Stage::Draining { used, up, .. } => {
                let left = used.unwrap_or(most);
                most = most.max(left);
                progress.set_total(most.max(1));
                progress.set(most - left, stage.words());
                if !up && !said_down {
                    progress.note(&format!(
                        "pando: node {0} is down: start it to go on, or `pando remove {0}` if it is gone for good",
                        member.short
                    ));
                }
                said_down = !up;
            }
        }
        let is_me = status.nodes.iter().any(|node| node.me && node.id == member.id);
        may_end = is_me && stage.is_empty();
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::status::tests::status;

    #[test]
    fn the_stage_follows_the_status() {
        let mut now = status(&[(true, Some(0)), (true, Some(3))], Some(3));
        let member = Member { id: now.nodes[1].id.clone(), short: "n1".into() };
        assert_eq!(Stage::of(&now, &member), Stage::Undone);
        now.nodes[1].draining = true;
        now.nodes[1].used = Some(3 << 20);
        assert_eq!(Stage::of(&now, &member).words(), "3.0 MiB left, 3 chunks to hand over");
        assert!(!Stage::of(&now, &member).is_empty());
        now.nodes[1].used = Some(0);
        assert!(Stage::of(&now, &member).is_empty());
        now.in_transition = true;
        assert!(!Stage::of(&now, &member).is_empty(), "registers have still to go");
        now.nodes.pop();
        assert_eq!(Stage::of(&now, &member), Stage::Left);
    }
}
