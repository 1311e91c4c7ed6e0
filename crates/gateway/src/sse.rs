//! Objects that clients encrypt with keys of their own (SSE-C): the headers, who may send them, and what goes wrong.
//!
//! The cryptography is in [`pando_core::customer`]; here a request's key is taken and an object's lock tried.

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use http::{Extensions, HeaderMap};
use pando_core::{
    customer::{CustomerKey, Keystream, Lock},
    id::WriteId,
    record::{Digests, UserMeta},
};
use s3s::{S3ErrorCode, S3Result};

use crate::{digest::md5_of, error::refuse};

/// The one algorithm there is.
pub(crate) const AES256: &str = "AES256";

/// What a request came on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    pub(crate) tls: bool,
    /// Whether the client is on this machine.
    pub(crate) local: bool,
}

impl Channel {
    /// Whether nobody else can listen.
    fn is_secure(self) -> bool {
        self.tls || self.local
    }
}

/// Keeps the keys that a request gives out of logs, whoever writes its headers there.
pub(crate) fn hide(headers: &mut HeaderMap) {
    for name in
        ["x-amz-server-side-encryption-customer-key", "x-amz-copy-source-server-side-encryption-customer-key"]
    {
        if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
}

/// A key that a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) key: CustomerKey,
    /// Its MD5 in base64, which S3 sends back.
    pub(crate) md5: String,
}

/// What a request says of a key: algorithm, key and the key's MD5.
pub(crate) type Said<'a> = [Option<&'a str>; 3];

/// The key that a request gives, if it gives one.
pub(crate) fn given(said: Said<'_>, extensions: &Extensions) -> S3Result<Option<Given>> {
    let [algorithm, key, md5] = said;
    if said == [None; 3] {
        return Ok(None);
    }
    if !extensions.get::<Channel>().is_some_and(|channel| channel.is_secure()) {
        let why =
            "requests with a key of the client (SSE-C) must come over TLS: `pando up --tls-cert --tls-key`";
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    let missing = |what: &str| {
        refuse(S3ErrorCode::InvalidArgument, format!("a key of the client (SSE-C) must come with {what}"))
    };
    let algorithm = algorithm.ok_or_else(|| missing("its algorithm"))?;
    if algorithm != AES256 {
        let why = format!("the encryption algorithm is {AES256}, not {algorithm:?}");
        return Err(refuse(S3ErrorCode::InvalidEncryptionAlgorithmError, why));
    }
    let key = key.ok_or_else(|| missing("the key itself"))?;
    let md5 = md5.ok_or_else(|| missing("the MD5 of the key"))?;
    let bytes = BASE64.decode(key.as_bytes()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| {
        refuse(S3ErrorCode::InvalidArgument, "the client's key (SSE-C) must be the base64 of 32 bytes")
    })?;
    if BASE64.encode(&md5_of(&bytes)) != md5 {
        let why = "the MD5 that was given is not that of the client's key (SSE-C)";
        return Err(refuse(S3ErrorCode::InvalidArgument, why));
    }
    Ok(Some(Given { key: CustomerKey::new(bytes), md5: md5.to_owned() }))
}

/// The fields of S3's shapes with the key of a request.
macro_rules! said {
    ($input:expr) => {
        [
            $input.sse_customer_algorithm.as_deref(),
            $input.sse_customer_key.as_deref(),
            $input.sse_customer_key_md5.as_deref(),
        ]
    };
}

/// The fields of S3's shapes with the key of a copy's source.
macro_rules! said_of_source {
    ($input:expr) => {
        [
            $input.copy_source_sse_customer_algorithm.as_deref(),
            $input.copy_source_sse_customer_key.as_deref(),
            $input.copy_source_sse_customer_key_md5.as_deref(),
        ]
    };
}

pub(crate) use {said, said_of_source};

/// What answers say of a key that was used: the algorithm and the key's MD5.
pub(crate) fn echo(given: Option<&Given>) -> (Option<String>, Option<String>) {
    (given.map(|_| AES256.to_owned()), given.map(|given| given.md5.clone()))
}

/// Tries a key at an object: its lock, if it has one and the key opens it.
pub(crate) fn open(meta: &UserMeta, given: Option<&Given>) -> S3Result<Option<Lock>> {
    match (Lock::of(meta), given) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(refuse(
            S3ErrorCode::InvalidRequest,
            "this object is encrypted with a key of its client (SSE-C), which must be given to read it",
        )),
        (None, Some(_)) => Err(refuse(
            S3ErrorCode::InvalidRequest,
            "this object is not encrypted with a key of its client (SSE-C): ask for it without one",
        )),
        (Some(lock), Some(given)) if lock.opens_with(&given.key) => Ok(Some(lock)),
        (Some(_), Some(_)) => Err(refuse(
            S3ErrorCode::AccessDenied,
            "this object is encrypted with another key of its client (SSE-C) than the one given",
        )),
    }
}

/// Tries a key at an upload in parts: each part is encrypted with the key that the upload began with.
pub(crate) fn check_upload(meta: &UserMeta, given: Option<&Given>) -> S3Result<()> {
    let why = match (Lock::of(meta), given) {
        (None, None) => return Ok(()),
        (Some(lock), Some(given)) if lock.opens_with(&given.key) => return Ok(()),
        (Some(_), None) => "this upload began with a key of its client (SSE-C): give it with each part",
        (None, Some(_)) => "this upload began without a key of its client (SSE-C): give none with its parts",
        (Some(_), Some(_)) => "this upload began with another key of its client (SSE-C) than the one given",
    };
    Err(refuse(S3ErrorCode::InvalidRequest, why))
}

/// A body that is being encrypted: the cipher for its bytes, and what is kept.
pub(crate) struct Sealing {
    key: CustomerKey,
    pub(crate) lock: Lock,
}

