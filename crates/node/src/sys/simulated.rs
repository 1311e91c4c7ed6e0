//! The simulator's: one thread, virtual time, one seeded source of randomness, disks that lose power.

use std::{cell::RefCell, collections::BTreeMap, io, net::IpAddr, time::Duration};

/// Where virtual time begins: in 2026.
const EPOCH: Duration = Duration::from_secs(1_790_000_000);

thread_local! {
    /// How far each machine's clock is ahead, in milliseconds, by its runtime.
    static AHEAD: RefCell<BTreeMap<String, i64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Files of the simulated machine.
pub(crate) mod files {
    pub(crate) use pando_store::simulated::{
        DirBuilder, DirBuilderExt, File, OpenOptions, OpenOptionsExt, read, rename,
    };
}

fn here() -> String {
    tokio::runtime::Handle::current().id().to_string()
}

/// Sets the clock of the machine that calls this so far ahead (or back).
pub fn set_clock(ahead_ms: i64) {
    AHEAD.with_borrow_mut(|ahead| ahead.insert(here(), ahead_ms));
}

/// Forgets all clocks: a new world begins.
pub fn reset_clocks() {
    AHEAD.with_borrow_mut(BTreeMap::clear);
}

/// Unix time, as this machine's clock has it.
pub(crate) fn since_epoch() -> Duration {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    let ahead = AHEAD.with_borrow(|ahead| ahead.get(&here()).copied().unwrap_or(0));
    let shift = Duration::from_millis(ahead.unsigned_abs());
    if ahead < 0 { EPOCH + elapsed - shift } else { EPOCH + elapsed + shift }
}

/// Random bytes, the same ones for the same seed.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    pando_core::simulated::random()
}

/// A simulated machine is told where it is.
pub(crate) fn interfaces() -> io::Result<Vec<IpAddr>> {
    Ok(Vec::new())
}

/// Runs `work` in place: there are no other threads.
#[expect(clippy::unused_async, reason = "as the real one")]
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    work()
}
