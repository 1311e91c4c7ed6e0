//! Putting objects, and what every body that comes in goes through.

use std::io;

use pando_core::record::Digests;
use pando_node::{Condition, Error, PutOptions, VersionId};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, TrailingHeaders, dto::*};
use tokio::sync::oneshot;

use super::{
    Face,
    shape::{Sums, check_owner, etag, headers, tags_of_header, user_meta, write_condition},
    version::told,
};
use crate::{
    body::{self, BodyError},
    digest::{Algorithm, md5_of},
    error::{of_body, of_node, refuse},
    sse::{self, Given, Sealing, said},
};

/// What is computed when a client asks for no checksum, as in S3.
const USUAL: Algorithm = Algorithm::Crc64Nvme;

/// What a client promised about the body that it sends.
pub(crate) struct Promised {
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
    pub(crate) fn of(
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
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.checksum.as_ref().map_or(USUAL, |(algorithm, _)| *algorithm)
    }

    /// Fails if what came is not what was promised.
    pub(crate) fn check(&self, found: &Digests) -> Result<(), BodyError> {
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

/// A request's body on its way to the node.
pub(super) struct Taken<D> {
    pub(super) reader: body::Pieces,
    /// What is kept of the body's hashes, once they were checked; for the node, when all was read.
    pub(super) digests: D,
    /// The same, for the answer.
    pub(super) known: oneshot::Receiver<Digests>,
}

/// A request's body, with the check that follows it; encrypted if it is to be.
pub(super) async fn take_body(
    face: &Face,
    body: Option<StreamingBlob>,
    length: Option<u64>,
    promised: Promised,
    sealing: Option<Sealing>,
) -> S3Result<Taken<impl Future<Output = io::Result<Digests>> + Send>> {
    let cipher = sealing.as_ref().map(Sealing::cipher);
    let taken = body::take(body, length, promised.algorithm(), cipher, &face.metrics).await;
    let body::Incoming { reader, digests } = taken.map_err(|error| of_body(&error))?;
    let (told, known) = oneshot::channel();
    let digests = async move {
        let found = digests.get().await?;
        promised.check(&found).map_err(BodyError::into_io)?;
        let kept = match sealing {
            Some(sealing) => sealing.mask(found),
            None => found,
        };
        // Whoever asked may be gone.
        let _ = told.send(kept.clone());
        Ok(kept)
    };
    Ok(Taken { reader, digests, known })
}

/// The length that a request declares: of what is framed (`aws-chunked`) and comes without Content-Length, the decoded
/// one. `s3s` takes the end of such a body for its last chunk, so nothing else would tell that it ended early.
pub(super) fn length(declared: Option<i64>, head: &http::HeaderMap) -> S3Result<Option<u64>> {
    let negative = |_| refuse(S3ErrorCode::InvalidArgument, "Content-Length can't be negative");
    let declared = declared.map(u64::try_from).transpose().map_err(negative)?;
    let Some(decoded) = head.get("x-amz-decoded-content-length").filter(|_| declared.is_none()) else {
        return Ok(declared);
    };
    let decoded = decoded.to_str().ok().and_then(|text| text.parse().ok());
    let malformed = || refuse(S3ErrorCode::InvalidArgument, "x-amz-decoded-content-length is not a length");
    decoded.map(Some).ok_or_else(malformed)
}

/// Refuses what would be promised and not kept.
pub(crate) struct Unkept<'a> {
    pub(crate) acl: Option<&'a ObjectCannedACL>,
    pub(crate) encryption: Option<&'a ServerSideEncryption>,
    /// Whether a key of the client is given.
    pub(crate) customer_key: bool,
    pub(crate) lock: bool,
    pub(crate) redirect: bool,
    pub(crate) grants: bool,
}

/// Whether a request grants somebody something (`x-amz-grant-…`).
pub(super) fn grants(head: &http::HeaderMap) -> bool {
    head.keys().any(|name| name.as_str().starts_with("x-amz-grant-"))
}

impl Unkept<'_> {
    pub(crate) fn check(&self) -> S3Result<()> {
        let refused = |why: &'static str| Err(refuse(S3ErrorCode::NotImplemented, why));
        match self.acl.map(ObjectCannedACL::as_str) {
            None | Some(ObjectCannedACL::PRIVATE | ObjectCannedACL::BUCKET_OWNER_FULL_CONTROL) => {}
            Some(_) => {
                return refused("objects have no access control lists: grant access keys rights on buckets");
            }
        }
        if self.grants {
            return refused("objects have no grants (x-amz-grant-…): grant access keys rights on buckets");
        }
        if self.encryption.is_some_and(|how| how.as_str() != ServerSideEncryption::AES256) {
            return refused("every object is encrypted with AES-256 by keys of the network; there is no KMS");
        }
        if self.encryption.is_some() && self.customer_key {
            let why = "ask for encryption by keys of the network or by a key of the client (SSE-C), not both";
            return Err(refuse(S3ErrorCode::InvalidArgument, why));
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

/// An object to put.
pub(crate) struct NewObject<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) options: PutOptions,
    pub(crate) promised: Promised,
    pub(crate) body: Option<StreamingBlob>,
    /// Its length, if it is known.
    pub(crate) length: Option<u64>,
    /// What it is to be encrypted with, if the client wants that.
    pub(crate) given: Option<&'a Given>,
}

/// An object that was put.
pub(crate) struct Written {
    pub(crate) etag: ETag,
    /// Its version id, where versions are, or were, kept.
    pub(crate) version: Option<VersionId>,
    pub(crate) sums: Sums,
}

/// What a write is told that is to replace or remove what isn't there.
pub(super) fn nothing_to_match() -> S3Error {
    refuse(S3ErrorCode::NoSuchKey, "If-Match: there is no such object")
}

/// Whether a condition asks for an object that is there.
pub(super) fn is_of_existing(condition: Condition) -> bool {
    matches!(condition, Condition::Exists | Condition::Match(_) | Condition::Md5(_))
}

/// Puts an object, whatever it came by.
pub(crate) async fn store(face: &Face, new: NewObject<'_>) -> S3Result<Written> {
    let NewObject { bucket, key, mut options, promised, body, length, given } = new;
    let sealing = given.map(Sealing::begin).transpose()?;
    if let Some(sealing) = &sealing {
        sealing.lock.enter(&mut options.meta);
    }
    let Taken { reader, digests, known } = take_body(face, body, length, promised, sealing).await?;
    let replaces = is_of_existing(options.condition);
    let put = face.node.put_with(bucket, key, reader, options, digests).await;
    let stored = put.map_err(|error| match error {
        Error::Precondition { current: None } if replaces => nothing_to_match(),
        error => of_node(error),
    })?;
    let digests = known.await.unwrap_or_default();
    let etag = etag(&digests, &stored.etag);
    Ok(Written { etag, version: stored.version, sums: Sums::of(&digests) })
}

pub(super) async fn put_object(
    face: &Face,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let S3Request { input, headers: head, trailing_headers, extensions, .. } = request;
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
    let new = NewObject {
        bucket: &input.bucket,
        key: &input.key,
        options: PutOptions {
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
        },
        promised: Promised::of(input.content_md5.as_deref(), &sums, wanted, &head, trailing_headers)?,
        body: input.body,
        length: length(input.content_length, &head)?,
        given: given.as_ref(),
    };
    let Written { etag, version, sums } = store(face, new).await?;
    let (sse_customer_algorithm, sse_customer_key_md5) = sse::echo(given.as_ref());
    Ok(S3Response::new(PutObjectOutput {
        e_tag: Some(etag),
        version_id: told(version),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: sums.kind,
        server_side_encryption: input.server_side_encryption,
        sse_customer_algorithm,
        sse_customer_key_md5,
        ..PutObjectOutput::default()
    }))
}

/// The ETag of an object of several parts: the MD5 of their MD5s.
pub(super) fn md5_of_md5s(md5s: impl IntoIterator<Item = [u8; 16]>) -> [u8; 16] {
    md5_of(&md5s.into_iter().flatten().collect::<Vec<u8>>())
}
