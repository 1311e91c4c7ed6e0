//! The tags of objects.

use s3s::{S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    shape::{check_owner, tag_set, tags_of_set},
    version::{not_found, told, version_of},
};

pub(super) async fn get_object_tagging(
    face: &Face,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let version = version_of(input.version_id.as_deref())?;
    let found = face.node.stat_version(&input.bucket, &input.key, version).await;
    let info = found.map_err(|error| not_found(error, version))?;
    let version_id = told(info.version);
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set: tag_set(info.tags), version_id }))
}

pub(super) async fn put_object_tagging(
    face: &Face,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let tags = tags_of_set(input.tagging.tag_set)?;
    let version_id = set(face, &input.bucket, &input.key, input.version_id.as_deref(), tags).await?;
    Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
}

pub(super) async fn delete_object_tagging(
    face: &Face,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let version_id = set(face, &input.bucket, &input.key, input.version_id.as_deref(), Vec::new()).await?;
    let output = DeleteObjectTaggingOutput { version_id };
    Ok(S3Response::with_status(output, http::StatusCode::NO_CONTENT))
}

/// Gives a version these tags; the answer's version id.
async fn set(
    face: &Face,
    bucket: &str,
    key: &str,
    version: Option<&str>,
    tags: Vec<(String, String)>,
) -> S3Result<Option<String>> {
    let version = version_of(version)?;
    let set = face.node.set_tags(bucket, key, tags, version).await;
    Ok(told(set.map_err(|error| not_found(error, version))?.version))
}
