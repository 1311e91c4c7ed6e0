//! Bringing an index of an older format to the next one: the tables that are derived from others are made anew, in
//! one durable transaction for each format. A crash in the middle leaves the older one.

use pando_core::{
    fingerprint::{Fingerprint, Item},
    id::{ChunkId, Partition, WriteId},
    register::State,
};
use redb::{Database, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::{
    error::Error,
    index::{
        BY_PARTITION, LISTED, META, OF_REFERENCES, OF_REGISTERS, OWED, PRINTS, PURGED, REFS, REGISTERS,
        RESYNC, TOMBS, VOID,
    },
    listed, rows,
};

/// The table that [`BY_PARTITION`] replaces.
const OLD_BY_PARTITION: TableDefinition<'static, (u16, &[u8]), (u64, u64, u64)> =
    TableDefinition::new("by_partition");

/// Makes the tables that format 2 adds.
pub(crate) fn open_tables(txn: &WriteTransaction) -> Result<(), Error> {
    txn.open_table(TOMBS)?;
    txn.open_table(PURGED)?;
    txn.open_table(VOID)?;
    txn.open_table(PRINTS)?;
    txn.open_table(OWED)?;
    Ok(())
}

/// From format 1 to 2.
pub(crate) fn from_1(database: &Database) -> Result<(), Error> {
    let txn = database.begin_write()?;
    txn.delete_table(OLD_BY_PARTITION)?;
    open_tables(&txn)?;
    {
        let mut by_partition = txn.open_table(BY_PARTITION)?;
        let mut tombs = txn.open_table(TOMBS)?;
        let mut prints = txn.open_table(PRINTS)?;
        let mut owed = txn.open_table(OWED)?;
        for row in txn.open_table(REGISTERS)?.iter()? {
            let (key, row) = row?;
            let name = rows::decode_name(key.value())?;
            if name.layout_version().is_some() {
                continue;
            }
            let accepted = rows::decode_accepted(key.value(), row.value())?;
            let (partition, bucket) = (name.partition(), name.bucket_number());
            let ballot = accepted.ballot;
            by_partition.insert((partition.number(), bucket, name.as_bytes()), rows::ballot_row(ballot))?;
            if accepted.value.state == State::Absent {
                tombs.insert((ballot.counter, name.as_bytes()), (ballot.layout.0, ballot.session))?;
            }
            let item = Item::register(&name, ballot);
            update(&mut prints, (partition, bucket, OF_REGISTERS), |print| print.add(item))?;
        }
        for row in txn.open_table(REFS)?.iter()? {
            let key = row?.0;
            let (chunk, version) = (ChunkId(*key.value().0), WriteId(*key.value().1));
            let place = (Partition::of_chunk(&chunk), chunk.bucket_number(), OF_REFERENCES);
            update(&mut prints, place, |print| print.add(Item::reference(&chunk, &version)))?;
        }
        for row in txn.open_table(RESYNC)?.iter()? {
            let node = *row?.0.value().0;
            let count = owed.get(&node)?.map_or(0, |count| count.value());
            owed.insert(&node, count + 1)?;
        }
        txn.open_table(META)?.insert("format", 2u64.to_le_bytes().as_slice())?;
    }
    Ok(txn.commit()?)
}

/// From format 2 to 3.
pub(crate) fn from_2(database: &Database) -> Result<(), Error> {
    let txn = database.begin_write()?;
    {
        let mut listed = txn.open_table(LISTED)?;
        for row in txn.open_table(REGISTERS)?.iter()? {
            let (key, row) = row?;
            let name = rows::decode_name(key.value())?;
            if name.layout_version().is_none() {
                let accepted = rows::decode_accepted(key.value(), row.value())?;
                listed.insert(name.as_bytes(), listed::encode(&name, &accepted).as_slice())?;
            }
        }
        txn.open_table(META)?.insert("format", 3u64.to_le_bytes().as_slice())?;
    }
    Ok(txn.commit()?)
}

/// From format 3 to 4, which says that there is a log: nobody who does not know of it may open the index.
pub(crate) fn from_3(database: &Database) -> Result<(), Error> {
    let txn = database.begin_write()?;
    txn.open_table(META)?.insert("format", 4u64.to_le_bytes().as_slice())?;
    Ok(txn.commit()?)
}

/// Changes the fingerprint of one bucket; an empty one has no row.
pub(crate) fn update(
    prints: &mut Table<'_, (u16, u8, u8), (&'static [u8; 16], u64)>,
    (partition, bucket, kind): (Partition, u8, u8),
    change: impl FnOnce(&mut Fingerprint),
) -> Result<(), Error> {
    let key = (partition.number(), bucket, kind);
    let mut print = match prints.get(key)? {
        Some(row) => Fingerprint::from_parts(*row.value().0, row.value().1),
        None => Fingerprint::default(),
    };
    change(&mut print);
    if print == Fingerprint::default() {
        prints.remove(key)?;
    } else {
        let (sum, count) = print.parts();
        prints.insert(key, (&sum, count))?;
    }
    Ok(())
}
