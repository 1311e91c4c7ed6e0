//! Buffers for whole chunks and for pieces of them, used again and again: what a transfer holds is bounded by what is in
//! flight, and the allocator need not give back and fetch so much memory for each (which it does late, in fragments, and
//! filled with zeros).

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use pando_core::seal::{SEALED_CHUNK, SEALED_SEGMENT};

/// How many unused buffers for chunks are kept: what one busy transfer in each direction uses.
const CHUNKS_KEPT: usize = 12;
/// How many unused buffers for pieces are kept: 16 MiB, what a few busy gets use.
const PIECES_KEPT: usize = 32;
/// Segments of a piece: what is read, sent and opened at once.
pub(crate) const PIECE_SEGMENTS: usize = 8;

/// Buffers of one size.
#[derive(Clone)]
pub(crate) struct Buffers(Arc<Home>);

struct Home {
    free: Mutex<Vec<Vec<u8>>>,
    capacity: usize,
    kept: usize,
}

/// A buffer with room for as much as its kind is for; goes back when dropped. Its content is what the last user left.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// For sealed chunks.
    pub(crate) fn for_chunks() -> Self {
        Self::new(SEALED_CHUNK, CHUNKS_KEPT)
    }

    /// For some sealed segments.
    pub(crate) fn for_pieces() -> Self {
        Self::new(PIECE_SEGMENTS * SEALED_SEGMENT, PIECES_KEPT)
    }

    fn new(capacity: usize, kept: usize) -> Self {
        Self(Arc::new(Home { free: Mutex::default(), capacity, kept }))
    }

    /// A buffer of any content and length.
    pub(crate) fn take(&self) -> Buffer {
        let free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| Vec::with_capacity(self.0.capacity));
        Buffer { bytes, home: self.clone() }
    }
}

impl Buffer {
    /// Its bytes, shared; the buffer goes back when the last of them is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsMut<Vec<u8>> for Buffer {
    fn as_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let home = &self.home.0;
        let mut free = home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < home.kept && self.bytes.capacity() >= home.capacity {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_the_last_share_is_gone() {
        let buffers = Buffers::for_chunks();
        let mut buffer = buffers.take();
        buffer.clear();
        buffer.extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        let shared = buffer.freeze();
        let other = shared.clone();
        drop(shared);
        assert_ne!(buffers.take().as_ptr(), place, "still in use");
        drop(other);
        assert_eq!(buffers.0.free.lock().unwrap().len(), 2);
    }
}
