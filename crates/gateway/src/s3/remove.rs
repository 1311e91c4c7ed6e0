//! Removing objects: one, or up to a thousand in a request.

use futures_util::stream::{self, StreamExt as _};
use pando_node::{Condition, Error};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    bucket::is_missing,
    shape::{check_owner, write_condition},
};
use crate::error::{of_node, refuse};

/// Most objects of one request, as in S3.
const MOST: usize = 1000;
/// Objects that are removed at once.
const PARALLEL: usize = 16;

async fn remove(face: &Face, bucket: &str, key: &str, condition: Condition) -> Result<(), Error> {
    match face.node.remove_if(bucket, key, condition).await {
        // To S3, what isn't there is removed.
        Err(error) if condition == Condition::None && is_missing(&error) => Ok(()),
        other => other,
    }
}

pub(super) async fn delete_object(
    face: &Face,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_version(input.version_id.as_deref())?;
    if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
        let why = "a removal takes If-Match with an ETag; size and time tell versions apart badly";
        return Err(refuse(S3ErrorCode::NotImplemented, why));
    }
    let condition = write_condition(input.if_match.as_ref(), None)?;
    remove(face, &input.bucket, &input.key, condition).await.map_err(of_node)?;
    Ok(S3Response::with_status(DeleteObjectOutput::default(), http::StatusCode::NO_CONTENT))
}

pub(super) async fn delete_objects(
    face: &Face,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > MOST {
        let why = format!("one request removes 1 to {MOST} objects, this one names {}", objects.len());
        return Err(refuse(S3ErrorCode::MalformedXML, why));
    }
    // Said once, not a thousand times.
    face.node.check_bucket(&input.bucket).await.map_err(of_node)?;
    let bucket = &input.bucket;
    let removals = objects.into_iter().map(|object| async move {
        let condition = object.e_tag.clone().map(ETagCondition::ETag);
        let removed = async {
            check_version(object.version_id.as_deref())?;
            let condition = write_condition(condition.as_ref(), None)?;
            remove(face, bucket, &object.key, condition).await.map_err(of_node)
        };
        (removed.await, object)
    });
    let outcomes: Vec<_> = stream::iter(removals).buffered(PARALLEL).collect().await;
    let quiet = input.delete.quiet == Some(true);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for (outcome, object) in outcomes {
        match outcome {
            Ok(()) if quiet => {}
            Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() }),
            Err(error) => errors.push(s3s::dto::Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(object.key),
                message: error.message().map(str::to_owned),
                version_id: object.version_id,
            }),
        }
    }
    let output = DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), request_charged: None };
    Ok(S3Response::new(output))
}

/// Buckets have no versions but the current one, which S3 calls "null".
pub(super) fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(version) => Err(refuse(S3ErrorCode::NoSuchVersion, format!("there is no version {version:?}"))),
    }
}
