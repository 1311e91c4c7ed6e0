//! The configurations: what is explored by the tests, and which rule each broken one breaks.

use crate::{
    layouts::Layouts,
    rules::{Broken, Config, Kind, Leavers, Op},
};

const fn op(kind: Kind) -> Op {
    Op { register: 0, kind }
}

/// Puts into the first register.
pub(crate) const PUT: Op = op(Kind::Put);
/// Puts into the first register, if there is nothing.
pub(crate) const ABSENT: Op = op(Kind::PutIfAbsent);
/// Deletes the first register.
pub(crate) const DELETE: Op = op(Kind::Delete);
/// Reads the first register.
pub(crate) const READ: Op = op(Kind::Read);
/// Puts into the second register.
const ASIDE: Op = Op { register: 1, kind: Kind::Put };

/// A configuration without faults, in which each operation has one attempt.
pub(crate) fn config(name: &'static str, scripts: &[&[Op]]) -> Config {
    Config {
        name,
        scripts: scripts.iter().map(|script| script.to_vec()).collect(),
        clocks: vec![0; scripts.len()],
        written: false,
        tries: 1,
        counters: 5,
        restarts: 0,
        failures: 0,
        capacity: 8,
        step: 1,
        learn: false,
        detached: false,
        layouts: Layouts::one(),
        syncers: 0,
        rounds: 1,
        purges: false,
        leavers: Leavers::GatePurge,
        prelude: Vec::new(),
        broken: None,
    }
}

/// Two writers and a conditional one.
pub(crate) fn writes() -> Config {
    let scripts: &[&[Op]] = &[&[PUT, DELETE], &[op(Kind::PutIf(1))], &[ABSENT]];
    Config { counters: 4, ..config("writes and conflicts", scripts) }
}

/// Reads beside writes.
pub(crate) fn reads() -> Config {
    Config { counters: 3, ..config("reads and settling", &[&[PUT], &[DELETE], &[READ, READ]]) }
}

/// Chosen values are told.
pub(crate) fn learning() -> Config {
    let scripts: &[&[Op]] = &[&[PUT, PUT], &[READ, ABSENT]];
    Config { learn: true, restarts: 1, counters: 4, ..config("learning", scripts) }
}

/// Owners die.
pub(crate) fn restarts() -> Config {
    Config { restarts: 2, counters: 4, tries: 2, ..config("restarts", &[&[PUT], &[ABSENT]]) }
}

/// The table of promises overflows.
pub(crate) fn eviction() -> Config {
    let scripts: &[&[Op]] = &[&[PUT], &[ABSENT, READ], &[ASIDE]];
    Config { capacity: 1, clocks: vec![1, 2, 0], ..config("eviction", scripts) }
}

/// Attempts fail and are repeated.
pub(crate) fn retries() -> Config {
    Config { tries: 3, counters: 3, ..config("retries", &[&[PUT], &[op(Kind::PutIf(1))]]) }
}

/// An attempt that nobody was seen to accept, on top of a value that was not chosen, and a retry that declines.
pub(crate) fn declines() -> Config {
    let scripts: &[&[Op]] = &[&[PUT, PUT], &[op(Kind::PutIf(2))]];
    Config {
        written: true,
        tries: 2,
        counters: 4,
        clocks: vec![0, 1],
        ..config("declining retries", scripts)
    }
}

/// Durable writes fail.
pub(crate) fn failures() -> Config {
    let scripts: &[&[Op]] = &[&[PUT], &[PUT], &[READ]];
    Config { failures: 1, restarts: 1, counters: 3, ..config("failed writes", scripts) }
}

/// Replies to writers travel by themselves.
///
/// Elsewhere a reply arrives at once or never, which is meant to leave nothing out.
pub(crate) fn detached_writes() -> Config {
    let scripts: &[&[Op]] = &[&[PUT], &[ABSENT]];
    Config { detached: true, counters: 2, restarts: 1, learn: true, ..config("detached writes", scripts) }
}

/// Replies to a reader travel by themselves.
pub(crate) fn detached_reads() -> Config {
    let scripts: &[&[Op]] = &[&[PUT], &[READ]];
    Config { detached: true, counters: 3, learn: true, ..config("detached reads", scripts) }
}

/// Where breaking this rule shows.
pub(crate) fn broken(rule: Broken) -> Config {
    let two = |name| config(name, &[&[PUT], &[PUT]]);
    let case = match rule {
        Broken::RestartForgets => Config { restarts: 1, ..two("restart forgets") },
        Broken::AcceptsBelow => two("accepts below"),
        Broken::LearnsUnchosen => Config { learn: true, ..two("learns unchosen") },
        Broken::ReadTrustsOne => config("read trusts one", &[&[PUT], &[READ]]),
        Broken::EvictsSilently => {
            let scripts: &[&[Op]] = &[&[PUT], &[PUT], &[ASIDE]];
            Config { capacity: 1, clocks: vec![0, 0, 4], ..config("evicts silently", scripts) }
        }
        Broken::FreshWriteId => Config { tries: 2, ..config("fresh write id", &[&[PUT]]) },
        Broken::MajorityOfOne => two("majority of one"),
        Broken::LateCeiling => Config { restarts: 1, ..two("late ceiling") },
        Broken::ReadTakesHighest => config("read takes highest", &[&[PUT], &[READ]]),
        Broken::DeclinesLightly => Config { name: "declines lightly", ..declines() },
        Broken::DeclinesOnNothing => Config { name: "declines on nothing", ..retries() },
        Broken::FailedWriteGoesOn => Config { failures: 1, ..two("failed write goes on") },
        rule => return crate::reconfig::cases::broken(rule),
    };
    Config { broken: Some(rule), ..case }
}
