//! What every plan must be, over many seeds.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn plans() -> impl Iterator<Item = Plan> {
    (0..3_000).map(Plan::of)
}

#[test]
fn a_seed_is_a_plan_and_seeds_differ() {
    assert_eq!(Plan::of(7), Plan::of(7));
    let distinct: BTreeSet<String> =
        (0..100).map(|seed| format!("{:?}", Plan { seed: 0, ..Plan::of(seed) })).collect();
    assert_eq!(distinct.len(), 100);
}

#[test]
fn sizes_are_in_range() {
    for plan in plans() {
        assert!((3..=9).contains(&plan.nodes) && (1..=3).contains(&plan.zones), "{plan:?}");
        assert!((2..=6).contains(&plan.clients) && (30..=100).contains(&plan.seconds), "{plan:?}");
        let keys = if plan.profile.is_hot() { 1..=1 } else { 2..=6 };
        assert!(keys.contains(&plan.keys) && plan.copies() >= 1 && plan.copies() <= plan.nodes, "{plan:?}");
    }
}

#[test]
fn every_profile_and_fault_happens() {
    let mut profiles = BTreeMap::new();
    let mut faults = BTreeMap::new();
    for plan in plans() {
        *profiles.entry(plan.profile).or_insert(0) += 1;
        for (_, fault) in plan.faults {
            *faults.entry(fault.name()).or_insert(0) += 1;
        }
    }
    assert_eq!(profiles.len(), PROFILES.len());
    assert_eq!(faults.len(), 20, "{faults:?}");
    assert!(faults.values().all(|&times| times > 50), "{faults:?}");
}

#[test]
fn the_last_third_is_calm_and_everything_is_mended() {
    for plan in plans() {
        assert!(plan.faults.is_sorted_by_key(|&(at, _)| at), "{plan:?}");
        let mut down = BTreeSet::new();
        let mut bad = BTreeSet::new();
        for (at, fault) in &plan.faults {
            assert!(*at >= 2_000 && *at < u64::from(plan.seconds) * 1000);
            let mends = matches!(
                fault,
                Fault::Heal
                    | Fault::Restart { .. }
                    | Fault::CheckNow
                    | Fault::Loss { permille: 0 }
                    | Fault::Slow { ms: 0, .. }
                    | Fault::ReadErrors { percent: 0, .. }
            );
            assert!(mends || *at < plan.calm_from_ms, "{fault:?} in the calm of {plan:?}");
            match *fault {
                Fault::Crash { node, .. } | Fault::FsyncFails { node } => {
                    down.insert(node);
                }
                Fault::Restart { node } => {
                    down.remove(&node);
                }
                Fault::Remove { node } => {
                    down.remove(&node);
                    bad.retain(|&(_, other)| other != node);
                }
                Fault::Partition { .. } | Fault::OneWay { .. } => {
                    bad.insert(("net", u32::MAX));
                }
                Fault::Heal => {
                    bad.remove(&("net", u32::MAX));
                }
                Fault::Slow { node, ms: 0 } => {
                    bad.remove(&("slow", node));
                }
                Fault::Slow { node, .. } => {
                    bad.insert(("slow", node));
                }
                Fault::ReadErrors { node, percent: 0 } => {
                    bad.remove(&("read", node));
                }
                Fault::ReadErrors { node, .. } => {
                    bad.insert(("read", node));
                }
                _ => {}
            }
        }
        assert!(down.is_empty() && bad.is_empty(), "{down:?} {bad:?} {plan:?}");
    }
}

#[test]
fn a_majority_of_the_copies_is_never_lost() {
    for plan in plans() {
        let mut struck = BTreeSet::new();
        let mut members: BTreeSet<u32> = (0..plan.nodes).collect();
        let mut next = plan.nodes;
        let mut gone = BTreeSet::new();
        for (_, fault) in &plan.faults {
            match *fault {
                Fault::FlipBits { node, .. }
                | Fault::Misdirect { node }
                | Fault::ReadErrors { node, .. }
                | Fault::FsyncFails { node }
                | Fault::Wipe { node } => {
                    struck.insert(node);
                }
                Fault::Join => {
                    members.insert(next);
                    next += 1;
                }
                Fault::Drain { node } => {
                    assert!(members.remove(&node), "drained twice: {plan:?}");
                }
                Fault::Remove { node } => {
                    assert!(members.remove(&node), "removed twice: {plan:?}");
                    struck.insert(node);
                    gone.insert(node);
                }
                _ => {}
            }
            let nodes = fault.nodes();
            let names_gone =
                !matches!(fault, Fault::Remove { .. }) && nodes.iter().any(|node| gone.contains(node));
            assert!(!names_gone, "{fault:?} names a node that is gone: {plan:?}");
        }
        assert!(struck.len() <= plan.expendable() as usize, "{struck:?} of {plan:?}");
        assert!(members.len() >= plan.copies() as usize, "too few stay: {plan:?}");
    }
}

#[test]
fn faults_name_nodes_that_are_there() {
    for plan in plans() {
        let mut next = plan.nodes;
        for (_, fault) in &plan.faults {
            next += u32::from(*fault == Fault::Join);
            let named = fault.nodes();
            assert!(named.iter().all(|&node| node < next), "{fault:?} of {plan:?}");
        }
    }
}