impl Sealing {
    /// Of a new body.
    pub(crate) fn begin(given: &Given) -> S3Result<Self> {
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt)
            .map_err(|_| refuse(S3ErrorCode::InternalError, "no random bytes could be had"))?;
        let key = given.key.clone();
        Ok(Self { lock: Lock::new(&key, WriteId(salt)), key })
    }

    /// What encrypts its bytes.
    pub(crate) fn cipher(&self) -> Cipher {
        Cipher::whole(&self.key, &self.lock)
    }

    /// The hashes that are kept: its MD5 would tell what the content is, and S3's ETag is none either.
    pub(crate) fn mask(&self, digests: Digests) -> Digests {
        let md5 = digests.md5.map(|md5| self.key.mask(&self.lock.salt, &md5));
        Digests { md5, ..digests }
    }
}

/// What encrypts or decrypts the bytes of an object, wherever they are in it.
pub(crate) struct Cipher {
    key: CustomerKey,
    /// Where each part ends, exclusive, and its salt.
    parts: Vec<(u64, WriteId)>,
    /// The part that was used last.
    current: Option<(usize, Keystream)>,
}

impl Cipher {
    /// For a body in one piece.
    pub(crate) fn whole(key: &CustomerKey, lock: &Lock) -> Self {
        Self { key: key.clone(), parts: vec![(u64::MAX, lock.salt)], current: None }
    }

    /// For an object of several parts.
    pub(crate) fn of_parts(key: &CustomerKey, sizes: &[u64], salts: &[WriteId]) -> Self {
        let ends = sizes.iter().scan(0u64, |end, size| {
            *end = end.saturating_add(*size);
            Some(*end)
        });
        Self { key: key.clone(), parts: ends.zip(salts.iter().copied()).collect(), current: None }
    }

    /// Encrypts or decrypts bytes that start at `at`.
    pub(crate) fn apply(&mut self, mut at: u64, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = self.parts.partition_point(|(end, _)| *end <= at);
            // Past the last part there is nothing.
            let Some((end, salt)) = self.parts.get(part).copied() else { return };
            let start = part.checked_sub(1).map_or(0, |before| self.parts[before].0);
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(rest.len());
            let (these, after) = rest.split_at_mut(count);
            let stream = match &mut self.current {
                Some((number, stream)) if *number == part => stream,
                other => &mut other.insert((part, self.key.keystream(&salt))).1,
            };
            stream.apply(at - start, these);
            at += count as u64;
            rest = after;
        }
    }

    /// As [`Self::apply`], in place if nobody else has the bytes.
    pub(crate) fn applied(&mut self, at: u64, bytes: Bytes) -> Bytes {
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.apply(at, &mut bytes);
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(secure: bool) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(Channel { tls: secure, local: false });
        extensions
    }

    fn code<T>(result: S3Result<T>) -> Option<String> {
        result.err().map(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn keys_are_checked() {
        let key = BASE64.encode(&[7; 32]);
        let md5 = BASE64.encode(&md5_of(&[7; 32]));
        let said = |said: Said<'_>| code(given(said, &channel(true)));
        assert!(given([None; 3], &channel(false)).is_ok_and(|given| given.is_none()));
        let good = [Some(AES256), Some(&*key), Some(&*md5)];
        assert!(given(good, &channel(true)).is_ok_and(|given| given.is_some_and(|given| given.md5 == md5)));
        let mut local = Extensions::new();
        local.insert(Channel { tls: false, local: true });
        assert!(given(good, &local).is_ok());
        for unsafe_channel in [channel(false), Extensions::new()] {
            assert_eq!(code(given(good, &unsafe_channel)).as_deref(), Some("InvalidRequest"));
        }
        let argument = Some("InvalidArgument");
        assert_eq!(said([None, Some(&key), Some(&md5)]).as_deref(), argument);
        assert_eq!(said([Some(AES256), None, Some(&md5)]).as_deref(), argument);
        assert_eq!(said([Some(AES256), Some(&key), None]).as_deref(), argument);
        assert_eq!(said([Some(AES256), Some("c2hvcnQ="), Some(&md5)]).as_deref(), argument);
        assert_eq!(said([Some(AES256), Some(&key), Some(&key)]).as_deref(), argument);
        let algorithm = said([Some("aws:kms"), Some(&key), Some(&md5)]);
        assert_eq!(algorithm.as_deref(), Some("InvalidEncryptionAlgorithmError"));
    }

    #[test]
    fn logs_do_not_show_keys() {
        let mut headers = HeaderMap::new();
        for name in ["x-amz-server-side-encryption-customer-key", "x-amz-meta-a"] {
            headers.insert(name, "secret".parse().unwrap());
        }
        hide(&mut headers);
        assert_eq!(format!("{headers:?}").matches("secret").count(), 1);
    }

    #[test]
    fn parts_have_ciphers_of_their_own() {
        let key = CustomerKey::new([1; 32]);
        let salts = [WriteId([1; 16]), WriteId([2; 16]), WriteId([3; 16])];
        let sizes = [100u64, 0, 77];
        let mut expected: Vec<u8> = Vec::new();
        for (size, salt) in sizes.iter().zip(&salts) {
            let mut part = vec![0; *size as usize];
            key.keystream(salt).apply(0, &mut part);
            expected.extend(part);
        }
        let mut cipher = Cipher::of_parts(&key, &sizes, &salts);
        for (from, to) in [(0, 177), (90, 120), (100, 177), (5, 6), (176, 177)] {
            let bytes = cipher.applied(from as u64, Bytes::from(vec![0; to - from]));
            assert_eq!(&bytes[..], &expected[from..to], "{from}..{to}");
        }
    }
}
