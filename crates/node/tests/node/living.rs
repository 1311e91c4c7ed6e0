//! A network that changes while it holds data: nodes join, drain, are removed and replaced.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use pando_node::{
    CheckReport, Ended, Node, PlanQuery,
    core::layout::{MemberState, change::Force},
};

use crate::grove::{Grove, content, eventually, get, put};

const HOUR: Duration = Duration::from_secs(3600);
/// Small and large objects: inline, one chunk, several chunks.
const SIZES: [usize; 4] = [100, 20_000, 300_000, 9_000_000];

async fn fill(node: &Node, count: usize) {
    for number in 0..count {
        let bytes = content(number as u8, SIZES[number % SIZES.len()]);
        put(node, &format!("object-{number}"), &bytes).await.unwrap();
    }
}

async fn check_all(node: &Node, count: usize) {
    for number in 0..count {
        let bytes = get(node, &format!("object-{number}")).await.unwrap();
        assert!(bytes == content(number as u8, SIZES[number % SIZES.len()]), "object-{number}");
    }
}

async fn report(node: &Node, deep: bool) -> CheckReport {
    let (progress, _) = tokio::sync::watch::channel(Default::default());
    node.check(deep, &progress).await.unwrap()
}

/// Waits until every object is on all its owners, and nothing anywhere else.
async fn healed(grove: &Grove) {
    let running: Vec<&Node> = grove.nodes.iter().flatten().collect();
    eventually("all is where it belongs", || async {
        for node in &running {
            let status = node.status().await.unwrap();
            let healing = status.healing;
            if status.in_transition || healing.lacking + healing.misplaced > 0 {
                return false;
            }
        }
        report(running[0], false).await.is_clean()
    })
    .await;
    let deep = report(running[0], true).await;
    assert!(deep.is_clean(), "{deep:?}");
}

