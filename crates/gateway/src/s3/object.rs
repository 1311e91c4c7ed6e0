//! Objects: put, get, head, and what is asked about them.

use std::io;

use pando_core::record::Digests;
use pando_node::{ByteRange, Consistency, ObjectInfo, PutOptions};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, TrailingHeaders, dto::*};

use super::{
    Face,
    bucket::full_control,
    remove::check_version,
    shape::{
        ReadConditions, Sums, check_owner, etag, etag_of, expires, headers, metadata, owner, tags_of_header,
        timestamp, user_meta, write_condition,
    },
};
use crate::{
    body::{self, BodyError},
    digest::{Algorithm, md5_of},
    error::{of_body, of_node, refuse},
};

/// What is computed when a client asks for no checksum, as in S3.
const USUAL: Algorithm = Algorithm::Crc64Nvme;

/// What a client promised about the body that it sends.
pub(super) struct Promised {
    md5: Option<[u8; 16]>,
    checksum: Option<(Algorithm, Expected)>,
}

enum Expected {
    /// Given with the head.
    Given(pando_core::record::Checksum),
    /// To come after the body.
    Trailing(TrailingHeaders),
    /// Not given: computed, and returned.
    Computed,
}

impl Promised {
    /// What the head of a request promises.
    pub(super) fn of(
        content_md5: Option<&str>,
        sums: &Sums,
        wanted: Option<&ChecksumAlgorithm>,
        head: &http::HeaderMap,
        trailing: Option<TrailingHeaders>,
    ) -> S3Result<Self> {
        let md5 = content_md5.map(|text| {
            let bytes = data_encoding::BASE64.decode(text.as_bytes()).ok();
            bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
                refuse(S3ErrorCode::InvalidDigest, "Content-MD5 is not the base64 of 16 bytes")
            })
        });
        let announced = match (head.get("x-amz-trailer").and_then(|value| value.to_str().ok()), trailing) {
            (Some(name), Some(trailing)) => {
                let algorithm = Algorithm::of_header(name.trim()).ok_or_else(|| {
                    refuse(S3ErrorCode::InvalidRequest, "x-amz-trailer announces one x-amz-checksum-… header")
                })?;
                Some((algorithm, Expected::Trailing(trailing)))
            }
            _ => None,
        };
        let given = sums.given()?.map(|(algorithm, sum)| (algorithm, Expected::Given(sum)));
        if given.is_some() && announced.is_some() {
            return Err(refuse(S3ErrorCode::InvalidRequest, "give a checksum in a header or in the trailer"));
        }
        let wanted = match wanted.map(ChecksumAlgorithm::as_str) {
            Some(name) => Some((algorithm_of(name)?, Expected::Computed)),
            None => None,
        };
        Ok(Self { md5: md5.transpose()?, checksum: given.or(announced).or(wanted) })
    }

    /// Of a body that nothing was said about.
    pub(super) fn none() -> Self {
        Self { md5: None, checksum: None }
    }

    /// With the checksum to compute if the client asks for none.
    pub(super) fn or_usual(self, algorithm: Algorithm) -> Self {
        Self { checksum: self.checksum.or(Some((algorithm, Expected::Computed))), ..self }
    }

    /// The checksum to compute.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.checksum.as_ref().map_or(USUAL, |(algorithm, _)| *algorithm)
    }

    /// Fails if what came is not what was promised.
    fn check(&self, found: &Digests) -> Result<(), BodyError> {
        if self.md5.is_some() && self.md5 != found.md5 {
            return Err(BodyError::Digest("Content-MD5"));
        }
        let wrong = |algorithm: Algorithm| BodyError::Digest(algorithm.name());
        match &self.checksum {
            None | Some((_, Expected::Computed)) => Ok(()),
            Some((algorithm, Expected::Given(sum))) => match found.checksum == Some(*sum) {
                true => Ok(()),
                false => Err(wrong(*algorithm)),
            },
            Some((algorithm, Expected::Trailing(trailing))) => {
                let name = format!("x-amz-checksum-{}", algorithm.name().to_ascii_lowercase());
                let found_there = trailing.read(|headers| {
                    let extra = headers.keys().find(|other| **other != *name);
                    (headers.get(&name).cloned(), extra.map(ToString::to_string))
                });
                let (value, extra) = found_there.unwrap_or_default();
                if let Some(extra) = extra {
                    return Err(BodyError::Trailer(format!("the trailer {extra} was not announced")));
                }
                let value =
                    value.ok_or_else(|| BodyError::Trailer(format!("the trailer {name} did not come")))?;
                let sum = value.to_str().ok().and_then(|text| algorithm.parse(text.trim()));
                let sum =
                    sum.ok_or_else(|| BodyError::Trailer(format!("the trailer {name} is malformed")))?;
                if found.checksum == Some(sum) { Ok(()) } else { Err(wrong(*algorithm)) }
            }
        }
    }
}

