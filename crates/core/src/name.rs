//! Register names: which register a bucket, an object, a version of one, an upload, a part, an access key, an invite or
//! a layout version lives in.
//!
//! A name is a tag byte and what it names, so that names of one kind sort together and a listing is a
//! range of names. Everything from a user or the wire is checked here, and names never become paths.
//!
//! Something follows the key in the names of versions, uploads and parts, and these must sort by key first. So the key's end is
//! marked by a byte that sorts below all others, NUL, and the key itself is written without NUL: 0 becomes 1 1, and 1
//! becomes 1 2. That keeps the order of keys, and no key can look like another one and what follows it.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    id::{Partition, WriteId},
    register::LayoutVersion,
};

/// Longest key of an object, in bytes: what S3 allows.
pub const MAX_KEY: usize = 1024;
/// Longest bucket name: what S3 allows.
pub const MAX_BUCKET: usize = 63;
/// Longest register name: that of a part, tag, bucket, NUL, key (each byte of which may take two), and what follows it.
pub const MAX_NAME: usize = 2 + MAX_BUCKET + 2 * MAX_KEY + PART_SUFFIX;

/// A bucket or key that can't be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a bucket name.
    #[error(
        "{0:?} is not a bucket name: use 3 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends"
    )]
    Bucket(String),
    /// Not a key.
    #[error("a key is 1 to {MAX_KEY} bytes of UTF-8; this one has {0}")]
    KeyLength(usize),
    /// Not the id of an access key.
    #[error("{0:?} is not the id of an access key: it is \"{ACCESS_KEY_PREFIX}\" and 16 of A-Z and 2-7")]
    AccessKey(String),
    /// Not the number of a part.
    #[error("parts are numbered 1 to {MAX_PARTS}; {0} is none of these")]
    PartNumber(u16),
    /// Not a register name (from the wire).
    #[error("malformed register name of {0} bytes")]
    Malformed(usize),
}

/// Length of an access key's id: what S3 clients are used to.
pub const ACCESS_KEY_LEN: usize = 20;
/// What the id of each access key starts with, so that people see whose it is.
pub const ACCESS_KEY_PREFIX: &str = "PNDO";

/// Most parts of an upload; they are numbered from 1.
pub const MAX_PARTS: u16 = 10_000;
/// Digits of a part's number in its name, so that names sort by number.
const PART_DIGITS: usize = 5;
/// What follows the key in the name of a part: NUL, the upload's id in hexadecimal, NUL, the number.
const PART_SUFFIX: usize = 1 + 2 * WriteId::LEN + 1 + PART_DIGITS;

const BUCKET: u8 = b'b';
const INVITE: u8 = b'i';
const ACCESS_KEY: u8 = b'k';
const LAYOUT: u8 = b'l';
const OBJECT: u8 = b'o';
const PART: u8 = b'p';
const UPLOAD: u8 = b'u';
const VERSION: u8 = b'v';

/// The name of one register.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegisterName(Bytes);

impl RegisterName {
    /// The register of a bucket.
    pub fn bucket(bucket: &str) -> Result<Self, NameError> {
        check_bucket(bucket)?;
        Ok(Self([&[BUCKET], bucket.as_bytes()].concat().into()))
    }

    /// The register of an object.
    pub fn object(bucket: &str, key: &str) -> Result<Self, NameError> {
        check_bucket(bucket)?;
        check_key(key)?;
        Ok(Self([&[OBJECT], bucket.as_bytes(), &[0], key.as_bytes()].concat().into()))
    }

    /// The register of an invite.
    pub fn invite(id: &WriteId) -> Self {
        Self([&[INVITE], id.as_bytes().as_slice()].concat().into())
    }

    /// The register of an access key.
    pub fn access_key(id: &str) -> Result<Self, NameError> {
        check_access_key(id)?;
        Ok(Self([&[ACCESS_KEY], id.as_bytes()].concat().into()))
    }

    /// The write-once register that holds layout `version`.
    pub fn layout(version: LayoutVersion) -> Self {
        Self([[LAYOUT].as_slice(), &version.0.to_be_bytes()].concat().into())
    }

    /// What all names of objects in `bucket` with keys that start with `prefix` start with.
    pub fn object_prefix(bucket: &str, prefix: &str) -> Result<Vec<u8>, NameError> {
        check_bucket(bucket)?;
        if prefix.len() > MAX_KEY {
            return Err(NameError::KeyLength(prefix.len()));
        }
        Ok([&[OBJECT], bucket.as_bytes(), &[0], prefix.as_bytes()].concat())
    }

