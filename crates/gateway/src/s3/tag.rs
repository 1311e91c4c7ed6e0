//! The tags of objects.

use pando_node::Consistency;
use s3s::{S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    remove::check_version,
    shape::{check_owner, tag_set, tags_of_set},
};
use crate::error::of_node;

pub(super) async fn get_object_tagging(
    face: &Face,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_version(input.version_id.as_deref())?;
    let found = face.node.stat(&input.bucket, &input.key, Consistency::Linearizable).await;
    let info = found.map_err(of_node)?;
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set: tag_set(info.tags), version_id: None }))
}

pub(super) async fn put_object_tagging(
    face: &Face,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_version(input.version_id.as_deref())?;
    let tags = tags_of_set(input.tagging.tag_set)?;
    face.node.set_tags(&input.bucket, &input.key, tags, None).await.map_err(of_node)?;
    Ok(S3Response::new(PutObjectTaggingOutput::default()))
}

pub(super) async fn delete_object_tagging(
    face: &Face,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_version(input.version_id.as_deref())?;
    face.node.set_tags(&input.bucket, &input.key, Vec::new(), None).await.map_err(of_node)?;
    Ok(S3Response::with_status(DeleteObjectTaggingOutput::default(), http::StatusCode::NO_CONTENT))
}