/// The algorithm that a client names.
pub(super) fn algorithm_of(name: &str) -> S3Result<Algorithm> {
    Algorithm::of_name(name).ok_or_else(|| {
        refuse(S3ErrorCode::InvalidRequest, format!("there is no checksum algorithm {name:?}"))
    })
}

/// A request's body, with the check that follows it.
pub(super) async fn take_body(
    face: &Face,
    body: Option<StreamingBlob>,
    length: Option<i64>,
    promised: Promised,
) -> S3Result<(body::Pieces, impl Future<Output = io::Result<Digests>> + Send)> {
    let negative = |_| refuse(S3ErrorCode::InvalidArgument, "Content-Length can't be negative");
    let length = length.map(u64::try_from).transpose().map_err(negative)?;
    let taken = body::take(body, length, promised.algorithm(), &face.metrics).await;
    let body::Incoming { reader, digests } = taken.map_err(|error| of_body(&error))?;
    let checked = async move {
        let found = digests.get().await?;
        promised.check(&found).map_err(BodyError::into_io)?;
        Ok(found)
    };
    Ok((reader, checked))
}

/// Refuses what would be promised and not kept.
pub(super) struct Unkept<'a> {
    pub(super) acl: Option<&'a ObjectCannedACL>,
    pub(super) encryption: Option<&'a ServerSideEncryption>,
    pub(super) customer_key: bool,
    pub(super) lock: bool,
    pub(super) redirect: bool,
}

impl Unkept<'_> {
    pub(super) fn check(&self) -> S3Result<()> {
        let refused = |why: &'static str| Err(refuse(S3ErrorCode::NotImplemented, why));
        match self.acl.map(ObjectCannedACL::as_str) {
            None | Some(ObjectCannedACL::PRIVATE | ObjectCannedACL::BUCKET_OWNER_FULL_CONTROL) => {}
            Some(_) => {
                return refused("objects have no access control lists: grant access keys rights on buckets");
            }
        }
        if self.encryption.is_some_and(|how| how.as_str() != ServerSideEncryption::AES256) {
            return refused("every object is encrypted with AES-256 by keys of the network; there is no KMS");
        }
        if self.customer_key {
            return refused("encryption with keys of the client (SSE-C) is not supported");
        }
        if self.lock {
            return refused("object lock is not supported");
        }
        if self.redirect {
            return refused("redirects of websites are not supported");
        }
        Ok(())
    }
}

pub(super) async fn put_object(
    face: &Face,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let S3Request { input, headers: head, trailing_headers, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    Unkept {
        acl: input.acl.as_ref(),
        encryption: input.server_side_encryption.as_ref(),
        customer_key: input.sse_customer_algorithm.is_some() || input.sse_customer_key.is_some(),
        lock: input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some(),
        redirect: input.website_redirect_location.is_some(),
    }
    .check()?;
    if input.write_offset_bytes.is_some() {
        return Err(refuse(S3ErrorCode::NotImplemented, "objects can't be appended to"));
    }
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
    let options = PutOptions {
        condition: write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?,
        meta: user_meta(input.content_type, input.metadata),
        headers: headers(
            input.cache_control,
            input.content_disposition,
            input.content_encoding,
            input.content_language,
            input.expires.as_ref(),
        ),
        tags: tags_of_header(input.tagging.as_deref())?,
    };
    let (reader, digests) = take_body(face, input.body, input.content_length, promised).await?;
    let (told, known) = tokio::sync::oneshot::channel();
    let digests = async move {
        let digests = digests.await?;
        let _ = told.send(digests.clone());
        Ok(digests)
    };
    let if_match = input.if_match.is_some();
    let stored =
        face.node.put_with(&input.bucket, &input.key, reader, options, digests).await.map_err(|error| {
            match error {
                // What is to be replaced is not there.
                pando_node::Error::Precondition { current: None } if if_match => {
                    refuse(S3ErrorCode::NoSuchKey, "If-Match: there is no such object")
                }
                error => of_node(error),
            }
        })?;
    let digests = known.await.unwrap_or_default();
    let sums = Sums::of(&digests);
    Ok(S3Response::new(PutObjectOutput {
        e_tag: Some(etag(&digests, &stored.etag)),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: sums.kind,
        server_side_encryption: input.server_side_encryption,
        ..PutObjectOutput::default()
    }))
}

pub(super) fn byte_range(range: Range) -> ByteRange {
    match range {
        Range::Int { first, last: Some(last) } => ByteRange::Inclusive(first, last),
        Range::Int { first, last: None } => ByteRange::From(first),
        Range::Suffix { length } => ByteRange::Last(length),
    }
}

/// The part that a client wants of an object that was put in one piece: there is but the first.
fn check_part(part: Option<i32>, range: Option<Range>, info: &ObjectInfo) -> S3Result<()> {
    match (part, range) {
        (None, _) => Ok(()),
        (Some(_), Some(_)) => {
            Err(refuse(S3ErrorCode::InvalidRequest, "give a range or a part number, not both"))
        }
        (Some(1), None) if info.digests.parts.is_none() => Ok(()),
        (Some(_), None) if info.digests.parts.is_some() => {
            Err(refuse(S3ErrorCode::NotImplemented, "single parts of an object can't be read; use a range"))
        }
        (Some(_), None) => Err(refuse(S3ErrorCode::InvalidPart, "this object has one part")),
    }
}

pub(super) async fn get_object(
    face: &Face,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_version(input.version_id.as_deref())?;
    let range = input.range.map(byte_range);
    let got = face.node.get(&input.bucket, &input.key, range, Consistency::Linearizable).await;
    let object = got.map_err(of_node)?;
    let info = &object.info;
    ReadConditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    }
    .check(info)?;
    check_part(input.part_number, input.range, info)?;
    let is_range = input.range.is_some();
    let sums = match input.checksum_mode.is_some() && !is_range {
        true => Sums::of(&info.digests),
        false => Sums::default(),
    };
    let length = object.range.end - object.range.start;
    let last = object.range.end.saturating_sub(1);
    Ok(S3Response::new(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_range: is_range.then(|| format!("bytes {}-{last}/{}", object.range.start, info.size)),
        content_length: Some(length as i64),
        cache_control: info.headers.cache_control.clone(),
        content_disposition: info.headers.content_disposition.clone(),
        content_encoding: info.headers.content_encoding.clone(),
        content_language: info.headers.content_language.clone(),
        content_type: Some(content_type(info)),
        expires: expires(&info.headers),
        e_tag: Some(etag_of(info)),
        last_modified: Some(timestamp(info.modified)),
        metadata: metadata(&info.meta),
        tag_count: Some(info.tags.len() as i32).filter(|count| *count > 0),
        parts_count: input.part_number.map(|_| 1),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: sums.kind,
        body: Some(body::Outgoing::start(face, object)),
        ..GetObjectOutput::default()
    }))
}

