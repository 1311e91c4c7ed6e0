//! Tests that need to look inside: crashes at every step, a failing disk, races held open.

mod chunk_crash;
pub(crate) mod crash_disk;
mod paging;
mod purge;
mod races;
mod register_crash;

use std::path::Path;

use bytes::Bytes;
use pando_core::{
    id::{ChunkId, NodeId, WriteId},
    name::RegisterName,
    register::{Accepted, Ballot, LayoutVersion, State, Value},
};

use crate::{
    Error, Options, Store,
    folder::{Folder, Probe},
    index::logged,
    store::open_shared,
};
use crash_disk::CrashDisk;

const ME: NodeId = NodeId([7; 32]);
const NO_LAYOUT: LayoutVersion = LayoutVersion(0);

/// Bytes of the index's log: it is full after some groups.
const LOG: usize = 256 << 10;

fn options() -> Options {
    Options { node: ME, capacity: None }
}

/// A store whose index is on `disk`, with `probe` in the way of its file operations.
fn open_on(dir: &Path, disk: &CrashDisk, probe: Option<Probe>) -> Result<Store, Error> {
    let mut folder = Folder::open(dir)?;
    folder.probe = probe;
    let index = logged(disk.file(0), disk.file(1), LOG)?;
    Ok(Store::start(open_shared(folder, index, &options())?))
}

fn ballot(counter: u64) -> Ballot {
    Ballot { layout: NO_LAYOUT, counter, session: 1 }
}

fn accepted(counter: u64, text: &str) -> Accepted {
    let state = State::Present(Bytes::copy_from_slice(text.as_bytes()));
    Accepted { ballot: ballot(counter), value: Value::after(None, WriteId([counter as u8; 16]), state) }
}

fn name(key: &str) -> RegisterName {
    RegisterName::object("default", key).unwrap()
}

fn chunk(text: &str) -> (ChunkId, Bytes) {
    (ChunkId(*blake3::hash(text.as_bytes()).as_bytes()), Bytes::copy_from_slice(text.as_bytes()))
}
