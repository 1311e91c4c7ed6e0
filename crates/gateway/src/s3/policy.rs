//! Bucket policies: those that let anyone read, list, or both are understood; others are refused, not ignored.

use pando_core::bucket::{MAX_PUBLIC, Settings};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{Face, acl, shape::check_owner};
use crate::error::{of_node, refuse};

/// Under which name a bucket keeps its policy, word for word.
const DOCUMENT: &str = "policy";
/// Most bytes of a policy, as in S3.
const LONGEST: usize = 20 << 10;
const SUPPORTED: &str = "supported are statements that allow Principal \"*\" the action s3:GetObject on \
    arn:aws:s3:::BUCKET/PREFIX*, and s3:ListBucket on arn:aws:s3:::BUCKET; for anything else, grant access keys rights";

/// One or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "one value, or a list of them, of the form that a policy has there")]
enum OneOrMore<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn all(&self) -> &[T] {
        match self {
            OneOrMore::One(one) => std::slice::from_ref(one),
            OneOrMore::Many(many) => many,
        }
    }
}

/// A policy. What it may have beyond this is refused as malformed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Policy {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMore<Statement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Statement {
    #[serde(rename = "Sid")]
    _sid: Option<String>,
    effect: String,
    principal: Option<Principal>,
    action: Option<OneOrMore<String>>,
    resource: Option<OneOrMore<String>>,
    #[serde(default, deserialize_with = "is_there")]
    condition: bool,
    #[serde(default, deserialize_with = "is_there")]
    not_principal: bool,
    #[serde(default, deserialize_with = "is_there")]
    not_action: bool,
    #[serde(default, deserialize_with = "is_there")]
    not_resource: bool,
}

/// Something is there, be it `null`: what is not understood must not read as if nobody had said it.
fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a Principal: \"*\" or {\"AWS\": \"*\"}")]
enum Principal {
    Word(String),
    Of(Kinds),
}

/// Principals by kind. What is there twice is malformed, not the last of both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Kinds {
    #[serde(rename = "AWS")]
    aws: Option<OneOrMore<String>>,
    #[serde(default, deserialize_with = "is_there")]
    service: bool,
    #[serde(default, deserialize_with = "is_there")]
    federated: bool,
    #[serde(default, deserialize_with = "is_there")]
    canonical_user: bool,
}

impl Principal {
    fn is_anyone(&self) -> bool {
        match self {
            Principal::Word(word) => word == "*",
            Principal::Of(kinds) => {
                !(kinds.service || kinds.federated || kinds.canonical_user)
                    && kinds.aws.as_ref().is_some_and(|named| matches!(named.all(), [one] if one == "*"))
            }
        }
    }
}

/// What a policy, or an access control list, lets anyone do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Granted {
    /// Prefixes of keys that anyone may read.
    pub(super) read: Vec<String>,
    pub(super) list: bool,
    /// Whether they may ask where the bucket is: so may, and only they, who may list it.
    pub(super) locate: bool,
}

impl Granted {
    fn add(&mut self, other: Granted) {
        self.read.extend(other.read);
        self.list |= other.list;
        self.locate |= other.locate;
    }

    /// Without prefixes that another includes.
    fn simplified(mut self) -> Self {
        self.read.sort();
        // What starts with another one comes right after it, or after others that do.
        let mut kept: Vec<String> = Vec::new();
        for prefix in self.read {
            if !kept.last().is_some_and(|last| prefix.starts_with(last.as_str())) {
                kept.push(prefix);
            }
        }
        Self { read: kept, ..self }
    }
}

fn malformed(why: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    refuse(S3ErrorCode::MalformedPolicy, why)
}

fn unsupported(what: &str) -> S3Error {
    refuse(S3ErrorCode::NotImplemented, format!("{what} in a bucket policy: not supported; {SUPPORTED}"))
}

