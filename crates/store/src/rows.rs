//! How rows of the index are written: one byte of format, then little-endian or postcard.
//!
//! Checked before writing and after reading. A row that does not read is [`Error::Corrupt`]; it is
//! never taken for an absent one.

use bytes::Bytes;
use pando_core::{
    id::WriteId,
    name::RegisterName,
    register::{Accepted, Ballot, LayoutVersion},
};

use crate::error::Error;

/// Most bytes that a register may hold.
pub const MAX_VALUE: usize = 64 << 10;
/// The first byte of each row that is not a bare number.
const FORMAT: u8 = 1;

/// Checks what someone wants to be stored in a register.
pub(crate) fn check_accepted(name: &RegisterName, accepted: &Accepted) -> Result<(), Error> {
    check_name(name)?;
    if !accepted.value.is_well_formed() {
        return Err(Error::Malformed { what: "the value of a register" });
    }
    let len = accepted.value.present().map_or(0, Bytes::len);
    if len > MAX_VALUE {
        return Err(Error::TooMany { what: "bytes in a register", limit: MAX_VALUE, got: len });
    }
    Ok(())
}

/// Checks a name that came out of a message.
pub(crate) fn check_name(name: &RegisterName) -> Result<(), Error> {
    name.check().map_err(|_| Error::Malformed { what: "the name of a register" })
}

/// The row of a register. It was checked.
pub(crate) fn encode_accepted(accepted: &Accepted) -> Vec<u8> {
    let room = 512 + accepted.value.present().map_or(0, Bytes::len);
    let mut row = Vec::with_capacity(room);
    row.push(FORMAT);
    postcard::to_extend(accepted, row).expect("a value in memory always has a postcard form")
}

/// The register in a row.
pub(crate) fn decode_accepted(name: &[u8], row: &[u8]) -> Result<Accepted, Error> {
    let corrupt = |found: String| Error::Corrupt {
        what: format!("the row of register {}", String::from_utf8_lossy(name)),
        expected: format!("format {FORMAT} and a well-formed value"),
        found,
    };
    let body = match row.split_first() {
        Some((&FORMAT, body)) => body,
        Some((other, _)) => return Err(corrupt(format!("format {other}"))),
        None => return Err(corrupt("no bytes".into())),
    };
    let (accepted, rest) =
        postcard::take_from_bytes::<Accepted>(body).map_err(|error| corrupt(error.to_string()))?;
    if !rest.is_empty() {
        return Err(corrupt(format!("{} bytes too many", rest.len())));
    }
    if !accepted.value.is_well_formed() || accepted.value.present().map_or(0, Bytes::len) > MAX_VALUE {
        return Err(corrupt("a malformed value".into()));
    }
    Ok(accepted)
}

/// A register's name from the key of its row.
pub(crate) fn decode_name(bytes: &[u8]) -> Result<RegisterName, Error> {
    RegisterName::from_bytes(Bytes::copy_from_slice(bytes)).map_err(|error| Error::Corrupt {
        what: "the name in a row".into(),
        expected: "a register name".into(),
        found: error.to_string(),
    })
}

/// A ballot as the index keeps it.
pub(crate) fn ballot_row(ballot: Ballot) -> (u64, u64, u64) {
    (ballot.layout.0, ballot.counter, ballot.session)
}

/// The ballot in a row.
pub(crate) fn row_ballot((layout, counter, session): (u64, u64, u64)) -> Ballot {
    Ballot { layout: LayoutVersion(layout), counter, session }
}

/// What the index knows of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// When it must be checked, in ms since 1970; `None` when it was found live.
    pub(crate) due: Option<u64>,
    /// The register whose value it is or was.
    pub(crate) name: RegisterName,
}

/// The row of a version: format, 0 or 1, due time, name.
pub(crate) fn encode_version(version: &Version) -> Vec<u8> {
    let mut row = vec![FORMAT, u8::from(version.due.is_some())];
    row.extend_from_slice(&version.due.unwrap_or(0).to_le_bytes());
    row.extend_from_slice(version.name.as_bytes());
    row
}

/// The version in a row.
pub(crate) fn decode_version(id: WriteId, row: &[u8]) -> Result<Version, Error> {
    let corrupt = || Error::Corrupt {
        what: format!("the row of version {id}"),
        expected: format!("format {FORMAT}, 0 or 1, 8 bytes and a name"),
        found: format!("{} bytes starting {:?}", row.len(), &row[..row.len().min(2)]),
    };
    let (head, rest) = row.split_at_checked(2).ok_or_else(corrupt)?;
    let (due, name) = rest.split_at_checked(8).ok_or_else(corrupt)?;
    let due = u64::from_le_bytes(due.try_into().map_err(|_| corrupt())?);
    let due = match head {
        [FORMAT, 0] => None,
        [FORMAT, 1] => Some(due),
        _ => return Err(corrupt()),
    };
    Ok(Version { due, name: decode_name(name)? })
}

/// A number in the meta table.
pub(crate) fn decode_number(what: &str, row: &[u8]) -> Result<u64, Error> {
    let bytes = row.try_into().map_err(|_| Error::Corrupt {
        what: format!("the row {what:?}"),
        expected: "8 bytes".into(),
        found: format!("{} bytes", row.len()),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use pando_core::register::{State, Value};

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn accepted() -> Accepted {
        let value = Value::after(None, WriteId([0xaa; 16]), State::Absent);
        let value =
            Value::after(Some(&value), WriteId([0xbb; 16]), State::Present(Bytes::from_static(b"pando")));
        Accepted { ballot: Ballot { layout: LayoutVersion(3), counter: 300, session: u64::MAX }, value }
    }

    /// What format 1 looked like on the day it was made. These bytes must always be read.
    #[test]
    fn old_rows_still_read() {
        let row = bytes(
            "0103ac02ffffffffffffffffff010202aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb010570616e646f",
        );
        assert_eq!(decode_accepted(b"name", &row).unwrap(), accepted());
        assert_eq!(encode_accepted(&accepted()), row);

        let name = RegisterName::object("default", "key").unwrap();
        let queued = Version { due: Some(0x0102_0304), name: name.clone() };
        let live = Version { due: None, name };
        for (version, row) in [
            (queued, bytes("010104030201000000006f64656661756c74006b6579")),
            (live, bytes("010000000000000000006f64656661756c74006b6579")),
        ] {
            assert_eq!(decode_version(WriteId([0; 16]), &row).unwrap(), version);
            assert_eq!(encode_version(&version), row);
        }
        assert_eq!(decode_number("n", &bytes("0403020100000000")).unwrap(), 0x0102_0304);
    }

    #[test]
    fn a_damaged_row_is_corrupt_and_never_absent() {
        let row = encode_accepted(&accepted());
        for len in 0..row.len() {
            assert!(matches!(decode_accepted(b"name", &row[..len]), Err(Error::Corrupt { .. })), "{len}");
        }
        assert!(matches!(decode_accepted(b"name", &[&row[..], b"x"].concat()), Err(Error::Corrupt { .. })));
        assert!(matches!(
            decode_accepted(b"name", &[b"\x02", &row[1..]].concat()),
            Err(Error::Corrupt { .. })
        ));
        for len in 0..11 {
            let row = [FORMAT, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'o'];
            assert!(
                matches!(decode_version(WriteId([0; 16]), &row[..len]), Err(Error::Corrupt { .. })),
                "{len}"
            );
        }
        assert!(decode_number("n", &[0; 7]).is_err());
    }
}
