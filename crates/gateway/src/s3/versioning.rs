//! Whether a bucket keeps what is replaced.

use pando_core::bucket::Versioning;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{Face, shape::check_owner};
use crate::error::{of_node, refuse};

pub(super) async fn get_bucket_versioning(
    face: &Face,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let bucket = face.node.bucket(&input.bucket).await.map_err(of_node)?;
    // Nothing said: it was never switched on.
    let status = match bucket.settings.versioning {
        Versioning::Never => None,
        Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
        Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
    };
    let status = status.map(BucketVersioningStatus::from_static);
    Ok(S3Response::new(GetBucketVersioningOutput { mfa_delete: None, status }))
}

pub(super) async fn put_bucket_versioning(
    face: &Face,
    request: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let wanted = input.versioning_configuration;
    let mfa_delete = wanted.mfa_delete.as_ref().map(MFADelete::as_str);
    if input.mfa.is_some() || mfa_delete.is_some_and(|wanted| wanted != MFADelete::DISABLED) {
        return Err(refuse(
            S3ErrorCode::NotImplemented,
            "MFA delete is not supported: there are no MFA devices",
        ));
    }
    let versioning = match wanted.status.as_ref().map(BucketVersioningStatus::as_str) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        _ => {
            let why = "the Status of a versioning configuration is Enabled or Suspended; a bucket that kept \
                       versions once can't become one that never did";
            return Err(refuse(S3ErrorCode::IllegalVersioningConfigurationException, why));
        }
    };
    face.change(&input.bucket, |settings| settings.versioning = versioning).await?;
    Ok(S3Response::new(PutBucketVersioningOutput::default()))
}
