//! Access keys over the control socket: their shape there, making one, and sending the list in parts.

use std::io;

use pando_core::access::{Grants, Right};
use pando_node::{KeyInfo, Node};
use serde::{Deserialize, Serialize};
use tokio::net::unix::WriteHalf;

use super::{message::Reply, serve::reply};
use crate::exit::Failure;

/// Keys of a reply: one takes at most 17 KB, and all of them must fit a frame of 1 MiB.
const KEYS: usize = 32;

/// An access key, but for its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Unix milliseconds.
    pub(crate) created: u64,
    pub(crate) grants: Grants,
}

impl From<KeyInfo> for Key {
    fn from(info: KeyInfo) -> Self {
        Self { id: info.id, name: info.name, created: info.created, grants: info.grants }
    }
}

/// What a right is called, on the command line and in JSON.
pub(crate) fn word(right: Right) -> &'static str {
    match right {
        Right::Read => "read",
        Right::Write => "write",
        Right::Owner => "owner",
    }
}

pub(super) async fn create(node: &Node, name: &str, grants: Grants) -> Result<Reply, Failure> {
    let made = node.create_key(name, grants).await?;
    Ok(Reply::NewKey { key: made.info.into(), secret: made.secret.reveal() })
}

pub(super) async fn list(node: &Node, writer: &mut WriteHalf<'_>) -> io::Result<()> {
    let mut keys: Vec<Key> = match node.list_keys().await {
        Ok(keys) => keys.into_iter().map(Key::from).collect(),
        Err(error) => return reply(writer, &Reply::Failed(error.into())).await,
    };
    loop {
        let rest = keys.split_off(keys.len().min(KEYS));
        let more = !rest.is_empty();
        reply(writer, &Reply::Keys { keys, more }).await?;
        if !more {
            return Ok(());
        }
        keys = rest;
    }
}
