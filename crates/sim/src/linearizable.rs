//! Is what the clients saw of one key what a register would have shown them? The register starts absent.
//!
//! The search of Wing and Gong with Lowe's memory: choose an operation that nothing unchosen precedes, apply
//! it, go on; never visit the same (chosen operations, state) twice. Three observations, each checked against
//! a naive search in the tests, keep it small:
//!
//! - An operation that changes nothing and fits the state is chosen at once: it constrains nothing that follows.
//! - An operation of unknown outcome has no deadline, so it may be put off until right before an operation
//!   that would not have fitted without it (or is left out, if there is none).
//! - One whose effect nobody could ever notice is left out from the start.
//! - Values that nobody names are one and the same; of operations of unknown outcome that need and do the same, the
//!   one that began first is chosen first.
//!
//! Says nothing of lists, which promise less, nor of several keys together.

use std::{collections::HashSet, fmt};

use crate::{
    history::{Kind, Operation, Outcome, Value},
    rng::splitmix64,
};

/// States that are visited before the search gives up: a few seconds, and about 100 MB of memory.
const MAX_STEPS: u64 = 5_000_000;

/// Stands for every value that no answer and no condition names.
const UNNAMED: Value = Value(u64::MAX - 1);

/// How many operations before the one that does not fit are shown.
const SHOWN_BEFORE: usize = 12;

/// Why a history was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// No order of the operations explains what the clients saw.
    Broken {
        /// The first answer, in time, that no order explains.
        culprit: Operation,
        /// The culprit (marked ">"), what was concurrent with it, what came before and what wrote the
        /// values it speaks of; in order of start, one operation a line.
        lines: Vec<String>,
    },
    /// The search was given up: neither right nor wrong is known.
    Undecided {
        /// States visited.
        steps: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { culprit, lines } => {
                write!(f, "not linearizable: nothing explains the answer to\n  {culprit}\namong")?;
                lines.iter().try_for_each(|line| write!(f, "\n{line}"))
            }
            Self::Undecided { steps } => {
                write!(f, "undecided: no order found in {steps} steps; are most outcomes unknown?")
            }
        }
    }
}

impl std::error::Error for Violation {}

/// Whether these operations, all of one key, are linearizable.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    check_within(operations, MAX_STEPS)
}

/// As [`check`], visiting at most so many states.
pub fn check_within(operations: &[Operation], max_steps: u64) -> Result<(), Violation> {
    assert!(operations.windows(2).all(|pair| pair[0].key == pair[1].key), "operations of several keys");
    match search(operations, max_steps) {
        Verdict::Fits => Ok(()),
        Verdict::Undecided(steps) => Err(Violation::Undecided { steps }),
        Verdict::Broken => Err(explain(operations, max_steps)),
    }
}

enum Verdict {
    Fits,
    Broken,
    Undecided(u64),
}

/// What an operation needs of the state that it is applied to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    Anything,
    /// Exactly this.
    Is(Option<Value>),
    /// Any value but absence.
    Present,
    /// Anything but this value.
    IsNot(Value),
    /// An answer that the operation can't have: nothing satisfies it.
    Nonsense,
}

impl Needs {
    /// The value that it names.
    fn names(self) -> Option<Value> {
        match self {
            Self::Is(Some(value)) | Self::IsNot(value) => Some(value),
            Self::Is(None) | Self::Anything | Self::Present | Self::Nonsense => None,
        }
    }

    fn fits(self, state: Option<Value>) -> bool {
        match self {
            Self::Anything => true,
            Self::Is(needed) => state == needed,
            Self::Present => state.is_some(),
            Self::IsNot(value) => state != Some(value),
            Self::Nonsense => false,
        }
    }
}

/// An operation as a step of the register.
#[derive(Clone, Copy, Debug)]
struct Step {
    needs: Needs,
    /// The state after it, if it changes it.
    becomes: Option<Option<Value>>,
    start: u64,
    end: u64,
    /// It need not happen.
    optional: bool,
}

impl Step {
    /// `None` if the operation says nothing and changes nothing.
    fn of(operation: &Operation) -> Option<Self> {
        use Outcome::{Done, Failed, NotFound, Precondition, Unknown};
        let (needs, becomes) = match (operation.kind, operation.outcome) {
            (_, Failed) | (Kind::Read, Unknown) => return None,
            (Kind::Read, Outcome::Read(seen)) => (Needs::Is(seen), None),
            (Kind::Read | Kind::Remove | Kind::PutIfMatch { .. }, NotFound) => (Needs::Is(None), None),
            (Kind::Put(value), Done | Unknown) => (Needs::Anything, Some(Some(value))),
            (Kind::PutIfAbsent(value), Done | Unknown) => (Needs::Is(None), Some(Some(value))),
            (Kind::PutIfAbsent(_), Precondition(None)) => (Needs::Present, None),
            (Kind::PutIfAbsent(_), Precondition(told)) => (Needs::Is(told), None),
            (Kind::PutIfMatch { expected, value }, Done | Unknown) => {
                (Needs::Is(Some(expected)), Some(Some(value)))
            }
            (Kind::PutIfMatch { expected, .. }, Precondition(None)) => (Needs::IsNot(expected), None),
            (Kind::PutIfMatch { expected, .. }, Precondition(told)) if told != Some(expected) => {
                (Needs::Is(told), None)
            }
            (Kind::Remove, Done | Unknown) => (Needs::Present, Some(None)),
            _ => (Needs::Nonsense, None),
        };
        let optional = operation.outcome == Unknown;
        let end = if optional { u64::MAX } else { operation.end };
        Some(Self { needs, becomes, start: operation.start, end, optional })
    }
}

