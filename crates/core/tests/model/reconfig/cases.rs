//! The configurations in which layouts change.

use crate::{
    cases::{ABSENT, DELETE, PUT, READ, config},
    layouts::Layouts,
    rules::{Broken, Config, Kind, Leavers, Op, Scene},
};

const A: u8 = 1;
const B: u8 = 2;
const C: u8 = 4;
const D: u8 = 8;

/// Puts into the second register.
const ASIDE: Op = Op { register: 1, kind: Kind::Put };
/// Reads the second register.
const READ_ASIDE: Op = Op { register: 1, kind: Kind::Read };

fn line(sets: &[&[u16]]) -> Layouts {
    Layouts::line(sets, false)
}

/// A transition from a, b, c to b, c, d, and its end.
fn joining(name: &'static str, scripts: &[&[Op]]) -> Config {
    Config { layouts: line(&[&[0, 1, 2], &[1, 2, 3]]), counters: 2, ..config(name, scripts) }
}

/// One owner of three is replaced while two clients work.
pub(crate) fn join() -> Config {
    Config { syncers: C | D, prelude: vec![Scene::Op(0, 1, A | B)], ..joining("join", &[&[PUT], &[PUT]]) }
}

/// From a, b, c to b, c, d and to c, d, a: a returns, with its old disk. It starts when a, b and c hold a first
/// write, c and d have synced, and it was deleted on b and c.
fn returning(name: &'static str, scripts: &[&[Op]]) -> Config {
    Config {
        layouts: line(&[&[0, 1, 2], &[1, 2, 3], &[2, 3, 0]]),
        counters: 3,
        syncers: A | C | D,
        purges: true,
        prelude: vec![
            Scene::Op(0, 1, A | B),
            Scene::Sync(2, A | B),
            Scene::Sync(3, A | B),
            Scene::Op(0, 3, B | C),
        ],
        ..config(name, scripts)
    }
}

/// A node that was an owner returns, whose rows are those of before the delete; the tombstone is forgotten.
pub(crate) fn stale(leavers: Leavers) -> Config {
    let mut case = Config { leavers, ..returning("stale rows", &[&[PUT, DELETE], &[READ, PUT]]) };
    let left = if leavers == Leavers::GatePurge { A } else { 0 };
    case.prelude.extend([Scene::Ready(0, left | B | C | D), Scene::Purged(B | C | D)]);
    case
}

/// The register moves from a to b and back: all of it, without a prelude.
pub(crate) fn there_and_back(leavers: Leavers) -> Config {
    Config {
        layouts: line(&[&[0], &[1], &[0]]),
        counters: 4,
        syncers: A | B,
        purges: true,
        leavers,
        ..config("there and back", &[&[PUT, DELETE], &[PUT]])
    }
}

/// One of two owners is replaced, and returns for the other.
pub(crate) fn pairs(leavers: Leavers) -> Config {
    Config {
        layouts: line(&[&[0, 1], &[1, 2], &[2, 0]]),
        counters: 4,
        syncers: A | B | C,
        purges: true,
        leavers,
        ..config("pairs", &[&[PUT, DELETE], &[READ]])
    }
}

/// One owner gets company.
pub(crate) fn grow() -> Config {
    Config {
        layouts: line(&[&[0], &[0, 1], &[0, 1, 2]]),
        counters: 3,
        syncers: A | B | C,
        ..config("grow", &[&[PUT], &[READ]])
    }
}

/// Purging under one layout.
pub(crate) fn purge() -> Config {
    Config { purges: true, counters: 3, ..config("purge", &[&[PUT, DELETE], &[PUT]]) }
}

/// Purging beside the change of a layout.
pub(crate) fn purge_and_return(leavers: Leavers) -> Config {
    Config { leavers, ..returning("purge and return", &[&[PUT, DELETE], &[READ]]) }
}

/// Where breaking this rule shows.
pub(crate) fn broken(rule: Broken) -> Config {
    let one_write = vec![Scene::Op(0, 1, A | B)];
    let case = match rule {
        // Each begins with a write that a and b hold.
        Broken::SyncFromOne => Config {
            syncers: C | D,
            prelude: one_write,
            ..joining("sync from one", &[&[PUT], &[READ]])
        },
        Broken::StayersSkipSync => Config {
            syncers: D,
            prelude: one_write,
            ..joining("stayers skip sync", &[&[PUT], &[READ]])
        },
        Broken::EndsEarly => Config {
            syncers: B,
            prelude: one_write,
            ..joining("ends early", &[&[PUT], &[READ]])
        },
        Broken::NoFence => Config {
            syncers: C | D,
            prelude: vec![Scene::Sync(2, A | B), Scene::Sync(3, A | B)],
            ..joining("no fence", &[&[PUT], &[READ]])
        },
        Broken::LayoutLost => Config {
            restarts: 2,
            syncers: C | D,
            prelude: vec![Scene::Sync(2, A | B), Scene::Sync(3, A | B)],
            ..joining("layout lost", &[&[PUT], &[READ]])
        },
        Broken::NewMajorityOnly => Config { ..joining("new majority only", &[&[PUT], &[PUT]]) },
        Broken::SyncTakesHighest => Config {
            syncers: B | D,
            ..joining("sync takes highest", &[&[PUT], &[PUT], &[READ]])
        },
        Broken::PurgeByMajority => {
            Config { name: "purge by majority", scripts: vec![vec![PUT, DELETE], vec![READ]], ..purge() }
        }
        Broken::PurgeWithoutFloor => {
            Config { name: "purge without floor", scripts: vec![vec![PUT, DELETE], vec![READ]], ..purge() }
        }
        Broken::PurgeWithoutGrace => Config {
            tries: 2,
            purges: true,
            counters: 3,
            ..config("purge without grace", &[&[PUT], &[DELETE]])
        },
        Broken::PurgeInTransition => Config {
            syncers: C | D,
            purges: true,
            counters: 3,
            prelude: vec![
                Scene::Op(0, 1, A | B),
                Scene::Op(0, 2, B | C),
                Scene::Ready(0, B | C | D),
                Scene::Purged(B | C | D),
            ],
            leavers: Leavers::DropIfAway,
            ..joining("purge in transition", &[&[PUT, DELETE], &[READ]])
        },
        // The second register is written on a and b; then the first is deleted on all, and purged.
        Broken::RefusedIsSkipped => Config {
            syncers: B | C,
            purges: true,
            counters: 3,
            clocks: vec![1, 0],
            prelude: vec![
                Scene::Op(1, 1, A | B),
                Scene::Op(0, 1, A | B | C),
                Scene::Ready(0, A | B | C),
                Scene::Purged(A | B | C),
            ],
            ..joining("refused is skipped", &[&[DELETE], &[ASIDE, READ_ASIDE]])
        },
        _ => returning("returning", &[&[PUT, DELETE], &[READ]]),
    };
    Config { broken: Some(rule), ..case }
}

#[allow(dead_code)]
fn later() {
    let _ = (ABSENT, Leavers::GatePurge, Scene::Told(0), ASIDE);
}
