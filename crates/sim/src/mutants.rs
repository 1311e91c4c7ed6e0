//! Mistakes that are made on purpose, to see that the simulator notices: a table, and the hunt for one.
//!
//! Each takes one safety rule out of the system. A mutant that survives means that the simulator does not test
//! that rule. The mistakes themselves are made where the rules are, not here.

use std::{io, path::Path};

use crate::{
    report::{Finding, Options, Summary},
    runner::{Progress, Runner},
    schedule::Profile,
};

/// A mistake.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Which rule is broken.
    pub what: &'static str,
    /// The worlds that it is hunted in: those that give it the most to do.
    pub profile: Profile,
    /// It must be found within so many seeds from 0.
    pub within: u64,
}

const fn mutant(name: &'static str, profile: Profile, within: u64, what: &'static str) -> Mutant {
    Mutant { name, what, profile, within }
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    mutant("ack-before-sync", Profile::Crashes, 100, "a write is acknowledged before it is durable"),
    mutant(
        "folder-not-synced",
        Profile::Crashes,
        200,
        "a new file's folder is not synced: the file may vanish",
    ),
    mutant("majority-of-one", Profile::Partitions, 50, "one owner's answer counts as a majority"),
    mutant(
        "promises-forgotten",
        Profile::HotKey,
        2000,
        "a restart forgets promises: the floor starts at zero",
    ),
    mutant("accept-below", Profile::HotKey, 300, "an acceptor accepts below what it promised"),
    mutant(
        "learn-unchosen",
        Profile::HotKey,
        300,
        "anti-entropy learns values that were accepted but not chosen",
    ),
    mutant(
        "transition-ends-before-sync",
        Profile::Membership,
        300,
        "a layout change ends before new owners hold everything",
    ),
    mutant("stayers-do-not-sync", Profile::Moving, 300, "owners that stay do not sync in a layout change"),
    mutant(
        "sync-from-one",
        Profile::Membership,
        2000,
        "a new owner syncs from one previous owner, not a majority",
    ),
    mutant("layout-not-durable", Profile::Moving, 300, "a new layout is used before it is durable"),
    mutant("stale-layout-accepted", Profile::Moving, 300, "an acceptor answers ballots of an older layout"),
    mutant(
        "drop-before-confirm",
        Profile::Membership,
        300,
        "a chunk is dropped before its new owners confirmed it",
    ),
    mutant("serve-unverified", Profile::Disks, 100, "what is read from disk is served without verifying it"),
    mutant("purge-on-majority", Profile::Deletes, 300, "a tombstone is forgotten when a majority holds it"),
    mutant("retry-without-write-id", Profile::Partitions, 200, "a retry does not look for its own write id"),
    mutant("references-lost", Profile::Membership, 300, "references of chunks are not told to new owners"),
    mutant("failed-fsync-goes-on", Profile::Disks, 200, "a node goes on after a failed sync"),
    mutant(
        "decline-without-settling",
        Profile::HotKey,
        300,
        "a declined change does not write back what it found",
    ),
    mutant(
        "old-rows-kept",
        Profile::Membership,
        300,
        "a node keeps rows of partitions that it no longer owns",
    ),
    mutant("read-trusts-one", Profile::HotKey, 300, "a read takes one owner's answer for chosen"),
    mutant("release-current", Profile::Calm, 100, "collection frees the chunks of versions that are current"),
    mutant("purge-without-grace", Profile::Deletes, 300, "a tombstone is forgotten at once"),
    mutant("replace-unarchived", Profile::Versions, 20, "what is current is replaced without being archived"),
    mutant(
        "promote-over-anything",
        Profile::Versions,
        50,
        "an older version becomes current again over what was put meanwhile",
    ),
    mutant(
        "archive-condemned",
        Profile::Versions,
        100,
        "a version that was removed for good is archived by who is late",
    ),
    mutant(
        "remove-without-renewing",
        Profile::Versions,
        100,
        "the object is not written again when an older version is removed",
    ),
];

/// The mutant of this name.
pub fn find(name: &str) -> Option<&'static Mutant> {
    MUTANTS.iter().find(|mutant| mutant.name == name)
}

/// What came of a hunt.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// What gave the mutant away, if anything did.
    pub finding: Option<Finding>,
    /// The seeds that were run.
    pub summary: Summary,
}

/// Runs seeds with the mutant until it is found or its number of seeds is used up.
pub fn hunt(program: &Path, mutant: &Mutant, jobs: usize) -> io::Result<Hunt> {
    let profile = Some(mutant.profile);
    let options = Options { trace: false, mutant: Some(mutant.name.to_owned()), profile };
    let runner = Runner { options, jobs, stop_at_first: true, ..Runner::new(program.to_owned()) };
    let options = Options { profile, ..Options::default() };
    let sound = Runner { options, jobs: 1, ..Runner::new(program.to_owned()) };
    let mut all = Summary::default();
    let mut from = 0;
    while from < mutant.within {
        let summary = runner.run(from..mutant.within, None, |_: Progress<'_>| Ok(()))?;
        let findings = summary.findings.clone();
        all.merge(summary);
        for finding in findings {
            from = finding.seed + 1;
            // What happens without the mistake too was not found because of it.
            if sound.run(finding.seed..from, None, |_| Ok(()))?.findings.is_empty() {
                return Ok(Hunt { finding: Some(finding), summary: all });
            }
        }
        if all.seeds >= mutant.within {
            break;
        }
    }
    Ok(Hunt { finding: None, summary: all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for mutant in MUTANTS {
            assert_eq!(
                MUTANTS.iter().filter(|other| other.name == mutant.name).count(),
                1,
                "{}",
                mutant.name
            );
            assert_eq!(find(mutant.name).unwrap().what, mutant.what);
        }
        assert!(find("none").is_none());
    }
}