/// What a client is told of content whose type nobody gave.
fn content_type(info: &ObjectInfo) -> String {
    info.meta.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned())
}

pub(super) async fn head_object(
    face: &Face,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_version(input.version_id.as_deref())?;
    let found = face.node.stat(&input.bucket, &input.key, Consistency::Linearizable).await;
    let info = found.map_err(of_node)?;
    ReadConditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    }
    .check(&info)?;
    check_part(input.part_number, input.range, &info)?;
    let range = input.range.map(byte_range).map(|range| range.of(info.size)).transpose().map_err(of_node)?;
    let length = range.as_ref().map_or(info.size, |range| range.end - range.start);
    let sums = match input.checksum_mode.is_some() && range.is_none() {
        true => Sums::of(&info.digests),
        false => Sums::default(),
    };
    Ok(S3Response::new(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_range: range.map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, info.size)),
        content_length: Some(length as i64),
        content_type: Some(content_type(&info)),
        expires: expires(&info.headers),
        e_tag: Some(etag_of(&info)),
        last_modified: Some(timestamp(info.modified)),
        metadata: metadata(&info.meta),
        parts_count: input.part_number.map(|_| 1),
        cache_control: info.headers.cache_control,
        content_disposition: info.headers.content_disposition,
        content_encoding: info.headers.content_encoding,
        content_language: info.headers.content_language,
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: sums.kind,
        ..HeadObjectOutput::default()
    }))
}

pub(super) async fn get_object_acl(
    face: &Face,
    request: S3Request<GetObjectAclInput>,
) -> S3Result<S3Response<GetObjectAclOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    face.node.stat(&input.bucket, &input.key, Consistency::Linearizable).await.map_err(of_node)?;
    Ok(S3Response::new(GetObjectAclOutput {
        grants: Some(vec![full_control()]),
        owner: Some(owner()),
        request_charged: None,
    }))
}

pub(super) async fn get_object_attributes(
    face: &Face,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_version(input.version_id.as_deref())?;
    let found = face.node.stat(&input.bucket, &input.key, Consistency::Linearizable).await;
    let info = found.map_err(of_node)?;
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
    let parts = info.digests.parts.map(|parts| GetObjectAttributesParts {
        total_parts_count: Some(parts.into()),
        ..GetObjectAttributesParts::default()
    });
    Ok(S3Response::new(GetObjectAttributesOutput {
        checksum: wants(ObjectAttributes::CHECKSUM).then_some(checksum),
        e_tag: wants(ObjectAttributes::ETAG).then(|| etag_of(&info)),
        last_modified: Some(timestamp(info.modified)),
        object_parts: parts.filter(|_| wants(ObjectAttributes::OBJECT_PARTS)),
        object_size: wants(ObjectAttributes::OBJECT_SIZE).then_some(info.size as i64),
        storage_class: wants(ObjectAttributes::STORAGE_CLASS)
            .then(|| StorageClass::from_static(StorageClass::STANDARD)),
        ..GetObjectAttributesOutput::default()
    }))
}

/// The ETag of an object of several parts: the MD5 of their MD5s.
pub(super) fn md5_of_md5s(md5s: impl IntoIterator<Item = [u8; 16]>) -> [u8; 16] {
    md5_of(&md5s.into_iter().flatten().collect::<Vec<u8>>())
}
