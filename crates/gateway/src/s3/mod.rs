//! The operations of S3, each as the node's operation that it means.
//!
//! What `s3s` parsed and authenticated comes in, its answers' shapes go out; what isn't here answers `NotImplemented`.

mod bucket;
mod copy;
mod list;
mod object;
mod remove;
mod shape;
mod tag;
mod upload;

use std::sync::Arc;

use pando_node::Node;
use s3s::{S3, S3Request, S3Response, S3Result, dto::*};

use crate::{auth::Caller, metrics::Metrics, waiters::Waiters};

/// The S3 face of a node.
pub(crate) struct Face {
    pub(crate) node: Node,
    pub(crate) metrics: Arc<Metrics>,
    /// Downloads whose clients don't read.
    pub(crate) paused: Arc<Waiters>,
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
                    $module::$name(self, request).await
                }
            )*
        }
    };
}

operations! {
    bucket::create_bucket(CreateBucketInput) -> CreateBucketOutput;
    bucket::delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    bucket::get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    bucket::get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput;
    bucket::get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    bucket::head_bucket(HeadBucketInput) -> HeadBucketOutput;
    bucket::list_buckets(ListBucketsInput) -> ListBucketsOutput;
    copy::copy_object(CopyObjectInput) -> CopyObjectOutput;
    list::list_objects(ListObjectsInput) -> ListObjectsOutput;
    list::list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    object::get_object(GetObjectInput) -> GetObjectOutput;
    object::get_object_acl(GetObjectAclInput) -> GetObjectAclOutput;
    object::get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput;
    object::head_object(HeadObjectInput) -> HeadObjectOutput;
    object::put_object(PutObjectInput) -> PutObjectOutput;
    remove::delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    remove::delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    tag::delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput;
    tag::get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput;
    tag::put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput;
    upload::abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    upload::complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    upload::create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    upload::list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;
    upload::list_parts(ListPartsInput) -> ListPartsOutput;
    upload::upload_part(UploadPartInput) -> UploadPartOutput;
    upload::upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput;
}