/// What an ARN of this bucket names: `None` the bucket itself, else the prefix of keys.
fn resource_of(arn: &str, bucket: &str) -> S3Result<Option<String>> {
    let elsewhere =
        || malformed(format!("the resource {arn:?} is not of this bucket: arn:aws:s3:::{bucket}"));
    let name = arn.strip_prefix("arn:aws:s3:::").ok_or_else(elsewhere)?;
    let key = match name.strip_prefix(bucket).ok_or_else(elsewhere)? {
        "" => return Ok(None),
        rest => rest.strip_prefix('/').ok_or_else(elsewhere)?,
    };
    let prefix =
        key.strip_suffix('*').ok_or_else(|| unsupported(&format!("{arn:?}, which does not end with *,")))?;
    if prefix.contains(['*', '?']) || prefix.contains("${") {
        return Err(unsupported(&format!("a wildcard or a variable in the middle of {arn:?}")));
    }
    Ok(Some(prefix.to_owned()))
}

fn granted_by(statement: &Statement, bucket: &str) -> S3Result<Granted> {
    match statement.effect.as_str() {
        "Allow" => {}
        "Deny" => return Err(unsupported("Effect \"Deny\"")),
        other => return Err(malformed(format!("Effect is Allow or Deny, not {other:?}"))),
    }
    for (there, what) in [
        (statement.condition, "Condition"),
        (statement.not_principal, "NotPrincipal"),
        (statement.not_action, "NotAction"),
        (statement.not_resource, "NotResource"),
    ] {
        if there {
            return Err(unsupported(what));
        }
    }
    let missing = |what: &str| malformed(format!("a statement has no {what}"));
    if !statement.principal.as_ref().ok_or_else(|| missing("Principal"))?.is_anyone() {
        return Err(unsupported("a Principal other than \"*\""));
    }
    let actions = statement.action.as_ref().ok_or_else(|| missing("Action"))?.all();
    let resources = statement.resource.as_ref().ok_or_else(|| missing("Resource"))?.all();
    if actions.is_empty() || resources.is_empty() {
        return Err(missing("Action, or no Resource"));
    }
    let (mut of_bucket, mut prefixes) = (false, Vec::new());
    for arn in resources {
        match resource_of(arn, bucket)? {
            None => of_bucket = true,
            Some(prefix) => prefixes.push(prefix),
        }
    }
    let mut granted = Granted::default();
    let (mut uses_bucket, mut uses_keys) = (false, false);
    for action in actions {
        // The names of actions have no case.
        match action.to_ascii_lowercase().as_str() {
            "s3:getobject" => {
                uses_keys = true;
                granted.read.clone_from(&prefixes);
            }
            "s3:listbucket" => {
                uses_bucket = true;
                granted.list = of_bucket;
            }
            "s3:getbucketlocation" => {
                uses_bucket = true;
                granted.locate = of_bucket;
            }
            _ => return Err(unsupported(&format!("the action {action:?}"))),
        }
    }
    if (uses_bucket && !of_bucket) || (uses_keys && prefixes.is_empty()) {
        return Err(malformed(
            "an action does not apply to any resource of its statement: s3:GetObject takes \
             arn:aws:s3:::BUCKET/PREFIX*, s3:ListBucket takes arn:aws:s3:::BUCKET",
        ));
    }
    Ok(granted)
}

/// What a policy lets anyone do.
fn granted(text: &str, bucket: &str) -> S3Result<Granted> {
    if text.len() > LONGEST {
        return Err(malformed(format!("a policy has at most {LONGEST} bytes, this one has {}", text.len())));
    }
    let policy: Policy = serde_json::from_str(text)
        .map_err(|error| malformed(format!("the policy can't be read: {error}")))?;
    if let Some(version) = policy.version.as_deref()
        && !["2012-10-17", "2008-10-17"].contains(&version)
    {
        return Err(malformed(format!("the Version of a policy is \"2012-10-17\", not {version:?}")));
    }
    if policy.statement.all().is_empty() {
        return Err(malformed("the policy has no statement"));
    }
    let mut all = Granted::default();
    for statement in policy.statement.all() {
        all.add(granted_by(statement, bucket)?);
    }
    if all.locate && !all.list {
        return Err(unsupported("s3:GetBucketLocation without s3:ListBucket"));
    }
    let all = all.simplified();
    if all.read.len() > MAX_PUBLIC {
        let why =
            format!("a policy may name at most {MAX_PUBLIC} prefixes, this one names {}", all.read.len());
        return Err(malformed(why));
    }
    Ok(all)
}

