//! The configurations in which layouts change or tombstones are purged.

use crate::{
    cases::{DELETE, PUT, READ, config},
    layouts::Layouts,
    rules::{Broken, Config, Kind, Leavers, Op, Scene},
};

const A: u8 = 1;
const B: u8 = 2;
const C: u8 = 4;
const D: u8 = 8;

/// Puts into the second register.
const ASIDE: Op = Op { register: 1, kind: Kind::Put };
/// Deletes the second register.
const DELETE_ASIDE: Op = Op { register: 1, kind: Kind::Delete };
/// Reads the second register.
const READ_ASIDE: Op = Op { register: 1, kind: Kind::Read };

fn line(sets: &[&[u16]]) -> Layouts {
    Layouts::line(sets, false)
}

/// A transition from a, b, c to b, c, d, and its end.
fn joining(name: &'static str, scripts: &[&[Op]]) -> Config {
    Config { layouts: line(&[&[0, 1, 2], &[1, 2, 3]]), counters: 2, ..config(name, scripts) }
}

/// One owner gets company, while writers retry under whichever layout they know.
pub(crate) fn grow() -> Config {
    Config {
        layouts: line(&[&[0], &[0, 1]]),
        counters: 2,
        tries: 2,
        syncers: A | B,
        ..config("grow", &[&[PUT], &[PUT, READ]])
    }
}

/// One of two owners is replaced, while two clients write.
pub(crate) fn replace() -> Config {
    Config {
        layouts: line(&[&[0, 1], &[1, 2]]),
        counters: 2,
        syncers: B | C,
        ..config("replace", &[&[PUT], &[PUT]])
    }
}

/// One owner of three is replaced, while two clients write. It starts when a alone holds a write that is on its
/// way, and c has synced without having heard of it.
pub(crate) fn join() -> Config {
    Config {
        syncers: C | D,
        prelude: vec![Scene::Part(0, 1, A | B, A), Scene::Sync(2, B | C)],
        ..joining("join", &[&[PUT], &[PUT]])
    }
}

/// One owner of three is replaced, while a client reads: all of it after a write that `a` and `b` hold.
pub(crate) fn join_all() -> Config {
    Config {
        syncers: C | D,
        prelude: vec![Scene::Op(0, 1, A | B)],
        ..joining("join, all", &[&[PUT], &[READ]])
    }
}

/// The register moves from a to b and back; it is written, deleted and purged.
pub(crate) fn there_and_back(leavers: Leavers) -> Config {
    Config {
        layouts: line(&[&[0], &[1], &[0]]),
        counters: 4,
        syncers: A | B,
        purges: true,
        leavers,
        ..config("there and back", &[&[PUT, DELETE], &[PUT, READ]])
    }
}

/// From a, b, c to b, c, d and to c, d, a: a returns, with its old disk. It starts when a and b hold a first
/// write, c and d have synced, and it was deleted on b and c.
pub(crate) fn returning(leavers: Leavers) -> Config {
    Config {
        layouts: line(&[&[0, 1, 2], &[1, 2, 3], &[2, 3, 0]]),
        counters: 3,
        syncers: C | D,
        purges: true,
        leavers,
        prelude: vec![
            Scene::Op(0, 1, A | B),
            Scene::Sync(2, A | B),
            Scene::Sync(3, A | B),
            Scene::Op(0, 3, B | C),
        ],
        ..config("returning", &[&[PUT, DELETE], &[PUT]])
    }
}

/// As [`returning`], but the tombstone is forgotten when it starts: what is left are the rows of a.
pub(crate) fn stale_rows(leavers: Leavers) -> Config {
    let mut case = Config { name: "stale rows", ..returning(leavers) };
    let left = if leavers == Leavers::GatePurge { A } else { 0 };
    case.prelude.extend([Scene::Ready(0, left | B | C | D), Scene::Purged(B | C | D)]);
    case
}

/// Purging under one layout, beside a writer; owners die, and what is chosen is told.
pub(crate) fn purge() -> Config {
    Config { purges: true, counters: 3, restarts: 1, ..config("purge", &[&[PUT, DELETE], &[PUT]]) }
}

/// As [`purge`], with late news of what was chosen, which goes past promises.
pub(crate) fn purge_and_tell(leavers: Leavers) -> Config {
    Config { name: "purge and tell", leavers, learn: true, restarts: 0, clocks: vec![0, 2], ..purge() }
}

/// As [`purge`], with an owner that holds nothing and can't get the tombstone any more: the first register was
/// written, and deleted or not, on a and b; then the second was deleted on all, and purged.
pub(crate) fn purge_without_one(deleted: bool) -> Config {
    let mut prelude = vec![Scene::Op(0, 1, A | B)];
    prelude.push(if deleted { Scene::Op(0, 1, A | B) } else { Scene::Part(0, 1, A | B, A) });
    prelude.extend([Scene::Op(1, 1, A | B | C), Scene::Ready(1, A | B | C), Scene::Purged(A | B | C)]);
    let scripts =
        vec![vec![PUT, DELETE], vec![DELETE_ASIDE], if deleted { vec![PUT, READ] } else { vec![PUT] }];
    Config {
        name: "purge without one",
        scripts,
        leavers: Leavers::DropIfAway,
        learn: true,
        restarts: 0,
        counters: 7,
        clocks: vec![0, 3, 5],
        prelude,
        ..purge()
    }
}

