//! Seeds that once found a defect, with what it was. Each is run again in `tests/regressions.rs`.
//!
//! A seed means its world only as long as the drawing stays as it is: when [`crate::schedule`] or
//! [`crate::client`] change, an old seed still runs, but is another world.

/// A name that says what went wrong, and the seed.
pub const REGRESSIONS: &[(&str, u64)] = &[
    // Worlds drawn otherwise than today; what they found has a test of its own in the crate where it was.
    ("a forced removal took a member that was down for a moment for lost", 108),
    ("a forced removal of one of two owners lost what only the other had", 726),
    ("chunks of a version that left no trace stayed for a week", 96),
    ("chunks of a version that left no trace stayed for a week", 226),
    ("chunks of a version that left no trace stayed for a week", 330),
    ("a version's next look was put off again and again", 543),
    ("the judge gave up on many unknown outcomes", 544),
    ("an upload that was silent for longer than the grace time lost chunks", 166),
    ("an upload that was silent for longer than the grace time lost chunks", 241),
    // Worlds of today.
    ("an upload went on though the holders of a chunk had not heard of it, only other owners", 1219),
    ("a newcomer that was admitted and did not hear it could not join while a majority needed it", 2480),
    ("a node that was drained ended before anyone else knew the layout without it", 4153),
    ("a newcomer's last attempt began before an earlier one made it a member, and was refused", 4752),
    (
        "a newcomer whose joining was proposed, but not decided in time, was refused, and then made a member",
        430,
    ),
    ("after a failed sync the index's log was emptied when the store was closed", 877),
    ("what was due by a clock that was put back while a node was down stayed for as long", 1026),
    ("the world gave nine nodes on a slow network too little time to join", 3696),
    ("the world drained a node before those that were to take its place had joined", 4585),
];
