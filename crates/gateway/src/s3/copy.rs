//! Copying objects: a new record for the same chunks, and no content moves; unless the copy is encrypted otherwise.

use http::{HeaderMap, HeaderName, header};
use pando_core::{
    customer::Lock,
    record::{Digests, Headers, UserMeta},
};
use pando_node::{Condition, CopyOptions, Error, ObjectInfo, PutOptions, VersionId};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face, caller,
    object::{NewObject, Promised, Unkept, Written, grants, is_of_existing, nothing_to_match, store},
    read::Wanted,
    shape::{
        ReadConditions, Sums, check_owner, etag_of, headers, tags_of_header, timestamp, user_meta,
        write_condition,
    },
    version::{not_found, not_found_as_source, told, version_of},
};
use crate::{
    body,
    digest::Algorithm,
    error::refuse,
    sse::{self, Given, said, said_of_source},
};

/// What is to be copied: bucket, key and version.
pub(super) fn source(source: &CopySource) -> S3Result<(&str, &str, Option<VersionId>)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            Ok((bucket, key, version_of(version_id.as_deref())?))
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
    let (from_bucket, from_key, version) = source(&request.input.copy_source)?;
    // The right to write to the target was checked with the path.
    caller(&request)?.check(from_bucket, pando_core::access::Right::Read)?;
    let (from_bucket, from_key) = (from_bucket.to_owned(), from_key.to_owned());
    let S3Request { mut input, headers: head, extensions, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_owner(input.expected_source_bucket_owner.as_deref())?;
    let given = sse::given(said!(input), &extensions)?;
    let given_of_source = sse::given(said_of_source!(input), &extensions)?;
    Unkept {
        acl: input.acl.as_ref(),
        encryption: input.server_side_encryption.as_ref(),
        customer_key: given.is_some(),
        lock: input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some(),
        redirect: input.website_redirect_location.is_some(),
        grants: grants(&head),
    }
    .check()?;
    let condition = condition_of(&head)?;
    let from = Wanted {
        bucket: &from_bucket,
        key: &from_key,
        version,
        range: None,
        part: None,
        given: given_of_source.as_ref(),
    };
    let found = from.find(face).await.map_err(not_found_as_source)?.info;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match.as_ref(),
        if_none_match: input.copy_source_if_none_match.as_ref(),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    conditions.check_of_source(&found)?;
    let recrypts = is_other(Lock::of(&found.meta), given.as_ref());
    let said = Said::of(&mut input)?;
    let changes = said.replace.is_some() || said.tags.is_some() || recrypts;
    // An older version is made current again by copying it.
    let is_itself = (&*from_bucket, &*from_key) == (&*input.bucket, &*input.key) && version.is_none();
    if is_itself && !changes {
        let why = "a copy of an object onto itself must change its metadata, its tags or its encryption";
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    let to = Target { bucket: &input.bucket, key: &input.key, condition };
    let copied = match recrypts {
        true => recrypt(face, &from, &found, to, said, given.as_ref()).await?,
        false => claim(face, &from, &found, to, said).await?,
    };
    let sums = copied.sums;
    let (sse_customer_algorithm, sse_customer_key_md5) = sse::echo(given.as_ref());
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(CopyObjectResult {
            e_tag: Some(copied.etag),
            last_modified: Some(copied.modified),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: sums.kind,
        }),
        version_id: told(copied.version),
        copy_source_version_id: told(found.version),
        server_side_encryption: input.server_side_encryption,
        sse_customer_algorithm,
        sse_customer_key_md5,
        ..CopyObjectOutput::default()
    }))
}

/// What must hold of the target. `s3s` does not know these headers here.
fn condition_of(head: &HeaderMap) -> S3Result<Condition> {
    let parsed = |name: &HeaderName| {
        let value = head.get(name).map(|value| ETagCondition::parse_http_header(value.as_bytes()));
        let malformed = |_| refuse(S3ErrorCode::InvalidArgument, format!("{name} is malformed"));
        value.transpose().map_err(malformed)
    };
    write_condition(parsed(&header::IF_MATCH)?.as_ref(), parsed(&header::IF_NONE_MATCH)?.as_ref())
}

/// Whether a directive says to replace, of a word that S3 knows.
fn replaces(name: &str, directive: Option<&str>) -> S3Result<bool> {
    match directive {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(other) => {
            let why = format!("{name} is COPY or REPLACE, not {other:?}");
            Err(refuse(S3ErrorCode::InvalidArgument, why))
        }
    }
}

