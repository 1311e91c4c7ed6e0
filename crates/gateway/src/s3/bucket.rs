//! Buckets: make, remove, list, and what is asked about them.

use pando_core::{access::Right, bucket::Settings, name::RegisterName};
use pando_node::{Consistency, Error};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face, acl, caller, policy,
    shape::{check_owner, owner, timestamp},
};
use crate::error::{of_node, refuse};

/// Where everything is, to clients that want to know: there are no regions here.
pub(crate) const REGION: &str = "us-east-1";
/// Most buckets of one answer, as in S3.
const MOST: usize = 10_000;

/// Fails if there is no such bucket.
async fn check_bucket(face: &Face, bucket: &str, expected_owner: Option<&str>) -> S3Result<()> {
    check_owner(expected_owner)?;
    face.node.check_bucket(bucket).await.map_err(of_node)
}

pub(super) async fn create_bucket(
    face: &Face,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let input = request.input;
    acl::check_grants([
        input.grant_full_control.as_ref(),
        input.grant_read.as_ref(),
        input.grant_read_acp.as_ref(),
        input.grant_write.as_ref(),
        input.grant_write_acp.as_ref(),
    ])?;
    let public = input.acl.as_ref().map(acl::of_canned).transpose()?.unwrap_or(false);
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(refuse(S3ErrorCode::NotImplemented, "object lock is not supported"));
    }
    // A name that parses as an address can't be told from one in a host name.
    if input.bucket.parse::<std::net::IpAddr>().is_ok() {
        return Err(refuse(S3ErrorCode::InvalidBucketName, "a bucket's name can't be an address"));
    }
    let mut settings = Settings::default();
    acl::set(&mut settings, public);
    policy::settle(&mut settings, &input.bucket);
    face.node.create_bucket_with(&input.bucket, settings).await.map_err(of_node)?;
    face.buckets.forget(&input.bucket);
    Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) }))
}

pub(super) async fn delete_bucket(
    face: &Face,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    check_owner(request.input.expected_bucket_owner.as_deref())?;
    face.node.remove_bucket(&request.input.bucket).await.map_err(of_node)?;
    face.buckets.forget(&request.input.bucket);
    Ok(S3Response::with_status(DeleteBucketOutput::default(), http::StatusCode::NO_CONTENT))
}

pub(super) async fn head_bucket(
    face: &Face,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    let input = request.input;
    check_bucket(face, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
    Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..Default::default() }))
}

pub(super) async fn get_bucket_location(
    face: &Face,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    let input = request.input;
    check_bucket(face, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
    // Of this region, S3 says nothing.
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: None }))
}

pub(super) async fn list_buckets(
    face: &Face,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let caller = caller(&request)?.clone();
    let input = request.input;
    let most = match input.max_buckets {
        None => MOST,
        Some(most) => usize::try_from(most)
            .ok()
            .filter(|most| (1..=MOST).contains(most))
            .ok_or_else(|| refuse(S3ErrorCode::InvalidArgument, format!("max-buckets is 1 to {MOST}")))?,
    };
    let after = input.continuation_token.unwrap_or_default();
    if !after.is_empty() && RegisterName::bucket(&after).is_err() {
        return Err(refuse(S3ErrorCode::InvalidArgument, "the continuation token is not one of ours"));
    }
    let prefix = input.prefix.unwrap_or_default();
    let all = face.node.list_buckets(Consistency::Linearizable).await.map_err(of_node)?;
    // Only those that the caller may see.
    let mut seen = all.into_iter().filter(|bucket| {
        caller.grants.allow(&bucket.name, Right::Read)
            && bucket.name.starts_with(&prefix)
            && bucket.name > after
    });
    let buckets: Vec<Bucket> = seen
        .by_ref()
        .take(most)
        .map(|bucket| Bucket {
            name: Some(bucket.name),
            creation_date: Some(timestamp(bucket.created)),
            bucket_region: Some(REGION.to_owned()),
        })
        .collect();
    let last = buckets.last().and_then(|bucket| bucket.name.clone());
    let continuation_token = last.filter(|_| seen.next().is_some());
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        continuation_token,
        owner: Some(owner()),
        prefix: Some(prefix).filter(|prefix| !prefix.is_empty()),
    }))
}

/// A missing object in a bucket that is there: what most clients want to hear of `NotFound`.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. })
}
