//! Uploads in parts: create, put parts, abort. Completing them: [`super::complete`].

use pando_core::{id::WriteId, name::MAX_PARTS};
use pando_node::{NewPart, UploadInfo, UploadOptions};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    object::{Promised, Taken, Unkept, algorithm_of, grants, length, take_body},
    shape::{Sums, check_owner, etag, headers, tags_of_header, user_meta},
};
use crate::{
    digest::Algorithm,
    error::{of_node, refuse},
    sse::{self, Given, Sealing, said},
};

pub(super) fn upload_id(text: &str) -> S3Result<WriteId> {
    text.parse()
        .map_err(|_| refuse(S3ErrorCode::NoSuchUpload, format!("{text:?} is not the id of an upload")))
}

pub(super) fn part_number(number: i32) -> S3Result<u16> {
    u16::try_from(number).ok().filter(|number| (1..=MAX_PARTS).contains(number)).ok_or_else(|| {
        refuse(S3ErrorCode::InvalidArgument, format!("a part's number is 1 to {MAX_PARTS}, not {number}"))
    })
}

pub(super) async fn create_multipart_upload(
    face: &Face,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let S3Request { input, headers: head, extensions, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let given = sse::given(said!(input), &extensions)?;
    Unkept {
        acl: input.acl.as_ref(),
        encryption: input.server_side_encryption.as_ref(),
        customer_key: given.is_some(),
        lock: input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some(),
        redirect: input.website_redirect_location.is_some(),
        grants: grants(&head),
    }
    .check()?;
    let algorithm = input.checksum_algorithm.as_ref().map(|name| algorithm_of(name.as_str())).transpose()?;
    let composite = is_composite(input.checksum_type.as_ref(), algorithm)?;
    let mut meta = user_meta(input.content_type, input.metadata);
    if let Some(given) = &given {
        Sealing::begin(given)?.lock.enter(&mut meta);
    }
    let options = UploadOptions {
        meta,
        headers: headers(
            input.cache_control,
            input.content_disposition,
            input.content_encoding,
            input.content_language,
            input.expires.as_ref(),
        ),
        tags: tags_of_header(input.tagging.as_deref())?,
        checksum: algorithm.map(Algorithm::name).unwrap_or_default().to_owned(),
        composite,
    };
    let id = face.node.create_upload(&input.bucket, &input.key, options).await.map_err(of_node)?;
    let kind = if composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
    let (sse_customer_algorithm, sse_customer_key_md5) = sse::echo(given.as_ref());
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id.to_string()),
        checksum_type: algorithm.map(|_| ChecksumType::from_static(kind)),
        checksum_algorithm: input.checksum_algorithm,
        server_side_encryption: input.server_side_encryption,
        sse_customer_algorithm,
        sse_customer_key_md5,
        ..CreateMultipartUploadOutput::default()
    }))
}

/// Whether the checksum of the whole is to be one of the parts' checksums.
fn is_composite(kind: Option<&ChecksumType>, algorithm: Option<Algorithm>) -> S3Result<bool> {
    match (kind.map(ChecksumType::as_str), algorithm) {
        (None, Some(Algorithm::Crc64Nvme) | None) | (Some(ChecksumType::FULL_OBJECT), None) => Ok(false),
        (None, Some(_)) => Ok(true),
        (Some(ChecksumType::FULL_OBJECT), Some(algorithm)) if algorithm.joins() => Ok(false),
        (Some(ChecksumType::COMPOSITE), Some(algorithm)) if algorithm != Algorithm::Crc64Nvme => Ok(true),
        (Some(kind), algorithm) => {
            let name = algorithm.map_or("none", Algorithm::name);
            let why = format!("a checksum of type {kind} can't be had of algorithm {name}");
            Err(refuse(S3ErrorCode::InvalidRequest, why))
        }
    }
}

/// The checksum to compute of the parts of an upload, if the client asks for none in particular.
pub(super) fn wanted_of(upload: &UploadInfo) -> Algorithm {
    Algorithm::of_name(&upload.checksum).unwrap_or(Algorithm::Crc64Nvme)
}

/// A part that was put.
pub(super) struct PutPart {
    pub(super) etag: ETag,
    pub(super) sums: Sums,
}

/// Puts a part of an upload, whatever it came by.
pub(super) async fn store_part(
    face: &Face,
    (bucket, key, id, number): (&str, &str, &WriteId, u16),
    (body, length): (Option<StreamingBlob>, Option<u64>),
    promised: Promised,
    given: Option<&Given>,
) -> S3Result<PutPart> {
    let sealing = given.map(Sealing::begin).transpose()?;
    let part = NewPart { number, lock: sealing.as_ref().map(|sealing| sealing.lock) };
    let Taken { reader, digests, known } = take_body(face, body, length, promised, sealing).await?;
    let put = face.node.put_part(bucket, key, id, part, reader, digests).await;
    let stored = put.map_err(of_node)?;
    let digests = known.await.unwrap_or_default();
    Ok(PutPart { etag: etag(&digests, &stored.etag), sums: Sums::of(&digests) })
}

pub(super) async fn upload_part(
    face: &Face,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let S3Request { input, headers: head, trailing_headers, extensions, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let (id, number) = (upload_id(&input.upload_id)?, part_number(input.part_number)?);
    let given = sse::given(said!(input), &extensions)?;
    let sums = Sums {
        crc32: input.checksum_crc32,
        crc32c: input.checksum_crc32c,
        crc64nvme: input.checksum_crc64nvme,
        sha1: input.checksum_sha1,
        sha256: input.checksum_sha256,
        kind: None,
    };
    let wanted = input.checksum_algorithm.as_ref();
    let promised = Promised::of(input.content_md5.as_deref(), &sums, wanted, &head, trailing_headers)?;
    let upload = face.node.upload(&input.bucket, &input.key, &id).await.map_err(of_node)?;
    sse::check_upload(&upload.meta, given.as_ref())?;
    let promised = promised.or_usual(wanted_of(&upload));
    if !upload.checksum.is_empty() && promised.algorithm() != wanted_of(&upload) {
        let why = format!("this upload was begun with checksums of algorithm {}", upload.checksum);
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    let place = (&*input.bucket, &*input.key, &id, number);
    let body = (input.body, length(input.content_length, &head)?);
    let PutPart { etag, sums } = store_part(face, place, body, promised, given.as_ref()).await?;
    let (sse_customer_algorithm, sse_customer_key_md5) = sse::echo(given.as_ref());
    Ok(S3Response::new(UploadPartOutput {
        e_tag: Some(etag),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        sse_customer_algorithm,
        sse_customer_key_md5,
        ..UploadPartOutput::default()
    }))
}

pub(super) async fn abort_multipart_upload(
    face: &Face,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let id = upload_id(&input.upload_id)?;
    face.node.abort_upload(&input.bucket, &input.key, &id).await.map_err(of_node)?;
    Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), http::StatusCode::NO_CONTENT))
}