/// A point of the search.
struct Point {
    /// Which steps were chosen, as bits.
    chosen: Box<[u64]>,
    /// Every required step below this was chosen.
    first: usize,
    state: Option<Value>,
    /// The state before the optional step that was chosen last: what comes next must not have fitted it.
    before: Option<Option<Value>>,
    /// A hash of `chosen`, kept up to date by exclusive or (Zobrist).
    hash: u128,
}

impl Point {
    fn has(&self, step: usize) -> bool {
        self.chosen[step / 64] & (1 << (step % 64)) != 0
    }

    fn choose(&mut self, index: usize, step: &Step) {
        self.chosen[index / 64] |= 1 << (index % 64);
        self.hash ^= mix(index as u64, 0);
        self.before = step.optional.then_some(self.state);
        self.state = step.becomes.unwrap_or(self.state);
    }

    fn then(&self, index: usize, step: &Step) -> Self {
        let (chosen, hash) = (self.chosen.clone(), self.hash);
        let mut next = Self { chosen, first: self.first, state: self.state, before: self.before, hash };
        next.choose(index, step);
        next
    }

    fn fits(&self, step: &Step) -> bool {
        step.needs.fits(self.state) && self.before.is_none_or(|before| !step.needs.fits(before))
    }

    /// 128 bits in place of the whole point: at five million points, two share them once in 10^25 histories.
    fn fingerprint(&self) -> u128 {
        let before = self.before.map_or(0, |before| mix(before.map_or(u64::MAX, |value| value.0), 2));
        self.hash ^ mix(self.state.map_or(u64::MAX, |value| value.0), 1) ^ before
    }
}

/// 128 well-mixed bits of a number, different for each use.
fn mix(number: u64, usage: u64) -> u128 {
    let mut state = number ^ (usage << 62) ^ 0x5851_f42d_4c95_7f2d;
    let low = splitmix64(&mut state);
    state ^= low.rotate_left(29) ^ usage;
    u128::from(low) << 64 | u128::from(splitmix64(&mut state))
}

fn search(operations: &[Operation], max_steps: u64) -> Verdict {
    let mut steps: Vec<Step> = operations.iter().filter_map(Step::of).collect();
    steps.sort_by_key(|step| (step.start, step.end));
    let named: HashSet<Value> = steps.iter().filter_map(|step| step.needs.names()).collect();
    for step in &mut steps {
        step.becomes = step.becomes.map(|state| state.map(|v| if named.contains(&v) { v } else { UNNAMED }));
    }
    let (optional, required): (Vec<Step>, Vec<Step>) = steps.iter().partition(|step| step.optional);
    let optional: Vec<Step> =
        optional.into_iter().filter(|step| steps.iter().any(|other| notices(other, step))).collect();
    let twin = |of: usize| {
        let same = |step: &Step| (step.needs, step.becomes) == (optional[of].needs, optional[of].becomes);
        optional[..of].iter().rposition(same)
    };
    let twins: Vec<Option<usize>> = (0..optional.len()).map(twin).collect();
    let words = (required.len() + optional.len()).div_ceil(64);
    let chosen = vec![0; words].into_boxed_slice();
    let mut stack = vec![Point { chosen, first: 0, state: None, before: None, hash: 0 }];
    let mut seen = HashSet::new();
    let mut candidates = Vec::new();
    while let Some(mut point) = stack.pop() {
        let now = choose_harmless(&mut point, &required, &mut candidates);
        if point.first == required.len() {
            return Verdict::Fits;
        }
        if !seen.insert(point.fingerprint()) {
            continue;
        }
        if seen.len() as u64 >= max_steps {
            return Verdict::Undecided(max_steps);
        }
        // Pushed first is tried last: steps that need not happen are the last resort.
        for (offset, step) in optional.iter().enumerate().rev() {
            let index = required.len() + offset;
            if step.start > now || point.has(index) || !point.fits(step) {
                continue;
            }
            if twins[offset].is_some_and(|twin| !point.has(required.len() + twin)) {
                continue;
            }
            let next = point.then(index, step);
            let mut following = candidates.iter().map(|&index| &required[index]).chain(&optional);
            if following.any(|step| next.fits(step)) {
                stack.push(next);
            }
        }
        for &index in candidates.iter().rev() {
            if point.fits(&required[index]) {
                stack.push(point.then(index, &required[index]));
            }
        }
    }
    Verdict::Broken
}

