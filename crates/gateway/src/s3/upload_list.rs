//! Which uploads in parts go on, and which parts of one were put.

use pando_core::{
    id::WriteId,
    name::{MAX_KEY, MAX_PARTS},
};
use pando_node::{UploadInfo, UploadPage};
use s3s::{S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    list::{is_encoded, most},
    shape::{Sums, check_owner, etag, owner, timestamp, url_encode},
    upload::upload_id,
};
use crate::{digest::Algorithm, error::of_node};

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

/// What a list of uploads is of.
struct Wanted<'a> {
    bucket: &'a str,
    prefix: &'a str,
    delimiter: Option<&'a str>,
    /// The key and the id of an upload, or the key or common prefix, after which the list begins.
    after: Option<Place>,
    most: usize,
}

/// One entry of a list of uploads.
enum Entry {
    Upload(UploadInfo),
    Prefix(String),
}

/// A page of uploads and common prefixes, in order.
#[derive(Default)]
struct Page {
    entries: Vec<Entry>,
    more: bool,
}

impl Wanted<'_> {
    /// What a key is rolled up to, if it is.
    fn common<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter?;
        let rest = key.strip_prefix(self.prefix)?;
        let end = self.prefix.len() + rest.find(delimiter)? + delimiter.len();
        Some(&key[..end])
    }

    async fn page(&self, face: &Face) -> S3Result<Page> {
        let mut page = Page::default();
        let mut after = self.after.clone();
        // A common prefix that the page before ended with, or is in, was listed there.
        let marker = after.as_ref().and_then(|(key, _)| self.common(key));
        let mut last_prefix = marker.map(str::to_owned);
        loop {
            let from = after.as_ref().map(|(key, id)| (key.as_str(), *id));
            // One that is not shown tells whether there are more, and that the bucket is there.
            let wanted = (self.most - page.entries.len()).max(1);
            let listed = face.node.list_uploads(self.bucket, self.prefix, from, wanted).await;
            let UploadPage { uploads, more } = listed.map_err(of_node)?;
            after = uploads.last().map(|last| (last.key.clone(), Some(last.id)));
            for upload in uploads {
                let common = self.common(&upload.key).map(str::to_owned);
                if let Some(common) = &common {
                    after = later(after, past(common));
                    if Some(common) == last_prefix.as_ref() {
                        continue;
                    }
                }
                if page.entries.len() == self.most {
                    return Ok(Page { more: true, ..page });
                }
                page.entries.push(match common {
                    None => Entry::Upload(upload),
                    Some(common) => {
                        last_prefix = Some(common.clone());
                        Entry::Prefix(common)
                    }
                });
            }
            if !more || after.is_none() {
                return Ok(page);
            }
            if self.delimiter.is_none() && page.entries.len() == self.most {
                return Ok(Page { more, ..page });
            }
        }
    }
}

/// A place in a list: after this upload, or after all of this key.
type Place = (String, Option<WriteId>);

/// Where to go on after everything that starts so; `None` if there is no key for that, and one must walk through.
/// Of keys that hold the last character there is, some are met again: who walks on must expect the same prefix.
fn past(prefix: &str) -> Option<Place> {
    let key = format!("{prefix}{}", char::MAX);
    (key.len() <= MAX_KEY).then_some((key, None))
}

/// The later of two places in a list, by their keys.
fn later(one: Option<Place>, other: Option<Place>) -> Option<Place> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.0 > one.0 { other } else { one }),
        (one, other) => one.or(other),
    }
}

pub(super) async fn list_multipart_uploads(
    face: &Face,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let (most, encoded) = (most(input.max_uploads)?, is_encoded(input.encoding_type.as_ref())?);
    let name = |name: String| if encoded { url_encode(&name) } else { name };
    let after_id =
        input.upload_id_marker.as_deref().filter(|id| !id.is_empty()).map(upload_id).transpose()?;
    let after = input.key_marker.clone().filter(|key| !key.is_empty()).map(|key| (key, after_id));
    let wanted = Wanted {
        bucket: &input.bucket,
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
        after,
        most,
    };
    let mut page = wanted.page(face).await?;
    if most == 0 {
        page = Page::default();
    }
    let last = page.entries.last().filter(|_| page.more).map(|last| match last {
        Entry::Upload(upload) => (upload.key.clone(), upload.id.to_string()),
        Entry::Prefix(prefix) => (prefix.clone(), String::new()),
    });
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    for entry in page.entries {
        match entry {
            Entry::Upload(upload) => uploads.push(MultipartUpload {
                upload_id: Some(upload.id.to_string()),
                initiated: Some(timestamp(upload.created)),
                key: Some(name(upload.key)),
                owner: Some(owner()),
                storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                ..MultipartUpload::default()
            }),
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(name(prefix)) }),
        }
    }
    Ok(S3Response::new(ListMultipartUploadsOutput {
        uploads: Some(uploads),
        common_prefixes: Some(prefixes),
        is_truncated: Some(last.is_some()),
        next_upload_id_marker: last.as_ref().map(|(_, id)| id.clone()).filter(|id| !id.is_empty()),
        next_key_marker: last.map(|(key, _)| name(key)),
        key_marker: input.key_marker.map(name),
        upload_id_marker: input.upload_id_marker,
        max_uploads: Some(most as i32),
        encoding_type: encoded.then(|| EncodingType::from_static(EncodingType::URL)),
        delimiter: input.delimiter.map(name),
        prefix: input.prefix.map(name),
        bucket: Some(input.bucket),
        ..ListMultipartUploadsOutput::default()
    }))
}
