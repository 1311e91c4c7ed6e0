//! What is held, told in pages and fingerprints: how two nodes find out in what they differ.

use std::{collections::BTreeMap, ops::Bound};

use pando_core::{
    fingerprint::{BUCKETS, Fingerprint},
    id::{ChunkId, Partition, WriteId},
    name::RegisterName,
    register::{Ballot, LayoutVersion},
};
use redb::ReadTransaction;

use crate::{
    error::Error,
    index::{BY_PARTITION, CHUNKS, OF_REGISTERS, PRINTS, REFS, VERSIONS},
    registers::{Paged, fence},
    rows,
    store::Store,
    versions::{MAX_BATCH, check_batch},
};

/// A version that needs a chunk which is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its sealed bytes.
    pub len: u64,
    /// The version.
    pub version: WriteId,
}

impl Store {
    /// The fingerprints of all partitions that hold anything: of their registers, and of the references to
    /// their chunks.
    pub async fn fingerprints(
        &self,
        layout: Option<LayoutVersion>,
    ) -> Result<Paged<(Partition, Fingerprint, Fingerprint)>, Error> {
        self.look(move |_, txn| {
            if let Some(known) = fenced(txn, layout)? {
                return Ok(Paged::Fenced(known));
            }
            let mut prints: BTreeMap<Partition, (Fingerprint, Fingerprint)> = BTreeMap::new();
            for row in txn.open_table(PRINTS)?.range((0, 0, 0)..)? {
                let (key, row) = row?;
                let (number, _, kind) = key.value();
                let Some(partition) = Partition::new(number) else { continue };
                let print = Fingerprint::from_parts(*row.value().0, row.value().1);
                let (registers, references) = prints.entry(partition).or_default();
                if kind == OF_REGISTERS { registers.merge(&print) } else { references.merge(&print) }
            }
            let entries = prints.into_iter().map(|(partition, (a, b))| (partition, a, b)).collect();
            Ok(Paged::Page { entries, more: false })
        })
        .await
    }

    /// The fingerprints of a partition's buckets, all [`BUCKETS`] in order.
    pub async fn bucket_fingerprints(
        &self,
        layout: Option<LayoutVersion>,
        partition: Partition,
    ) -> Result<Paged<(Fingerprint, Fingerprint)>, Error> {
        self.look(move |_, txn| {
            if let Some(known) = fenced(txn, layout)? {
                return Ok(Paged::Fenced(known));
            }
            let mut entries = vec![(Fingerprint::default(), Fingerprint::default()); usize::from(BUCKETS)];
            let number = partition.number();
            for row in txn.open_table(PRINTS)?.range((number, 0, 0)..(number + 1, 0, 0))? {
                let (key, row) = row?;
                let (_, bucket, kind) = key.value();
                let print = Fingerprint::from_parts(*row.value().0, row.value().1);
                if let Some((registers, references)) = entries.get_mut(usize::from(bucket)) {
                    *(if kind == OF_REGISTERS { registers } else { references }) = print;
                }
            }
            Ok(Paged::Page { entries, more: false })
        })
        .await
    }

    /// The ballots of a bucket's registers, in the order of their names' bytes.
    pub async fn page_of_bucket(
        &self,
        layout: Option<LayoutVersion>,
        partition: Partition,
        bucket: u8,
        after: Option<RegisterName>,
        limit: usize,
    ) -> Result<Paged<(RegisterName, Ballot)>, Error> {
        self.look(move |_, txn| {
            if let Some(known) = fenced(txn, layout)? {
                return Ok(Paged::Fenced(known));
            }
            let number = partition.number();
            let from = match &after {
                Some(after) => Bound::Excluded((number, bucket, after.as_bytes())),
                None => Bound::Included((number, bucket, [].as_slice())),
            };
            let to = Bound::Excluded((number, bucket.saturating_add(1), [].as_slice()));
            let mut entries = Vec::new();
            let table = txn.open_table(BY_PARTITION)?;
            for row in table.range((from, to))? {
                let (key, ballot) = row?;
                if entries.len() == limit.min(MAX_BATCH) {
                    return Ok(Paged::Page { entries, more: true });
                }
                entries.push((rows::decode_name(key.value().2)?, rows::row_ballot(ballot.value())));
            }
            Ok(Paged::Page { entries, more: false })
        })
        .await
    }

