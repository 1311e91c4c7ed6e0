//! Buckets: their record and their settings.
//!
//! Owns what a node itself acts on (versioning, lifecycle rules, what strangers may read) and its bounds. What only
//! a face understands (the texts of a policy, CORS rules, tags) is kept word for word, as documents by name.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    name::MAX_KEY,
    record::{self, FORMAT, RecordError, check_tags},
};

/// The format of bucket records; 1 had no settings, and is still read.
const BUCKET_FORMAT: u8 = 2;
/// Most bytes of all documents of a bucket: they fit a register's value with room to spare. S3 allows a policy 20 KiB.
pub const MAX_DOCUMENTS: usize = 40 << 10;
/// Most lifecycle rules of a bucket: with the longest prefixes and tags some 10 KiB. S3 allows more, people use a few.
pub const MAX_RULES: usize = 32;
/// Most bytes of a lifecycle rule's id: what S3 allows.
pub const MAX_RULE_ID: usize = 255;
/// Most bytes of all lifecycle rules together, encoded.
const MAX_RULES_LEN: usize = 12 << 10;
/// Most prefixes of keys that strangers may read.
pub const MAX_PUBLIC: usize = 8;

const WHAT: &str = "bucket record";

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRecord {
    /// When it was made, in Unix milliseconds.
    pub created: u64,
    /// How it behaves.
    pub settings: Settings,
}

/// How a bucket behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether what is replaced is kept.
    pub versioning: Versioning,
    /// What goes by itself, and when.
    pub lifecycle: Vec<LifecycleRule>,
    /// Keys that start with one of these may be read by anyone, without a signature; an empty one: all keys.
    pub public_read: Vec<String>,
    /// Whether anyone may list it.
    pub public_list: bool,
    /// What only a face of the node understands, by name.
    pub documents: Vec<(String, Bytes)>,
}

/// Whether a bucket keeps what is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// No, and it never did.
    #[default]
    Never,
    /// Every version is kept until it is removed by its id.
    Enabled,
    /// What was kept is kept; what is put now replaces what was put while not enabled.
    Suspended,
}

/// What goes by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleRule {
    /// What people call it.
    pub id: String,
    /// Whether it is in force.
    pub enabled: bool,
    /// Of which keys.
    pub prefix: String,
    /// Only objects with all of these tags.
    pub tags: Vec<(String, String)>,
    /// Only objects of more bytes than this.
    pub larger_than: Option<u64>,
    /// Only objects of fewer bytes than this.
    pub smaller_than: Option<u64>,
    /// When current objects go.
    pub expire: Option<Expire>,
    /// Whether a delete marker goes when it is all that is left of its object.
    pub expire_markers: bool,
    /// When versions go that are not current any more.
    pub noncurrent: Option<Noncurrent>,
    /// After how many days uploads in parts go that nobody completed.
    pub abort_uploads_days: Option<u32>,
}

/// When current objects go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expire {
    /// So many days after they were put.
    Days(u32),
    /// All of them, from this time on, in Unix milliseconds.
    At(u64),
}

/// When versions go that are not current any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noncurrent {
    /// So many days after they were replaced.
    pub days: u32,
    /// But so many of the newest of them stay.
    pub keep: u32,
}

impl Settings {
    /// What a face keeps under this name.
    pub fn document(&self, name: &str) -> Option<&Bytes> {
        self.documents.iter().find(|(other, _)| other == name).map(|(_, text)| text)
    }

    /// Keeps a document under a name, or with `None` no longer does.
    pub fn set_document(&mut self, name: &str, text: Option<Bytes>) {
        self.documents.retain(|(other, _)| other != name);
        self.documents.extend(text.map(|text| (name.to_owned(), text)));
    }

    /// Whether anyone may read an object with this key.
    pub fn is_public(&self, key: &str) -> bool {
        self.public_read.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }

    /// Checks the bounds.
    pub fn check(&self) -> Result<(), RecordError> {
        let within = |found: usize, most: usize| match found > most {
            true => Err(RecordError::MetaTooLarge { found, most }),
            false => Ok(()),
        };
        within(self.documents.iter().map(|(name, text)| name.len() + text.len()).sum(), MAX_DOCUMENTS)?;
        within(self.public_read.len(), MAX_PUBLIC)?;
        within(self.lifecycle.len(), MAX_RULES)?;
        let prefixes = self.lifecycle.iter().map(|rule| &rule.prefix).chain(&self.public_read);
        for prefix in prefixes {
            within(prefix.len(), MAX_KEY)?;
        }
        for rule in &self.lifecycle {
            within(rule.id.len(), MAX_RULE_ID)?;
            check_tags(&rule.tags)?;
        }
        within(record::encode(BUCKET_FORMAT, &self.lifecycle).len(), MAX_RULES_LEN)
    }
}