    /// The register of an upload of several parts to an object.
    pub fn upload(bucket: &str, key: &str, id: &WriteId) -> Result<Self, NameError> {
        Ok(Self(Self::after_key(UPLOAD, bucket, key, &id.to_string())?.into()))
    }

    /// The register of a version of an object that is not current.
    pub fn version(bucket: &str, key: &str, id: &WriteId) -> Result<Self, NameError> {
        Ok(Self(Self::after_key(VERSION, bucket, key, &id.to_string())?.into()))
    }

    /// Where a version of this object is if it is not current; `None` if this names no object.
    pub fn aside(&self, id: &WriteId) -> Option<Self> {
        let (bucket, key) = self.object_parts()?;
        Self::version(bucket, key, id).ok()
    }

    /// What the names of the versions of a bucket's objects whose keys start with `prefix` start with.
    pub fn version_prefix(bucket: &str, prefix: &str) -> Result<Vec<u8>, NameError> {
        Self::escaped_prefix(VERSION, bucket, prefix)
    }

    /// What the names of all versions of one key start with.
    pub fn versions_of(bucket: &str, key: &str) -> Result<Vec<u8>, NameError> {
        Self::after_key(VERSION, bucket, key, "")
    }

    /// The register of one part of an upload.
    pub fn part(bucket: &str, key: &str, id: &WriteId, number: u16) -> Result<Self, NameError> {
        if !(1..=MAX_PARTS).contains(&number) {
            return Err(NameError::PartNumber(number));
        }
        let end = format!("{id}\0{number:0width$}", width = PART_DIGITS);
        Ok(Self(Self::after_key(PART, bucket, key, &end)?.into()))
    }

    /// What the names of the uploads to a bucket's objects whose keys start with `prefix` start with.
    pub fn upload_prefix(bucket: &str, prefix: &str) -> Result<Vec<u8>, NameError> {
        Self::escaped_prefix(UPLOAD, bucket, prefix)
    }

    /// What the names of all uploads to one key start with.
    pub fn uploads_of(bucket: &str, key: &str) -> Result<Vec<u8>, NameError> {
        Self::after_key(UPLOAD, bucket, key, "")
    }

    /// What the names of the parts of an upload start with.
    pub fn part_prefix(bucket: &str, key: &str, id: &WriteId) -> Result<Vec<u8>, NameError> {
        Self::after_key(PART, bucket, key, &format!("{id}\0"))
    }

    /// The start of names of what belongs to keys that start so.
    fn escaped_prefix(tag: u8, bucket: &str, prefix: &str) -> Result<Vec<u8>, NameError> {
        check_bucket(bucket)?;
        if prefix.len() > MAX_KEY {
            return Err(NameError::KeyLength(prefix.len()));
        }
        Ok([&[tag], bucket.as_bytes(), &[0], &escaped(prefix)].concat())
    }

    /// The name, or the start of names, of what belongs to a key.
    fn after_key(tag: u8, bucket: &str, key: &str, end: &str) -> Result<Vec<u8>, NameError> {
        check_bucket(bucket)?;
        check_key(key)?;
        Ok([&[tag], bucket.as_bytes(), &[0], &escaped(key), &[0], end.as_bytes()].concat())
    }

    /// What the names of all uploads start with.
    pub fn all_uploads_prefix() -> Vec<u8> {
        vec![UPLOAD]
    }

    /// What the names of all parts start with.
    pub fn all_parts_prefix() -> Vec<u8> {
        vec![PART]
    }

    /// What the names of all buckets start with.
    pub fn bucket_prefix() -> Vec<u8> {
        vec![BUCKET]
    }

    /// What the names of all access keys start with.
    pub fn access_key_prefix() -> Vec<u8> {
        vec![ACCESS_KEY]
    }

    /// What the names of all versions that are not current start with.
    pub fn all_versions_prefix() -> Vec<u8> {
        vec![VERSION]
    }

    /// What the names of all objects start with.
    pub fn all_objects_prefix() -> Vec<u8> {
        vec![OBJECT]
    }