    /// References to chunks of a bucket that are held, in order of chunk, then version: after `after`, at most
    /// `limit`; and whether there are more.
    pub async fn references_page(
        &self,
        partition: Partition,
        bucket: u8,
        after: Option<(ChunkId, WriteId)>,
        limit: usize,
    ) -> Result<(Vec<Reference>, bool), Error> {
        self.look(move |_, txn| {
            let (chunks, refs) = (txn.open_table(CHUNKS)?, txn.open_table(REFS)?);
            let (first, last) = chunk_range(partition, Some(bucket));
            let from = match &after {
                Some((chunk, version)) if chunk.0 >= first => Bound::Excluded((&chunk.0, &version.0)),
                _ => Bound::Included((&first, &[0; 16])),
            };
            if after.is_some_and(|(chunk, _)| chunk.0 > last) {
                return Ok((Vec::new(), false));
            }
            let mut entries: Vec<Reference> = Vec::new();
            for row in refs.range((from, Bound::Included((&last, &[0xff; 16]))))? {
                let key = row?.0;
                let (chunk, version) = key.value();
                let Some(len) = chunks.get(chunk)?.map(|len| len.value()) else { continue };
                if entries.len() == limit.min(MAX_BATCH) {
                    return Ok((entries, true));
                }
                entries.push(Reference { chunk: ChunkId(*chunk), len, version: WriteId(*version) });
            }
            Ok((entries, false))
        })
        .await
    }

    /// Chunks that are held, in order: of one partition or of all, after `after`, at most `limit`.
    pub async fn chunks_page(
        &self,
        partition: Option<Partition>,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, u64)>, Error> {
        self.look(move |_, txn| {
            let (first, last) =
                partition.map_or(([0; 32], [0xff; 32]), |partition| chunk_range(partition, None));
            let from = match &after {
                Some(after) if after.0 >= first => Bound::Excluded(&after.0),
                _ => Bound::Included(&first),
            };
            if after.is_some_and(|after| after.0 > last) {
                return Ok(Vec::new());
            }
            let chunks = txn.open_table(CHUNKS)?;
            let rows = chunks.range::<&[u8; 32]>((from, Bound::Included(&last)))?.take(limit.min(MAX_BATCH));
            rows.map(|row| {
                let (id, len) = row?;
                Ok((ChunkId(*id.value()), len.value()))
            })
            .collect()
        })
        .await
    }

    /// What versions are writes to; `None` for those that are not known here. At most [`MAX_BATCH`].
    pub async fn version_names(&self, versions: &[WriteId]) -> Result<Vec<Option<RegisterName>>, Error> {
        check_batch("versions", versions.len())?;
        let versions = versions.to_vec();
        self.look(move |_, txn| {
            let table = txn.open_table(VERSIONS)?;
            let name = |version: &WriteId| -> Result<Option<RegisterName>, Error> {
                let row = table.get(&version.0)?;
                row.map(|row| Ok(rows::decode_version(*version, row.value())?.name)).transpose()
            };
            versions.iter().map(name).collect()
        })
        .await
    }

    /// For each reference, whether it is missing here, or its chunk is. At most [`MAX_BATCH`].
    pub async fn lacking(&self, references: &[(ChunkId, WriteId)]) -> Result<Vec<bool>, Error> {
        check_batch("references", references.len())?;
        let references = references.to_vec();
        self.look(move |_, txn| {
            let (chunks, refs) = (txn.open_table(CHUNKS)?, txn.open_table(REFS)?);
            let lacks = |(chunk, version): &(ChunkId, WriteId)| -> Result<bool, Error> {
                Ok(chunks.get(&chunk.0)?.is_none() || refs.get((&chunk.0, &version.0))?.is_none())
            };
            references.iter().map(lacks).collect()
        })
        .await
    }
}

/// As [`fence`], of any partition; nothing is asked under no layout.
fn fenced(txn: &ReadTransaction, layout: Option<LayoutVersion>) -> Result<Option<LayoutVersion>, Error> {
    layout.map_or(Ok(None), |layout| fence(txn, layout, None))
}

/// The first and the last chunk id of a partition, or of one of its buckets.
fn chunk_range(partition: Partition, bucket: Option<u8>) -> ([u8; 32], [u8; 32]) {
    let start = partition.number() << 6;
    let (low, high) = match bucket {
        Some(bucket) => (start | u16::from(bucket), start | u16::from(bucket)),
        None => (start, start | 0x3f),
    };
    let (mut first, mut last) = ([0; 32], [0xff; 32]);
    first[..2].copy_from_slice(&low.to_be_bytes());
    last[..2].copy_from_slice(&high.to_be_bytes());
    (first, last)
}
