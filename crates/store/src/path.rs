//! Where a chunk lives: `ChunkId` → `ab/cd/<64 hex digits>`.
//!
//! The only way in which anything from the network becomes a path, and it passes through the
//! hexadecimal digits of 32 bytes. Two levels of 256 folders keep folders small: at 4 MiB a chunk,
//! 1 TiB is four files a folder.

use std::path::{Path, PathBuf};

use pando_core::id::ChunkId;

/// The place of one chunk under the chunk folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPath {
    hex: String,
}

impl ChunkPath {
    /// The place of `id`.
    pub(crate) fn of(id: &ChunkId) -> Self {
        Self { hex: id.to_string() }
    }

    /// `ab`, below `root`.
    pub(crate) fn outer(&self, root: &Path) -> PathBuf {
        root.join(&self.hex[..2])
    }

    /// `ab/cd`, below `root`.
    pub(crate) fn inner(&self, root: &Path) -> PathBuf {
        self.outer(root).join(&self.hex[2..4])
    }

    /// `ab/cd/<hex>`, below `root`.
    pub(crate) fn file(&self, root: &Path) -> PathBuf {
        self.inner(root).join(&self.hex)
    }

    /// The 64 digits.
    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_one_place() {
        let mut bytes = [0xee; 32];
        bytes[..2].copy_from_slice(&[0xab, 0x0d]);
        let path = ChunkPath::of(&ChunkId(bytes)).file(Path::new("/data/chunks"));
        assert_eq!(path, Path::new(&format!("/data/chunks/ab/0d/ab0d{}", "ee".repeat(30))));
    }
}
