//! The bytes of one simulated file: as they are, as they are on the disk for good, and what lies between.
//!
//! Owns what a power cut and a failed sync do to a file. Which file, and when, is the disk's business.

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Content {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy)]
enum Survivors {
    /// All of it but for the end of the last write: the disk was nearly done.
    AllButLast,
    /// About half, in no order: caches are written back as it suits the disk.
    Some,
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.current, at, bytes);
        self.unsynced.push(Change::Write(at, bytes.to_vec()));
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.current.resize(len, 0);
        self.unsynced.push(Change::Resize(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write(at, bytes) => put(&mut self.synced, at, &bytes),
                Change::Resize(len) => self.synced.resize(len, 0),
            }
        }
    }

    /// The bytes are others, and were never anything else.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.synced.clone_from(&bytes);
        self.current = bytes;
        self.unsynced.clear();
    }

    /// Nothing survives that was not synced.
    pub(super) fn lose(&mut self) {
        self.current.clone_from(&self.synced);
        self.unsynced.clear();
    }

    /// Some of what was not synced survives, as `random` decides; the last write may be torn.
    pub(super) fn lose_some(&mut self, mut random: impl FnMut() -> u64) {
        let survivors = if random().is_multiple_of(4) { Survivors::AllButLast } else { Survivors::Some };
        let last = self.unsynced.len().saturating_sub(1);
        for (number, change) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            let stays = matches!(survivors, Survivors::AllButLast) || random().is_multiple_of(2);
            match change {
                Change::Write(at, bytes) if stays => {
                    let kept =
                        if number == last { random() as usize % (bytes.len() + 1) } else { bytes.len() };
                    put(&mut self.synced, at, &bytes[..kept]);
                }
                Change::Resize(len) if stays => self.synced.resize(len, 0),
                Change::Write(..) | Change::Resize(_) => {}
            }
        }
        self.current.clone_from(&self.synced);
    }
}

/// Puts `bytes` at `at`, with zeros before them where there was nothing.
fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn changed() -> Content {
        let mut content = Content::default();
        content.write(0, b"old old old");
        content.sync();
        content.write(0, b"one");
        content.write(4, b"two");
        content.write(8, b"three");
        content
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_is_lost() {
        let mut content = changed();
        assert_eq!(content.bytes(), b"one two three");
        content.lose();
        assert_eq!(content.bytes(), b"old old old");
        let mut content = changed();
        content.sync();
        content.lose();
        assert_eq!(content.bytes(), b"one two three");
    }

    #[test]
    fn a_file_that_shrank_and_grew_again_holds_zeros() {
        let mut content = changed();
        content.resize(2);
        content.resize(6);
        content.sync();
        content.lose();
        assert_eq!(content.bytes(), b"on\0\0\0\0");
    }

    #[test]
    fn writes_survive_apart_from_each_other_and_the_last_is_torn() {
        let mut seen = BTreeSet::new();
        pando_core::simulated::seed(5);
        for _ in 0..400 {
            let mut content = changed();
            content.lose_some(pando_core::simulated::next);
            seen.insert(String::from_utf8(content.bytes().to_vec()).unwrap());
        }
        for wanted in ["old old old", "one old old", "old two old", "one two thr", "old two three"] {
            assert!(seen.contains(wanted), "{wanted:?} never happened: {seen:?}");
        }
    }
}
