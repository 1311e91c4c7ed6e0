//! Uploads in parts: create, put and copy parts, list, complete, abort.

use pando_core::{
    id::WriteId,
    name::MAX_PARTS,
    record::{Checksum, Digests},
};
use pando_node::{Consistency, Error, PartInfo, UploadInfo, UploadOptions, WantedPart};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face, caller,
    copy::source,
    list::{is_encoded, most},
    object::{Promised, Unkept, algorithm_of, byte_range, md5_of_md5s, take_body},
    shape::{
        ReadConditions, Sums, check_owner, etag, headers, owner, tags_of_header, timestamp, url_encode,
        user_meta, write_condition,
    },
};
use crate::{
    body,
    digest::{Algorithm, bytes_of},
    error::{of_node, refuse},
};

/// The least a part may have that is not the last, as in S3.
const LEAST: u64 = 5 << 20;

fn upload_id(text: &str) -> S3Result<WriteId> {
    text.parse()
        .map_err(|_| refuse(S3ErrorCode::NoSuchUpload, format!("{text:?} is not the id of an upload")))
}

fn part_number(number: i32) -> S3Result<u16> {
    u16::try_from(number).ok().filter(|number| (1..=MAX_PARTS).contains(number)).ok_or_else(|| {
        refuse(S3ErrorCode::InvalidArgument, format!("a part's number is 1 to {MAX_PARTS}, not {number}"))
    })
}

pub(super) async fn create_multipart_upload(
    face: &Face,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    Unkept {
        acl: input.acl.as_ref(),
        encryption: input.server_side_encryption.as_ref(),
        customer_key: input.sse_customer_algorithm.is_some() || input.sse_customer_key.is_some(),
        lock: input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some(),
        redirect: input.website_redirect_location.is_some(),
    }
    .check()?;
    let algorithm = input.checksum_algorithm.as_ref().map(|name| algorithm_of(name.as_str())).transpose()?;
    let composite = match (input.checksum_type.as_ref().map(ChecksumType::as_str), algorithm) {
        (None, Some(Algorithm::Crc64Nvme) | None) | (Some(ChecksumType::FULL_OBJECT), None) => false,
        (None, Some(_)) => true,
        (Some(ChecksumType::FULL_OBJECT), Some(algorithm)) if algorithm.joins() => false,
        (Some(ChecksumType::COMPOSITE), Some(algorithm)) if algorithm != Algorithm::Crc64Nvme => true,
        (Some(kind), algorithm) => {
            let name = algorithm.map_or("none", Algorithm::name);
            let why = format!("a checksum of type {kind} can't be had of algorithm {name}");
            return Err(refuse(S3ErrorCode::InvalidRequest, why));
        }
    };
    let options = UploadOptions {
        meta: user_meta(input.content_type, input.metadata),
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
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id.to_string()),
        checksum_type: algorithm.map(|_| ChecksumType::from_static(kind)),
        checksum_algorithm: input.checksum_algorithm,
        server_side_encryption: input.server_side_encryption,
        ..CreateMultipartUploadOutput::default()
    }))
}

/// The checksum to compute of the parts of an upload, if the client asks for none in particular.
fn wanted_of(upload: &UploadInfo) -> Algorithm {
    Algorithm::of_name(&upload.checksum).unwrap_or(Algorithm::Crc64Nvme)
}

