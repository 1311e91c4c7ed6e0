//! Versions in requests and answers: their ids, and what is told of delete markers.

use std::str::FromStr;

use http::{HeaderValue, header};
use pando_node::{Error, VersionId, VersionMark};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::error::{of_node, refuse, with_marker};

/// The version that a request names; `None`: it means the current one.
pub(super) fn version_of(text: Option<&str>) -> S3Result<Option<VersionId>> {
    parsed(text)
}

/// The version after which a page of versions starts: an id, or what a page before told.
pub(super) fn mark_of(text: Option<&str>) -> S3Result<Option<VersionMark>> {
    parsed(text)
}

fn parsed<T: FromStr>(text: Option<&str>) -> S3Result<Option<T>> {
    let malformed = |text: &str| {
        refuse(
            S3ErrorCode::InvalidArgument,
            format!("{text:?} is not the id of a version, which is null or hexadecimal"),
        )
    };
    text.map(|text| text.parse().map_err(|_| malformed(text))).transpose()
}

/// A version's id as answers have it; nothing where no versions were ever kept.
pub(super) fn told(version: Option<VersionId>) -> Option<String> {
    version.map(|version| version.to_string())
}

/// What a client is told that looked for this version, or for the current one.
pub(super) fn not_found(error: Error, wanted: Option<VersionId>) -> S3Error {
    match (&error, wanted) {
        (Error::NotFound { marker: Some(_), .. }, Some(version)) => {
            let why = "this version is a delete marker: it can only be removed";
            let allow = (header::ALLOW, HeaderValue::from_static("DELETE"));
            with_marker(refuse(S3ErrorCode::MethodNotAllowed, why), version, Some(allow))
        }
        _ => of_node(error),
    }
}

/// The same of the source of a copy.
pub(super) fn not_found_as_source(error: S3Error) -> S3Error {
    match error.code() {
        S3ErrorCode::MethodNotAllowed => refuse(
            S3ErrorCode::InvalidRequest,
            "the source's version is a delete marker, which can't be copied",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_told() {
        let id = "00112233445566778899aabbccddeeff";
        for text in ["null", id] {
            let version = version_of(Some(text)).ok().flatten();
            assert_eq!(told(version).as_deref(), Some(text));
        }
        assert_eq!(version_of(None).ok(), Some(None));
        for bad in ["", "Null", "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY", &id[2..]] {
            let code = version_of(Some(bad)).err().map(|error| error.code().clone());
            assert_eq!(code, Some(S3ErrorCode::InvalidArgument), "{bad}");
        }
    }
}
