//! What a write may do to the value it finds: applied at most once, however often it is retried.
//!
//! A proposer whose accepts were sent may never hear whether they were chosen, and must try again. The
//! value carries the ids of its recent writes in sequence, so a retry that finds its own id knows that
//! it succeeded; one that finds no trace, in a window that reaches back past its first attempt, knows
//! that it did not; and one whose window has passed knows that it can't tell.

use super::{State, Value, WRITE_WINDOW};
use crate::id::WriteId;

/// One write on its way, through all its retries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    id: WriteId,
    /// The lowest sequence number that this write may have got, if accepts were ever sent.
    first_attempt: Option<u64>,
}

/// What to do with the value found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict<E> {
    /// Propose this value; the change has taken effect when it is chosen.
    Write(Value),
    /// An earlier attempt took effect. The value found must be settled, then the answer is success.
    Done,
    /// The precondition does not hold. The value found must be settled, then the answer is this. After an
    /// attempt ([`Change::attempted`]) it must be written back even if a majority holds it already: an
    /// owner that was not heard may hold that attempt, at a higher ballot than the value found, and the
    /// next change would build on it.
    Declined(E),
    /// It can't be known whether an earlier attempt took effect, because so many writes came since; or
    /// whether it yet will, because the precondition fails on a register found empty, and nothing is
    /// there to be written back.
    Unknown,
}

impl Change {
    /// A write with a fresh random `id`.
    pub fn new(id: WriteId) -> Self {
        Self { id, first_attempt: None }
    }

    /// The write's id.
    pub fn id(&self) -> WriteId {
        self.id
    }

    /// Whether accepts may have been sent: from then on a failure leaves the outcome unknown.
    pub fn attempted(&self) -> bool {
        self.first_attempt.is_some()
    }

    /// Decides what this write does to `found`. `f` gives the new state, or declines; it is not asked
    /// when an earlier attempt took effect.
    pub fn apply<E>(
        &mut self,
        found: Option<&Value>,
        f: impl FnOnce(Option<&Value>) -> Result<State, E>,
    ) -> Verdict<E> {
        if !crate::mutant("retry-without-write-id")
            && found.is_some_and(|value| value.recent.contains(&self.id))
        {
            return Verdict::Done;
        }
        let sequence = found.map_or(0, |value| value.sequence);
        if let Some(first) = self.first_attempt {
            // Sequence numbers sequence - window + 1 ..= sequence are remembered.
            let window = found.map_or(0, |value| value.recent.len().min(WRITE_WINDOW)) as u64;
            if sequence >= first && sequence - window + 1 > first {
                return Verdict::Unknown;
            }
        }
        match f(found) {
            Ok(state) => {
                // An attempt built on a value that was never chosen may have had a higher number.
                let attempt = sequence + 1;
                self.first_attempt = Some(self.first_attempt.map_or(attempt, |first| first.min(attempt)));
                Verdict::Write(Value::after(found, self.id, state))
            }
            Err(_) if found.is_none() && self.attempted() => Verdict::Unknown,
            Err(reason) => Verdict::Declined(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn write(change: &mut Change, found: Option<&Value>) -> Verdict<()> {
        change.apply(found, |_| Ok(State::Present(Bytes::from_static(b"x"))))
    }

    fn others(mut value: Option<Value>, count: u8) -> Option<Value> {
        for n in 0..count {
            value = Some(Value::after(value.as_ref(), WriteId([100 + n; 16]), State::Absent));
        }
        value
    }

    #[test]
    fn a_retry_that_finds_itself_is_done_even_if_it_would_decline() {
        let mut change = Change::new(WriteId([1; 16]));
        let Verdict::Write(value) = write(&mut change, None) else { panic!("writes") };
        let value = others(Some(value), 3).unwrap();
        assert_eq!(change.apply(Some(&value), |_| Err(())), Verdict::Done);
    }

    #[test]
    fn a_retry_writes_again_while_the_window_reaches_back() {
        let mut change = Change::new(WriteId([1; 16]));
        assert!(matches!(write(&mut change, None), Verdict::Write(_)));
        let full = others(None, WRITE_WINDOW as u8);
        assert!(matches!(write(&mut change, full.as_ref()), Verdict::Write(_)));
        let past = others(None, WRITE_WINDOW as u8 + 1);
        assert_eq!(write(&mut change, past.as_ref()), Verdict::Unknown);
    }

    #[test]
    fn the_window_must_reach_back_to_the_lowest_attempt() {
        let mut change = Change::new(WriteId([1; 16]));
        assert!(matches!(write(&mut change, others(None, 5).as_ref()), Verdict::Write(_)));
        assert!(matches!(write(&mut change, others(None, 3).as_ref()), Verdict::Write(_)), "attempt 4");
        assert_eq!(write(&mut change, others(None, 20).as_ref()), Verdict::Unknown, "5..=20 are remembered");
    }

    #[test]
    fn declining_on_nothing_after_an_attempt_is_unknown() {
        let mut change = Change::new(WriteId([1; 16]));
        assert!(matches!(write(&mut change, others(None, 1).as_ref()), Verdict::Write(_)));
        assert_eq!(change.apply(None, |_| Err(())), Verdict::Unknown);
        assert_eq!(change.apply(others(None, 2).as_ref(), |_| Err(())), Verdict::Declined(()));
    }

    #[test]
    fn declining_before_any_attempt_is_never_unknown() {
        let mut change = Change::new(WriteId([1; 16]));
        let long = others(None, 60);
        assert_eq!(change.apply(long.as_ref(), |_| Err(())), Verdict::Declined(()));
        assert!(!change.attempted());
    }
}
