//! Content that a client encrypts with a key of its own ("customer-provided key", S3's SSE-C).
//!
//! Owns the cryptography and what is kept of it. Each body gets a random [`Lock::salt`]; its key is the BLAKE3 of the
//! client's key and that salt, and its bytes go through AES-256 in counter mode (NIST SP 800-38A), which keeps the size
//! and lets any range be read alone. A key is used for one body only, so the counter starts at 0. That the bytes are
//! the ones put is up to the layers below: every chunk is verified by its hash and authenticated by its tags.
//!
//! The client's key is not kept. A [`Lock`] tells whether a key is the right one; it stands among the user metadata of
//! a record, under a name that no client can give.

use std::fmt;

use aws_lc_rs::{
    cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    constant_time::verify_slices_are_equal,
    iv::FixedLength,
};
use data_encoding::HEXLOWER;

use crate::{id::WriteId, record::UserMeta};

/// What names of metadata start with that are ours: no header can have such a name.
const OURS: char = '\u{1}';
/// The name under which a lock is kept.
const LOCK: &str = "\u{1}customer-lock";
/// Bytes of a block of AES.
const BLOCK: u64 = 16;

/// Whether an entry of user metadata is ours: clients neither set it nor see it.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(OURS)
}

/// A client's key. It is held while a request is answered, and never stored.
#[derive(Clone)]
pub struct CustomerKey([u8; 32]);

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerKey(…)")
    }
}

impl CustomerKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn derive(&self, context: &str, salt: &WriteId) -> [u8; 32] {
        blake3::derive_key(context, &[&self.0[..], &salt.0[..]].concat())
    }

    /// What turns a body into what is stored, and back.
    pub fn keystream(&self, salt: &WriteId) -> Keystream {
        Keystream::new(&self.derive("pando 1 customer key: content", salt))
    }

    /// What stands for the MD5 of a body: it changes with the content as the MD5 does, and tells nothing of it to
    /// those who don't have the key.
    pub fn mask(&self, salt: &WriteId, md5: &[u8; 16]) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.derive("pando 1 customer key: etag", salt), md5);
        let mut masked = [0; 16];
        masked.copy_from_slice(&hash.as_bytes()[..16]);
        masked
    }
}

/// What is kept of a body that is encrypted with a client's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Random, and of this body only.
    pub salt: WriteId,
    /// Known only to who has the key.
    proof: [u8; 32],
}

impl Lock {
    /// For a body that is to be encrypted with `key`; `salt` must be random, and used for no other body.
    pub fn new(key: &CustomerKey, salt: WriteId) -> Self {
        Self { salt, proof: key.derive("pando 1 customer key: proof", &salt) }
    }

    /// Whether that is the key. Takes as long whatever the answer.
    pub fn opens_with(&self, key: &CustomerKey) -> bool {
        verify_slices_are_equal(&self.proof, &Self::new(key, self.salt).proof).is_ok()
    }

    /// The lock among an object's metadata, if it has one. One that can't be read is opened by no key.
    pub fn of(meta: &UserMeta) -> Option<Self> {
        let (_, text) = meta.entries.iter().find(|(name, _)| name == LOCK)?;
        let (mut salt, mut proof) = ([0; 16], [0; 32]);
        if let Some(bytes) = HEXLOWER.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() == 48) {
            salt.copy_from_slice(&bytes[..16]);
            proof.copy_from_slice(&bytes[16..]);
        }
        Some(Self { salt: WriteId(salt), proof })
    }

    /// Keeps the lock among an object's metadata, in the place of what was there.
    pub fn enter(&self, meta: &mut UserMeta) {
        meta.entries.retain(|(name, _)| name != LOCK);
        let text = HEXLOWER.encode(&[&self.salt.0[..], &self.proof[..]].concat());
        meta.entries.push((LOCK.to_owned(), text));
    }

    /// Takes an object's lock away, if it has one.
    pub fn leave(meta: &mut UserMeta) {
        meta.entries.retain(|(name, _)| name != LOCK);
    }
}

/// The bytes that a body's are combined with: AES-256 in counter mode.
pub struct Keystream(EncryptingKey);

impl fmt::Debug for Keystream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keystream(…)")
    }
}

