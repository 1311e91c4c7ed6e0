//! Reading objects: which bytes are meant, whether they may be had, and what decrypts them.

use std::ops;

use http::{HeaderMap, StatusCode};
use pando_node::{ByteRange, Object, ObjectInfo, VersionId};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    resume::goes_on,
    shape::{ReadConditions, Sums, check_owner, etag_of, expires, metadata, timestamp},
    version::{not_found, told, version_of},
};
use crate::{
    body,
    error::{of_node, refuse},
    sse::{self, Cipher, Given, said},
    waiters::Leave,
};

/// How often a read starts again because the object was replaced between two looks at it.
const ATTEMPTS: usize = 5;

/// What a client wants to read.
pub(super) struct Wanted<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    /// Which version; `None`: the current one.
    pub(super) version: Option<VersionId>,
    pub(super) range: Option<Range>,
    /// The number of the part that is wanted, of those that the object was uploaded in.
    pub(super) part: Option<i32>,
    /// The client's key, if it gave one.
    pub(super) given: Option<&'a Given>,
}

/// What there is to read.
pub(super) struct Found {
    pub(super) info: ObjectInfo,
    /// The bytes that are meant, if these are not all.
    pub(super) range: Option<ops::Range<u64>>,
    /// What decrypts them, if they are encrypted with the client's key.
    pub(super) cipher: Option<Cipher>,
}

impl Found {
    /// How many bytes are meant.
    pub(super) fn length(&self) -> u64 {
        self.range.as_ref().map_or(self.info.size, |range| range.end - range.start)
    }

    /// The header that says which bytes these are.
    fn content_range(&self) -> Option<String> {
        let range = self.range.as_ref().filter(|range| !range.is_empty())?;
        Some(format!("bytes {}-{}/{}", range.start, range.end - 1, self.info.size))
    }
}

impl Wanted<'_> {
    /// Looks the object up.
    pub(super) async fn find(&self, face: &Face) -> S3Result<Found> {
        if self.part.is_none() && self.given.is_none() {
            let found = face.node.stat_version(self.bucket, self.key, self.version).await;
            let info = found.map_err(|error| not_found(error, self.version))?;
            sse::open(&info.meta, None)?;
            return Ok(Found { range: self.range_of(info.size)?, info, cipher: None });
        }
        let found = face.node.parts(self.bucket, self.key, self.version).await;
        let parts = found.map_err(|error| not_found(error, self.version))?;
        let lock = sse::open(&parts.info.meta, self.given)?;
        let range = match (self.part, self.range) {
            (None, _) => self.range_of(parts.info.size)?,
            (Some(_), Some(_)) => {
                let why = "give a range or a part number, not both";
                return Err(refuse(S3ErrorCode::InvalidRequest, why));
            }
            (Some(number), None) => Some(part_range(number, &parts.sizes)?),
        };
        let cipher = lock.zip(self.given).map(|(lock, given)| match parts.salts.as_slice() {
            [] => Cipher::whole(&given.key, &lock),
            salts => Cipher::of_parts(&given.key, &parts.sizes, salts),
        });
        Ok(Found { info: parts.info, range, cipher })
    }

    fn range_of(&self, size: u64) -> S3Result<Option<ops::Range<u64>>> {
        self.range.map(byte_range).map(|range| range.of(size)).transpose().map_err(of_node)
    }

    /// Opens it for reading; no object if no byte is meant.
    pub(super) async fn open(&self, face: &Face) -> S3Result<(Found, Option<Object>)> {
        if self.part.is_none() && self.given.is_none() {
            let range = self.range.map(byte_range);
            let got = face.node.get_version(self.bucket, self.key, self.version, range).await;
            let object = got.map_err(|error| not_found(error, self.version))?;
            sse::open(&object.info.meta, None)?;
            let range = self.range.is_some().then(|| object.range.clone());
            return Ok((Found { info: object.info.clone(), range, cipher: None }, Some(object)));
        }
        for _ in 0..ATTEMPTS {
            let found = self.find(face).await?;
            let range = match &found.range {
                Some(range) if range.is_empty() => return Ok((found, None)),
                Some(range) => Some(ByteRange::Inclusive(range.start, range.end - 1)),
                None => None,
            };
            match face.node.get_version(self.bucket, self.key, self.version, range).await {
                Ok(object) if object.info.etag == found.info.etag => return Ok((found, Some(object))),
                // The range was that of another version.
                Ok(_) | Err(pando_node::Error::Range { .. }) => {}
                Err(error) => return Err(not_found(error, self.version)),
            }
        }
        Err(refuse(S3ErrorCode::SlowDown, "the object is being replaced again and again"))
    }
}

impl<'a> Wanted<'a> {
    /// Drops a range that can't be had if this is not what the client has a part of (`If-Range`); fails if it is. The
    /// conditions count before both (RFC 9110, section 13.2.2).
    async fn without_range(
        self,
        face: &Face,
        headers: &HeaderMap,
        conditions: &ReadConditions<'_>,
        error: S3Error,
    ) -> S3Result<Self> {
        let whole = Wanted { range: None, ..self };
        let info = whole.find(face).await?.info;
        conditions.check(&info)?;
        if goes_on(headers, &info) { Err(error) } else { Ok(whole) }
    }
}

/// Whether a range lies outside of what there is.
fn is_outside(error: &S3Error) -> bool {
    *error.code() == S3ErrorCode::InvalidRange
}