pub(super) async fn upload_part(
    face: &Face,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let S3Request { input, headers: head, trailing_headers, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let (id, number) = (upload_id(&input.upload_id)?, part_number(input.part_number)?);
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
    let promised = promised.or_usual(wanted_of(&upload));
    if !upload.checksum.is_empty() && promised.algorithm() != wanted_of(&upload) {
        let why = format!("this upload was begun with checksums of algorithm {}", upload.checksum);
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    let (reader, digests) = take_body(face, input.body, input.content_length, promised).await?;
    let (told, known) = tokio::sync::oneshot::channel();
    let digests = async move {
        let digests = digests.await?;
        let _ = told.send(digests.clone());
        Ok(digests)
    };
    let put = face.node.put_part(&input.bucket, &input.key, &id, number, reader, digests).await;
    let stored = put.map_err(of_node)?;
    let digests = known.await.unwrap_or_default();
    let sums = Sums::of(&digests);
    Ok(S3Response::new(UploadPartOutput {
        e_tag: Some(etag(&digests, &stored.etag)),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        ..UploadPartOutput::default()
    }))
}

pub(super) async fn upload_part_copy(
    face: &Face,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let (from_bucket, from_key) = source(&request.input.copy_source)?;
    caller(&request)?.check(from_bucket, pando_core::access::Right::Read)?;
    let (from_bucket, from_key) = (from_bucket.to_owned(), from_key.to_owned());
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_owner(input.expected_source_bucket_owner.as_deref())?;
    let (id, number) = (upload_id(&input.upload_id)?, part_number(input.part_number)?);
    let upload = face.node.upload(&input.bucket, &input.key, &id).await.map_err(of_node)?;
    let found = face.node.stat(&from_bucket, &from_key, Consistency::Linearizable).await.map_err(of_node)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match.as_ref(),
        if_none_match: input.copy_source_if_none_match.as_ref(),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    conditions.check_of_source(&found)?;
    let range = input.copy_source_range.as_deref().map(|text| {
        let malformed =
            || refuse(S3ErrorCode::InvalidArgument, "x-amz-copy-source-range is bytes=FIRST-LAST");
        match Range::parse(text).map_err(|_| malformed())? {
            range @ Range::Int { first: _, last: Some(last) } if last < found.size => Ok(byte_range(range)),
            Range::Int { last: Some(_), .. } => {
                Err(refuse(S3ErrorCode::InvalidRange, "x-amz-copy-source-range lies outside the source"))
            }
            _ => Err(malformed()),
        }
    });
    let range = range.transpose()?;
    let algorithm = wanted_of(&upload);
    let knows_sum = found.digests.checksum.is_some_and(|sum| Algorithm::of(&sum) == algorithm);
    let whole = range.is_none() && found.digests.md5.is_some() && found.digests.parts.is_none() && knows_sum;
    let copied = match whole {
        true => {
            let from = (from_bucket.as_str(), from_key.as_str(), found.etag);
            let copied = face.node.copy_part(from, &input.bucket, &input.key, &id, number).await;
            copied.map_err(of_node)?
        }
        false => None,
    };
    let (stored, digests) = match copied {
        Some(done) => done,
        None => {
            let got = face.node.get(&from_bucket, &from_key, range, Consistency::Linearizable).await;
            let object = got.map_err(of_node)?;
            if object.info.etag != found.etag {
                return Err(refuse(S3ErrorCode::PreconditionFailed, "the source was replaced meanwhile"));
            }
            let length = object.range.end - object.range.start;
            let body = body::Outgoing::start(face, object);
            let promised = Promised::none().or_usual(algorithm);
            let (reader, digests) = take_body(face, Some(body), i64::try_from(length).ok(), promised).await?;
            let (told, known) = tokio::sync::oneshot::channel();
            let digests = async move {
                let digests = digests.await?;
                let _ = told.send(digests.clone());
                Ok(digests)
            };
            let put = face.node.put_part(&input.bucket, &input.key, &id, number, reader, digests).await;
            (put.map_err(of_node)?, known.await.unwrap_or_default())
        }
    };
    let sums = Sums::of(&digests);
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(CopyPartResult {
            e_tag: Some(etag(&digests, &stored.etag)),
            last_modified: Some(std::time::SystemTime::now().into()),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
        }),
        ..UploadPartCopyOutput::default()
    }))
}

