//! Access keys: who may do what to which bucket, and the secret that proves it.
//!
//! Owns the record of a key, its bounds, and how the secret is kept: sealed with the network's key, so that a
//! stolen disk does not tell it. Whoever verifies a signature needs the secret itself, hence no hash.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    id::WriteId,
    name::{NameError, RegisterName},
    record::{self, FORMAT, RecordError},
    seal::{self, NetworkKey},
};

/// Most grants of one key: with names of the longest kind a third of what a register's value may have.
pub const MAX_GRANTS: usize = 256;
/// Longest name of a key, in bytes: a line for people.
pub const MAX_KEY_NAME: usize = 128;

const WHAT: &str = "access key record";

/// What a key allows on a bucket; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Right {
    /// To get and list objects.
    Read,
    /// To put and remove objects too.
    Write,
    /// To make, change and remove the bucket too.
    Owner,
}

/// Which buckets a key is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grants {
    /// Everything in all buckets, those made later included.
    All,
    /// These only.
    Buckets(Vec<(String, Right)>),
}

impl Grants {
    /// Whether they allow this on that bucket.
    pub fn allow(&self, bucket: &str, right: Right) -> bool {
        match self {
            Grants::All => true,
            Grants::Buckets(grants) => grants.iter().any(|(name, has)| name == bucket && *has >= right),
        }
    }

    fn check(&self) -> Result<(), RecordError> {
        let Grants::Buckets(grants) = self else { return Ok(()) };
        if grants.len() > MAX_GRANTS {
            return Err(RecordError::MetaTooLarge { found: grants.len(), most: MAX_GRANTS });
        }
        let named = grants.iter().try_for_each(|(bucket, _)| RegisterName::bucket(bucket).map(drop));
        named.map_err(|why: NameError| RecordError::Malformed { what: WHAT, why: why.to_string() })
    }
}

/// What proves that someone holds a key: 64 hexadecimal digits to people and clients.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl Secret {
    /// As clients are given it.
    pub fn reveal(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An access key, as its register holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeyRecord {
    /// What people call it; may be empty.
    pub name: String,
    /// When it was made, in Unix milliseconds.
    pub created: u64,
    /// What it is good for.
    pub grants: Grants,
    /// Which network key sealed the secret; the first key is epoch 1.
    pub epoch: u32,
    /// Random, and new for each sealing: the nonce is always zero, so no sealing key may be used twice.
    pub salt: WriteId,
    /// The sealed [`Secret`].
    pub secret: Bytes,
}

impl AccessKeyRecord {
    /// The sealed form of a secret, for the key of that register name.
    pub fn seal(network: &NetworkKey, name: &RegisterName, salt: &WriteId, secret: &Secret) -> Bytes {
        seal::seal_body(network, name.as_bytes(), salt, secret.0.to_vec()).into()
    }

    /// Opens the secret.
    pub fn open(&self, network: &NetworkKey, name: &RegisterName) -> Result<Secret, RecordError> {
        let plain = seal::open_body(network, name.as_bytes(), &self.salt, &self.secret)
            .map_err(|_| RecordError::Sealed)?;
        let secret = plain.try_into().map_err(|plain: Vec<u8>| RecordError::Malformed {
            what: WHAT,
            why: format!("a secret of {} bytes", plain.len()),
        })?;
        Ok(Secret(secret))
    }

    /// The record's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        self.check()?;
        Ok(record::encode(FORMAT, self))
    }

    /// A record from the disk or the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let read: Self = record::decode(WHAT, FORMAT, bytes)?;
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.name.len() > MAX_KEY_NAME {
            return Err(RecordError::MetaTooLarge { found: self.name.len(), most: MAX_KEY_NAME });
        }
        self.grants.check()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: NetworkKey = NetworkKey([3; 32]);

    fn key(grants: Grants) -> (AccessKeyRecord, RegisterName) {
        let name = RegisterName::access_key("PNDOABCDEFGHIJ234567").unwrap();
        let salt = WriteId([9; 16]);
        let secret = AccessKeyRecord::seal(&KEY, &name, &salt, &Secret([5; 32]));
        (AccessKeyRecord { name: "backup".into(), created: 7, grants, epoch: 1, salt, secret }, name)
    }

    #[test]
    fn keys_round_trip_and_keep_their_secret_sealed() {
        let (record, name) = key(Grants::Buckets(vec![("photos".into(), Right::Write)]));
        let bytes = record.encode().unwrap();
        assert!(!bytes.windows(8).any(|window| window == [5; 8]), "the secret is not in the clear");
        let read = AccessKeyRecord::decode(&bytes).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.open(&KEY, &name), Ok(Secret([5; 32])));
        assert_eq!(read.open(&NetworkKey([4; 32]), &name), Err(RecordError::Sealed));
        let other = RegisterName::access_key("PNDOABCDEFGHIJ234562").unwrap();
        assert_eq!(read.open(&KEY, &other), Err(RecordError::Sealed), "it is good for its own id only");
        assert!(!format!("{:?}", read.open(&KEY, &name)).contains('5'), "and is not printed by accident");
    }

    #[test]
    fn rights_include_the_lower_ones() {
        let grants = Grants::Buckets(vec![("photos".into(), Right::Write), ("mail".into(), Right::Read)]);
        assert!(grants.allow("photos", Right::Read) && grants.allow("photos", Right::Write));
        assert!(!grants.allow("photos", Right::Owner) && !grants.allow("mail", Right::Write));
        assert!(!grants.allow("photo", Right::Read) && !Grants::Buckets(vec![]).allow("mail", Right::Read));
        assert!(Grants::All.allow("anything", Right::Owner));
    }

    #[test]
    fn bounds_hold() {
        let grant = |bucket: &str| (bucket.to_owned(), Right::Read);
        let encode = |grants| key(grants).0.encode();
        let longest = grant(&"b".repeat(crate::name::MAX_BUCKET));
        let most = encode(Grants::Buckets(vec![longest; MAX_GRANTS])).unwrap();
        assert!(most.len() < record::MAX_VALUE);
        assert!(encode(Grants::Buckets(vec![grant("photos"); MAX_GRANTS + 1])).is_err());
        assert!(encode(Grants::Buckets(vec![grant("Not A Bucket")])).is_err());
        let (record, _) = key(Grants::All);
        assert!(AccessKeyRecord { name: "n".repeat(MAX_KEY_NAME + 1), ..record }.encode().is_err());
    }

    #[test]
    fn the_format_of_version_1_still_reads() {
        let old = "01066261636b7570070101047065746101010909090909090909090909090909090902aabb";
        let bytes = data_encoding::HEXLOWER.decode(old.as_bytes()).unwrap();
        let (record, _) = key(Grants::Buckets(vec![("peta".into(), Right::Write)]));
        let record = AccessKeyRecord { secret: Bytes::from_static(&[0xaa, 0xbb]), ..record };
        assert_eq!(AccessKeyRecord::decode(&bytes).as_ref(), Ok(&record));
        assert_eq!(record.encode().unwrap(), bytes, "and writes the same bytes");
    }

    proptest! {
        #[test]
        fn bytes_from_the_wire_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = AccessKeyRecord::decode(&bytes);
        }
    }
}