/// Chooses the steps that change nothing and fit, until there is none. Leaves the steps that may come next in
/// `candidates`, and gives the time by which a step must have started to be among them.
fn choose_harmless(point: &mut Point, required: &[Step], candidates: &mut Vec<usize>) -> u64 {
    loop {
        while point.first < required.len() && point.has(point.first) {
            point.first += 1;
        }
        candidates.clear();
        let mut deadline = u64::MAX;
        // In order of start: whatever starts after the earliest end has that one before it.
        for (index, step) in required.iter().enumerate().skip(point.first) {
            if step.start > deadline {
                break;
            }
            if !point.has(index) {
                deadline = deadline.min(step.end);
                candidates.push(index);
            }
        }
        let harmless = candidates.iter().copied().find(|&index| {
            let step = &required[index];
            step.becomes.is_none() && point.fits(step)
        });
        match harmless {
            Some(index) => point.choose(index, &required[index]),
            None => return deadline,
        }
    }
}

/// Whether `other` could fit because of what `step` does.
fn notices(other: &Step, step: &Step) -> bool {
    match (other.needs, step.becomes) {
        (Needs::Anything | Needs::Nonsense, _) | (_, None) => false,
        (needs, Some(state)) => needs.fits(state),
    }
}

/// Finds the first answer, in time, that nothing explains. Every prefix of a linearizable history is one too,
/// so halving finds the place.
fn explain(operations: &[Operation], max_steps: u64) -> Violation {
    let answers = |o: &&Operation| !matches!(o.outcome, Outcome::Unknown | Outcome::Failed);
    let mut ends: Vec<u64> = operations.iter().filter(answers).map(|o| o.end).collect();
    ends.sort_unstable();
    ends.dedup();
    // The history up to ends[broken] is known not to fit; the one with all of them is the whole.
    let (mut fits, mut broken) = (0, ends.len().saturating_sub(1));
    while fits < broken {
        let middle = fits.midpoint(broken);
        match search(&until(operations, ends[middle]), max_steps) {
            Verdict::Broken => broken = middle,
            Verdict::Fits | Verdict::Undecided(_) => fits = middle + 1,
        }
    }
    let time = ends.get(broken).copied().unwrap_or(u64::MAX);
    let blamed = |operation: &&Operation| operation.end == time && answers(operation);
    let culprit = operations.iter().find(blamed).expect("only an answer breaks a history").clone();
    let lines = around(&until(operations, time), operations, &culprit);
    Violation::Broken { culprit, lines }
}

/// What was known at that time: what was not answered yet may still have any effect.
fn until(operations: &[Operation], time: u64) -> Vec<Operation> {
    let begun = operations.iter().filter(|operation| operation.start <= time);
    begun
        .map(|operation| match operation.end <= time {
            true => operation.clone(),
            false if operation.outcome == Outcome::Failed => operation.clone(),
            false => Operation { outcome: Outcome::Unknown, end: u64::MAX, ..operation.clone() },
        })
        .collect()
}

/// The lines of an explanation.
fn around(known: &[Operation], all: &[Operation], culprit: &Operation) -> Vec<String> {
    let told = match culprit.outcome {
        Outcome::Read(value) | Outcome::Precondition(value) => value,
        _ => None,
    };
    let expected = match culprit.kind {
        Kind::PutIfMatch { expected, .. } => Some(expected),
        _ => None,
    };
    let mut before: Vec<u64> = known.iter().map(|o| o.end).filter(|&end| end < culprit.start).collect();
    before.sort_unstable();
    let recent = before.get(before.len().saturating_sub(SHOWN_BEFORE)).copied().unwrap_or(0);
    let mut shown: Vec<&Operation> = all
        .iter()
        .filter(|operation| operation.start <= culprit.end)
        .filter(|operation| {
            let writes = operation.kind.writes();
            let names_it = writes.is_some() && (writes == told || writes == expected);
            let may_matter = operation.outcome != Outcome::Failed && operation.end >= recent;
            names_it || may_matter || *operation == culprit
        })
        .collect();
    shown.sort_by_key(|operation| (operation.start, operation.end));
    let mark = |operation: &Operation| if operation == culprit { "> " } else { "  " };
    let mut lines: Vec<String> = shown.iter().map(|o| format!("{}{o}", mark(o))).collect();
    if let Some(value) = told
        && !all.iter().any(|operation| operation.kind.writes() == Some(value))
    {
        lines.push(format!("  {value} was never written"));
    }
    lines
}

#[cfg(test)]
mod tests;