    /// A name from the wire or the disk.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, NameError> {
        let name = Self(bytes);
        name.check()?;
        Ok(name)
    }

    /// Checks a name that came out of a message: one of the kinds there are, within its bounds.
    pub fn check(&self) -> Result<(), NameError> {
        let malformed = || NameError::Malformed(self.0.len());
        let (tag, rest) = self.0.split_first().ok_or_else(malformed)?;
        let good = match *tag {
            BUCKET => std::str::from_utf8(rest).is_ok_and(|bucket| check_bucket(bucket).is_ok()),
            INVITE => rest.len() == WriteId::LEN,
            ACCESS_KEY => std::str::from_utf8(rest).is_ok_and(|id| check_access_key(id).is_ok()),
            LAYOUT => rest.len() == 8,
            OBJECT => self.object_parts().is_some_and(|(bucket, key)| is_object(bucket, key)),
            UPLOAD => self.upload_parts().is_some_and(|(bucket, key, _)| is_object(bucket, &key)),
            VERSION => self.version_parts().is_some_and(|(bucket, key, _)| is_object(bucket, &key)),
            PART => self.part_parts().is_some_and(|(bucket, key, _, number)| {
                is_object(bucket, &key) && (1..=MAX_PARTS).contains(&number)
            }),
            _ => false,
        };
        if good { Ok(()) } else { Err(malformed()) }
    }

    /// Bucket and key, if this names an object.
    pub fn object_parts(&self) -> Option<(&str, &str)> {
        let rest = self.0.strip_prefix(&[OBJECT])?;
        let nul = rest.iter().position(|byte| *byte == 0)?;
        Some((std::str::from_utf8(&rest[..nul]).ok()?, std::str::from_utf8(&rest[nul + 1..]).ok()?))
    }

    /// Bucket, key and id, if this names an upload.
    pub fn upload_parts(&self) -> Option<(&str, Cow<'_, str>, WriteId)> {
        self.key_and_id(UPLOAD)
    }

    /// Bucket, key and id, if this names a version that is not current.
    pub fn version_parts(&self) -> Option<(&str, Cow<'_, str>, WriteId)> {
        self.key_and_id(VERSION)
    }

    fn key_and_id(&self, tag: u8) -> Option<(&str, Cow<'_, str>, WriteId)> {
        let mut pieces = self.0.strip_prefix(&[tag])?.split(|byte| *byte == 0);
        let parts = key_and_id(&mut pieces)?;
        pieces.next().is_none().then_some(parts)
    }

    /// Bucket, key, the upload's id and the part's number, if this names a part.
    pub fn part_parts(&self) -> Option<(&str, Cow<'_, str>, WriteId, u16)> {
        let mut pieces = self.0.strip_prefix(&[PART])?.split(|byte| *byte == 0);
        let (bucket, key, id) = key_and_id(&mut pieces)?;
        let digits = pieces.next().filter(|digits| {
            digits.len() == PART_DIGITS && digits.iter().all(u8::is_ascii_digit) && pieces.next().is_none()
        })?;
        Some((bucket, key, id, std::str::from_utf8(digits).ok()?.parse().ok()?))
    }

    /// The bucket, if this names a bucket.
    pub fn bucket_name(&self) -> Option<&str> {
        std::str::from_utf8(self.0.strip_prefix(&[BUCKET])?).ok()
    }

    /// The access key's id, if this names an access key.
    pub fn access_key_id(&self) -> Option<&str> {
        std::str::from_utf8(self.0.strip_prefix(&[ACCESS_KEY])?).ok()
    }

    /// The layout version, if this names a layout.
    pub fn layout_version(&self) -> Option<LayoutVersion> {
        let rest = self.0.strip_prefix(&[LAYOUT])?;
        Some(LayoutVersion(u64::from_be_bytes(rest.try_into().ok()?)))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The partition that the register falls into.
    pub fn partition(&self) -> Partition {
        Partition::of_hash(blake3::hash(&self.0).as_bytes())
    }
}

impl fmt::Display for RegisterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((bucket, key)) = self.object_parts() {
            return write!(f, "{bucket}/{key}");
        }
        if let Some(bucket) = self.bucket_name() {
            return write!(f, "bucket {bucket}");
        }
        if let Some((bucket, key, id)) = self.upload_parts() {
            return write!(f, "{bucket}/{key}, upload {id}");
        }
        if let Some((bucket, key, id)) = self.version_parts() {
            return write!(f, "{bucket}/{key}, version {id}");
        }
        if let Some((bucket, key, id, number)) = self.part_parts() {
            return write!(f, "{bucket}/{key}, part {number} of upload {id}");
        }
        if let Some(id) = self.access_key_id() {
            return write!(f, "access key {id}");
        }
        match self.layout_version() {
            Some(version) => write!(f, "layout {}", version.0),
            None => f.write_str("invite"),
        }
    }
}

impl fmt::Debug for RegisterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegisterName({:?})", self.to_string())
    }
}

fn is_object(bucket: &str, key: &str) -> bool {
    check_bucket(bucket).is_ok() && check_key(key).is_ok()
}

