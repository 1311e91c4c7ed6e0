//! Histories that are known to be right or wrong, a naive judge to compare with, and random ones.

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

/// An operation by its client's answer and its time; `None`: the client never heard.
fn op(kind: Kind, outcome: Outcome, start: u64, end: impl Into<Option<u64>>) -> Operation {
    let end = end.into().unwrap_or(u64::MAX);
    Operation { client: 0, node: 0, key: "k".into(), kind, outcome, start, end }
}

fn put(value: u64, start: u64, end: u64) -> Operation {
    op(Kind::Put(Value(value)), Outcome::Done, start, end)
}

fn lost_put(value: u64, start: u64) -> Operation {
    op(Kind::Put(Value(value)), Outcome::Unknown, start, None)
}

fn read(value: impl Into<Option<u64>>, start: u64, end: u64) -> Operation {
    op(Kind::Read, Outcome::Read(value.into().map(Value)), start, end)
}

fn if_absent(value: u64, outcome: Outcome, start: u64, end: u64) -> Operation {
    op(Kind::PutIfAbsent(Value(value)), outcome, start, end)
}

fn if_match(expected: u64, value: u64, outcome: Outcome, start: u64, end: u64) -> Operation {
    op(Kind::PutIfMatch { expected: Value(expected), value: Value(value) }, outcome, start, end)
}

fn remove(outcome: Outcome, start: u64, end: u64) -> Operation {
    op(Kind::Remove, outcome, start, end)
}

const DONE: Outcome = Outcome::Done;
const UNKNOWN: Outcome = Outcome::Unknown;
const REFUSED: Outcome = Outcome::Precondition(None);

fn told(value: u64) -> Outcome {
    Outcome::Precondition(Some(Value(value)))
}

fn good(operations: &[Operation]) {
    assert_eq!(check(operations), Ok(()));
    assert!(naive(operations), "the naive judge disagrees");
}

/// Wrong, and the operation that is blamed.
fn bad(operations: &[Operation], blamed: usize) {
    assert!(!naive(operations), "the naive judge disagrees");
    match check(operations) {
        Err(Violation::Broken { culprit, lines }) => {
            assert_eq!(culprit, operations[blamed]);
            assert_eq!(lines.iter().filter(|line| line.starts_with("> ")).count(), 1, "{lines:?}");
        }
        other => panic!("accepted: {other:?}"),
    }
}

/// Every order of every choice, without any cleverness: what the search must agree with.
fn naive(operations: &[Operation]) -> bool {
    fn go(left: &[Step], state: Option<Value>) -> bool {
        if left.iter().all(|step| step.optional) {
            return true;
        }
        let deadline = left.iter().map(|step| step.end).min().unwrap_or(u64::MAX);
        (0..left.len()).any(|index| {
            let step = left[index];
            let mut rest = left.to_vec();
            rest.remove(index);
            step.start <= deadline && step.needs.fits(state) && go(&rest, step.becomes.unwrap_or(state))
        })
    }
    go(&operations.iter().filter_map(Step::of).collect::<Vec<_>>(), None)
}

#[test]
fn good_one_after_the_other() {
    good(&[]);
    good(&[read(None, 1, 2), put(1, 3, 4), read(1, 5, 6), remove(DONE, 7, 8), read(None, 9, 10)]);
}

#[test]
fn good_concurrent_reads_split_by_a_write() {
    good(&[put(1, 1, 2), put(2, 10, 20), read(1, 11, 12), read(2, 13, 14), read(2, 21, 22)]);
}

#[test]
fn good_a_write_seen_before_its_answer() {
    good(&[put(1, 1, 100), read(1, 2, 3), put(2, 4, 5), read(2, 6, 7)]);
}

#[test]
fn good_concurrent_writes_in_either_order() {
    good(&[put(1, 1, 10), put(2, 1, 10), read(1, 11, 12)]);
    good(&[put(1, 1, 10), put(2, 1, 10), read(2, 11, 12)]);
}

#[test]
fn good_unknown_takes_effect_late() {
    good(&[lost_put(1, 1), put(2, 5, 6), read(2, 7, 8), read(2, 50, 51), read(1, 60, 61)]);
    // Even when the client was told "unknown" long before.
    good(&[op(Kind::Put(Value(1)), UNKNOWN, 1, 2), put(2, 5, 6), read(2, 7, 8), read(1, 9, 10)]);
}

#[test]
fn good_unknown_never_takes_effect() {
    good(&[put(1, 1, 2), lost_put(2, 3), op(Kind::Remove, UNKNOWN, 4, None), read(1, 50, 51)]);
}

#[test]
fn good_failed_is_ignored() {
    let failed = op(Kind::Put(Value(9)), Outcome::Failed, 3, 4);
    good(&[put(1, 1, 2), failed, op(Kind::Read, Outcome::Failed, 5, 6), read(1, 7, 8)]);
}

