//! What the clients of a world asked and were told, in virtual time. Judged in [`crate::linearizable`].

use std::{collections::BTreeMap, fmt};

/// A unique name of something written: each write has its own, so that a read says whose write it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u64);

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Write, whatever is there.
    Put(Value),
    /// Write if nothing is there.
    PutIfAbsent(Value),
    /// Write if that is there.
    PutIfMatch {
        /// What must be there.
        expected: Value,
        /// What to write.
        value: Value,
    },
    /// Remove what is there.
    Remove,
    /// Read.
    Read,
}

impl Kind {
    /// The value it would write.
    pub fn writes(&self) -> Option<Value> {
        match *self {
            Self::Put(value) | Self::PutIfAbsent(value) | Self::PutIfMatch { value, .. } => Some(value),
            Self::Remove | Self::Read => None,
        }
    }
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// What was read; `None`: nothing is there.
    Read(Option<Value>),
    /// The condition did not hold; what was there, if that was told.
    Precondition(Option<Value>),
    /// Nothing is there.
    NotFound,
    /// It surely had no effect.
    Failed,
    /// It may have had effect at any time after its start, even after its end, or never.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Which node was asked.
    pub node: u32,
    /// About which key.
    pub key: String,
    /// What.
    pub kind: Kind,
    /// The answer.
    pub outcome: Outcome,
    /// When it was asked, in virtual microseconds.
    pub start: u64,
    /// When the answer came; `u64::MAX` when the client never heard. Operations where one ends in the very
    /// microsecond in which the other starts count as concurrent.
    pub end: u64,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", Seconds(self.start))?;
        match self.end {
            u64::MAX => write!(f, "{:>11}", "never")?,
            end => write!(f, "{}", Seconds(end))?,
        }
        write!(f, "  client {} at node {}: ", self.client, self.node)?;
        match self.kind {
            Kind::Put(value) => write!(f, "put {}={value}", self.key)?,
            Kind::PutIfAbsent(value) => write!(f, "put {}={value} if absent", self.key)?,
            Kind::PutIfMatch { expected, value } => write!(f, "put {}={value} if {expected}", self.key)?,
            Kind::Remove => write!(f, "remove {}", self.key)?,
            Kind::Read => write!(f, "read {}", self.key)?,
        }
        match self.outcome {
            Outcome::Done => write!(f, " -> done"),
            Outcome::Read(Some(value)) => write!(f, " -> {value}"),
            Outcome::Read(None) => write!(f, " -> absent"),
            Outcome::Precondition(Some(value)) => write!(f, " -> refused, there is {value}"),
            Outcome::Precondition(None) => write!(f, " -> refused"),
            Outcome::NotFound => write!(f, " -> not found"),
            Outcome::Failed => write!(f, " -> failed, no effect"),
            Outcome::Unknown => write!(f, " -> unknown"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// Virtual microseconds, shown as seconds in a column of fixed width.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// All operations of a world, in the order in which they were noted.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// Notes an operation.
    pub fn push(&mut self, operation: Operation) {
        assert!(operation.start <= operation.end, "an operation ends before it starts: {operation}");
        self.operations.push(operation);
    }

    /// All of them.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Those of each key: registers are independent, and so can be judged one by one.
    pub fn by_key(&self) -> BTreeMap<&str, Vec<Operation>> {
        let mut keys = BTreeMap::<&str, Vec<Operation>>::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation.clone());
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_one_readable_line() {
        let mut operation = Operation {
            client: 1,
            node: 4,
            key: "b/k2".into(),
            kind: Kind::PutIfMatch { expected: Value(7), value: Value(9) },
            outcome: Outcome::Precondition(Some(Value(8))),
            start: 1_000_250,
            end: 12_345_678,
        };
        let line = "  1.000250s.. 12.345678s  client 1 at node 4: put b/k2=v9 if v7 -> refused, there is v8";
        assert_eq!(operation.to_string(), line);
        (operation.kind, operation.outcome, operation.end) = (Kind::Remove, Outcome::Unknown, u64::MAX);
        let line = "  1.000250s..      never  client 1 at node 4: remove b/k2 -> unknown";
        assert_eq!(operation.to_string(), line);
    }

    #[test]
    fn keys_are_split_in_order() {
        let mut history = History::default();
        for (start, key) in [(1, "b"), (2, "a"), (3, "b")] {
            let (kind, outcome) = (Kind::Read, Outcome::Read(None));
            history.push(Operation { client: 0, node: 0, key: key.into(), kind, outcome, start, end: 9 });
        }
        let keys = history.by_key();
        assert_eq!(keys.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(keys["b"].iter().map(|operation| operation.start).collect::<Vec<_>>(), [1, 3]);
    }
}
