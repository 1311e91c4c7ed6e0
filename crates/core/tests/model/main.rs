//! Registers, model-checked: the production acceptor, proposer, read and change under loss, repetition,
//! reordering, restarts and failing disks, in every order there is within the bounds of each configuration.
//!
//! Each rule that safety rests on is also broken, one at a time, and the model must notice. Larger bounds:
//! `cargo run --release -p pando-core --example register_model -- --help`.

mod cases;
mod client;
mod explore;
mod judge;
mod node;
mod rules;
mod tell;
mod window;
mod world;

use explore::{Bounds, Report, explore};
use rules::{Broken, Config};
use world::Model;

const BOUNDS: Bounds = Bounds { states: 6_000_000, depth: 200 };

fn run(config: Config) -> (Report, Model) {
    let mut model = Model::new(config);
    let start = std::time::Instant::now();
    let report = explore(&mut model, BOUNDS);
    println!(
        "{}: {} states, {} moves, depth {}, {}; {:.1?}; {:?}",
        model.config().name,
        report.states,
        report.moves,
        report.depth,
        if report.exhausted { "exhausted" } else { "not exhausted" },
        start.elapsed(),
        model.events
    );
    if let Some(violation) = &report.violation {
        println!("  {}", violation.what);
        violation.trace.iter().for_each(|line| println!("    {line}"));
    }
    (report, model)
}

/// The configuration holds, all of it was seen, it was no less than `states`, and these things happened.
#[track_caller]
fn holds(config: Config, states: usize, events: &[&str]) {
    let (report, model) = run(config);
    if let Some(violation) = report.violation {
        panic!("{}\n{}", violation.what, violation.trace.join("\n"));
    }
    assert!(report.exhausted, "seen only in part");
    assert!(report.states >= states, "{} states: the model lost its moves", report.states);
    for event in events {
        assert!(model.events.contains_key(event), "{event:?} never happened, only {:?}", model.events);
    }
}

/// Breaking this rule is noticed, by a trace of `moves` moves.
#[track_caller]
fn is_noticed(rule: Broken, moves: usize) {
    let (report, _) = run(cases::broken(rule));
    let violation = report.violation.expect("the model does not notice that a rule is broken");
    assert_eq!(violation.trace.len(), moves, "the shortest trace changed:\n{}", violation.trace.join("\n"));
    let mended = Config { broken: None, ..cases::broken(rule) };
    let mut model = Model::new(mended);
    let report = explore(&mut model, Bounds { states: 100_000, depth: moves });
    assert!(report.violation.is_none(), "{:?}", report.violation);
}

#[test]
fn writes_and_conflicts() {
    holds(cases::writes(), 1, &[]);
}

#[test]
fn reads_and_settling() {
    holds(cases::reads(), 1, &[]);
}

#[test]
fn learning() {
    holds(cases::learning(), 1, &[]);
}

#[test]
fn restarts() {
    holds(cases::restarts(), 1, &[]);
}

#[test]
fn eviction() {
    holds(cases::eviction(), 1, &[]);
}

#[test]
fn retries() {
    holds(cases::retries(), 1, &[]);
}

#[test]
fn failed_writes() {
    holds(cases::failures(), 1, &[]);
}

#[test]
fn declining_retries() {
    holds(cases::declines(), 1, &[]);
}

#[test]
fn detached_replies() {
    holds(cases::detached(), 1, &[]);
}

#[test]
fn a_restart_that_forgets_is_noticed() {
    is_noticed(Broken::RestartForgets, 0);
}

#[test]
fn accepting_below_is_noticed() {
    is_noticed(Broken::AcceptsBelow, 0);
}

#[test]
fn learning_what_was_not_chosen_is_noticed() {
    is_noticed(Broken::LearnsUnchosen, 0);
}

#[test]
fn a_read_that_trusts_one_is_noticed() {
    is_noticed(Broken::ReadTrustsOne, 0);
}

#[test]
fn a_silent_eviction_is_noticed() {
    is_noticed(Broken::EvictsSilently, 0);
}

#[test]
fn a_fresh_write_id_is_noticed() {
    is_noticed(Broken::FreshWriteId, 0);
}

#[test]
fn a_majority_of_one_is_noticed() {
    is_noticed(Broken::MajorityOfOne, 0);
}

#[test]
fn a_late_ceiling_is_noticed() {
    is_noticed(Broken::LateCeiling, 0);
}

#[test]
fn a_read_that_takes_the_highest_is_noticed() {
    is_noticed(Broken::ReadTakesHighest, 0);
}

#[test]
fn declining_lightly_is_noticed() {
    is_noticed(Broken::DeclinesLightly, 0);
}

#[test]
fn going_on_after_a_failed_write_is_noticed() {
    is_noticed(Broken::FailedWriteGoesOn, 0);
}
