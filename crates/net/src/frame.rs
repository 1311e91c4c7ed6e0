//! The frame, on every lane: `len: u32, tag: u64`, both little-endian, then `len` bytes of payload.
//!
//! What the tag means is the lane's: the request's number on the RPC lane (0 is a ping), the length of the
//! raw body that follows on the stream lane, nothing (0) in a join. Pure: bytes in, frames out. Knows no
//! socket, and never allocates what a header claims, only what has arrived.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the payload.
pub(crate) const HEADER: usize = 12;

/// Room made for each read: a few TLS records, so that a busy lane reads many frames at once.
const READ: usize = 32 << 10;

/// Payloads up to this long are copied out of the read buffer, so that a small frame that someone keeps
/// doesn't keep the whole buffer; longer ones share it.
const COPIED: usize = 16 << 10;

/// A header, checked against the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Payload bytes.
    pub(crate) len: usize,
    /// What the lane makes of it.
    pub(crate) tag: u64,
}

/// A payload length above the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) len: u64,
}

impl Header {
    pub(crate) fn encode(len: u32, tag: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes[4..].copy_from_slice(&tag.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER], max: usize) -> Result<Self, TooLarge> {
        let mut bytes = bytes.as_slice();
        let (len, tag) = (bytes.get_u32_le(), bytes.get_u64_le());
        match usize::try_from(len) {
            Ok(len) if len <= max => Ok(Self { len, tag }),
            _ => Err(TooLarge { len: len.into() }),
        }
    }
}

/// The header for a payload, if it may be sent.
pub(crate) fn header(tag: u64, payload: &[u8], max: usize) -> Result<[u8; HEADER], TooLarge> {
    match u32::try_from(payload.len()) {
        Ok(len) if payload.len() <= max => Ok(Header::encode(len, tag)),
        _ => Err(TooLarge { len: payload.len() as u64 }),
    }
}

/// Appends a frame.
pub(crate) fn append(out: &mut BytesMut, tag: u64, payload: &[u8], max: usize) -> Result<(), TooLarge> {
    let header = header(tag, payload, max)?;
    out.reserve(HEADER + payload.len());
    out.put_slice(&header);
    out.put_slice(payload);
    Ok(())
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    bytes: BytesMut,
    max: usize,
}

impl Decoder {
    pub(crate) fn new(max: usize) -> Self {
        Self { bytes: BytesMut::new(), max }
    }

    /// Where to put the next bytes: has room for at least one read, and grows with what arrived.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.bytes.reserve(READ);
        &mut self.bytes
    }

    /// The next whole frame: its tag and payload.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Bytes)>, TooLarge> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let header = Header::decode(header, self.max)?;
        if self.bytes.len() < HEADER + header.len {
            return Ok(None);
        }
        self.bytes.advance(HEADER);
        let payload = if header.len <= COPIED {
            let payload = Bytes::copy_from_slice(&self.bytes[..header.len]);
            self.bytes.advance(header.len);
            payload
        } else {
            self.bytes.split_to(header.len).freeze()
        };
        Ok(Some((header.tag, payload)))
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn is_amid(&self) -> bool {
        !self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MAX: usize = 100_000;

    fn feed(decoder: &mut Decoder, bytes: &[u8]) {
        for piece in bytes.chunks(READ) {
            decoder.room().put_slice(piece);
        }
    }

    #[test]
    fn the_format_is_this() {
        let mut out = BytesMut::new();
        append(&mut out, 0x0102_0304_0506_0708, b"abc", MAX).unwrap();
        assert_eq!(&out[..], b"\x03\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01abc");
    }

    #[test]
    fn too_large_is_refused_on_both_sides() {
        let mut out = BytesMut::new();
        assert_eq!(append(&mut out, 1, &[0; 11], 10), Err(TooLarge { len: 11 }));
        assert!(out.is_empty());
        let mut decoder = Decoder::new(10);
        feed(&mut decoder, &Header::encode(11, 1));
        assert_eq!(decoder.next(), Err(TooLarge { len: 11 }));
        assert_eq!(Header::decode(&Header::encode(u32::MAX, 0), 10), Err(TooLarge { len: u32::MAX.into() }));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            frames in vec((any::<u64>(), vec(any::<u8>(), 0..40_000)), 0..8),
            cut in 1usize..5000,
        ) {
            let mut out = BytesMut::new();
            for (tag, payload) in &frames {
                append(&mut out, *tag, payload, MAX).unwrap();
            }
            let mut decoder = Decoder::new(MAX);
            let mut found = Vec::new();
            for piece in out.chunks(cut) {
                decoder.room().put_slice(piece);
                while let Some((tag, payload)) = decoder.next().unwrap() {
                    found.push((tag, payload.to_vec()));
                }
            }
            prop_assert!(!decoder.is_amid());
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn any_bytes_are_survived_without_believing_them(bytes in vec(any::<u8>(), 0..2000), max in 0usize..4000) {
            let mut decoder = Decoder::new(max);
            feed(&mut decoder, &bytes);
            let mut taken = 0;
            while let Ok(Some((_, payload))) = decoder.next() {
                prop_assert!(payload.len() <= max);
                taken += HEADER + payload.len();
            }
            prop_assert!(taken <= bytes.len());
            prop_assert!(decoder.bytes.capacity() <= 2 * (bytes.len() + READ));
        }

        #[test]
        fn a_claim_reserves_nothing(len in 0u32..=MAX as u32, tag: u64) {
            let mut decoder = Decoder::new(MAX);
            feed(&mut decoder, &Header::encode(len, tag));
            let found = decoder.next().unwrap();
            prop_assert_eq!(found.is_some(), len == 0);
            prop_assert!(decoder.bytes.capacity() <= 2 * READ);
        }
    }
}
