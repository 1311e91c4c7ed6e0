//! The operating system as this crate sees it: sockets, clock, tasks, randomness. Every other file takes them
//! from here, so that a simulator's drop-in types replace them in one place.

#[cfg(not(feature = "sim"))]
pub(crate) use tokio::net::{TcpListener, TcpStream};
pub(crate) use tokio::{
    spawn,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
#[cfg(feature = "sim")]
pub(crate) use turmoil::net::{TcpListener, TcpStream};

/// Random bytes, fit for secrets.
#[cfg(not(feature = "sim"))]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .expect("the system's random source works, or nothing here can be secure");
    bytes
}

/// Random bytes, the same ones for the same seed. (TLS takes its own, but no message's length, and so
/// nothing that happens, depends on those.)
#[cfg(feature = "sim")]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    pando_core::simulated::random()
}
