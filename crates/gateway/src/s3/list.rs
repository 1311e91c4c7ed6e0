//! Lists of a bucket's objects, in both of S3's versions.

use data_encoding::BASE64URL_NOPAD;
use pando_node::{ListPage, ListQuery, ObjectInfo};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    shape::{check_owner, etag_of, owner, timestamp, url_encode},
};
use crate::error::{of_node, refuse};

/// Most entries of one answer, as in S3.
const MOST: usize = 1000;

/// What a list is of, the same in both versions.
struct Wanted {
    bucket: String,
    prefix: Option<String>,
    delimiter: Option<String>,
    after: Option<String>,
    most: usize,
    encoded: bool,
}

/// How many entries a client wants at most.
pub(super) fn most(asked: Option<i32>) -> S3Result<usize> {
    let negative = || refuse(S3ErrorCode::InvalidArgument, "max-keys can't be negative");
    usize::try_from(asked.unwrap_or(MOST as i32)).map(|asked| asked.min(MOST)).map_err(|_| negative())
}

/// Whether names are to be encoded.
pub(super) fn is_encoded(encoding: Option<&EncodingType>) -> S3Result<bool> {
    match encoding.map(EncodingType::as_str) {
        None => Ok(false),
        Some(EncodingType::URL) => Ok(true),
        Some(other) => {
            Err(refuse(S3ErrorCode::InvalidArgument, format!("encoding-type is \"url\", not {other:?}")))
        }
    }
}

impl Wanted {
    async fn page(&self, face: &Face) -> S3Result<ListPage> {
        let query = ListQuery {
            prefix: self.prefix.clone().unwrap_or_default(),
            delimiter: self.delimiter.clone(),
            after: self.after.clone(),
            // One that is not shown tells that the bucket is there.
            limit: self.most.max(1),
            ..ListQuery::default()
        };
        let page = face.node.list(&self.bucket, query).await.map_err(of_node)?;
        Ok(if self.most == 0 { ListPage::default() } else { page })
    }

    fn name(&self, name: String) -> String {
        if self.encoded { url_encode(&name) } else { name }
    }

    fn object(&self, info: ObjectInfo, owned: bool) -> Object {
        Object {
            e_tag: Some(etag_of(&info)),
            last_modified: Some(timestamp(info.modified)),
            owner: owned.then(owner),
            size: Some(info.size as i64),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            key: Some(self.name(info.key)),
            ..Object::default()
        }
    }

    fn prefixes(&self, prefixes: Vec<String>) -> Vec<CommonPrefix> {
        prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(self.name(prefix)) }).collect()
    }

    fn encoding(&self) -> Option<EncodingType> {
        self.encoded.then(|| EncodingType::from_static(EncodingType::URL))
    }
}

pub(super) async fn list_objects_v2(
    face: &Face,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let wanted = Wanted {
        after: match &input.continuation_token {
            Some(token) => Some(name_of(token)?),
            None => input.start_after.clone().filter(|after| !after.is_empty()),
        },
        bucket: input.bucket,
        prefix: input.prefix,
        delimiter: input.delimiter.filter(|delimiter| !delimiter.is_empty()),
        most: most(input.max_keys)?,
        encoded: is_encoded(input.encoding_type.as_ref())?,
    };
    let page = wanted.page(face).await?;
    let owned = input.fetch_owner == Some(true);
    Ok(S3Response::new(ListObjectsV2Output {
        key_count: Some((page.objects.len() + page.prefixes.len()) as i32),
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_deref().map(token_of),
        contents: Some(page.objects.into_iter().map(|info| wanted.object(info, owned)).collect()),
        common_prefixes: Some(wanted.prefixes(page.prefixes)),
        max_keys: Some(wanted.most as i32),
        encoding_type: wanted.encoding(),
        continuation_token: input.continuation_token,
        start_after: input.start_after.map(|after| wanted.name(after)),
        delimiter: wanted.delimiter.clone().map(|delimiter| wanted.name(delimiter)),
        prefix: Some(wanted.name(wanted.prefix.clone().unwrap_or_default())),
        name: Some(wanted.bucket),
        ..ListObjectsV2Output::default()
    }))
}

pub(super) async fn list_objects(
    face: &Face,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let wanted = Wanted {
        after: input.marker.clone().filter(|marker| !marker.is_empty()),
        bucket: input.bucket,
        prefix: input.prefix,
        delimiter: input.delimiter.filter(|delimiter| !delimiter.is_empty()),
        most: most(input.max_keys)?,
        encoded: is_encoded(input.encoding_type.as_ref())?,
    };
    let page = wanted.page(face).await?;
    Ok(S3Response::new(ListObjectsOutput {
        is_truncated: Some(page.next.is_some()),
        // S3 gives it with a delimiter only; a client that takes the last key instead finds the same.
        next_marker: page.next.map(|next| wanted.name(next)),
        contents: Some(page.objects.into_iter().map(|info| wanted.object(info, true)).collect()),
        common_prefixes: Some(wanted.prefixes(page.prefixes)),
        max_keys: Some(wanted.most as i32),
        encoding_type: wanted.encoding(),
        marker: Some(wanted.name(input.marker.unwrap_or_default())),
        delimiter: wanted.delimiter.clone().map(|delimiter| wanted.name(delimiter)),
        prefix: Some(wanted.name(wanted.prefix.clone().unwrap_or_default())),
        name: Some(wanted.bucket),
        ..ListObjectsOutput::default()
    }))
}

/// A token that a name can be found in again, and that nobody takes for a name.
pub(super) fn token_of(name: &str) -> String {
    BASE64URL_NOPAD.encode(name.as_bytes())
}

/// The name in a token.
pub(super) fn name_of(token: &str) -> S3Result<String> {
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| refuse(S3ErrorCode::InvalidArgument, "the continuation token is not one of ours"))
}