/// Makes what strangers may do with a bucket follow from its access control list and its policy.
pub(super) fn settle(settings: &mut Settings, bucket: &str) {
    let mut all = acl::granted(settings);
    let text = settings.document(DOCUMENT).and_then(|text| std::str::from_utf8(text).ok());
    // It was checked when it was put. One that only a newer version understands grants nothing here.
    if let Some(more) = text.and_then(|text| granted(text, bucket).ok()) {
        all.add(more);
    }
    let all = all.simplified();
    settings.public_read = all.read;
    settings.public_list = all.list;
}

fn none() -> S3Error {
    refuse(S3ErrorCode::NoSuchBucketPolicy, "this bucket has no policy")
}

pub(super) async fn get_bucket_policy(
    face: &Face,
    request: S3Request<GetBucketPolicyInput>,
) -> S3Result<S3Response<GetBucketPolicyOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let bucket = face.node.bucket(&input.bucket).await.map_err(of_node)?;
    let text = bucket.settings.document(DOCUMENT).ok_or_else(none)?;
    let policy = Some(String::from_utf8_lossy(text).into_owned());
    let mut response = S3Response::new(GetBucketPolicyOutput { policy });
    let kind = http::HeaderValue::from_static("application/json");
    response.headers.insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}

pub(super) async fn get_bucket_policy_status(
    face: &Face,
    request: S3Request<GetBucketPolicyStatusInput>,
) -> S3Result<S3Response<GetBucketPolicyStatusOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let bucket = face.node.bucket(&input.bucket).await.map_err(of_node)?;
    bucket.settings.document(DOCUMENT).ok_or_else(none)?;
    // Those that don't make anything public are not taken.
    let policy_status = Some(PolicyStatus { is_public: Some(true) });
    Ok(S3Response::new(GetBucketPolicyStatusOutput { policy_status }))
}

pub(super) async fn put_bucket_policy(
    face: &Face,
    request: S3Request<PutBucketPolicyInput>,
) -> S3Result<S3Response<PutBucketPolicyOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    granted(&input.policy, &input.bucket)?;
    let text = bytes::Bytes::from(input.policy);
    face.change(&input.bucket, |settings| {
        settings.set_document(DOCUMENT, Some(text.clone()));
        settle(settings, &input.bucket);
    })
    .await?;
    Ok(S3Response::new(PutBucketPolicyOutput::default()))
}

