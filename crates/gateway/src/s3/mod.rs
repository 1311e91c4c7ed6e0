//! The operations of S3, each as the node's operation that it means.
//!
//! What `s3s` parsed and authenticated comes in, its answers' shapes go out; what isn't here answers `NotImplemented`.

mod acl;
mod attributes;
mod bucket;
mod bucket_tag;
mod complete;
mod copy;
mod cors;
mod lifecycle;
mod list;
mod object;
mod part_copy;
mod policy;
mod read;
mod remove;
mod resume;
mod shape;
mod tag;
mod upload;
mod upload_list;
mod version;
mod version_list;
mod versioning;

pub(crate) use bucket::REGION;
pub(crate) use resume::forget_odd_range;

use std::sync::Arc;

use pando_core::bucket::Settings;
use pando_node::Node;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use crate::{
    auth::{Caller, denied},
    buckets::Buckets,
    error::of_node,
    metrics::Metrics,
    waiters::Waiters,
};

pub(crate) use object::{NewObject, Promised, Unkept, Written, store};
pub(crate) use shape::{Sums, headers, url_encode, user_meta};
pub(crate) use version_list::as_rendered;

/// The S3 face of a node.
pub(crate) struct Face {
    pub(crate) node: Node,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) buckets: Buckets,
    /// Downloads whose clients don't read.
    pub(crate) paused: Arc<Waiters>,
}

impl Face {
    /// Changes how a bucket behaves. This gateway acts on it at once, others within five seconds.
    async fn change(&self, bucket: &str, mut change: impl FnMut(&mut Settings) + Send) -> S3Result<()> {
        let change = |settings: &mut Settings| {
            change(settings);
            Ok(())
        };
        let changed = self.node.change_bucket(bucket, change).await;
        self.buckets.forget(bucket);
        changed.map_err(of_node)
    }
}

/// Who may read and not list is not told whether there is something where they may not look.
fn veiled(blind: bool, error: S3Error) -> S3Error {
    let tells = matches!(
        error.code(),
        S3ErrorCode::NoSuchKey | S3ErrorCode::NoSuchBucket | S3ErrorCode::NoSuchVersion
    );
    if blind && tells { denied() } else { error }
}

/// Who makes a request: filled in by the check of access, without which none gets here.
fn caller<T>(request: &S3Request<T>) -> S3Result<&Caller> {
    request.extensions.get::<Caller>().ok_or_else(|| s3s::s3_error!(AccessDenied))
}

macro_rules! operations {
    ($($module:ident::$name:ident($input:ty) -> $output:ty;)*) => {
        #[async_trait::async_trait]
        impl S3 for Face {
            $(
                async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    let blind = request.extensions.get::<Caller>().is_some_and(Caller::is_blind);
                    $module::$name(self, request).await.map_err(|error| veiled(blind, error))
                }
            )*
        }
    };
}

operations! {
    acl::get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput;
    acl::get_object_acl(GetObjectAclInput) -> GetObjectAclOutput;
    acl::put_bucket_acl(PutBucketAclInput) -> PutBucketAclOutput;
    bucket::create_bucket(CreateBucketInput) -> CreateBucketOutput;
    bucket::delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    bucket::get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    bucket::head_bucket(HeadBucketInput) -> HeadBucketOutput;
    bucket::list_buckets(ListBucketsInput) -> ListBucketsOutput;
    bucket_tag::delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput;
    bucket_tag::get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput;
    bucket_tag::put_bucket_tagging(PutBucketTaggingInput) -> PutBucketTaggingOutput;
    copy::copy_object(CopyObjectInput) -> CopyObjectOutput;
    cors::delete_bucket_cors(DeleteBucketCorsInput) -> DeleteBucketCorsOutput;
    cors::get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput;
    cors::put_bucket_cors(PutBucketCorsInput) -> PutBucketCorsOutput;
    lifecycle::delete_bucket_lifecycle(DeleteBucketLifecycleInput) -> DeleteBucketLifecycleOutput;
    lifecycle::get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput)
        -> GetBucketLifecycleConfigurationOutput;
    lifecycle::put_bucket_lifecycle_configuration(PutBucketLifecycleConfigurationInput)
        -> PutBucketLifecycleConfigurationOutput;
    list::list_objects(ListObjectsInput) -> ListObjectsOutput;
    list::list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    read::get_object(GetObjectInput) -> GetObjectOutput;
    attributes::get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput;
    read::head_object(HeadObjectInput) -> HeadObjectOutput;
    object::put_object(PutObjectInput) -> PutObjectOutput;
    policy::delete_bucket_policy(DeleteBucketPolicyInput) -> DeleteBucketPolicyOutput;
    policy::get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput;
    policy::get_bucket_policy_status(GetBucketPolicyStatusInput) -> GetBucketPolicyStatusOutput;
    policy::put_bucket_policy(PutBucketPolicyInput) -> PutBucketPolicyOutput;
    remove::delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    remove::delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    tag::delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput;
    tag::get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput;
    tag::put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput;
    upload::abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    complete::complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    upload::create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    upload_list::list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;
    upload_list::list_parts(ListPartsInput) -> ListPartsOutput;
    upload::upload_part(UploadPartInput) -> UploadPartOutput;
    part_copy::upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput;
    version_list::list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput;
    versioning::get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    versioning::put_bucket_versioning(PutBucketVersioningInput) -> PutBucketVersioningOutput;
}
