//! Object records of formats that are read and not written any more.

use bytes::Bytes;
use serde::Deserialize;

use super::{Digests, Headers, Record, UserMeta};
use crate::{id::WriteId, mark::Mark};

/// A [`Record`] of format 1.
#[derive(Deserialize)]
pub(super) struct FirstRecord {
    size: u64,
    hash: [u8; 32],
    modified: u64,
    meta: UserMeta,
    epoch: u32,
    body: Bytes,
}

impl From<FirstRecord> for Record {
    fn from(first: FirstRecord) -> Self {
        let FirstRecord { size, hash, modified, meta, epoch, body } = first;
        let (headers, digests, tags, salt) = Default::default();
        let mark = Mark::null_at(modified);
        Self { size, hash: Some(hash), modified, meta, epoch, body, headers, digests, tags, salt, mark }
    }
}

/// A [`Record`] of format 2.
#[derive(Deserialize)]
pub(super) struct SecondRecord {
    size: u64,
    hash: Option<[u8; 32]>,
    modified: u64,
    meta: UserMeta,
    epoch: u32,
    body: Bytes,
    headers: Headers,
    digests: Digests,
    tags: Vec<(String, String)>,
    salt: Option<WriteId>,
}

impl From<SecondRecord> for Record {
    fn from(second: SecondRecord) -> Self {
        let SecondRecord { size, hash, modified, meta, epoch, body, headers, digests, tags, salt } = second;
        let mark = Mark::null_at(modified);
        Self { size, hash, modified, meta, epoch, body, headers, digests, tags, salt, mark }
    }
}
