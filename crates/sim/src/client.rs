//! What the users of a world do: each client draws one operation after another.
//!
//! A client knows which value it saw last of each key, for conditional writes; asking and noting the answer
//! is the world's business.

use std::collections::BTreeMap;

use crate::{
    history::Value,
    rng::Rng,
    schedule::{Plan, Profile},
};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Write.
    Put,
    /// Write if nothing is there.
    PutIfAbsent,
    /// Write if what this client saw last is there.
    PutIfMatch(Value),
    /// Remove.
    Remove,
    /// Read all of it.
    Read,
    /// Read a part: of a thousand parts of the object, from which to which (the latter above the former).
    RangeRead {
        /// The first.
        from: u32,
        /// After the last.
        to: u32,
    },
    /// List all keys.
    List,
}

/// One operation to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// About which key (no matter for a list).
    pub key: String,
    /// What.
    pub what: What,
    /// Bytes, if it writes.
    pub size: u64,
    /// How long the client waits before it asks.
    pub pause_ms: u64,
}

/// One client's way.
#[derive(Clone, Debug)]
pub struct Client {
    profile: Profile,
    keys: u32,
    /// How many keys are written once; they follow the others.
    archives: u32,
    /// Which of them are this client's to write.
    to_write: Vec<u32>,
    /// Which of them are written, and this client's to remove, once and for good.
    to_discard: Vec<u32>,
    /// Between operations, about.
    pause_ms: u64,
    seen: BTreeMap<String, Value>,
}

/// How long it takes until a client removes the next of its keys for good, about, in milliseconds.
const DISCARD_MS: u64 = 8_000;

/// How often of 100: put, if absent, if match, remove, read, part of it, list.
fn mix(profile: Profile) -> [u64; 7] {
    match profile {
        // As a lock is used.
        Profile::HotKey => [4, 34, 14, 26, 20, 2, 0],
        Profile::Moving => [8, 17, 35, 10, 28, 2, 0],
        Profile::Deletes => [22, 12, 6, 28, 24, 2, 6],
        _ => [26, 9, 14, 10, 30, 5, 6],
    }
}

impl Client {
    /// A client of this world.
    pub fn new(plan: &Plan, number: u32, rng: &mut Rng) -> Self {
        let pause_ms = if plan.profile.is_hot() { 20 } else { *rng.pick(&[20, 100, 400]) };
        let archives = plan.archives * plan.clients;
        let to_write = (0..archives).filter(|archive| archive % plan.clients == number).collect();
        Self {
            profile: plan.profile,
            keys: plan.keys,
            archives,
            to_write,
            to_discard: Vec::new(),
            pause_ms,
            seen: BTreeMap::new(),
        }
    }

    /// Notes what it saw: read, told, or wrote itself.
    pub fn saw(&mut self, key: &str, value: Option<Value>) {
        match value {
            Some(value) => self.seen.insert(key.to_owned(), value),
            None => self.seen.remove(key),
        };
    }

    /// The next operation.
    pub fn next(&mut self, rng: &mut Rng) -> Intent {
        let pause_ms = rng.below(2 * self.pause_ms);
        if let Some(archive) = self.to_write.pop() {
            // What is never written again shows what was lost long ago.
            if self.profile == Profile::Deletes {
                self.to_discard.push(archive);
            }
            let (key, size) = (key(self.keys + archive), rng.between(20 << 10, 200 << 10));
            return Intent { key, what: What::PutIfAbsent, size, pause_ms };
        }
        if !self.to_discard.is_empty() && rng.below(DISCARD_MS) < self.pause_ms {
            // What is removed for good must never come back.
            let archive = self.to_discard.swap_remove(rng.below(self.to_discard.len() as u64) as usize);
            return Intent { key: key(self.keys + archive), what: What::Remove, size: 0, pause_ms };
        }
        if self.archives > 0 && rng.chance(6) {
            let key = key(self.keys + rng.below(u64::from(self.archives)) as u32);
            return Intent { key, what: What::Read, size: 0, pause_ms };
        }
        let key = key(rng.below(u64::from(self.keys)) as u32);
        let what = match rng.weighted(&mix(self.profile)) {
            0 => What::Put,
            1 => What::PutIfAbsent,
            2 => self.seen.get(&key).map_or(What::PutIfAbsent, |&value| What::PutIfMatch(value)),
            3 => What::Remove,
            4 => What::Read,
            5 => {
                let from = rng.below(1000) as u32;
                What::RangeRead { from, to: rng.between_u32(from + 1, 1000) }
            }
            _ => What::List,
        };
        let size = if matches!(what, What::Put | What::PutIfAbsent | What::PutIfMatch(_)) {
            self.size(rng)
        } else {
            0
        };
        Intent { key, what, size, pause_ms }
    }

    /// Mostly inline in the record, sometimes a chunk, seldom several.
    fn size(&self, rng: &mut Rng) -> u64 {
        let hot = self.profile.is_hot();
        let most_chunks = if self.profile == Profile::Membership { 300 } else { 100 };
        match rng.below(1000) {
            0..4 if !hot => rng.between(4 << 20, 9 << 20),
            4.. if !hot && rng.below(1000) < most_chunks => rng.between(20 << 10, 200 << 10),
            _ => rng.between(10, 400),
        }
    }
}

/// The name of a key: some in folders, so that lists have something to roll up.
pub fn key(number: u32) -> String {
    if number.is_multiple_of(2) { format!("k{number}") } else { format!("folder/k{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_and_size_happens() {
        let plan = Plan::of_profile(1, Profile::Calm);
        let mut rng = Rng::new(3);
        let mut client = Client::new(&plan, 0, &mut rng);
        for number in 0..plan.keys {
            client.saw(&key(number), Some(Value(u64::from(number))));
        }
        let intents: Vec<Intent> = (0..3000).map(|_| client.next(&mut rng)).collect();
        let count = |wanted: fn(&Intent) -> bool| intents.iter().filter(|intent| wanted(intent)).count();
        assert!(count(|i| i.what == What::Put) > 500);
        assert!(count(|i| matches!(i.what, What::PutIfMatch(_))) > 200);
        assert!(count(|i| i.what == What::List) > 50);
        assert!(count(|i| matches!(i.what, What::RangeRead { from, to } if from < to && to <= 1000)) > 50);
        assert!((1..50).contains(&count(|i| i.size >= 4 << 20)));
        assert!(count(|i| (20 << 10..=200 << 10).contains(&i.size)) > 50);
        assert!(count(|i| (10..=400).contains(&i.size)) > 1000);
    }

    #[test]
    fn a_match_needs_something_seen() {
        let plan = Plan::of_profile(1, Profile::HotKey);
        let mut rng = Rng::new(3);
        let mut client = Client::new(&plan, 0, &mut rng);
        client.saw(&key(0), Some(Value(5)));
        client.saw(&key(0), None);
        assert!((0..500).all(|_| !matches!(client.next(&mut rng).what, What::PutIfMatch(_))));
        client.saw(&key(0), Some(Value(5)));
        assert!((0..500).any(|_| client.next(&mut rng).what == What::PutIfMatch(Value(5))));
    }
}
