//! The CORS rules of buckets: checked, kept, shown. What they mean is in `crate::cors`.

use http::HeaderName;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{Face, shape::check_owner};
use crate::{
    cors::{Cors, Rule},
    error::{of_node, refuse},
};

/// Most rules of a bucket, and most characters of an id: as in S3.
const RULES: usize = 100;
const ID: usize = 255;
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];

fn invalid(why: String) -> S3Error {
    refuse(S3ErrorCode::InvalidRequest, why)
}

fn check_pattern(what: &str, pattern: &str) -> S3Result<()> {
    if pattern.is_empty() || !pattern.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid(format!(
            "{what} {pattern:?} is empty or has other characters than visible ASCII"
        )));
    }
    if pattern.matches('*').count() > 1 {
        return Err(invalid(format!("{what} {pattern:?} can not have more than one wildcard")));
    }
    Ok(())
}

fn rule_of(rule: CORSRule) -> S3Result<Rule> {
    if rule.allowed_origins.is_empty() || rule.allowed_methods.is_empty() {
        let why = "each rule has an AllowedOrigin and an AllowedMethod at least";
        return Err(refuse(S3ErrorCode::MalformedXML, why));
    }
    if rule.id.as_ref().is_some_and(|id| id.chars().count() > ID) {
        return Err(invalid(format!("the ID of a rule has at most {ID} characters")));
    }
    for method in &rule.allowed_methods {
        if !METHODS.contains(&method.as_str()) {
            let why = format!("unsupported method {method:?} in a CORS rule: use {}", METHODS.join(", "));
            return Err(invalid(why));
        }
    }
    let (headers, exposed) =
        (rule.allowed_headers.unwrap_or_default(), rule.expose_headers.unwrap_or_default());
    rule.allowed_origins.iter().try_for_each(|origin| check_pattern("AllowedOrigin", origin))?;
    headers.iter().try_for_each(|header| check_pattern("AllowedHeader", header))?;
    if let Some(wrong) = exposed.iter().find(|name| name.contains('*') || name.parse::<HeaderName>().is_err())
    {
        return Err(invalid(format!(
            "ExposeHeader {wrong:?} is not the name of a header; it takes no wildcard"
        )));
    }
    let max_age = rule.max_age_seconds.map(u32::try_from).transpose();
    Ok(Rule {
        id: rule.id,
        origins: rule.allowed_origins,
        methods: rule.allowed_methods,
        headers,
        exposed,
        max_age: max_age.map_err(|_| invalid("MaxAgeSeconds can't be negative".to_owned()))?,
    })
}

fn shape_of(rule: Rule) -> CORSRule {
    CORSRule {
        allowed_headers: Some(rule.headers).filter(|headers| !headers.is_empty()),
        allowed_methods: rule.methods,
        allowed_origins: rule.origins,
        expose_headers: Some(rule.exposed).filter(|headers| !headers.is_empty()),
        id: rule.id,
        max_age_seconds: rule.max_age.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX)),
    }
}

pub(super) async fn get_bucket_cors(
    face: &Face,
    request: S3Request<GetBucketCorsInput>,
) -> S3Result<S3Response<GetBucketCorsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let bucket = face.node.bucket(&input.bucket).await.map_err(of_node)?;
    let Some(text) = bucket.settings.document(Cors::DOCUMENT) else {
        return Err(refuse(S3ErrorCode::NoSuchCORSConfiguration, "this bucket has no CORS configuration"));
    };
    let unread =
        || refuse(S3ErrorCode::InternalError, "the bucket's CORS rules can't be read by this version");
    let Cors(rules) = Cors::decode(text).ok_or_else(unread)?;
    let rules = rules.into_iter().map(shape_of).collect();
    Ok(S3Response::new(GetBucketCorsOutput { cors_rules: Some(rules) }))
}

pub(super) async fn put_bucket_cors(
    face: &Face,
    request: S3Request<PutBucketCorsInput>,
) -> S3Result<S3Response<PutBucketCorsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let rules = input.cors_configuration.cors_rules;
    if rules.is_empty() || rules.len() > RULES {
        let why = format!("a CORS configuration has 1 to {RULES} rules, this one has {}", rules.len());
        return Err(refuse(S3ErrorCode::MalformedXML, why));
    }
    let cors = Cors(rules.into_iter().map(rule_of).collect::<S3Result<_>>()?);
    let text = cors.encode();
    face.change(&input.bucket, |settings| settings.set_document(Cors::DOCUMENT, Some(text.clone()))).await?;
    Ok(S3Response::new(PutBucketCorsOutput::default()))
}

pub(super) async fn delete_bucket_cors(
    face: &Face,
    request: S3Request<DeleteBucketCorsInput>,
) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    face.change(&input.bucket, |settings| settings.set_document(Cors::DOCUMENT, None)).await?;
    Ok(S3Response::new(DeleteBucketCorsOutput::default()))
}
