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

fn line(sets: &[&[u16]]) -> Layouts {
    Layouts::line(sets, false)
}

/// One owner of three is replaced while two clients work.
pub(crate) fn join() -> Config {
    Config {
        layouts: line(&[&[0, 1, 2], &[1, 2, 3]]),
        syncers: B | C | D,
        counters: 2,
        ..config("join", &[&[PUT], &[READ]])
    }
}

/// Where breaking this rule shows.
pub(crate) fn broken(rule: Broken) -> Config {
    let case = join();
    Config { broken: Some(rule), ..case }
}

#[allow(dead_code)]
fn later() {
    let _ = (ABSENT, DELETE, A, Leavers::GatePurge, Scene::Told(0), ASIDE);
}
