//! Whole nodes in one process, on real sockets and real folders.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

#[path = "node/access.rs"]
mod access;
#[path = "node/damage.rs"]
mod damage;
#[path = "node/forming.rs"]
mod forming;
#[path = "node/grove.rs"]
mod grove;
#[path = "node/listing.rs"]
mod listing;
#[path = "node/living.rs"]
mod living;
#[path = "node/losing.rs"]
mod losing;
#[path = "node/multipart.rs"]
mod multipart;
#[path = "node/objects.rs"]
mod objects;
#[path = "node/racing.rs"]
mod racing;
#[path = "node/strays.rs"]
mod strays;
#[path = "node/versions.rs"]
mod versions;
