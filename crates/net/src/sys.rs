//! The operating system as this crate sees it: sockets, clock, tasks. Every other file takes them from here,
//! so that a simulator's drop-in types replace them in one place.

pub(crate) use tokio::{
    net::{TcpListener, TcpStream},
    spawn,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
