//! What an object is made of, without its content.

use pando_node::ObjectParts;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    list::most,
    shape::{Sums, check_owner, etag_of, timestamp},
    version::{not_found, told, version_of},
};
use crate::{
    error::refuse,
    sse::{self, said},
};

pub(super) async fn get_object_attributes(
    face: &Face,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let S3Request { input, extensions, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let version = version_of(input.version_id.as_deref())?;
    let given = sse::given(said!(input), &extensions)?;
    let found = face.node.parts(&input.bucket, &input.key, version).await;
    let parts = found.map_err(|error| not_found(error, version))?;
    sse::open(&parts.info.meta, given.as_ref())?;
    let object_parts = listed_parts(&parts, input.part_number_marker, input.max_parts)?;
    let info = parts.info;
    // One header may name several.
    let wanted = |all: &ObjectAttributes, what: &str| all.as_str().split(',').any(|one| one.trim() == what);
    let wants = |what: &str| input.object_attributes.iter().any(|all| wanted(all, what));
    let sums = Sums::of(&info.digests);
    let checksum = Checksum {
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: sums.kind,
    };
    Ok(S3Response::new(GetObjectAttributesOutput {
        checksum: wants(ObjectAttributes::CHECKSUM).then_some(checksum),
        e_tag: wants(ObjectAttributes::ETAG).then(|| etag_of(&info)),
        last_modified: Some(timestamp(info.modified)),
        version_id: told(info.version),
        object_parts: object_parts.filter(|_| wants(ObjectAttributes::OBJECT_PARTS)),
        object_size: wants(ObjectAttributes::OBJECT_SIZE).then_some(info.size as i64),
        storage_class: wants(ObjectAttributes::STORAGE_CLASS)
            .then(|| StorageClass::from_static(StorageClass::STANDARD)),
        ..GetObjectAttributesOutput::default()
    }))
}

/// A page of the parts that an object was uploaded in, if it was. Their checksums are not kept.
fn listed_parts(
    parts: &ObjectParts,
    after: Option<i32>,
    limit: Option<i32>,
) -> S3Result<Option<GetObjectAttributesParts>> {
    let Some(total) = parts.info.digests.parts else { return Ok(None) };
    let negative = || refuse(S3ErrorCode::InvalidArgument, "part-number-marker can't be negative");
    let first = usize::try_from(after.unwrap_or(0)).map_err(|_| negative())?;
    let most = most(limit)?;
    let numbered = (1i32..).zip(&parts.sizes).skip(first);
    let page: Vec<ObjectPart> = numbered
        .take(most)
        .map(|(number, size)| ObjectPart {
            part_number: Some(number),
            size: Some(*size as i64),
            ..ObjectPart::default()
        })
        .collect();
    let end = first.min(parts.sizes.len()) + page.len();
    Ok(Some(GetObjectAttributesParts {
        is_truncated: Some(end < parts.sizes.len()),
        max_parts: Some(most as i32),
        next_part_number_marker: Some(end as i32),
        part_number_marker: Some(after.unwrap_or(0)),
        parts: Some(page),
        total_parts_count: Some(total.into()),
    }))
}
