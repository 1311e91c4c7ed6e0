//! Forgetting registers: tombstones that every owner holds, and what this node held of partitions that it no
//! longer owned for a time.
//!
//! Purging raises the partition's floor in the same step, so that what was deleted can't come back from an old
//! message. When a layout is installed under which some partition's rows no longer count (this node left and
//! came back without noticing what was purged meanwhile), the partition is *void* in the same step: nothing is
//! answered of it until its rows are gone.

use pando_core::{
    id::Partition,
    name::RegisterName,
    register::{Ballot, COUNTER_LIMIT, LayoutVersion, State},
};
use redb::ReadTransaction;

use crate::{
    error::Error,
    group::Group,
    index::{PURGED, TOMBS},
    rows,
    store::Store,
    versions::MAX_BATCH,
};

/// How many registers are forgotten in one operation of the writer.
const BATCH: usize = 512;

/// The answer to a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// The tombstone is forgotten, durably, and nothing at or below its ballot will be taken.
    Purged,
    /// Something else is stored, or nothing that was ever purged.
    Differs,
    /// Asked under another layout version than this one, which is known here.
    Fenced(LayoutVersion),
}

impl Store {
    /// Forgets a tombstone that is held at exactly `ballot`, and raises the partition's purge floor to it.
    pub async fn purge(
        &self,
        layout: LayoutVersion,
        name: RegisterName,
        ballot: Ballot,
    ) -> Result<Purge, Error> {
        rows::check_name(&name)?;
        check_floor(layout, ballot)?;
        self.change(4, move |group| {
            let known = group.shared.known_layout();
            if known != layout {
                return Ok(Purge::Fenced(known));
            }
            let partition = name.partition();
            group.check_void(partition)?;
            match group.accepted(&name)? {
                Some(held) if held.ballot == ballot && held.value.state == State::Absent => {
                    group.raise_purge_floor(partition, ballot)?;
                    group.remove_register(&name)?;
                    Ok(Purge::Purged)
                }
                None if group.purge_floor(partition)? >= Some(ballot) => Ok(Purge::Purged),
                _ => Ok(Purge::Differs),
            }
        })
        .await
    }

    /// The partition's purge floor.
    pub async fn purge_floor(&self, partition: Partition) -> Result<Option<Ballot>, Error> {
        self.look(move |_, txn| floor(txn, partition)).await
    }

    /// Raises a partition's purge floor, durably; `false`: another layout than `layout` is known.
    pub async fn raise_purge_floor(
        &self,
        layout: LayoutVersion,
        partition: Partition,
        ballot: Ballot,
    ) -> Result<bool, Error> {
        check_floor(layout, ballot)?;
        self.change(1, move |group| {
            let same = group.shared.known_layout() == layout;
            if same {
                group.raise_purge_floor(partition, ballot)?;
            }
            Ok(same)
        })
        .await
    }

    /// Tombstones whose ballots have counters below `before`, lowest first, after `after` (a counter and a
    /// name), at most `limit`.
    pub async fn tombs(
        &self,
        before: u64,
        after: Option<(u64, RegisterName)>,
        limit: usize,
    ) -> Result<Vec<(RegisterName, Ballot)>, Error> {
        self.look(move |_, txn| {
            let from = match &after {
                Some((counter, name)) => std::ops::Bound::Excluded((*counter, name.as_bytes())),
                None => std::ops::Bound::Unbounded,
            };
            let to = std::ops::Bound::Excluded((before, [].as_slice()));
            if after.as_ref().is_some_and(|(counter, _)| *counter >= before) {
                return Ok(Vec::new());
            }
            let table = txn.open_table(TOMBS)?;
            let rows = table.range((from, to))?.take(limit.min(MAX_BATCH));
            rows.map(|row| {
                let (key, rest) = row?;
                let ((counter, name), (layout, session)) = (key.value(), rest.value());
                let ballot = Ballot { layout: LayoutVersion(layout), counter, session };
                Ok((rows::decode_name(name)?, ballot))
            })
            .collect()
        })
        .await
    }

    /// Clears the registers of void partitions away; answers when none is left.
    pub(crate) async fn clear_void(&self) -> Result<(), Error> {
        while self.submit(4 * BATCH, clear).await? {}
        Ok(())
    }
}

/// Clears some registers of void partitions away; once these are gone, durably, the partitions are void no more.
/// `false`: there are none.
pub(crate) fn clear(group: &mut Group<'_>) -> Result<bool, Error> {
    let void = group.void()?;
    let mut names = Vec::new();
    for partition in &void {
        if names.len() < BATCH {
            names.extend(group.registers_of(*partition, BATCH - names.len())?);
        }
    }
    if names.is_empty() {
        for partition in &void {
            group.set_void(*partition, false)?;
        }
    }
    for name in names {
        group.remove_register(&name)?;
    }
    Ok(!void.is_empty())
}

/// A floor that no honest node has would close the partition to new registers for ever.
fn check_floor(layout: LayoutVersion, ballot: Ballot) -> Result<(), Error> {
    if ballot.layout > layout || ballot.counter >= COUNTER_LIMIT {
        return Err(Error::Malformed { what: "a purge floor above all ballots" });
    }
    Ok(())
}

pub(crate) fn floor(txn: &ReadTransaction, partition: Partition) -> Result<Option<Ballot>, Error> {
    let row = txn.open_table(PURGED)?.get(partition.number())?;
    Ok(row.map(|row| rows::row_ballot(row.value())))
}
