//! Access control lists: a bucket is private, or anyone may get and list. Who else may what is said by access keys.

use pando_core::bucket::Settings;
use pando_node::Consistency;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    policy::{self, Granted},
    shape::{check_owner, owner},
};
use crate::error::{of_node, refuse};

/// Under which name a bucket keeps that its list lets anyone read; a private one keeps nothing.
const DOCUMENT: &str = "acl";
/// How S3 calls anyone.
const ANYONE: &str = "http://acs.amazonaws.com/groups/global/AllUsers";

/// What a bucket's list lets anyone do.
pub(super) fn granted(settings: &Settings) -> Granted {
    match is_public(settings) {
        true => Granted { read: vec![String::new()], list: true, locate: true },
        false => Granted::default(),
    }
}

fn is_public(settings: &Settings) -> bool {
    settings.document(DOCUMENT).is_some_and(|text| text == BucketCannedACL::PUBLIC_READ)
}

/// Notes whether a bucket's list lets anyone read; `policy::settle` makes it so.
pub(super) fn set(settings: &mut Settings, public: bool) {
    let text = public.then(|| BucketCannedACL::PUBLIC_READ.into());
    settings.set_document(DOCUMENT, text);
}

fn unsupported(what: &str) -> S3Error {
    let why = format!(
        "{what} is not supported: a bucket is private, or public-read (anyone may get and list); for \
         everything else, grant access keys rights"
    );
    refuse(S3ErrorCode::NotImplemented, why)
}

/// Whether a canned list lets anyone read.
pub(super) fn of_canned(acl: &BucketCannedACL) -> S3Result<bool> {
    match acl.as_str() {
        BucketCannedACL::PRIVATE => Ok(false),
        BucketCannedACL::PUBLIC_READ => Ok(true),
        BucketCannedACL::PUBLIC_READ_WRITE | BucketCannedACL::AUTHENTICATED_READ => {
            Err(unsupported(&format!("the canned ACL {:?}", acl.as_str())))
        }
        other => Err(refuse(S3ErrorCode::InvalidArgument, format!("there is no canned ACL {other:?}"))),
    }
}

/// Refuses grants in headers.
pub(super) fn check_grants(headers: [Option<&String>; 5]) -> S3Result<()> {
    match headers.iter().any(Option::is_some) {
        true => Err(unsupported("a grant in an x-amz-grant-… header")),
        false => Ok(()),
    }
}

/// Whether a list lets anyone read. It may say what [`get_bucket_acl`] says, and nothing else.
fn of_list(list: AccessControlPolicy) -> S3Result<bool> {
    let mut public = false;
    for grant in list.grants.unwrap_or_default() {
        let malformed = || refuse(S3ErrorCode::MalformedACLError, "a grant needs a grantee and a permission");
        let grantee = grant.grantee.ok_or_else(malformed)?;
        let permission = grant.permission.ok_or_else(malformed)?;
        if grantee.uri.as_deref() == Some(ANYONE) && permission.as_str() == Permission::READ {
            public = true;
        } else if grantee.uri.is_some() || grantee.id != owner().id {
            return Err(unsupported("a grant other than of the owner, and of READ to all users,"));
        }
    }
    Ok(public)
}

fn grants(public: bool) -> Vec<Grant> {
    let grantee = |id: Option<&str>, uri: Option<&str>, kind| Grantee {
        display_name: id.map(str::to_owned),
        email_address: None,
        id: id.map(str::to_owned),
        type_: Type::from_static(kind),
        uri: uri.map(str::to_owned),
    };
    let full = Grant {
        grantee: Some(grantee(Some("pando"), None, Type::CANONICAL_USER)),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    };
    let anyone = Grant {
        grantee: Some(grantee(None, Some(ANYONE), Type::GROUP)),
        permission: Some(Permission::from_static(Permission::READ)),
    };
    if public { vec![full, anyone] } else { vec![full] }
}

pub(super) async fn get_bucket_acl(
    face: &Face,
    request: S3Request<GetBucketAclInput>,
) -> S3Result<S3Response<GetBucketAclOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let bucket = face.node.bucket(&input.bucket).await.map_err(of_node)?;
    let grants = Some(grants(is_public(&bucket.settings)));
    Ok(S3Response::new(GetBucketAclOutput { grants, owner: Some(owner()) }))
}

pub(super) async fn put_bucket_acl(
    face: &Face,
    request: S3Request<PutBucketAclInput>,
) -> S3Result<S3Response<PutBucketAclOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_grants([
        input.grant_full_control.as_ref(),
        input.grant_read.as_ref(),
        input.grant_read_acp.as_ref(),
        input.grant_write.as_ref(),
        input.grant_write_acp.as_ref(),
    ])?;
    let public = match (input.acl, input.access_control_policy) {
        (Some(canned), None) => of_canned(&canned)?,
        (None, Some(list)) => of_list(list)?,
        (Some(_), Some(_)) => {
            return Err(refuse(
                S3ErrorCode::InvalidRequest,
                "give x-amz-acl or a list in the body, not both",
            ));
        }
        (None, None) => {
            return Err(refuse(
                S3ErrorCode::MissingSecurityHeader,
                "x-amz-acl, or a list in the body, is missing",
            ));
        }
    };
    face.change(&input.bucket, |settings| {
        set(settings, public);
        policy::settle(settings, &input.bucket);
    })
    .await?;
    Ok(S3Response::new(PutBucketAclOutput::default()))
}

/// An object has no list of its own: it tells whether anyone may read it, by the bucket's list or its policy.
pub(super) async fn get_object_acl(
    face: &Face,
    request: S3Request<GetObjectAclInput>,
) -> S3Result<S3Response<GetObjectAclOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    face.node.stat(&input.bucket, &input.key, Consistency::Linearizable).await.map_err(of_node)?;
    let bucket = face.node.bucket(&input.bucket).await.map_err(of_node)?;
    Ok(S3Response::new(GetObjectAclOutput {
        grants: Some(grants(bucket.settings.is_public(&input.key))),
        owner: Some(owner()),
        request_charged: None,
    }))
}