impl Keystream {
    fn new(key: &[u8; 32]) -> Self {
        let key = UnboundCipherKey::new(&AES_256, key).expect("a key of AES-256 has 32 bytes");
        Self(EncryptingKey::ctr(key).expect("AES has a counter mode"))
    }

    /// Encrypts or decrypts, which is the same, the bytes that start at `at` of the body.
    pub fn apply(&self, at: u64, bytes: &mut [u8]) {
        let within = (at % BLOCK) as usize;
        let mut block = at / BLOCK;
        let mut rest = bytes;
        if within > 0 {
            let (first, after) = rest.split_at_mut(rest.len().min(BLOCK as usize - within));
            let mut whole = [0; BLOCK as usize];
            whole[within..within + first.len()].copy_from_slice(first);
            self.blocks(u128::from(block), &mut whole);
            first.copy_from_slice(&whole[within..within + first.len()]);
            block += 1;
            rest = after;
        }
        if !rest.is_empty() {
            self.blocks(u128::from(block), rest);
        }
    }

    fn blocks(&self, counter: u128, bytes: &mut [u8]) {
        let context = EncryptionContext::Iv128(FixedLength::from(counter.to_be_bytes()));
        self.0.less_safe_encrypt(bytes, context).expect("a counter mode takes any length");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALT: WriteId = WriteId([9; 16]);

    #[test]
    fn the_counter_mode_is_the_standard_s() {
        // NIST SP 800-38A, F.5.5 (CTR-AES256.Encrypt), blocks 1 and 2.
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let stream = Keystream::new(&key.try_into().unwrap());
        let counter = u128::from_be_bytes(hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").try_into().unwrap());
        let mut bytes = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        stream.blocks(counter, &mut bytes);
        let expected = "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5";
        assert_eq!(HEXLOWER.encode(&bytes), expected);
    }

    #[test]
    fn locks_know_their_key_and_are_kept() {
        let (key, other) = (CustomerKey::new([1; 32]), CustomerKey::new([2; 32]));
        let lock = Lock::new(&key, SALT);
        assert!(lock.opens_with(&key) && !lock.opens_with(&other));
        let mut meta = UserMeta { entries: vec![("a".into(), "b".into())], ..UserMeta::default() };
        assert_eq!(Lock::of(&meta), None);
        lock.enter(&mut meta);
        lock.enter(&mut meta);
        assert_eq!((Lock::of(&meta), meta.entries.len()), (Some(lock), 2));
        assert!(meta.entries.iter().any(|(name, _)| is_reserved(name)) && !is_reserved("a"));
        meta.entries[1].1.truncate(10);
        assert!(!Lock::of(&meta).unwrap().opens_with(&key), "one that was damaged stays shut");
        Lock::leave(&mut meta);
        assert_eq!((Lock::of(&meta), meta.entries.len()), (None, 1));
    }

    #[test]
    fn keys_salts_and_uses_do_not_meet() {
        let bytes = |key: u8, salt: u8| {
            let mut bytes = [0; 64];
            CustomerKey::new([key; 32]).keystream(&WriteId([salt; 16])).apply(0, &mut bytes);
            bytes
        };
        assert_eq!(bytes(1, 1), bytes(1, 1));
        assert!(bytes(1, 1) != bytes(1, 2) && bytes(1, 1) != bytes(2, 1));
        let key = CustomerKey::new([1; 32]);
        let (one, two) = (key.mask(&SALT, &[1; 16]), key.mask(&SALT, &[2; 16]));
        assert!(one != two && one != [1; 16] && one == key.mask(&SALT, &[1; 16]));
        assert_eq!(format!("{key:?} {:?}", key.keystream(&SALT)), "CustomerKey(…) Keystream(…)");
    }

    proptest! {
        #[test]
        fn any_range_is_the_same_alone(from in 0..2000usize, len in 0..2000usize, far in any::<u64>()) {
            let stream = CustomerKey::new([3; 32]).keystream(&SALT);
            let plain: Vec<u8> = (0..4000u32).map(|index| index as u8).collect();
            let far = far / 2;
            let mut whole = plain.clone();
            stream.apply(far, &mut whole);
            let mut range = plain[from..from + len].to_vec();
            stream.apply(far + from as u64, &mut range);
            prop_assert_eq!(&range, &whole[from..from + len]);
            stream.apply(far, &mut whole);
            prop_assert_eq!(whole, plain);
        }
    }
}
