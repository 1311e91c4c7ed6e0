//! A small explicit-state explorer: breadth first, deterministic, one thread.
//!
//! Owns the visited set (128-bit fingerprints), the bounds, and the way back from a violation to a shortest
//! trace. Leaves to the [`System`]: what a state is, what may happen next, what is wrong, and which states
//! are the same (by giving them the same fingerprint). A state is kept only while its level is explored;
//! afterwards 6 bytes remember how it was reached.

use std::{collections::HashSet, hash::BuildHasherDefault};

use crate::intern::Mix;

/// Something with states and moves.
pub(crate) trait System {
    /// A state; small, as whole levels of them are kept.
    type State: Copy;
    /// A move, for the trace.
    type Action: Copy;

    /// Where it starts.
    fn initial(&mut self) -> Self::State;

    /// States with the same fingerprint are explored once.
    fn fingerprint(&mut self, state: &Self::State) -> u128;

    /// Adds all that may happen next, always in the same order.
    fn successors(&mut self, state: &Self::State, out: &mut Vec<Successor<Self::Action, Self::State>>);

    /// What happened, in words.
    fn describe(&self, before: &Self::State, action: Self::Action, after: &Self::State) -> String;
}

/// One move.
pub(crate) struct Successor<A, S> {
    /// What happens.
    pub(crate) action: A,
    /// Where it leads.
    pub(crate) state: S,
    /// What is wrong there.
    pub(crate) violation: Option<String>,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most states.
    pub(crate) states: usize,
    /// Most moves from the initial state.
    pub(crate) depth: usize,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Distinct states seen.
    pub(crate) states: usize,
    /// Moves tried.
    pub(crate) moves: u64,
    /// The deepest level reached.
    pub(crate) depth: usize,
    /// Whether every reachable state was seen.
    pub(crate) exhausted: bool,
    /// The first violation, by a shortest trace.
    pub(crate) violation: Option<Violation>,
}

/// What went wrong, and how.
#[derive(Debug)]
pub(crate) struct Violation {
    /// The broken promise.
    pub(crate) what: String,
    /// The moves that lead there, in order.
    pub(crate) trace: Vec<String>,
}

/// How a state was reached: the number of the state before, and which of its moves.
struct Origin {
    parent: u32,
    ordinal: u16,
}

/// Explores `system` level by level until everything was seen, a bound is reached, or something is wrong.
pub(crate) fn explore<S: System>(system: &mut S, bounds: Bounds) -> Report {
    let initial = system.initial();
    let mut visited: HashSet<u128, BuildHasherDefault<Mix>> = HashSet::default();
    visited.insert(system.fingerprint(&initial));
    let mut origins = vec![Origin { parent: 0, ordinal: 0 }];
    let mut level = vec![(0u32, initial)];
    let mut report = Report { states: 1, moves: 0, depth: 0, exhausted: false, violation: None };
    let mut successors = Vec::new();
    while !level.is_empty() {
        if report.depth == bounds.depth {
            return report;
        }
        let mut next = Vec::new();
        for (number, state) in &level {
            successors.clear();
            system.successors(state, &mut successors);
            for (successor, ordinal) in successors.drain(..).zip(0u16..) {
                report.moves += 1;
                if let Some(what) = successor.violation {
                    let trace = retrace(system, &origins, *number, ordinal);
                    report.depth = trace.len();
                    report.violation = Some(Violation { what, trace });
                    return report;
                }
                if visited.insert(system.fingerprint(&successor.state)) {
                    next.push((origins.len() as u32, successor.state));
                    origins.push(Origin { parent: *number, ordinal });
                    report.states += 1;
                }
            }
            if report.states >= bounds.states {
                return report;
            }
        }
        report.depth += usize::from(!next.is_empty());
        level = next;
    }
    report.exhausted = true;
    report
}

/// Takes random moves from the initial state, again and again: deeper than what can be seen in full, and never
/// all of it. The same seed walks the same way.
pub(crate) fn walk<S: System>(system: &mut S, bounds: Bounds, walks: u64, seed: u64) -> Report {
    let mut report = Report { states: 0, moves: 0, depth: 0, exhausted: false, violation: None };
    let mut seen: HashSet<u128, BuildHasherDefault<Mix>> = HashSet::default();
    let mut random = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut successors = Vec::new();
    for _ in 0..walks {
        let mut state = system.initial();
        let mut trace = Vec::new();
        while trace.len() < bounds.depth && report.states < bounds.states {
            successors.clear();
            system.successors(&state, &mut successors);
            if successors.is_empty() {
                break;
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let taken = successors.swap_remove((random >> 16) as usize % successors.len());
            trace.push((state, taken.action, taken.state));
            report.moves += 1;
            state = taken.state;
            report.states += usize::from(seen.insert(system.fingerprint(&state)));
            if let Some(what) = taken.violation {
                let told = |(before, action, after): &(S::State, S::Action, S::State)| {
                    system.describe(before, *action, after)
                };
                let trace: Vec<String> = trace.iter().map(told).collect();
                report.depth = trace.len();
                report.violation = Some(Violation { what, trace });
                return report;
            }
        }
        report.depth = report.depth.max(trace.len());
    }
    report
}

/// Walks from the initial state to state `number` and then its move `last`, telling each move.
fn retrace<S: System>(system: &mut S, origins: &[Origin], mut number: u32, last: u16) -> Vec<String> {
    let mut ordinals = vec![last];
    while number != 0 {
        let origin = &origins[number as usize];
        ordinals.push(origin.ordinal);
        number = origin.parent;
    }
    let mut state = system.initial();
    let mut successors = Vec::new();
    let mut trace = Vec::new();
    for ordinal in ordinals.into_iter().rev() {
        successors.clear();
        system.successors(&state, &mut successors);
        let taken = &successors[usize::from(ordinal)];
        trace.push(system.describe(&state, taken.action, &taken.state));
        state = taken.state;
    }
    trace
}
