//! Buffers for whole chunks, used again and again: what a transfer holds is bounded by the chunks in flight,
//! and the allocator need not give back and fetch 4 MiB for each (which it does late, and in fragments).

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use pando_core::seal::SEALED_CHUNK;

/// How many unused buffers are kept: what one busy transfer in each direction uses.
const KEPT: usize = 12;

/// The buffers of a node.
#[derive(Clone, Default)]
pub(crate) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer with room for a sealed chunk; goes back when dropped. Its content is what the last user left.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// A buffer of any content and length.
    pub(crate) fn take(&self) -> Buffer {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| Vec::with_capacity(SEALED_CHUNK));
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

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT && self.bytes.capacity() >= SEALED_CHUNK {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_the_last_share_is_gone() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.clear();
        buffer.extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        let shared = buffer.freeze();
        let other = shared.clone();
        drop(shared);
        assert_ne!(buffers.take().as_ptr(), place, "still in use");
        drop(other);
        assert_eq!(buffers.free.lock().unwrap().len(), 2);
    }
}