async fn join(grove: &mut Grove) -> usize {
    let number = grove.nodes.len();
    let inviter = grove.nodes.iter().flatten().next().expect("a node runs");
    let mut config = grove.config(number);
    config.join = Some(inviter.invite(HOUR).await.unwrap());
    grove.nodes.push(Some(Node::start(config).await.unwrap()));
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_a_network_that_holds_objects() {
    let mut grove = Grove::of(3).await;
    fill(grove.node(0), 8).await;
    let joined = join(&mut grove).await;
    healed(&grove).await;
    check_all(grove.node(joined), 8).await;
    let held = grove.chunk_files(joined).len();
    assert!(held > 0, "it holds its share");
    let all: usize = (0..4).map(|number| grove.chunk_files(number).len()).sum();
    // 2 + 2 + 2 × 3 chunks, three copies each: those that moved are not kept where they were.
    assert_eq!(all, 3 * (2 + 2 + 2 * 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_hands_all_over_and_leaves() {
    let mut grove = Grove::of(4).await;
    fill(grove.node(1), 8).await;
    let leaving = grove.node(2).id();
    let plan = grove.node(0).plan(&PlanQuery { without: vec![leaving], with: Vec::new() }).unwrap();
    assert!(plan.moved > 0 && plan.slots == 3 * 1024, "{plan:?}");
    grove.node(0).drain(leaving, false).await.unwrap();
    eventually("it has left", || async {
        let status = grove.node(0).status().await.unwrap();
        status.nodes.iter().all(|node| node.id != leaving)
    })
    .await;
    assert!(grove.chunk_files(2).is_empty(), "it holds nothing any more");
    grove.stop(2).await;
    healed(&grove).await;
    check_all(grove.node(3), 8).await;
    let refused = grove.node(0).drain(grove.node(1).id(), false).await.unwrap_err().to_string();
    assert!(refused.contains("2 nodes would remain for 3 copies"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_can_be_called_off() {
    let grove = Grove::of(4).await;
    fill(grove.node(1), 4).await;
    let id = grove.node(2).id();
    grove.node(2).drain(id, false).await.unwrap();
    grove.node(0).stay(id).await.unwrap();
    healed(&grove).await;
    let status = grove.node(0).status().await.unwrap();
    assert!(status.nodes.iter().all(|node| node.state == MemberState::Active) && status.nodes.len() == 4);
    check_all(grove.node(2), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_removed_and_its_copies_are_made_again() {
    let mut grove = Grove::of(4).await;
    fill(grove.node(1), 8).await;
    let dead = grove.node(3).id();
    let refused = grove.node(0).remove_node(dead, Force::None).await.unwrap_err().to_string();
    assert!(refused.contains("drain it first"), "{refused}");
    grove.stop(3).await;
    eventually("it counts as down", || async { grove.node(0).remove_node(dead, Force::None).await.is_ok() })
        .await;
    healed(&grove).await;
    check_all(grove.node(2), 8).await;
    // Its number is free for another.
    let joined = join(&mut grove).await;
    healed(&grove).await;
    check_all(grove.node(joined), 8).await;
}

/// Nobody talks to it any more, so it has to ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_when_it_was_removed_finds_out() {
    let mut grove = Grove::of(4).await;
    let removed = grove.node(3).id();
    grove.stop(3).await;
    eventually("it is removed", || async { grove.node(0).remove_node(removed, Force::None).await.is_ok() })
        .await;
    healed(&grove).await;
    let config = grove.config(3);
    let back = Node::start(config.clone()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), back.ended()).await;
    assert_eq!(ended, Ok(Ended::Removed));
    back.stop().await;
    let why = Node::start(config).await.map(|_| ()).unwrap_err().to_string();
    assert!(why.contains("was removed from its network"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stays_away_is_replaced_and_one_that_flaps_is_not() {
    let mut grove = Grove::of(4).await;
    for number in 0..4 {
        grove.stop(number).await;
        let mut config = grove.config(number);
        config.dead_after = Some(Duration::from_secs(8));
        grove.nodes[number] = Some(Node::start(config).await.unwrap());
    }
    grove.settled().await;
    fill(grove.node(1), 4).await;
    let layout = grove.node(0).status().await.unwrap().layout;
    grove.stop(3).await;
    eventually("it counts as down", || async {
        grove.node(0).status().await.unwrap().nodes.iter().any(|node| !node.up)
    })
    .await;
    grove.restart(3).await;
    grove.settled().await;
    assert_eq!(grove.node(0).status().await.unwrap().layout, layout, "a flap moves nothing");
    grove.stop(3).await;
    eventually("it is replaced", || async {
        let status = grove.node(0).status().await.unwrap();
        status.nodes.len() == 3 && !status.in_transition
    })
    .await;
    healed(&grove).await;
    check_all(grove.node(2), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_while_nodes_come_and_go() {
    let mut grove = Grove::of(3).await;
    fill(grove.node(0), 8).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let worker = tokio::spawn({
        let (node, stop, done) = (grove.node(0).clone(), Arc::clone(&stop), Arc::clone(&done));
        async move {
            let mut round = 0u64;
            while !stop.load(Ordering::SeqCst) {
                let key = format!("busy-{}", round % 7);
                let bytes = content(round as u8, if round.is_multiple_of(2) { 500 } else { 50_000 });
                put(&node, &key, &bytes).await.unwrap_or_else(|why| panic!("round {round}: {why}"));
                let got = get(&node, &key).await.unwrap_or_else(|why| panic!("round {round}: {why}"));
                assert!(got == bytes, "round {round}: a stale or wrong read");
                round += 1;
                done.store(round, Ordering::SeqCst);
            }
        }
    });
    let joined = join(&mut grove).await;
    let leaving = grove.node(1).id();
    grove.node(joined).drain(leaving, false).await.unwrap();
    eventually("it has left", || async {
        grove.node(0).status().await.unwrap().nodes.iter().all(|node| node.id != leaving)
    })
    .await;
    grove.stop(1).await;
    let before = done.load(Ordering::SeqCst);
    eventually("work goes on", || async { done.load(Ordering::SeqCst) > before + 5 || worker.is_finished() })
        .await;
    stop.store(true, Ordering::SeqCst);
    worker.await.unwrap();
    healed(&grove).await;
    check_all(grove.node(joined), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_finds_what_is_damaged_and_it_is_healed() {
    let grove = Grove::of(3).await;
    fill(grove.node(0), 8).await;
    healed(&grove).await;
    let victim = grove.chunk_files(1).into_iter().next().unwrap();
    let mut bytes = std::fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&victim, &bytes).unwrap();
    assert!(report(grove.node(0), false).await.is_clean(), "it is there, for who does not look closely");
    grove.node(1).scrub_now();
    eventually("the pass is over", || async {
        let scrub = grove.node(1).status().await.unwrap().healing.scrub;
        !scrub.now && scrub.finished.is_some() && scrub.verified > 0
    })
    .await;
    assert_eq!(grove.node(1).status().await.unwrap().healing.scrub.damaged, 1);
    healed(&grove).await;
    bytes[middle] ^= 1;
    assert_eq!(std::fs::read(&victim).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_is_missing_where() {
    let mut grove = Grove::of(3).await;
    fill(grove.node(0), 4).await;
    healed(&grove).await;
    let (chunk, whom) = (grove.chunk_files(2).remove(0), grove.node(2).id());
    let mut bytes = std::fs::read(&chunk).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&chunk, bytes).unwrap();
    let found = report(grove.node(0), true).await;
    assert!(
        found.problem_count >= 1 && found.problems.iter().all(|problem| problem.node == whom),
        "{found:?}"
    );
    assert!(!found.is_clean());
    healed(&grove).await;
    grove.stop(2).await;
    let found = report(grove.node(0), false).await;
    assert!(!found.is_clean() && found.unreachable == [whom], "{found:?}");
}