#[test]
fn good_conditions() {
    let chain = [
        if_absent(1, DONE, 1, 2),
        if_absent(2, told(1), 3, 4),
        if_absent(3, REFUSED, 5, 6),
        if_match(1, 4, DONE, 7, 8),
        if_match(1, 5, told(4), 9, 10),
        remove(DONE, 11, 12),
        remove(Outcome::NotFound, 13, 14),
        if_match(4, 6, REFUSED, 15, 16),
        if_match(4, 7, Outcome::NotFound, 17, 18),
        if_absent(8, DONE, 19, 20),
    ];
    good(&chain);
}

#[test]
fn good_chain_of_unknown_conditionals() {
    let swap = |from, to| op(Kind::PutIfMatch { expected: Value(from), value: Value(to) }, UNKNOWN, 2, None);
    good(&[lost_put(1, 1), swap(1, 2), swap(2, 3), read(3, 10, 11)]);
    good(&[lost_put(1, 1), swap(2, 3), swap(1, 2), remove(DONE, 10, 11), read(None, 12, 13)]);
}

#[test]
fn good_unknown_remove_lets_another_win() {
    let removed = op(Kind::Remove, UNKNOWN, 3, None);
    good(&[put(1, 1, 2), removed, if_absent(2, DONE, 5, 6), read(2, 7, 8)]);
}

#[test]
fn bad_stale_read() {
    bad(&[put(1, 1, 2), put(2, 3, 4), read(1, 5, 6)], 2);
}

#[test]
fn bad_reads_go_back() {
    // While the write runs, the old and the new value are both fine; the old one after the new is not.
    bad(&[put(1, 1, 2), put(2, 10, 100), read(2, 11, 12), read(1, 13, 14)], 3);
}

#[test]
fn bad_lost_write() {
    bad(&[put(1, 1, 2), read(None, 3, 4)], 1);
}

#[test]
fn bad_write_applied_twice() {
    bad(&[lost_put(1, 1), read(1, 2, 3), put(2, 4, 5), read(2, 6, 7), read(1, 8, 9)], 4);
}

#[test]
fn bad_value_never_written() {
    let history = [put(1, 1, 2), read(9, 3, 4)];
    bad(&history, 1);
    let violation = check(&history).unwrap_err().to_string();
    assert!(violation.ends_with("v9 was never written"), "{violation}");
}

#[test]
fn bad_read_from_the_future() {
    bad(&[read(1, 1, 2), put(1, 3, 4)], 0);
}

#[test]
fn bad_if_absent_wins_twice() {
    bad(&[if_absent(1, DONE, 1, 10), if_absent(2, DONE, 2, 11)], 1);
}

#[test]
fn bad_if_absent_refused_by_its_own_win() {
    bad(&[read(None, 1, 2), if_absent(1, told(1), 3, 4), read(1, 5, 6)], 1);
}

#[test]
fn bad_two_swaps_of_one_value() {
    bad(&[put(1, 1, 2), if_match(1, 2, DONE, 3, 10), if_match(1, 3, DONE, 4, 11)], 2);
}

#[test]
fn bad_resurrected_after_remove() {
    bad(&[put(1, 1, 2), remove(DONE, 3, 4), read(None, 5, 6), read(1, 7, 8)], 3);
}

#[test]
fn bad_failed_write_took_effect() {
    bad(&[op(Kind::Put(Value(1)), Outcome::Failed, 1, 2), read(1, 3, 4)], 1);
}

#[test]
fn bad_removes() {
    bad(&[remove(DONE, 1, 2)], 0);
    bad(&[put(1, 1, 2), remove(Outcome::NotFound, 3, 4)], 1);
    bad(&[put(1, 1, 2), remove(DONE, 3, 10), remove(DONE, 4, 11)], 2);
}

#[test]
fn bad_refusals() {
    bad(&[put(1, 1, 2), put(2, 3, 4), if_match(2, 3, REFUSED, 5, 6)], 2);
    bad(&[put(1, 1, 2), put(2, 3, 4), if_match(9, 3, told(1), 5, 6)], 2);
    bad(&[put(1, 1, 2), if_match(1, 3, told(1), 5, 6)], 1);
    bad(&[put(1, 1, 2), remove(DONE, 3, 4), if_absent(2, REFUSED, 5, 6)], 2);
}

#[test]
fn bad_unknown_swap_without_its_condition() {
    let swap = op(Kind::PutIfMatch { expected: Value(7), value: Value(8) }, UNKNOWN, 3, None);
    bad(&[put(1, 1, 2), swap, read(8, 5, 6)], 2);
}

#[test]
fn bad_unknown_before_it_started() {
    bad(&[put(1, 1, 2), read(2, 3, 4), lost_put(2, 5)], 1);
}

