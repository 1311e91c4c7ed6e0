//! Copying objects: a new record for the same chunks. No content moves.

use pando_node::{Consistency, CopyOptions};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face, caller,
    object::Unkept,
    remove::check_version,
    shape::{ReadConditions, Sums, check_owner, etag_of, headers, tags_of_header, timestamp, user_meta},
};
use crate::error::{of_node, refuse};

/// What is to be copied: bucket and key.
pub(super) fn source(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            check_version(version_id.as_deref())?;
            Ok((bucket, key))
        }
        _ => Err(refuse(
            S3ErrorCode::NotImplemented,
            "a copy's source is BUCKET/KEY: there are no access points",
        )),
    }
}

pub(super) async fn copy_object(
    face: &Face,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let (from_bucket, from_key) = source(&request.input.copy_source)?;
    // The right to write to the target was checked with the path.
    caller(&request)?.check(from_bucket, pando_core::access::Right::Read)?;
    let (from_bucket, from_key) = (from_bucket.to_owned(), from_key.to_owned());
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_owner(input.expected_source_bucket_owner.as_deref())?;
    Unkept {
        acl: input.acl.as_ref(),
        encryption: input.server_side_encryption.as_ref(),
        customer_key: input.sse_customer_algorithm.is_some()
            || input.copy_source_sse_customer_algorithm.is_some(),
        lock: input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some(),
        redirect: input.website_redirect_location.is_some(),
    }
    .check()?;
    let found = face.node.stat(&from_bucket, &from_key, Consistency::Linearizable).await.map_err(of_node)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match.as_ref(),
        if_none_match: input.copy_source_if_none_match.as_ref(),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    conditions.check_of_source(&found)?;
    let replaces =
        input.metadata_directive.as_ref().map(MetadataDirective::as_str) == Some(MetadataDirective::REPLACE);
    let replaces_tags =
        input.tagging_directive.as_ref().map(TaggingDirective::as_str) == Some(TaggingDirective::REPLACE);
    if (&*from_bucket, &*from_key) == (&*input.bucket, &*input.key) && !replaces && !replaces_tags {
        let why = "a copy of an object onto itself must change its metadata or tags";
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    let options = CopyOptions {
        // What was looked at is what is copied.
        source: Some(found.etag),
        replace: replaces.then(|| {
            let headers = headers(
                input.cache_control,
                input.content_disposition,
                input.content_encoding,
                input.content_language,
                input.expires.as_ref(),
            );
            (user_meta(input.content_type, input.metadata), headers)
        }),
        tags: match replaces_tags {
            true => Some(tags_of_header(input.tagging.as_deref())?),
            false => None,
        },
        ..CopyOptions::default()
    };
    let copied = face.node.copy((&from_bucket, &from_key), (&input.bucket, &input.key), options).await;
    let (_, info) = copied.map_err(of_node)?;
    let sums = Sums::of(&info.digests);
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(CopyObjectResult {
            e_tag: Some(etag_of(&info)),
            last_modified: Some(timestamp(info.modified)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: sums.kind,
        }),
        server_side_encryption: input.server_side_encryption,
        ..CopyObjectOutput::default()
    }))
}
