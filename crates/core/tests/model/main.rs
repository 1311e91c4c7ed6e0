//! Registers, model-checked: the production acceptor, proposer, read and change under loss, repetition,
//! reordering, restarts and failing disks, in every order there is within the bounds of each configuration.
//!
//! Each rule that safety rests on is also broken, one at a time, and the model must notice. Larger bounds:
//! `cargo run --release -p pando-core --example register_model -- --help`.

#![expect(clippy::print_stdout, reason = "what was explored, for `--nocapture`")]

mod cases;
mod changes;
mod client;
mod explore;
mod intern;
mod judge;
mod layouts;
mod node;
mod reconfig;
mod rules;
mod run;
mod sameness;
mod tell;
mod window;
mod world;

use explore::{Bounds, Report};
use rules::{Broken, Config};
use run::Events;

const BOUNDS: Bounds = Bounds { states: 6_000_000, depth: 200 };

fn explored(config: Config) -> (Report, Events) {
    let name = config.name;
    let start = std::time::Instant::now();
    let (report, events) = run::run(config, BOUNDS, None);
    println!(
        "{name}: {} states, {} moves, depth {}, {}; {:.1?}; {events:?}",
        report.states,
        report.moves,
        report.depth,
        if report.exhausted { "exhausted" } else { "not exhausted" },
        start.elapsed(),
    );
    if let Some(violation) = &report.violation {
        println!("  {}", violation.what);
        violation.trace.iter().for_each(|line| println!("    {line}"));
    }
    (report, events)
}

/// The configuration holds, all of it was seen, it was no less than `states`, and these things happened.
#[track_caller]
fn holds(config: Config, states: usize, events: &[&str]) {
    let (report, happened) = explored(config);
    if let Some(violation) = report.violation {
        panic!("{}\n{}", violation.what, violation.trace.join("\n"));
    }
    assert!(report.exhausted, "seen only in part");
    assert!(report.states >= states, "{} states: the model lost its moves", report.states);
    for event in events {
        let count = happened.get(event).copied().unwrap_or(0);
        assert!(count > 0, "{event:?} never happened, only {happened:?}");
    }
}

/// Breaking this rule is noticed, by a trace of `moves` moves.
#[track_caller]
fn is_noticed(rule: Broken, moves: usize) {
    let (report, _) = explored(cases::broken(rule));
    let violation = report.violation.expect("the model does not notice that a rule is broken");
    assert_eq!(violation.trace.len(), moves, "the shortest trace changed:\n{}", violation.trace.join("\n"));
    let mended = Config { broken: None, ..cases::broken(rule) };
    let (report, _) = run::run(mended, Bounds { depth: moves, ..BOUNDS }, None);
    assert!(report.violation.is_none(), "{:?}", report.violation);
}

#[test]
fn writes_and_conflicts() {
    holds(cases::writes(), 300_000, &["conflict", "declined, settled", "declined, written back"]);
}

#[test]
fn reads_and_settling() {
    holds(
        cases::reads(),
        600_000,
        &["read, agreed", "read, differed", "settle, settled", "settle, written back"],
    );
}

#[test]
fn learning() {
    holds(
        cases::learning(),
        1_000_000,
        &[
            "learned past a promise",
            "read, agreed",
            "read, differed",
            "settle, settled",
            "settle, written back",
            "declined, settled",
            "declined, written back",
        ],
    );
}

#[test]
fn restarts() {
    holds(
        cases::restarts(),
        2_000_000,
        &["conflict", "done, settled", "done, written back", "declined, settled", "declined, written back"],
    );
}

#[test]
fn eviction() {
    holds(
        cases::eviction(),
        2_000_000,
        &[
            "evicted",
            "read, agreed",
            "read, differed",
            "settle, settled",
            "settle, written back",
            "declined, settled",
            "declined, written back",
        ],
    );
}

#[test]
fn retries() {
    holds(
        cases::retries(),
        1_800_000,
        &["conflict", "done, settled", "done, written back", "declined, settled", "unknown by verdict"],
    );
}

#[test]
fn failed_writes() {
    holds(
        cases::failures(),
        900_000,
        &["read, agreed", "read, differed", "settle, settled", "settle, written back"],
    );
}

#[test]
fn declining_retries() {
    holds(
        cases::declines(),
        250_000,
        &["conflict", "done, settled", "done, written back", "declined, settled", "declined, written back"],
    );
}

#[test]
fn detached_replies() {
    holds(
        cases::detached_writes(),
        400_000,
        &["learned", "conflict", "declined, settled", "declined, written back"],
    );
    holds(
        cases::detached_reads(),
        80_000,
        &["learned", "read, agreed", "read, differed", "settle, settled", "settle, written back"],
    );
}

#[test]
fn a_restart_that_forgets_is_noticed() {
    is_noticed(Broken::RestartForgets, 11);
}

#[test]
fn accepting_below_is_noticed() {
    is_noticed(Broken::AcceptsBelow, 10);
}

#[test]
fn learning_what_was_not_chosen_is_noticed() {
    is_noticed(Broken::LearnsUnchosen, 10);
}

#[test]
fn a_read_that_trusts_one_is_noticed() {
    is_noticed(Broken::ReadTrustsOne, 6);
}

#[test]
fn a_silent_eviction_is_noticed() {
    is_noticed(Broken::EvictsSilently, 12);
}

#[test]
fn a_fresh_write_id_is_noticed() {
    is_noticed(Broken::FreshWriteId, 9);
}

#[test]
fn a_majority_of_one_is_noticed() {
    is_noticed(Broken::MajorityOfOne, 3);
}

#[test]
fn a_late_ceiling_is_noticed() {
    is_noticed(Broken::LateCeiling, 11);
}

#[test]
fn a_read_that_takes_the_highest_is_noticed() {
    is_noticed(Broken::ReadTakesHighest, 8);
}

#[test]
fn declining_lightly_is_noticed() {
    is_noticed(Broken::DeclinesLightly, 16);
}

#[test]
fn declining_on_nothing_is_noticed() {
    is_noticed(Broken::DeclinesOnNothing, 16);
}

#[test]
fn going_on_after_a_failed_write_is_noticed() {
    is_noticed(Broken::FailedWriteGoesOn, 11);
}

#[test]
fn the_same_configuration_is_explored_the_same_way() {
    let explored = || {
        let (report, events) = explored(cases::broken(Broken::LateCeiling));
        (report.states, report.moves, report.violation.map(|violation| violation.trace), events)
    };
    assert_eq!(explored(), explored());
}
