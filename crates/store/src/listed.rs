//! Listings: registers in the order of their names, with what a listing shows of each.
//!
//! A register's row may be 64 KiB long, of which a listing shows a hundred bytes. So these stand in a table of their
//! own, which changes in the same transactions: a listing reads nothing else.

use std::ops::Bound;

use pando_core::{
    name::RegisterName,
    record::Summary,
    register::{Accepted, Ballot, LayoutVersion},
    summary::summary_of,
};
use redb::ReadTransaction;

use crate::{
    error::Error,
    index::{LISTED, REGISTERS},
    registers::{Paged, fence},
    rows,
    store::Store,
};

/// The first byte of each row.
const FORMAT: u8 = 1;

/// Names that start with `prefix` and come after `after`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRange {
    /// What they start with.
    pub prefix: Vec<u8>,
    /// What they come after, itself excluded; it need not start with the prefix nor be a name.
    pub after: Option<Vec<u8>>,
}

/// What is shown of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub name: RegisterName,
    /// What was accepted last.
    pub ballot: Ballot,
    /// What it shows; `None` for a tombstone. The error is why its record does not read.
    pub summary: Result<Option<Summary>, String>,
}

/// The row of what a register shows. Why a record does not read is found out when someone wants to see it: a newer
/// version of this software may read it.
pub(crate) fn encode(name: &RegisterName, accepted: &Accepted) -> Vec<u8> {
    let shows = summary_of(name, accepted).ok();
    let mut row = Vec::with_capacity(160);
    row.push(FORMAT);
    postcard::to_extend(&(accepted.ballot, shows), row)
        .expect("a summary in memory always has a postcard form")
}

/// The ballot in a row, and what it shows; `None` if the record did not read when it was written.
fn decode(name: &[u8], row: &[u8]) -> Result<(Ballot, Option<Option<Summary>>), Error> {
    let corrupt = |found: String| Error::Corrupt {
        what: format!("what is listed of register {}", String::from_utf8_lossy(name)),
        expected: format!("format {FORMAT} and a summary"),
        found,
    };
    match row.split_first() {
        Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|error| corrupt(error.to_string())),
        Some((other, _)) => Err(corrupt(format!("format {other}"))),
        None => Err(corrupt("no bytes".into())),
    }
}

/// What the register itself says, where its row did not read.
fn look_again(txn: &ReadTransaction, name: &RegisterName) -> Result<Result<Option<Summary>, String>, Error> {
    let Some(row) = txn.open_table(REGISTERS)?.get(name.as_bytes())? else {
        return Err(Error::Corrupt {
            what: format!("the row of register {name}"),
            expected: "one, since it is listed".into(),
            found: "none".into(),
        });
    };
    let accepted = rows::decode_accepted(name.as_bytes(), row.value())?;
    Ok(summary_of(name, &accepted).map_err(|error| error.to_string()))
}

impl Store {
    /// Registers in the order of their names' bytes, but for those of layouts: at most `limit`, and about `max_bytes`
    /// of rows (one at least). Without `layout`, whichever layout is known.
    pub async fn page(
        &self,
        layout: Option<LayoutVersion>,
        range: NameRange,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Paged<Shown>, Error> {
        self.look(move |_, txn| {
            if let Some(layout) = layout
                && let Some(known) = fence(txn, layout, None)?
            {
                return Ok(Paged::Fenced(known));
            }
            let (mut entries, mut bytes) = (Vec::new(), 0);
            let table = txn.open_table(LISTED)?;
            for row in table.range::<&[u8]>(bounds(&range))? {
                let (name, row) = row?;
                let (name, row) = (name.value(), row.value());
                if !name.starts_with(&range.prefix) {
                    break;
                }
                bytes += name.len() + row.len();
                if entries.len() == limit || (bytes > max_bytes && !entries.is_empty()) {
                    return Ok(Paged::Page { entries, more: true });
                }
                let (ballot, shows) = decode(name, row)?;
                let name = rows::decode_name(name)?;
                let summary = match shows {
                    Some(summary) => Ok(summary),
                    None => look_again(txn, &name)?,
                };
                entries.push(Shown { name, ballot, summary });
            }
            Ok(Paged::Page { entries, more: false })
        })
        .await
    }

    /// How many registers have names that start with `prefix`, tombstones included. Walks them all.
    pub async fn count(&self, prefix: Vec<u8>) -> Result<u64, Error> {
        self.look(move |_, txn| {
            let range = NameRange { prefix, after: None };
            let mut count = 0;
            for row in txn.open_table(LISTED)?.range::<&[u8]>(bounds(&range))? {
                if !row?.0.value().starts_with(&range.prefix) {
                    break;
                }
                count += 1;
            }
            Ok(count)
        })
        .await
    }
}

fn bounds(range: &NameRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let from = match &range.after {
        Some(after) if *after >= range.prefix => Bound::Excluded(after.as_slice()),
        _ => Bound::Included(range.prefix.as_slice()),
    };
    (from, Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pando_core::{
        bucket::{BucketRecord, Settings},
        id::WriteId,
        register::{State, Value},
    };

    use super::*;

    fn accepted(bytes: Bytes) -> Accepted {
        let value = Value::after(None, WriteId([0xaa; 16]), State::Present(bytes));
        Accepted { ballot: Ballot { layout: LayoutVersion(3), counter: 300, session: 7 }, value }
    }

    /// What format 1 looked like on the day it was made.
    #[test]
    fn old_rows_still_read() {
        let name = RegisterName::bucket("default").unwrap();
        let record = BucketRecord { created: 1000, settings: Settings::default() };
        let accepted = accepted(record.encode().unwrap());
        let row = "0103ac02070101 00e807 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 000000 00000000".replace(' ', "");
        let row: Vec<u8> =
            (0..row.len()).step_by(2).map(|at| u8::from_str_radix(&row[at..at + 2], 16).unwrap()).collect();
        assert_eq!(encode(&name, &accepted), row);
        let (ballot, shows) = decode(name.as_bytes(), &row).unwrap();
        assert_eq!(ballot, accepted.ballot);
        assert_eq!(shows, Some(summary_of(&name, &accepted).unwrap()));
    }

    #[test]
    fn a_damaged_row_is_corrupt() {
        let name = RegisterName::object("default", "key").unwrap();
        let row = encode(&name, &accepted(Bytes::from_static(b"no record")));
        assert_eq!(decode(name.as_bytes(), &row).unwrap().1, None, "the register itself says why");
        for len in 0..row.len() {
            assert!(matches!(decode(name.as_bytes(), &row[..len]), Err(Error::Corrupt { .. })), "{len}");
        }
    }
}