pub(super) async fn delete_bucket_policy(
    face: &Face,
    request: S3Request<DeleteBucketPolicyInput>,
) -> S3Result<S3Response<DeleteBucketPolicyOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    face.change(&input.bucket, |settings| {
        settings.set_document(DOCUMENT, None);
        settle(settings, &input.bucket);
    })
    .await?;
    Ok(S3Response::new(DeleteBucketPolicyOutput::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(statement: &str) -> Result<Granted, String> {
        let text = format!(r#"{{"Version": "2012-10-17", "Statement": {statement}}}"#);
        granted(&text, "b").map_err(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn what_is_granted_to_anyone_is_understood() {
        let read = r#"{"Sid":"r","Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"}"#;
        let all = Granted { read: vec![String::new()], ..Granted::default() };
        assert_eq!(of(read), Ok(all));
        let several = r#"[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:getobject"],
            "Resource":["arn:aws:s3:::b/x/*","arn:aws:s3:::b/x/y/*","arn:aws:s3:::b/a*"]},
            {"Effect":"Allow","Principal":{"AWS":"*"},"Action":["s3:ListBucket","s3:GetBucketLocation"],
            "Resource":"arn:aws:s3:::b"}]"#;
        assert_eq!(
            of(several),
            Ok(Granted { read: vec!["a".to_owned(), "x/".to_owned()], list: true, locate: true })
        );
        let both = r#"{"Effect":"Allow","Principal":"*","Action":["s3:ListBucket","s3:GetObject"],
            "Resource":["arn:aws:s3:::b","arn:aws:s3:::b/*"]}"#;
        assert_eq!(of(both), Ok(Granted { read: vec![String::new()], list: true, locate: false }));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good =
            r#"{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"}"#;
        assert!(of(good).is_ok());
        for (from, to, code) in [
            ("Allow", "Deny", "NotImplemented"),
            ("Allow", "allow", "MalformedPolicy"),
            ("\"*\"", "{\"AWS\":\"arn:aws:iam::1:root\"}", "NotImplemented"),
            ("\"*\"", "{\"AWS\":\"*\",\"Service\":\"*\"}", "NotImplemented"),
            ("\"*\"", "{\"AWS\":[\"*\",\"1\"]}", "NotImplemented"),
            ("\"Principal\":\"*\",", "", "MalformedPolicy"),
            ("Principal", "NotPrincipal", "NotImplemented"),
            ("GetObject", "PutObject", "NotImplemented"),
            ("s3:GetObject", "s3:*", "NotImplemented"),
            ("s3:GetObject", "*", "NotImplemented"),
            ("GetObject", "ListBucket", "MalformedPolicy"),
            ("GetObject", "GetBucketLocation", "MalformedPolicy"),
            ("b/*", "b", "MalformedPolicy"),
            ("b/*", "bb/*", "MalformedPolicy"),
            ("b/*", "b*", "MalformedPolicy"),
            ("b/*", "b/a*c*", "NotImplemented"),
            ("b/*", "b/${aws:username}/*", "NotImplemented"),
            ("b/*", "b/key", "NotImplemented"),
            ("arn:aws:s3:::b/*", "*", "MalformedPolicy"),
            ("\"Effect\"", "\"Effect\":\"Deny\",\"Effect\"", "MalformedPolicy"),
            ("\"Effect\"", "\"Condition\":{\"Bool\":{}},\"Effect\"", "NotImplemented"),
            ("\"Effect\"", "\"Condition\":null,\"Effect\"", "NotImplemented"),
            ("\"Effect\"", "\"NotPrincipal\":null,\"Effect\"", "NotImplemented"),
            ("\"Effect\"", "\"NotAction\":null,\"Effect\"", "NotImplemented"),
            ("\"Effect\"", "\"NotResource\":null,\"Effect\"", "NotImplemented"),
            ("\"*\"", "null", "MalformedPolicy"),
            ("\"*\"", "{\"AWS\":\"arn:aws:iam::1:root\",\"AWS\":\"*\"}", "MalformedPolicy"),
            ("\"*\"", "{\"AWS\":\"*\",\"Service\":null}", "NotImplemented"),
            ("\"*\"", "{\"AWS\":\"*\",\"Whoever\":\"*\"}", "MalformedPolicy"),
            ("\"Effect\"", "\"Whatever\":1,\"Effect\"", "MalformedPolicy"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_eq!(of(&bad), Err(code.to_owned()), "{bad}");
        }
        for text in ["", "{}", "[]", "{\"Statement\":[]}", "null"] {
            assert!(granted(text, "b").is_err(), "{text}");
        }
        assert!(granted(&format!(r#"{{"Version":"2020-01-01","Statement":{good}}}"#), "b").is_err());
        assert!(granted(&format!(r#"{{"Statement":{good}}}{}"#, " ".repeat(LONGEST)), "b").is_err());
        let many = (0..=MAX_PUBLIC).map(|number| format!("\"arn:aws:s3:::b/{number}*\"")).collect::<Vec<_>>();
        let many = good.replace("\"arn:aws:s3:::b/*\"", &format!("[{}]", many.join(",")));
        assert_eq!(of(&many), Err("MalformedPolicy".to_owned()));
        let only_where = good.replace("GetObject", "GetBucketLocation").replace("b/*", "b");
        assert_eq!(of(&only_where), Err("NotImplemented".to_owned()));
        let beside = good.replace("\"s3:GetObject\"", "[\"s3:GetObject\",\"s3:GetBucketLocation\"]");
        let beside = beside.replace("\"arn:aws:s3:::b/*\"", "[\"arn:aws:s3:::b/*\",\"arn:aws:s3:::b\"]");
        assert_eq!(of(&beside), Err("NotImplemented".to_owned()));
    }

    #[test]
    fn list_and_policy_add_up() {
        let mut settings = Settings::default();
        let policy = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/p/*"}}"#;
        settings.set_document(DOCUMENT, Some(policy.into()));
        settle(&mut settings, "b");
        assert_eq!((settings.public_read.clone(), settings.public_list), (vec!["p/".to_owned()], false));
        acl::set(&mut settings, true);
        settle(&mut settings, "b");
        assert_eq!((settings.public_read.clone(), settings.public_list), (vec![String::new()], true));
        settings.set_document(DOCUMENT, None);
        acl::set(&mut settings, false);
        settle(&mut settings, "b");
        assert_eq!(settings, Settings::default());
    }
}