/// What a copy is to be.
#[derive(Clone, Copy)]
struct Target<'a> {
    bucket: &'a str,
    key: &'a str,
    /// What must hold of what is there.
    condition: Condition,
}

/// What is said of a copy; where nothing is, the source's holds.
struct Said {
    replace: Option<(UserMeta, Headers)>,
    tags: Option<Vec<(String, String)>>,
}

impl Said {
    /// Takes it out of a request.
    fn of(input: &mut CopyObjectInput) -> S3Result<Self> {
        let of_metadata = input.metadata_directive.as_ref().map(MetadataDirective::as_str);
        let of_tags = input.tagging_directive.as_ref().map(TaggingDirective::as_str);
        let replaces_tags = replaces("x-amz-tagging-directive", of_tags)?;
        let replace = replaces("x-amz-metadata-directive", of_metadata)?.then(|| {
            let headers = headers(
                input.cache_control.take(),
                input.content_disposition.take(),
                input.content_encoding.take(),
                input.content_language.take(),
                input.expires.as_ref(),
            );
            (user_meta(input.content_type.take(), input.metadata.take()), headers)
        });
        let tags = replaces_tags.then(|| tags_of_header(input.tagging.as_deref())).transpose()?;
        Ok(Self { replace, tags })
    }
}

struct Copied {
    etag: ETag,
    version: Option<VersionId>,
    modified: Timestamp,
    sums: Sums,
}

/// Whether a copy is to be encrypted otherwise than its source.
fn is_other(lock: Option<Lock>, given: Option<&Given>) -> bool {
    match (lock, given) {
        (None, None) => false,
        (Some(lock), Some(given)) => !lock.opens_with(&given.key),
        _ => true,
    }
}

/// Copies without moving content: the chunks are claimed for the copy. What they are encrypted with goes along.
async fn claim(
    face: &Face,
    from: &Wanted<'_>,
    found: &ObjectInfo,
    to: Target<'_>,
    said: Said,
) -> S3Result<Copied> {
    let mut replace = said.replace;
    if let (Some((meta, _)), Some(lock)) = (&mut replace, Lock::of(&found.meta)) {
        lock.enter(meta);
    }
    // What was looked at is what is copied.
    let options = CopyOptions {
        source_version: from.version,
        source: Some(found.etag),
        condition: to.condition,
        replace,
        tags: said.tags,
    };
    let copied = face.node.copy((from.bucket, from.key), (to.bucket, to.key), options).await;
    let (_, info) = copied.map_err(|error| match error {
        Error::Precondition { current: None } if is_of_existing(to.condition) => nothing_to_match(),
        error => not_found_as_source(not_found(error, from.version)),
    })?;
    let (etag, modified) = (etag_of(&info), timestamp(info.modified));
    Ok(Copied { etag, version: info.version, modified, sums: Sums::of(&info.digests) })
}

/// Copies by reading, decrypting, encrypting and putting.
async fn recrypt(
    face: &Face,
    from: &Wanted<'_>,
    looked_at: &ObjectInfo,
    to: Target<'_>,
    said: Said,
    given: Option<&Given>,
) -> S3Result<Copied> {
    let (found, object) = from.open(face).await.map_err(not_found_as_source)?;
    if found.info.etag != looked_at.etag {
        return Err(refuse(S3ErrorCode::PreconditionFailed, "the source was replaced meanwhile"));
    }
    let ObjectInfo { mut meta, headers, tags, digests, size, .. } = found.info;
    Lock::leave(&mut meta);
    let (meta, headers) = said.replace.unwrap_or((meta, headers));
    let deliver = |object| body::Outgoing::start(face, object, found.cipher, None);
    let new = NewObject {
        bucket: to.bucket,
        key: to.key,
        options: PutOptions { condition: to.condition, meta, headers, tags: said.tags.unwrap_or(tags) },
        promised: Promised::none().or_usual(algorithm_of(&digests)),
        body: object.map(deliver),
        length: Some(size),
        given,
    };
    let Written { etag, version, sums } = store(face, new).await?;
    Ok(Copied { etag, version, modified: std::time::SystemTime::now().into(), sums })
}

/// The checksum that an object has, or else the usual.
fn algorithm_of(digests: &Digests) -> Algorithm {
    digests.checksum.as_ref().map_or(Algorithm::Crc64Nvme, Algorithm::of)
}