#[test]
fn an_explanation_is_the_shortest_prefix() {
    let history = [put(1, 1, 2), read(7, 3, 4), put(2, 5, 6), read(8, 7, 8)];
    let Err(Violation::Broken { culprit, lines }) = check(&history) else { panic!("accepted") };
    assert_eq!((culprit, lines.len()), (history[1].clone(), 3));
}

#[test]
fn a_search_too_long_is_given_up() {
    // Thirty concurrent writes, read in an order that only exists once: nothing but the bound ends this soon.
    let mut history: Vec<Operation> = (0..30).map(|value| put(value, 1, 1000)).collect();
    history.extend((0..30).map(|value| if_match(99, value, told(value), 1, 1000)));
    history.push(read(99, 1001, 1002));
    assert_eq!(check_within(&history, 10_000), Err(Violation::Undecided { steps: 10_000 }));
}

#[test]
fn many_unknown_outcomes_stay_cheap() {
    let mut history: Vec<Operation> = (0..200).map(|value| lost_put(value, value)).collect();
    for value in (0..200).rev() {
        let start = 1000 + 10 * (200 - value);
        history.push(read(value, start, start + 5));
    }
    assert_eq!(check_within(&history, 10_000), Ok(()));
    history.push(read(50, 5000, 5001));
    let Err(Violation::Broken { culprit, .. }) = check_within(&history, 100_000) else { panic!("accepted") };
    assert_eq!(culprit, history[400]);
}

/// A sequential execution: each operation takes effect at 100 times its place.
fn execution(seed: u64, length: u64, widen: u64) -> Vec<Operation> {
    let mut rng = Rng::new(seed);
    let mut state = None;
    let mut operations = Vec::new();
    for place in 1..=length {
        let value = Value(place);
        let guess = Value(rng.between(1, place));
        let expected = state.filter(|_| rng.chance(60)).unwrap_or(guess);
        let kind = match rng.below(6) {
            0 => Kind::Put(value),
            1 => Kind::PutIfAbsent(value),
            2 if expected != value => Kind::PutIfMatch { expected, value },
            3 => Kind::Remove,
            _ => Kind::Read,
        };
        let (after, outcome) = apply(state, kind, rng.chance(50));
        let vague = kind != Kind::Read && rng.chance(20);
        let happened = !vague || rng.chance(50);
        state = if happened { after } else { state };
        let at = place * 100;
        let (start, end) = (at - rng.between(0, widen.min(at)), at + rng.between(0, widen));
        operations.push(match vague {
            true => op(kind, UNKNOWN, start, None),
            false => op(kind, outcome, start, end),
        });
    }
    operations
}

fn apply(state: Option<Value>, kind: Kind, tell: bool) -> (Option<Value>, Outcome) {
    let refused = Outcome::Precondition(state.filter(|_| tell));
    match kind {
        Kind::Put(value) => (Some(value), DONE),
        Kind::PutIfAbsent(value) if state.is_none() => (Some(value), DONE),
        Kind::PutIfMatch { expected, value } if state == Some(expected) => (Some(value), DONE),
        Kind::PutIfMatch { .. } if state.is_none() && tell => (state, Outcome::NotFound),
        Kind::PutIfAbsent(_) | Kind::PutIfMatch { .. } => (state, refused),
        Kind::Remove if state.is_none() => (None, Outcome::NotFound),
        Kind::Remove => (None, DONE),
        Kind::Read => (state, Outcome::Read(state)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn widened_executions_are_accepted(seed: u64, length in 1_u64..150, widen in 0_u64..600) {
        prop_assert_eq!(check(&execution(seed, length, widen)), Ok(()));
    }

    #[test]
    fn a_read_of_something_else_is_rejected(seed: u64, length in 1_u64..150, widen in 0_u64..600) {
        let mut operations = execution(seed, length, widen);
        if let Some(read) = operations.iter_mut().find(|operation| operation.kind == Kind::Read) {
            read.outcome = Outcome::Read(Some(Value(1_000_000)));
            let rejected = matches!(check(&operations), Err(Violation::Broken { .. }));
            prop_assert!(rejected);
        }
    }

    #[test]
    fn the_naive_judge_agrees(seed: u64, length in 1_u64..8, widen in 0_u64..400, spoil: bool) {
        let mut operations = execution(seed, length, widen);
        let mut rng = Rng::of(seed, 1);
        if spoil {
            let spoilt = rng.below(length) as usize;
            let other = Some(Value(rng.between(1, length))).filter(|_| rng.chance(70));
            let operation = &mut operations[spoilt];
            operation.outcome = match operation.kind {
                Kind::Read => Outcome::Read(other),
                Kind::Put(_) => Outcome::Failed,
                _ => *rng.pick(&[DONE, REFUSED, Outcome::Precondition(other), Outcome::NotFound]),
            };
            operation.end = operation.end.min(operation.start + 300);
        }
        prop_assert_eq!(check(&operations).is_ok(), naive(&operations), "{:#?}", operations);
    }
}
