//! The transport as its users see it: endpoints over loopback, and hand-made peers that misbehave.
#![expect(clippy::unwrap_used, reason = "in a test, an unexpected error is a failure")]

mod lanes;
mod life;
mod raw;
mod trust;
mod world;
