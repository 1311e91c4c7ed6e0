//! The S3 face over real connections: a node, its gateway, and a client that signs by hand.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "s3/auth.rs"]
mod auth;
#[path = "s3/buckets.rs"]
mod buckets;
#[path = "s3/client.rs"]
mod client;
#[path = "s3/customer.rs"]
mod customer;
#[path = "s3/objects.rs"]
mod objects;
#[path = "s3/open.rs"]
mod open;
#[path = "s3/pages.rs"]
mod pages;
#[path = "s3/parts.rs"]
mod parts;
#[path = "s3/posts.rs"]
mod posts;
#[path = "s3/settings.rs"]
mod settings;
#[path = "s3/tls.rs"]
mod tls;
#[path = "s3/uploads.rs"]
mod uploads;
#[path = "s3/versions.rs"]
mod versions;
