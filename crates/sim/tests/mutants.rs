//! Each mutant is found within its number of seeds.

use std::{collections::BTreeSet, path::Path};

use pando_sim::mutants::{MUTANTS, find, hunt};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pando-sim");

fn is_found(name: &str) {
    let mutant = find(name).expect("a mutant of the table");
    // The test harness runs these tests in parallel: a process each is enough.
    let hunt = hunt(Path::new(PROGRAM), mutant, 1).expect("workers run");
    assert!(hunt.finding.is_some(), "{name} survived {} seeds: {}", mutant.within, mutant.what);
}

macro_rules! mutants {
    ($($test:ident = $name:literal,)*) => {
        $(#[test] fn $test() { is_found($name); })*

        #[test]
        fn every_mutant_has_a_test() {
            let tested = BTreeSet::from([$($name),*]);
            assert_eq!(tested, MUTANTS.iter().map(|mutant| mutant.name).collect());
        }
    };
}

mutants! {
    ack_before_sync = "ack-before-sync",
    folder_not_synced = "folder-not-synced",
    majority_of_one = "majority-of-one",
    promises_forgotten = "promises-forgotten",
    accept_below = "accept-below",
    learn_unchosen = "learn-unchosen",
    transition_ends_before_sync = "transition-ends-before-sync",
    stayers_do_not_sync = "stayers-do-not-sync",
    sync_from_one = "sync-from-one",
    layout_not_durable = "layout-not-durable",
    stale_layout_accepted = "stale-layout-accepted",
    drop_before_confirm = "drop-before-confirm",
    serve_unverified = "serve-unverified",
    purge_on_majority = "purge-on-majority",
    retry_without_write_id = "retry-without-write-id",
    references_lost = "references-lost",
    failed_fsync_goes_on = "failed-fsync-goes-on",
    decline_without_settling = "decline-without-settling",
    old_rows_kept = "old-rows-kept",
    read_trusts_one = "read-trusts-one",
    release_current = "release-current",
    purge_without_grace = "purge-without-grace",
    replace_unarchived = "replace-unarchived",
    promote_over_anything = "promote-over-anything",
    archive_condemned = "archive-condemned",
    remove_without_renewing = "remove-without-renewing",
}