pub(super) async fn list_parts(
    face: &Face,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let id = upload_id(&input.upload_id)?;
    let most = most(input.max_parts)?;
    let after = input.part_number_marker.unwrap_or(0).clamp(0, MAX_PARTS.into()) as u16;
    let upload = face.node.upload(&input.bucket, &input.key, &id).await.map_err(of_node)?;
    let listed = face.node.list_parts(&input.bucket, &input.key, &id, after, most).await;
    let page = listed.map_err(of_node)?;
    let parts = page.parts.into_iter().map(|part| {
        let sums = Sums::of(&part.digests);
        Part {
            part_number: Some(part.number.into()),
            size: Some(part.size as i64),
            last_modified: Some(timestamp(part.modified)),
            e_tag: Some(etag(&part.digests, &part.etag)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
        }
    });
    let algorithm = Algorithm::of_name(&upload.checksum);
    Ok(S3Response::new(ListPartsOutput {
        parts: Some(parts.collect()),
        is_truncated: Some(page.next.is_some()),
        next_part_number_marker: page.next.map(i32::from),
        part_number_marker: Some(after.into()),
        max_parts: Some(most as i32),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        owner: Some(owner()),
        checksum_algorithm: algorithm.map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..ListPartsOutput::default()
    }))
}

pub(super) async fn list_multipart_uploads(
    face: &Face,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    if input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty()) {
        return Err(refuse(S3ErrorCode::NotImplemented, "uploads are listed without a delimiter"));
    }
    let (most, encoded) = (most(input.max_uploads)?, is_encoded(input.encoding_type.as_ref())?);
    let name = |name: String| if encoded { url_encode(&name) } else { name };
    let after_id =
        input.upload_id_marker.as_deref().filter(|id| !id.is_empty()).map(upload_id).transpose()?;
    let after = input.key_marker.as_deref().filter(|key| !key.is_empty()).map(|key| (key, after_id));
    let prefix = input.prefix.clone().unwrap_or_default();
    let listed = face.node.list_uploads(&input.bucket, &prefix, after, most.max(1)).await;
    let mut page = listed.map_err(of_node)?;
    if most == 0 {
        page = Default::default();
    }
    let last = page.uploads.last().filter(|_| page.more).cloned();
    let uploads = page.uploads.into_iter().map(|upload| MultipartUpload {
        upload_id: Some(upload.id.to_string()),
        initiated: Some(timestamp(upload.created)),
        key: Some(name(upload.key)),
        owner: Some(owner()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..MultipartUpload::default()
    });
    Ok(S3Response::new(ListMultipartUploadsOutput {
        uploads: Some(uploads.collect()),
        is_truncated: Some(last.is_some()),
        next_upload_id_marker: last.as_ref().map(|last| last.id.to_string()),
        next_key_marker: last.map(|last| name(last.key)),
        key_marker: input.key_marker.map(name),
        upload_id_marker: input.upload_id_marker,
        max_uploads: Some(most as i32),
        encoding_type: encoded.then(|| EncodingType::from_static(EncodingType::URL)),
        prefix: input.prefix.map(name),
        bucket: Some(input.bucket),
        ..ListMultipartUploadsOutput::default()
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

/// What a client says of a part that it wants.
fn wanted_part(part: &CompletedPart) -> S3Result<WantedPart> {
    let number =
        part.part_number.ok_or_else(|| refuse(S3ErrorCode::MalformedXML, "a part has no PartNumber"))?;
    let number = part_number(number)?;
    let tag = part.e_tag.as_ref().ok_or_else(|| refuse(S3ErrorCode::MalformedXML, "a part has no ETag"))?;
    let md5 = data_encoding::HEXLOWER_PERMISSIVE.decode(tag.value().as_bytes()).ok();
    let md5 = md5.and_then(|md5| <[u8; 16]>::try_from(md5).ok());
    let wrong = || refuse(S3ErrorCode::InvalidPart, format!("part {number} has another ETag"));
    Ok(WantedPart { number, md5: Some(md5.ok_or_else(wrong)?) })
}

/// The hashes of an object, from those of its parts.
fn joined(parts: &[PartInfo], algorithm: Option<Algorithm>, composite: bool) -> Digests {
    let mut digests = Digests {
        md5: parts.iter().map(|part| part.digests.md5).collect::<Option<Vec<_>>>().map(md5_of_md5s),
        parts: Some(parts.len() as u16),
        ..Digests::default()
    };
    // If none was agreed on, what the parts came with, if that joins.
    let of_parts = parts.first().and_then(|part| part.digests.checksum.as_ref()).map(Algorithm::of);
    let Some(algorithm) = algorithm.or(of_parts.filter(|algorithm| algorithm.joins())) else {
        return digests;
    };
    let sums: Option<Vec<(Checksum, u64)>> = parts
        .iter()
        .map(|part| Some((part.digests.checksum.filter(|sum| Algorithm::of(sum) == algorithm)?, part.size)))
        .collect();
    let Some(sums) = sums else { return digests };
    digests.composite = composite;
    digests.checksum = match composite {
        true => {
            let all: Vec<u8> = sums.iter().flat_map(|(sum, _)| bytes_of(sum).to_vec()).collect();
            Some(algorithm.of_all(&all))
        }
        false => {
            let mut sums = sums.into_iter();
            let first = sums.next().map(|(sum, _)| sum);
            first.and_then(|first| sums.try_fold(first, |sum, (next, len)| algorithm.join(&sum, &next, len)))
        }
    };
    digests
}

pub(super) async fn complete_multipart_upload(
    face: &Face,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let id = upload_id(&input.upload_id)?;
    let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    if listed.is_empty() || listed.len() > usize::from(MAX_PARTS) {
        let why = format!("name 1 to {MAX_PARTS} parts; these are {}", listed.len());
        return Err(refuse(S3ErrorCode::MalformedXML, why));
    }
    let wanted: Vec<WantedPart> = listed.iter().map(wanted_part).collect::<S3Result<_>>()?;
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let upload = match face.node.upload(&input.bucket, &input.key, &id).await {
        // The node may know that it was completed already.
        Err(Error::NoSuchUpload(_)) => None,
        found => Some(found.map_err(of_node)?),
    };
    let (algorithm, composite) = match &upload {
        Some(upload) => (Algorithm::of_name(&upload.checksum), upload.composite),
        None => (None, false),
    };
    let given = Sums {
        crc32: input.checksum_crc32,
        crc32c: input.checksum_crc32c,
        crc64nvme: input.checksum_crc64nvme,
        sha1: input.checksum_sha1,
        sha256: input.checksum_sha256,
        kind: None,
    };
    let mut refused = None;
    let digests = |parts: &[PartInfo]| {
        let digests = joined(parts, algorithm, composite);
        match check_parts(parts, &listed, &given, input.mpu_object_size, &digests) {
            Ok(()) => Ok(digests),
            Err(error) => {
                refused = Some(error);
                Err(Error::Source(std::io::Error::other("refused")))
            }
        }
    };
    let done = face.node.complete_upload(&input.bucket, &input.key, &id, &wanted, condition, digests).await;
    let (stored, digests) = match (done, refused) {
        (_, Some(refused)) => return Err(refused),
        (done, None) => done.map_err(of_node)?,
    };
    let sums = Sums::of(&digests);
    Ok(S3Response::new(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, url_encode(&input.key))),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(etag(&digests, &stored.etag)),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: sums.kind,
        ..CompleteMultipartUploadOutput::default()
    }))
}

/// Checks sizes and checksums of the parts, and of the whole, against what the client says.
fn check_parts(
    parts: &[PartInfo],
    listed: &[CompletedPart],
    given: &Sums,
    size: Option<i64>,
    digests: &Digests,
) -> S3Result<()> {
    let small = parts.split_last().and_then(|(_, before)| before.iter().find(|part| part.size < LEAST));
    if let Some(small) = small {
        let why =
            format!("part {} has {} bytes; all but the last have {LEAST} or more", small.number, small.size);
        return Err(refuse(S3ErrorCode::EntityTooSmall, why));
    }
    for (part, said) in parts.iter().zip(listed) {
        let sums = Sums {
            crc32: said.checksum_crc32.clone(),
            crc32c: said.checksum_crc32c.clone(),
            crc64nvme: said.checksum_crc64nvme.clone(),
            sha1: said.checksum_sha1.clone(),
            sha256: said.checksum_sha256.clone(),
            kind: None,
        };
        let given = sums.given()?.map(|(_, sum)| sum);
        if given.is_some() && given != part.digests.checksum {
            return Err(refuse(
                S3ErrorCode::InvalidPart,
                format!("part {} has another checksum", part.number),
            ));
        }
    }
    let total: u64 = parts.iter().map(|part| part.size).sum();
    if size.is_some_and(|size| u64::try_from(size) != Ok(total)) {
        let why = format!("the parts have {total} bytes together, not what x-amz-mp-object-size says");
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    if digests.composite {
        return Ok(());
    }
    match given.given()? {
        Some((algorithm, sum)) if digests.checksum != Some(sum) => {
            Err(refuse(S3ErrorCode::BadDigest, format!("the {} of the whole is another", algorithm.name())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Hasher, md5_of};

    fn part(number: u16, bytes: &[u8], algorithm: Algorithm) -> PartInfo {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        PartInfo {
            number,
            size: bytes.len() as u64,
            modified: 0,
            etag: WriteId([0; 16]),
            digests: hasher.finish(),
        }
    }

    #[test]
    fn hashes_of_parts_join() {
        for algorithm in crate::digest::ALGORITHMS {
            let parts = [part(1, b"hello ", algorithm), part(2, b"world", algorithm)];
            let whole = joined(&parts, Some(algorithm), false);
            let expected = Some(algorithm.of_all(b"hello world")).filter(|_| algorithm.joins());
            assert_eq!((whole.checksum, whole.parts), (expected, Some(2)));
            assert_eq!(whole.md5, Some(md5_of(&[md5_of(b"hello "), md5_of(b"world")].concat())));
            let composite = joined(&parts, Some(algorithm), true);
            let of_sums = [algorithm.of_all(b"hello "), algorithm.of_all(b"world")];
            let of_sums: Vec<u8> = of_sums.iter().flat_map(|sum| bytes_of(sum).to_vec()).collect();
            assert_eq!(composite.checksum, Some(algorithm.of_all(&of_sums)));
        }
    }
}
