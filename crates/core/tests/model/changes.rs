//! Layout changes and purging, model-checked: nodes that know different layouts, new owners that sync, owners that
//! leave and return with their old disk, tombstones that are forgotten, and clients that slept through all of it.
//!
//! | configuration | owners | operations | states |
//! |---|---|---|---|
//! | grow | a → ab | put; put, read; two attempts each | 274,000 |
//! | replace | ab → bc | put; put | 895,000 |
//! | join, after a write on a and the sync of c | abc → bcd | put; put | 28,000 |
//! | there and back, purging, for each of two rules | a → b → a | put, delete; put, read | 570,000 |
//! | stale rows, after put, transition, delete and purge, for each of two rules | abc → bcd → cda | put | 614,000 |
//! | purge, with a restart | abc | put, delete; put | 110,000 |
//! | purge and tell, with late news of what was chosen, for each of two rules | abc | put, delete; put | 78,000 |
//! | purge without one, which holds nothing, deleted before the start or not | abc | put, read; put | 19,000, 17,000 |
//!
//! All are exhausted: every state there is within these operations, their ballots, and one sync a node and
//! transition. What comes before a configuration's beginning is given, not explored. Left out, as it only makes
//! nodes refuse: promises that are not heard. Larger ones (`join-all`, `returning`, `everything`) are walked at random here
//! and explored by the command `register_model`.

use crate::{
    explore::Bounds,
    explored, holds, is_noticed,
    reconfig::cases,
    rules::{Broken, Config, Leavers},
    run,
};

const SETTLES: &[&str] = &["synced", "sync, adopted", "sync, differed", "settle, written back"];

#[test]
fn an_owner_joins() {
    holds(cases::grow(), 200_000, &["synced", "sync, adopted", "settle, written back", "conflict"]);
    holds(cases::join(), 20_000, SETTLES);
}

#[test]
fn an_owner_is_replaced() {
    holds(cases::replace(), 500_000, SETTLES);
}

#[test]
fn purging() {
    holds(cases::purge(), 50_000, &["purged"]);
    holds(cases::purge_and_tell(Leavers::GatePurge), 70_000, &["purged"]);
    holds(cases::purge_and_tell(Leavers::DropIfAway), 70_000, &["purged"]);
    holds(cases::purge_without_one(true), 15_000, &["purged"]);
    holds(cases::purge_without_one(false), 15_000, &["purged"]);
}

#[test]
fn an_owner_leaves_and_returns() {
    let events = &["synced", "sync, adopted", "purged", "chosen late"];
    holds(cases::there_and_back(Leavers::GatePurge), 400_000, events);
}

#[test]
fn an_owner_leaves_and_returns_and_knows_since_when() {
    holds(cases::there_and_back(Leavers::DropIfAway), 400_000, &["synced", "sync, adopted", "purged"]);
}

#[test]
fn stale_rows_stay_away_if_it_is_known_since_when() {
    holds(cases::stale_rows(Leavers::DropIfAway), 400_000, &["purged", "synced", "sync, adopted"]);
}

#[test]
fn stale_rows_stay_away() {
    holds(cases::stale_rows(Leavers::GatePurge), 400_000, &["purged", "synced", "sync, adopted"]);
}

/// Longer histories than can be seen in full: the same walks each time.
#[test]
fn walks() {
    let bounds = Bounds { states: usize::MAX, depth: 150 };
    for config in [cases::join_all(), cases::returning(Leavers::DropIfAway), cases::everything()] {
        let name = config.name;
        let (report, happened) = run::run(config, bounds, Some((300, 7)));
        println!("{name}: {} states, {} moves; {happened:?}", report.states, report.moves);
        if let Some(violation) = report.violation {
            panic!("{name}: {}\n{}", violation.what, violation.trace.join("\n"));
        }
        assert!(happened["synced"] > 0);
    }
}

/// Dropping rows while it is known that they are not owned, and taking over the purge floor with the sync, is too late:
/// an owner that returns answers before it has synced.
#[test]
fn stale_rows_dropped_at_the_sync_are_noticed() {
    is_noticed_in(cases::stale_rows(Leavers::DropSometime), 6);
}

/// Dropping rows with the layout in which an owner is new is not enough: it may sleep through that one.
#[test]
fn stale_rows_of_a_sleeper_are_noticed() {
    is_noticed_in(cases::stale_rows(Leavers::DropWhenNew), 9);
}

#[track_caller]
fn is_noticed_in(config: Config, moves: usize) {
    let (report, _) = explored(config);
    let violation = report.violation.expect("the model does not notice that stale rows come to light");
    assert_eq!(violation.trace.len(), moves, "the shortest trace changed:\n{}", violation.trace.join("\n"));
}

#[test]
fn a_sync_from_one_is_noticed() {
    is_noticed(Broken::SyncFromOne, 5);
}

#[test]
fn a_sync_that_takes_the_highest_is_noticed() {
    is_noticed(Broken::SyncTakesHighest, 10);
}

#[test]
fn stayers_that_do_not_sync_are_noticed() {
    is_noticed(Broken::StayersSkipSync, 3);
}

#[test]
fn an_early_end_is_noticed() {
    is_noticed(Broken::EndsEarly, 5);
}

#[test]
fn no_fence_is_noticed() {
    is_noticed(Broken::NoFence, 9);
}

#[test]
fn a_layout_lost_in_a_crash_is_noticed() {
    is_noticed(Broken::LayoutLost, 11);
}

#[test]
fn a_majority_of_the_new_alone_is_noticed() {
    is_noticed(Broken::NewMajorityOnly, 11);
}

#[test]
fn a_purge_by_a_majority_is_noticed() {
    is_noticed(Broken::PurgeByMajority, 11);
}

#[test]
fn a_purge_without_floor_is_noticed() {
    is_noticed(Broken::PurgeWithoutFloor, 2);
}

#[test]
fn a_purge_without_grace_is_noticed() {
    is_noticed(Broken::PurgeWithoutGrace, 7);
}

#[test]
fn a_grace_that_begins_with_the_choice_is_noticed() {
    is_noticed(Broken::GraceSinceChosen, 10);
}

#[test]
fn a_purge_in_a_transition_is_noticed() {
    is_noticed(Broken::PurgeInTransition, 7);
}

#[test]
fn skipping_what_is_refused_is_noticed() {
    is_noticed(Broken::RefusedIsSkipped, 7);
}
