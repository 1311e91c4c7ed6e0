//! Small numbers for large things, and the hash behind them: deterministic and fast, not for hostile input.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
};

/// Gives equal things equal small numbers: a state is then a few numbers, however large its parts.
pub(crate) struct Interner<T> {
    numbers: HashMap<T, u32, BuildHasherDefault<Mix>>,
    items: Vec<T>,
}

impl<T: Clone + Eq + Hash> Interner<T> {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self { numbers: HashMap::default(), items: Vec::new() }
    }

    /// The number of `item`.
    pub(crate) fn number(&mut self, item: T) -> u32 {
        if let Some(number) = self.numbers.get(&item) {
            return *number;
        }
        let number = self.items.len() as u32;
        self.items.push(item.clone());
        self.numbers.insert(item, number);
        number
    }

    /// The item with this number.
    pub(crate) fn item(&self, number: u32) -> &T {
        &self.items[number as usize]
    }
}

/// A fast, deterministic hash: a multiplication of 128 bits and a fold for each word.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mix(u128);

impl Mix {
    /// All 128 bits.
    pub(crate) fn wide(self) -> u128 {
        let twice = (self.0 ^ (self.0 >> 71)).wrapping_mul(0xda94_2042_e4dd_58b5_9fb2_1c65_1e98_df25);
        twice ^ (twice >> 64)
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ u128::from(word) ^ 0x9e37_79b9_7f4a_7c15)
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
        self.0 = mixed ^ (mixed >> 67);
    }

    fn write_u128(&mut self, word: u128) {
        // Fingerprints are mixed already.
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        (self.0 ^ (self.0 >> 64)) as u64
    }
}
