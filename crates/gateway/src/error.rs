//! What went wrong, in S3's codes: each error of a node as the one that clients know how to handle.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pando_core::{name::NameError, record::RecordError};
use pando_node::{Error, VersionId};
use s3s::{S3Error, S3ErrorCode};

use crate::body::BodyError;

/// An error with S3's code and our words.
pub(crate) fn refuse(code: S3ErrorCode, why: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(code, why)
}

/// An error with the headers that say which delete marker is the reason, and perhaps another one.
pub(crate) fn with_marker(
    mut error: S3Error,
    marker: VersionId,
    other: Option<(HeaderName, HeaderValue)>,
) -> S3Error {
    let mut headers: HeaderMap = other.into_iter().collect();
    // They take the place of all that `s3s` would send.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    if let Ok(id) = HeaderValue::from_str(&marker.to_string()) {
        headers.insert("x-amz-version-id", id);
    }
    error.set_headers(headers);
    error
}

/// What clients are told of an error of the node.
pub(crate) fn of_node(error: Error) -> S3Error {
    use S3ErrorCode as Code;
    let code = match &error {
        Error::NotFound { marker: Some(marker), .. } => {
            return with_marker(refuse(Code::NoSuchKey, error.to_string()), *marker, None);
        }
        Error::NotFound { .. } => Code::NoSuchKey,
        Error::NoSuchVersion { .. } => Code::NoSuchVersion,
        Error::NoSuchBucket(_) => Code::NoSuchBucket,
        Error::BucketExists(_) => Code::BucketAlreadyOwnedByYou,
        Error::BucketNotEmpty(_) => Code::BucketNotEmpty,
        Error::NoSuchKey(_) => Code::InvalidAccessKeyId,
        Error::NoSuchUpload(_) => Code::NoSuchUpload,
        Error::NoSuchPart(_) => Code::InvalidPart,
        Error::PartOrder => Code::InvalidPartOrder,
        Error::Precondition { .. } => {
            let why = "If-Match or If-None-Match does not hold; nothing was changed";
            return refuse(Code::PreconditionFailed, why);
        }
        Error::Range { .. } => Code::InvalidRange,
        Error::Name(NameError::KeyLength(_)) => Code::KeyTooLongError,
        Error::Name(NameError::Bucket(_)) => Code::InvalidBucketName,
        Error::Record(RecordError::MetaTooLarge { .. }) => Code::MetadataTooLarge,
        Error::Busy(_) => Code::SlowDown,
        Error::NotEnoughNodes { .. } | Error::Timeout(_) | Error::Stopping => Code::ServiceUnavailable,
        Error::Source(source) => match source.get_ref().and_then(|inner| inner.downcast_ref::<BodyError>()) {
            Some(body) => return of_body(body),
            None => Code::IncompleteBody,
        },
        Error::NoSpace(_) => {
            let mut full = refuse(Code::Custom("InsufficientStorage".into()), error.to_string());
            full.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
            return full;
        }
        _ => {
            tracing::warn!(%error, "a request failed");
            Code::InternalError
        }
    };
    refuse(code, error.to_string())
}

/// What clients are told of a body that was not taken.
pub(crate) fn of_body(error: &BodyError) -> S3Error {
    use S3ErrorCode as Code;
    let code = match error {
        BodyError::TooShort(_) | BodyError::TooLong | BodyError::Connection(_) => Code::IncompleteBody,
        BodyError::GivenUp => Code::InternalError,
        BodyError::Sha256 => Code::Custom("XAmzContentSHA256Mismatch".into()),
        BodyError::Signature => Code::SignatureDoesNotMatch,
        BodyError::Format => Code::InvalidRequest,
        BodyError::Digest(_) => Code::BadDigest,
        BodyError::Trailer(_) => Code::Custom("MalformedTrailerError".into()),
        BodyError::TooLarge(_) => Code::EntityTooLarge,
        BodyError::TooSmall(_) => Code::EntityTooSmall,
    };
    let is_custom = matches!(code, Code::Custom(_));
    let mut refused = refuse(code, error.to_string());
    if is_custom {
        refused.set_status_code(StatusCode::BAD_REQUEST);
    }
    refused
}