/// Bucket, key and id, from the first pieces of a name.
fn key_and_id<'a>(pieces: &mut impl Iterator<Item = &'a [u8]>) -> Option<(&'a str, Cow<'a, str>, WriteId)> {
    let mut text = || std::str::from_utf8(pieces.next()?).ok();
    let (bucket, key, id) = (text()?, text()?, text()?);
    // One text for one id.
    let is_canonical = !id.bytes().any(|byte| byte.is_ascii_uppercase());
    Some((bucket, unescaped(key)?, id.parse().ok().filter(|_| is_canonical)?))
}

fn check_key(key: &str) -> Result<(), NameError> {
    if key.is_empty() || key.len() > MAX_KEY { Err(NameError::KeyLength(key.len())) } else { Ok(()) }
}

/// A key, or the start of one, without NUL: see the module's text.
fn escaped(key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            0 => bytes.extend_from_slice(&[1, 1]),
            1 => bytes.extend_from_slice(&[1, 2]),
            other => bytes.push(other),
        }
    }
    bytes
}

/// The key that was [`escaped`], if it was.
fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('\u{1}') {
        return Some(Cow::Borrowed(text));
    }
    let mut key = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        key.push(match char {
            '\u{1}' => match chars.next()? {
                '\u{1}' => '\0',
                '\u{2}' => '\u{1}',
                _ => return None,
            },
            other => other,
        });
    }
    Some(Cow::Owned(key))
}

fn check_bucket(bucket: &str) -> Result<(), NameError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = bucket.as_bytes();
    let good = (3..=MAX_BUCKET).contains(&bytes.len())
        && bytes.iter().all(|byte| inner(*byte))
        && end(bytes.first())
        && end(bytes.last())
        && !bucket.contains("..");
    if good { Ok(()) } else { Err(NameError::Bucket(bucket.chars().take(MAX_BUCKET + 1).collect())) }
}

