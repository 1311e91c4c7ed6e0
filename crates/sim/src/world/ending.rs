//! The end of a world: after the faults all nodes run, every object reads the same everywhere, every copy is in
//! its place, and nothing else is left anywhere once the grace time is over.

use std::{path::PathBuf, rc::Rc, time::Duration};

use pando_node::{CheckProgress, Node, simulated::Disk};

use super::{State, machine_name};
use crate::{
    client::key,
    history::{Kind, Outcome},
    schedule::Profile,
    users, versions,
};

/// Looks whether the world is in order; called again and again on one node, once the clients have ended.
pub(crate) async fn look(state: &Rc<State>, node: &Node) {
    if !state.clients_ended() || state.is_in_order() {
        return;
    }
    match in_order(state, node).await {
        Ok(()) => {
            state.note("in order");
            state.set_in_order();
        }
        Err(why) => {
            if state.why() != why {
                state.note(&format!("not in order: {why}"));
            }
            state.set_why(why);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

async fn in_order(state: &Rc<State>, node: &Node) -> Result<(), String> {
    let up: Vec<u32> = state.up().iter().map(|(number, _)| *number).collect();
    let should = state.should_run();
    if up != should {
        return Err(format!("of machines {should:?} only {up:?} run"));
    }
    if state.has_wants() {
        return Err("a membership change is still wanted".into());
    }
    if node.members() != up.len() {
        return Err(format!("{} members, {} machines run", node.members(), up.len()));
    }
    let (progress, seen) = tokio::sync::watch::channel(CheckProgress::default());
    let report = node.check(true, &progress).await.map_err(|error| format!("check: {error}"))?;
    if !report.is_clean() {
        return Err(format!("check: {report:?}"));
    }
    let wanted = seen.borrow().copies;
    let files = |number: &u32| Disk::of(&machine_name(*number)).files("/chunks/");
    let held: Vec<PathBuf> = up.iter().flat_map(files).collect();
    if held.len() as u64 != wanted {
        let some: Vec<String> = held.iter().take(4).map(|path| path.display().to_string()).collect();
        return Err(format!(
            "{} chunk files, and {wanted} copies are wanted: {}",
            held.len(),
            some.join(", ")
        ));
    }
    for (number, node) in state.up() {
        let tombstones = node.tombstones().await.map_err(|error| error.to_string())?;
        if tombstones > 0 {
            return Err(format!("{tombstones} tombstones are left on machine {number}"));
        }
    }
    if state.plan.profile == Profile::Versions {
        for (number, node) in state.up() {
            versions::check(state, number, &node).await?;
        }
        return Ok(());
    }
    for (number, node) in state.up() {
        for key in (0..state.plan.all_keys()).map(key) {
            let operation = state.begin(1000 + number, number, &key, Kind::Read);
            let read = users::read(state, &node, &key, None).await;
            let outcome = match &read {
                Ok(users::Seen::Value(value)) => Outcome::Read(*value),
                Ok(users::Seen::Unknown) | Err(_) => Outcome::Failed,
            };
            state.end(operation, outcome);
            read.map_err(|error| format!("{key} from machine {number}: {error}"))?;
        }
    }
    Ok(())
}