/// Much of everything: for walks.
pub(crate) fn everything() -> Config {
    Config {
        layouts: line(&[&[0, 1, 2], &[1, 2, 3], &[2, 3, 0]]),
        counters: 12,
        tries: 3,
        restarts: 2,
        rounds: 2,
        learn: true,
        purges: true,
        syncers: A | B | C | D,
        ..config("everything", &[&[PUT, DELETE, PUT], &[READ, PUT], &[READ]])
    }
}

/// Where breaking this rule shows.
pub(crate) fn broken(rule: Broken) -> Config {
    let case = if purges(rule) { broken_purge(rule) } else { broken_sync(rule) };
    Config { broken: Some(rule), ..case }
}

fn purges(rule: Broken) -> bool {
    matches!(
        rule,
        Broken::PurgeByMajority
            | Broken::PurgeWithoutFloor
            | Broken::PurgeWithoutGrace
            | Broken::GraceSinceChosen
            | Broken::PurgeInTransition
            | Broken::RefusedIsSkipped
    )
}

fn broken_sync(rule: Broken) -> Config {
    let one_write = vec![Scene::Op(0, 1, A | B)];
    let both_synced = vec![Scene::Sync(2, A | B), Scene::Sync(3, A | B)];
    let read = |name, syncers, prelude| Config { syncers, prelude, ..joining(name, &[&[PUT], &[READ]]) };
    match rule {
        Broken::SyncFromOne => read("sync from one", C | D, one_write),
        Broken::StayersSkipSync => read("stayers skip sync", D, one_write),
        Broken::EndsEarly => read("ends early", B, one_write),
        Broken::NoFence => read("no fence", C | D, both_synced),
        Broken::LayoutLost => Config { restarts: 2, ..read("layout lost", C | D, both_synced) },
        // A write that only a holds, and one that found nothing and is not sent yet.
        Broken::SyncTakesHighest => Config {
            syncers: B | D,
            prelude: vec![Scene::Part(0, 1, A | B, A), Scene::Part(1, 2, B | C, 0)],
            ..joining("sync takes highest", &[&[PUT], &[PUT], &[READ]])
        },
        _ => joining("new majority only", &[&[PUT], &[PUT]]),
    }
}

fn broken_purge(rule: Broken) -> Config {
    let all = A | B | C;
    let under_one = |name, scripts: &[&[Op]], prelude| Config {
        purges: true,
        counters: 3,
        prelude,
        ..config(name, scripts)
    };
    match rule {
        // A write on a and b, deleted on b and c.
        Broken::PurgeByMajority => {
            let prelude = vec![Scene::Op(0, 1, A | B), Scene::Op(0, 1, B | C)];
            under_one("purge by majority", &[&[PUT, DELETE], &[READ]], prelude)
        }
        // A write whose accepts are still under way, given up; then a delete.
        Broken::PurgeWithoutFloor => {
            let prelude = vec![
                Scene::Part(0, 1, A | B, 0),
                Scene::GaveUp(0),
                Scene::Op(1, 1, A | B),
                Scene::Ready(0, all),
            ];
            under_one("purge without floor", &[&[PUT, READ], &[DELETE, READ]], prelude)
        }
        // A write that goes on, seen and deleted by another.
        Broken::PurgeWithoutGrace => {
            let prelude = vec![Scene::Part(0, 1, A | B, A), Scene::Op(1, 1, A | B), Scene::Ready(0, all)];
            Config { tries: 2, ..under_one("purge without grace", &[&[PUT], &[DELETE]], prelude) }
        }
        // A write on a and b, deleted on b and c.
        Broken::GraceSinceChosen => Config {
            learn: true,
            clocks: vec![0, 2],
            ..under_one(
                "grace since chosen",
                &[&[PUT, DELETE], &[PUT]],
                vec![Scene::Op(0, 1, A | B), Scene::Op(0, 1, B | C)],
            )
        },
        // A write on a and b, deleted on b and c, of which d hears.
        Broken::PurgeInTransition => Config {
            layouts: line(&[&[0, 1, 2], &[1, 2, 3]]),
            syncers: C | D,
            leavers: Leavers::DropIfAway,
            ..under_one(
                "purge in transition",
                &[&[PUT, DELETE], &[READ]],
                vec![
                    Scene::Op(0, 1, A | B),
                    Scene::Op(0, 2, B | C),
                    Scene::Ready(0, B | C | D),
                    Scene::Purged(B | C),
                ],
            )
        },
        // The second register is written on a and b; then the first is deleted on all, and purged.
        _ => Config {
            layouts: line(&[&[0, 1, 2], &[1, 2, 3]]),
            syncers: B | C,
            clocks: vec![1, 0],
            ..under_one(
                "refused is skipped",
                &[&[DELETE], &[ASIDE, READ_ASIDE]],
                vec![Scene::Op(1, 1, A | B), Scene::Op(0, 1, all), Scene::Ready(0, all), Scene::Purged(all)],
            )
        },
    }
}
