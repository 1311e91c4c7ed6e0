//! The window of remembered writes against a naive oracle that remembers everything: what `Change` says of
//! long histories, which the explored ones never reach.

use pando_core::{
    id::WriteId,
    register::{Change, State, Value, Verdict, WRITE_WINDOW},
};
use proptest::prelude::*;

const OWN: WriteId = WriteId([0; 16]);

#[derive(Clone, Debug)]
enum Step {
    /// So many writes of others.
    Others(u8),
    /// The last writes were never chosen: another proposer builds on what was before.
    Back(u8),
    /// An attempt, which the next proposer finds or not.
    Attempt(bool),
    /// An attempt whose precondition fails.
    Decline,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..20u8).prop_map(Step::Others),
        (1..20u8).prop_map(Step::Back),
        any::<bool>().prop_map(Step::Attempt),
        Just(Step::Decline),
    ];
    proptest::collection::vec(step, 1..40)
}

fn value(history: &[WriteId]) -> Option<Value> {
    history.iter().fold(None, |value, id| Some(Value::after(value.as_ref(), *id, State::Absent)))
}

proptest! {
    #[test]
    fn a_retry_knows_what_its_window_shows(steps in steps()) {
        let mut change = Change::new(OWN);
        let mut history = Vec::new();
        // Where in the history each attempt was put, or would have been.
        let mut places = Vec::new();
        let mut other = 0u128;
        for step in steps {
            let found = value(&history);
            let gone = history.len().saturating_sub(WRITE_WINDOW);
            let remembered = history[gone..].contains(&OWN);
            let may_be_forgotten = places.iter().any(|place| *place < gone);
            let declines = matches!(step, Step::Decline);
            match step {
                Step::Others(count) => {
                    for _ in 0..count {
                        other += 1;
                        history.push(WriteId(other.to_be_bytes()));
                    }
                }
                Step::Back(count) => history.truncate(history.len().saturating_sub(usize::from(count))),
                Step::Attempt(_) | Step::Decline => {
                    let f = |_: Option<&Value>| if declines { Err(()) } else { Ok(State::Absent) };
                    let verdict = change.apply(found.as_ref(), f);
                    if remembered {
                        prop_assert_eq!(verdict, Verdict::Done);
                    } else if may_be_forgotten || (declines && found.is_none() && !places.is_empty()) {
                        prop_assert_eq!(verdict, Verdict::Unknown);
                    } else {
                        prop_assert!(!history.contains(&OWN), "it would take effect twice");
                        let next = value(&[&history[..], &[OWN]].concat());
                        let expected = next.filter(|_| !declines).map_or(Verdict::Declined(()), Verdict::Write);
                        prop_assert_eq!(verdict, expected);
                        if !declines {
                            places.push(history.len());
                        }
                        if matches!(step, Step::Attempt(true)) {
                            history.push(OWN);
                        }
                    }
                    prop_assert_eq!(change.attempted(), !places.is_empty());
                }
            }
            let found = value(&history);
            let last: Vec<_> = history[history.len().saturating_sub(WRITE_WINDOW)..].to_vec();
            prop_assert_eq!(found.as_ref().map_or(0, |found| found.sequence), history.len() as u64);
            prop_assert_eq!(found.map_or(Vec::new(), |found| found.recent), last);
        }
    }
}
