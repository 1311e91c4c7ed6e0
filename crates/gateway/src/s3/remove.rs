//! Removing objects, or versions of them for good: one, or up to a thousand in a request.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};
use pando_node::{Condition, Error, Removed};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    bucket::is_missing,
    object::nothing_to_match,
    shape::{check_owner, write_condition},
    version::{told, version_of},
};
use crate::error::{of_node, refuse};

/// Most objects of one request, as in S3.
const MOST: usize = 1000;
/// Keys whose objects are removed at once.
const PARALLEL: usize = 16;

async fn remove(
    face: &Face,
    bucket: &str,
    key: &str,
    version: Option<&str>,
    if_match: Option<&ETagCondition>,
) -> S3Result<Removed> {
    let condition = write_condition(if_match, None)?;
    let removed = face.node.remove_version(bucket, key, version_of(version)?, condition).await;
    removed.or_else(|error| match error {
        // To S3, what isn't there is removed.
        error if condition == Condition::None && is_missing(&error) => {
            Ok(Removed { version: None, marker: false })
        }
        Error::Precondition { current: None } => Err(nothing_to_match()),
        error => Err(of_node(error)),
    })
}

fn odd_condition() -> S3Error {
    let why = "a removal takes If-Match with an ETag; size and time tell versions apart badly";
    refuse(S3ErrorCode::NotImplemented, why)
}

pub(super) async fn delete_object(
    face: &Face,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
        return Err(odd_condition());
    }
    let (version, if_match) = (input.version_id.as_deref(), input.if_match.as_ref());
    let removed = remove(face, &input.bucket, &input.key, version, if_match).await?;
    let output = DeleteObjectOutput {
        delete_marker: removed.marker.then_some(true),
        version_id: told(removed.version),
        ..DeleteObjectOutput::default()
    };
    Ok(S3Response::with_status(output, http::StatusCode::NO_CONTENT))
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
    // The versions of a key are removed one after the other: at once, they would be in each other's way.
    let mut keys: BTreeMap<String, Vec<(usize, ObjectIdentifier)>> = BTreeMap::new();
    for (index, object) in objects.into_iter().enumerate() {
        keys.entry(object.key.clone()).or_default().push((index, object));
    }
    let removals = keys.into_iter().map(|(key, objects)| async move {
        let mut outcomes = Vec::with_capacity(objects.len());
        for (index, object) in objects {
            let if_match = object.e_tag.clone().map(ETagCondition::ETag);
            let version = object.version_id.as_deref();
            let outcome = match object.size.is_some() || object.last_modified_time.is_some() {
                true => Err(odd_condition()),
                false => remove(face, bucket, &key, version, if_match.as_ref()).await,
            };
            outcomes.push((index, outcome, object));
        }
        outcomes
    });
    let outcomes: Vec<Vec<_>> = stream::iter(removals).buffered(PARALLEL).collect().await;
    let mut outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    outcomes.sort_by_key(|(index, ..)| *index);
    let quiet = input.delete.quiet == Some(true);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for (_, outcome, object) in outcomes {
        match outcome {
            Ok(_) if quiet => {}
            Ok(removed) => deleted.push(told_of(removed, object)),
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

/// What is told of one removal among many: the version that was named, and the delete marker that was made, or removed.
fn told_of(removed: Removed, object: ObjectIdentifier) -> DeletedObject {
    DeletedObject {
        delete_marker: removed.marker.then_some(true),
        delete_marker_version_id: told(removed.version).filter(|_| removed.marker),
        key: Some(object.key),
        version_id: object.version_id,
    }
}
