//! The tags of buckets: kept for who put them there, nothing is done with them.

use std::collections::HashSet;

use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    shape::{check_owner, tag_set},
};
use crate::error::{of_node, refuse};

/// Under which name a bucket keeps its tags: a JSON list of names and values.
const DOCUMENT: &str = "tags";
/// Most tags of a bucket, most characters of a tag's name and of its value: as in S3.
const TAGS: usize = 50;
const NAME: usize = 128;
const VALUE: usize = 256;

fn check(set: TagSet) -> S3Result<Vec<(String, String)>> {
    let wrong = |why: String| Err(refuse(S3ErrorCode::InvalidTag, why));
    if set.len() > TAGS {
        return wrong(format!("a bucket has at most {TAGS} tags, these are {}", set.len()));
    }
    let tags: Vec<(String, String)> =
        set.into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())).collect();
    let mut names = HashSet::new();
    for (name, value) in &tags {
        if !(1..=NAME).contains(&name.chars().count()) || value.chars().count() > VALUE {
            return wrong(format!("a tag's name has 1 to {NAME} characters, its value at most {VALUE}"));
        }
        if !names.insert(name) {
            return wrong(format!("there is more than one tag {name:?}"));
        }
    }
    Ok(tags)
}

pub(super) async fn get_bucket_tagging(
    face: &Face,
    request: S3Request<GetBucketTaggingInput>,
) -> S3Result<S3Response<GetBucketTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let bucket = face.node.bucket(&input.bucket).await.map_err(of_node)?;
    let Some(text) = bucket.settings.document(DOCUMENT) else {
        return Err(refuse(S3ErrorCode::NoSuchTagSet, "this bucket has no tags"));
    };
    let tags: Vec<(String, String)> = serde_json::from_slice(text)
        .map_err(|_| refuse(S3ErrorCode::InternalError, "the bucket's tags can't be read by this version"))?;
    Ok(S3Response::new(GetBucketTaggingOutput { tag_set: tag_set(tags) }))
}

pub(super) async fn put_bucket_tagging(
    face: &Face,
    request: S3Request<PutBucketTaggingInput>,
) -> S3Result<S3Response<PutBucketTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let tags = check(input.tagging.tag_set)?;
    // Strings are always JSON. No tags at all are none.
    let text = (!tags.is_empty()).then(|| serde_json::to_vec(&tags).unwrap_or_default().into());
    face.change(&input.bucket, |settings| settings.set_document(DOCUMENT, text.clone())).await?;
    let done = S3Response::with_status(PutBucketTaggingOutput::default(), http::StatusCode::NO_CONTENT);
    Ok(done)
}

pub(super) async fn delete_bucket_tagging(
    face: &Face,
    request: S3Request<DeleteBucketTaggingInput>,
) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    face.change(&input.bucket, |settings| settings.set_document(DOCUMENT, None)).await?;
    Ok(S3Response::new(DeleteBucketTaggingOutput::default()))
}