fn check_access_key(id: &str) -> Result<(), NameError> {
    let base32 = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    let good = id.len() == ACCESS_KEY_LEN
        && id.strip_prefix(ACCESS_KEY_PREFIX).is_some_and(|rest| rest.bytes().all(base32));
    if good { Ok(()) } else { Err(NameError::AccessKey(id.chars().take(ACCESS_KEY_LEN + 1).collect())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uploads_and_parts_are_told_apart_whatever_the_key_holds() {
        let id = WriteId([0xab; 16]);
        for key in [
            "a",
            "a/b",
            "a\0",
            "\0",
            &format!("x\0{id}"),
            &format!("x\0{id}\x0000001"),
            &"\0".repeat(MAX_KEY),
        ] {
            let upload = RegisterName::upload("photos", key, &id).unwrap();
            assert_eq!(upload.check(), Ok(()));
            assert_eq!(upload.upload_parts(), Some(("photos", key.into(), id)));
            assert_eq!((upload.object_parts(), upload.part_parts()), (None, None));
            let version = RegisterName::version("photos", key, &id).unwrap();
            assert_eq!(version.check(), Ok(()));
            assert_eq!(version.version_parts(), Some(("photos", key.into(), id)));
            assert_eq!((version.object_parts(), version.upload_parts()), (None, None));
            assert_eq!(RegisterName::object("photos", key).unwrap().aside(&id).as_ref(), Some(&version));
            assert_eq!(version.aside(&id), None);
            assert!(version.as_bytes().starts_with(&RegisterName::versions_of("photos", key).unwrap()));
            let part = RegisterName::part("photos", key, &id, 7).unwrap();
            assert_eq!(part.check(), Ok(()));
            assert_eq!(part.part_parts(), Some(("photos", key.into(), id, 7)));
            assert!(part.as_bytes().starts_with(&RegisterName::part_prefix("photos", key, &id).unwrap()));
            assert!(part.as_bytes().len() <= MAX_NAME);
        }
        let longest = RegisterName::part(&"b".repeat(MAX_BUCKET), &"\0".repeat(MAX_KEY), &id, 7).unwrap();
        assert_eq!(longest.as_bytes().len(), MAX_NAME);
        assert!(RegisterName::part("photos", "a", &id, 0).is_err());
        assert!(RegisterName::part("photos", "a", &id, MAX_PARTS + 1).is_err());
        let of_a = |end: &str| format!("pphotos\0a\0{id}\0{end}");
        for wrong in [
            "pphotos\0a\0ab\x0000001",
            "uphotos\0a",
            "vphotos\0a",
            "p",
            "u",
            "v",
            &of_a("+0001"),
            &of_a("00000"),
            &of_a("10001"),
            &of_a("00001\0"),
            &format!("uphotos\0\u{1}x\0{id}"),
        ] {
            assert!(RegisterName::from_bytes(Bytes::copy_from_slice(wrong.as_bytes())).is_err(), "{wrong:?}");
        }
        let upper = format!("uphotos\0a\0{}", id.to_string().to_uppercase());
        assert!(RegisterName::from_bytes(upper.into_bytes().into()).is_err());
    }

    #[test]
    fn names_have_kinds() {
        let object = RegisterName::object("photos", "2026/a\0b.jpg").unwrap();
        assert_eq!(object.object_parts(), Some(("photos", "2026/a\0b.jpg")));
        assert_eq!(RegisterName::bucket("photos").unwrap().bucket_name(), Some("photos"));
        assert_eq!(RegisterName::layout(LayoutVersion(3)).layout_version(), Some(LayoutVersion(3)));
        let key = RegisterName::access_key("PNDOABCDEFGHIJ234567").unwrap();
        assert_eq!(key.access_key_id(), Some("PNDOABCDEFGHIJ234567"));
        let invite = RegisterName::invite(&WriteId([1; 16]));
        for name in [object, key, invite, RegisterName::layout(LayoutVersion(1))] {
            assert!(name.check().is_ok(), "{name}");
        }
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        for bad in ["", "ab", "-ab", "Photos", "a/b", "a..b", &"a".repeat(64)] {
            assert!(RegisterName::bucket(bad).is_err(), "{bad}");
        }
        for bad in ["", "PNDO", "AKIAABCDEFGHIJ234567", "PNDOabcdefghij234567", "PNDOABCDEFGHIJ2345678"] {
            assert_eq!(RegisterName::access_key(bad), Err(NameError::AccessKey(bad.to_owned())));
        }
        assert_eq!(RegisterName::object("photos", ""), Err(NameError::KeyLength(0)));
        assert!(RegisterName::object("photos", &"k".repeat(MAX_KEY)).is_ok());
        assert_eq!(RegisterName::object("photos", &"k".repeat(1025)), Err(NameError::KeyLength(1025)));
    }

    proptest! {
        #[test]
        fn any_key_is_just_a_key(key in "\\PC{1,100}") {
            let name = RegisterName::object("default", &key).unwrap();
            prop_assert!(name.check().is_ok());
            prop_assert_eq!(name.object_parts(), Some(("default", key.as_str())));
            let prefix = RegisterName::object_prefix("default", &key).unwrap();
            prop_assert!(name.as_bytes().starts_with(&prefix));
        }

        #[test]
        fn what_follows_a_key_sorts_by_key_first(
            keys in proptest::array::uniform2("[\u{0}-\u{3}aé]{1,4}"),
            ids in any::<[[u8; 16]; 2]>(),
            numbers in proptest::array::uniform2(1..=MAX_PARTS),
        ) {
            let part = |n: usize| {
                RegisterName::part("default", &keys[n], &WriteId(ids[n]), numbers[n]).unwrap()
            };
            let upload = |n: usize| RegisterName::upload("default", &keys[n], &WriteId(ids[n])).unwrap();
            let of = |n: usize| (&keys[n], ids[n]);
            prop_assert_eq!(upload(0).cmp(&upload(1)), of(0).cmp(&of(1)));
            let version = |n: usize| RegisterName::version("default", &keys[n], &WriteId(ids[n])).unwrap();
            prop_assert_eq!(version(0).cmp(&version(1)), of(0).cmp(&of(1)));
            let prefix = RegisterName::version_prefix("default", &keys[0]).unwrap();
            prop_assert_eq!(version(1).as_bytes().starts_with(&prefix), keys[1].starts_with(&keys[0]));
            prop_assert_eq!(part(0).cmp(&part(1)), (of(0), numbers[0]).cmp(&(of(1), numbers[1])));
            let parts = RegisterName::part_prefix("default", &keys[0], &WriteId(ids[0])).unwrap();
            prop_assert_eq!(part(1).as_bytes().starts_with(&parts), of(0) == of(1), "one upload's parts");
            let uploads = RegisterName::uploads_of("default", &keys[0]).unwrap();
            prop_assert_eq!(upload(1).as_bytes().starts_with(&uploads), keys[0] == keys[1]);
            let prefix = RegisterName::upload_prefix("default", &keys[0]).unwrap();
            prop_assert_eq!(upload(1).as_bytes().starts_with(&prefix), keys[1].starts_with(&keys[0]));
        }

        #[test]
        fn bytes_from_the_wire_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = RegisterName::from_bytes(bytes.into());
        }
    }
}
