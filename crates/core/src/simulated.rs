//! What a simulated world shares over all crates: one source of randomness, and the deliberate faults that
//! prove that the simulator looks. Only with the feature `sim`, which no product build has.
//!
//! A world runs in one thread, so the state is the thread's. The source is SplitMix64 (Steele, Lea and Flood,
//! "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): small, and good enough to mix schedules.

use std::cell::{Cell, RefCell};

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
    static MUTANT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Starts the source anew.
pub fn seed(seed: u64) {
    STATE.set(seed);
}

/// The next number.
pub fn next() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for piece in bytes.chunks_mut(8) {
        piece.copy_from_slice(&next().to_le_bytes()[..piece.len()]);
    }
    bytes
}

/// Breaks one rule in this thread's world; `None`: none.
pub fn set_mutant(name: Option<&str>) {
    MUTANT.set(name.map(str::to_owned));
}

/// Whether this rule is broken.
pub fn mutant(name: &str) -> bool {
    MUTANT.with_borrow(|mutant| mutant.as_deref() == Some(name))
}