impl BucketRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        self.settings.check()?;
        Ok(record::encode(BUCKET_FORMAT, self))
    }

    /// A record from the disk or the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.first() == Some(&FORMAT) {
            let created = record::decode(WHAT, FORMAT, bytes)?;
            return Ok(Self { created, settings: Settings::default() });
        }
        let record: Self = record::decode(WHAT, BUCKET_FORMAT, bytes)?;
        record.settings.check()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> BucketRecord {
        let rule = LifecycleRule {
            id: "old".into(),
            enabled: true,
            prefix: "logs/".into(),
            tags: vec![("kind".into(), "log".into())],
            larger_than: Some(10),
            smaller_than: None,
            expire: Some(Expire::Days(30)),
            expire_markers: true,
            noncurrent: Some(Noncurrent { days: 7, keep: 3 }),
            abort_uploads_days: Some(2),
        };
        let settings = Settings {
            versioning: Versioning::Suspended,
            lifecycle: vec![rule],
            public_read: vec!["public/".into()],
            public_list: true,
            documents: vec![("policy".into(), Bytes::from_static(b"{}"))],
        };
        BucketRecord { created: 1_700_000_000_000, settings }
    }

    #[test]
    fn the_format_of_version_1_still_reads() {
        let old = data_encoding::HEXLOWER.decode(b"0180d095ffbc31").unwrap();
        let read = BucketRecord::decode(&old).unwrap();
        assert_eq!(read, BucketRecord { created: 1_700_000_000_000, settings: Settings::default() });
    }

    #[test]
    fn the_format_of_version_2_still_reads() {
        let old = "0280d095ffbc310201036f6c6401056c6f67732f01046b696e64036c6f67010a0001001e010107030102\
                   01077075626c69632f010106706f6c696379027b7d";
        let bytes = data_encoding::HEXLOWER.decode(old.as_bytes()).unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(&record().encode().unwrap()), old);
        assert_eq!(BucketRecord::decode(&bytes), Ok(record()));
    }

    #[test]
    fn settings_are_bounded() {
        let refused = |change: &dyn Fn(&mut Settings)| {
            let mut record = record();
            change(&mut record.settings);
            assert!(matches!(record.encode(), Err(RecordError::MetaTooLarge { .. })));
            let bytes = record::encode(BUCKET_FORMAT, &record);
            assert!(BucketRecord::decode(&bytes).is_err(), "and not read either");
        };
        refused(&|s| s.set_document("policy", Some(vec![b' '; MAX_DOCUMENTS].into())));
        refused(&|s| s.public_read = vec![String::new(); MAX_PUBLIC + 1]);
        refused(&|s| s.lifecycle = vec![LifecycleRule::default(); MAX_RULES + 1]);
        refused(&|s| s.lifecycle[0].prefix = "p".repeat(MAX_KEY + 1));
        refused(&|s| s.lifecycle[0].id = "i".repeat(MAX_RULE_ID + 1));
        refused(&|s| {
            let rule = LifecycleRule { prefix: "p".repeat(MAX_KEY), ..LifecycleRule::default() };
            s.lifecycle = vec![rule; MAX_RULES];
        });
    }

    #[test]
    fn documents_are_replaced() {
        let mut settings = record().settings;
        settings.set_document("policy", Some(Bytes::from_static(b"{\"a\":1}")));
        assert_eq!(settings.document("policy").map(Bytes::as_ref), Some(&b"{\"a\":1}"[..]));
        settings.set_document("policy", None);
        assert_eq!((settings.document("policy"), settings.documents.len()), (None, 0));
        assert!(settings.is_public("public/a") && !settings.is_public("private/a"));
    }

    #[test]
    fn newer_formats_say_upgrade() {
        assert_eq!(
            BucketRecord::decode(&[3, 0]),
            Err(RecordError::TooNew { what: WHAT, newest: 2, found: 3 })
        );
    }

    proptest! {
        #[test]
        fn bytes_from_the_wire_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BucketRecord::decode(&bytes);
        }
    }
}
