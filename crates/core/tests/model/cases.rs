//! The configurations: what is explored by the tests, and which rule each broken one breaks.

use crate::rules::{Broken, Config, Kind, Op};

const fn op(kind: Kind) -> Op {
    Op { register: 0, kind }
}

/// Puts into the first register.
const PUT: Op = op(Kind::Put);
/// Puts into the first register, if there is nothing.
const ABSENT: Op = op(Kind::PutIfAbsent);
/// Deletes the first register.
const DELETE: Op = op(Kind::Delete);
/// Reads the first register.
const READ: Op = op(Kind::Read);
/// Puts into the second register.
const ASIDE: Op = Op { register: 1, kind: Kind::Put };

/// A configuration without faults, in which each operation has one attempt.
pub(crate) fn config(name: &'static str, scripts: &[&[Op]]) -> Config {
    Config {
        name,
        scripts: scripts.iter().map(|script| script.to_vec()).collect(),
        clocks: vec![0; scripts.len()],
        tries: 1,
        counters: 5,
        restarts: 0,
        failures: 0,
        capacity: 8,
        step: 1,
        learn: false,
        detached: false,
        broken: None,
    }
}

/// Two writers and a conditional one.
pub(crate) fn writes() -> Config {
    Config { counters: 3, ..config("writes and conflicts", &[&[PUT], &[op(Kind::PutIf(1))], &[ABSENT]]) }
}

/// Reads beside writes.
pub(crate) fn reads() -> Config {
    Config { counters: 3, ..config("reads and settling", &[&[PUT], &[DELETE], &[READ, READ]]) }
}

/// Chosen values are told.
pub(crate) fn learning() -> Config {
    Config { learn: true, counters: 3, ..config("learning", &[&[PUT, PUT], &[READ, ABSENT]]) }
}

/// Owners die.
pub(crate) fn restarts() -> Config {
    Config { restarts: 2, counters: 5, tries: 2, ..config("restarts", &[&[PUT], &[ABSENT]]) }
}

/// The table of promises overflows.
pub(crate) fn eviction() -> Config {
    Config { capacity: 1, clocks: vec![1, 2, 0], ..config("eviction", &[&[PUT], &[PUT], &[ASIDE]]) }
}

/// Attempts fail and are repeated.
pub(crate) fn retries() -> Config {
    Config { tries: 3, counters: 4, ..config("retries", &[&[PUT], &[op(Kind::PutIf(1))]]) }
}

/// Durable writes fail.
pub(crate) fn failures() -> Config {
    Config { failures: 1, counters: 3, ..config("failed writes", &[&[PUT], &[PUT]]) }
}

/// Replies travel by themselves.
pub(crate) fn detached() -> Config {
    Config { detached: true, counters: 2, learn: true, ..config("detached replies", &[&[PUT], &[ABSENT]]) }
}

/// An attempt that nobody was seen to accept, and a retry that declines.
pub(crate) fn declines() -> Config {
    Config { tries: 3, counters: 3, ..config("declining retries", &[&[PUT], &[op(Kind::PutIf(1))]]) }
}

/// Where breaking this rule shows.
pub(crate) fn broken(rule: Broken) -> Config {
    let case = match rule {
        Broken::RestartForgets => Config { restarts: 1, ..config("restart forgets", &[&[PUT], &[PUT]]) },
        Broken::AcceptsBelow => config("accepts below", &[&[PUT], &[PUT], &[READ]]),
        Broken::LearnsUnchosen => {
            Config { learn: true, ..config("learns unchosen", &[&[PUT], &[PUT], &[READ]]) }
        }
        Broken::ReadTrustsOne => config("read trusts one", &[&[PUT], &[READ]]),
        Broken::EvictsSilently => {
            Config { capacity: 1, clocks: vec![0, 0, 4], ..config("evicts silently", &[&[PUT], &[PUT], &[ASIDE]]) }
        }
        Broken::FreshWriteId => Config { tries: 2, ..config("fresh write id", &[&[PUT]]) },
        Broken::MajorityOfOne => config("majority of one", &[&[PUT], &[PUT]]),
        Broken::LateCeiling => Config { restarts: 1, ..config("late ceiling", &[&[PUT], &[PUT]]) },
        Broken::ReadTakesHighest => config("read takes highest", &[&[PUT], &[READ, READ]]),
        Broken::DeclinesLightly => {
            Config { broken: Some(rule), ..declines() }
        }
        Broken::FailedWriteGoesOn => {
            Config { failures: 1, ..config("failed write goes on", &[&[PUT], &[PUT]]) }
        }
    };
    Config { broken: Some(rule), ..case }
}