pub(super) fn byte_range(range: Range) -> ByteRange {
    match range {
        Range::Int { first, last: Some(last) } => ByteRange::Inclusive(first, last),
        Range::Int { first, last: None } => ByteRange::From(first),
        Range::Suffix { length } => ByteRange::Last(length),
    }
}

/// The bytes of a part. Parts are numbered from 1 as they follow each other, whatever their numbers were when they
/// were uploaded.
fn part_range(number: i32, sizes: &[u64]) -> S3Result<ops::Range<u64>> {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).ok_or_else(|| {
        refuse(S3ErrorCode::InvalidArgument, format!("a part's number is 1 or more, not {number}"))
    })?;
    if index >= sizes.len() {
        let why = format!("this object has {} parts, there is no part {number}", sizes.len());
        let mut error = S3Error::with_message(S3ErrorCode::Custom("InvalidPartNumber".into()), why);
        error.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE);
        return Err(error);
    }
    let start: u64 = sizes[..index].iter().sum();
    Ok(start..start + sizes[index])
}

/// How many parts an object has, for a client that asks for one of them.
fn parts_count(info: &ObjectInfo, part: Option<i32>) -> Option<i32> {
    part.and(info.digests.parts).map(i32::from)
}

/// What a client is told of content whose type nobody gave.
fn content_type(info: &ObjectInfo) -> String {
    info.meta.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned())
}

pub(super) async fn get_object(
    face: &Face,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let S3Request { input, extensions, headers, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let given = sse::given(said!(input), &extensions)?;
    let mut wanted = Wanted {
        bucket: &input.bucket,
        key: &input.key,
        version: version_of(input.version_id.as_deref())?,
        range: input.range,
        part: input.part_number,
        given: given.as_ref(),
    };
    let conditions = ReadConditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    let (mut found, mut object) = match wanted.open(face).await {
        Err(error) if is_outside(&error) => {
            wanted = wanted.without_range(face, &headers, &conditions, error).await?;
            wanted.open(face).await?
        }
        opened => opened?,
    };
    if wanted.range.is_some() && !goes_on(&headers, &found.info) {
        wanted.range = None;
        (found, object) = wanted.open(face).await?;
    }
    conditions.check(&found.info)?;
    let (length, content_range) = (found.length(), found.content_range());
    let sums = sums_for(input.checksum_mode.is_some(), &found);
    let Found { info, cipher, .. } = found;
    let (sse_customer_algorithm, sse_customer_key_md5) = sse::echo(given.as_ref());
    let leave = extensions.get::<Leave>().cloned();
    let deliver = |object| body::Outgoing::start(face, object, cipher, leave);
    Ok(S3Response::new(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_range,
        content_length: Some(length as i64),
        content_type: Some(content_type(&info)),
        expires: expires(&info.headers),
        e_tag: Some(etag_of(&info)),
        last_modified: Some(timestamp(info.modified)),
        version_id: told(info.version),
        metadata: metadata(&info.meta),
        tag_count: Some(info.tags.len() as i32).filter(|count| *count > 0),
        parts_count: parts_count(&info, input.part_number),
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
        sse_customer_algorithm,
        sse_customer_key_md5,
        body: object.map(deliver),
        ..GetObjectOutput::default()
    }))
}

/// The checksums of the whole, for a client that asked for them and gets the whole.
fn sums_for(asked: bool, found: &Found) -> Sums {
    match asked && found.length() == found.info.size {
        true => Sums::of(&found.info.digests),
        false => Sums::default(),
    }
}

pub(super) async fn head_object(
    face: &Face,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let S3Request { input, extensions, headers, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let given = sse::given(said!(input), &extensions)?;
    let mut wanted = Wanted {
        bucket: &input.bucket,
        key: &input.key,
        version: version_of(input.version_id.as_deref())?,
        range: input.range,
        part: input.part_number,
        given: given.as_ref(),
    };
    let conditions = ReadConditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    let mut found = match wanted.find(face).await {
        Err(error) if is_outside(&error) => {
            wanted = wanted.without_range(face, &headers, &conditions, error).await?;
            wanted.find(face).await?
        }
        found => found?,
    };
    if wanted.range.is_some() && !goes_on(&headers, &found.info) {
        found.range = None;
    }
    conditions.check(&found.info)?;
    let (length, content_range) = (found.length(), found.content_range());
    let sums = sums_for(input.checksum_mode.is_some(), &found);
    let info = found.info;
    let (sse_customer_algorithm, sse_customer_key_md5) = sse::echo(given.as_ref());
    Ok(S3Response::new(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_range,
        content_length: Some(length as i64),
        content_type: Some(content_type(&info)),
        expires: expires(&info.headers),
        e_tag: Some(etag_of(&info)),
        last_modified: Some(timestamp(info.modified)),
        version_id: told(info.version),
        metadata: metadata(&info.meta),
        parts_count: parts_count(&info, input.part_number),
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
        sse_customer_algorithm,
        sse_customer_key_md5,
        ..HeadObjectOutput::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_from_one() {
        let range = |number| part_range(number, &[5, 0, 7]);
        assert_eq!(range(1).ok(), Some(0..5));
        assert_eq!(range(2).ok(), Some(5..5));
        assert_eq!(range(3).ok(), Some(5..12));
        let code = |number| range(number).err().map(|error| error.code().as_str().to_owned());
        assert_eq!(code(4).as_deref(), Some("InvalidPartNumber"));
        assert_eq!(code(0).as_deref(), Some("InvalidArgument"));
        assert_eq!(code(-1).as_deref(), Some("InvalidArgument"));
    }
}
