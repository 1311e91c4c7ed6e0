//! Lifecycle rules of buckets: what goes by itself, and when. The node carries them out.

use std::collections::HashSet;

use pando_core::bucket::{Expire, LifecycleRule as Rule, MAX_RULE_ID, MAX_RULES, Noncurrent};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    shape::{check_owner, tag_set, tags_of_set, timestamp},
};
use crate::error::{of_node, refuse};

const DAY_MS: i128 = 24 * 3600 * 1000;
/// Most noncurrent versions that a rule may keep, as in S3.
const KEEP: i32 = 100;

fn malformed(why: &'static str) -> S3Error {
    refuse(S3ErrorCode::MalformedXML, why)
}

fn invalid(why: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    refuse(S3ErrorCode::InvalidArgument, why)
}

fn days(what: &str, days: i32) -> S3Result<u32> {
    let positive = u32::try_from(days).ok().filter(|days| *days > 0);
    positive.ok_or_else(|| invalid(format!("{what} must be a positive number of days, not {days}")))
}

fn size(size: Option<i64>) -> S3Result<Option<u64>> {
    let sized = size.map(u64::try_from).transpose();
    sized.map_err(|_| invalid("the size of an object can't be negative"))
}

/// Which objects a rule is for.
fn select(rule: &mut Rule, prefix: Option<String>, filter: Option<LifecycleRuleFilter>) -> S3Result<()> {
    let filter = match (prefix, filter) {
        (Some(prefix), None) => LifecycleRuleFilter { prefix: Some(prefix), ..Default::default() },
        (None, Some(filter)) => filter,
        _ => return Err(malformed("a rule has a Filter (which may be empty), or a Prefix, and not both")),
    };
    let given = [
        filter.prefix.is_some(),
        filter.tag.is_some(),
        filter.and.is_some(),
        filter.object_size_greater_than.is_some(),
        filter.object_size_less_than.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(malformed("a Filter has one element; more of them stand in its And"));
    }
    let all = filter.and.unwrap_or_else(|| LifecycleRuleAndOperator {
        object_size_greater_than: filter.object_size_greater_than,
        object_size_less_than: filter.object_size_less_than,
        prefix: filter.prefix,
        tags: filter.tag.map(|tag| vec![tag]),
    });
    rule.prefix = all.prefix.unwrap_or_default();
    rule.tags = tags_of_set(all.tags.unwrap_or_default())?;
    rule.larger_than = size(all.object_size_greater_than)?;
    rule.smaller_than = size(all.object_size_less_than)?;
    match (rule.larger_than, rule.smaller_than) {
        (Some(larger), Some(smaller)) if smaller <= larger => {
            Err(invalid("ObjectSizeLessThan must be greater than ObjectSizeGreaterThan"))
        }
        _ => Ok(()),
    }
}

fn expire(rule: &mut Rule, expiration: LifecycleExpiration) -> S3Result<()> {
    rule.expire_markers = expiration.expired_object_delete_marker == Some(true);
    rule.expire = match (expiration.days, expiration.date) {
        (None, None) => None,
        (Some(number), None) => Some(Expire::Days(days("Days of Expiration", number)?)),
        (None, Some(date)) => {
            let ms = time::OffsetDateTime::from(date).unix_timestamp_nanos() / 1_000_000;
            let at = u64::try_from(ms).ok().filter(|_| ms % DAY_MS == 0);
            Some(Expire::At(at.ok_or_else(|| invalid("Date must be at midnight UTC, after 1970"))?))
        }
        (Some(_), Some(_)) => return Err(malformed("Expiration has Days or a Date, not both")),
    };
    if rule.expire_markers && rule.expire.is_some() {
        return Err(malformed("ExpiredObjectDeleteMarker stands alone in Expiration, without Days or Date"));
    }
    Ok(())
}

fn noncurrent(expiration: NoncurrentVersionExpiration) -> S3Result<Noncurrent> {
    let number = expiration.noncurrent_days.ok_or_else(|| malformed("NoncurrentDays is missing"))?;
    let keep = expiration.newer_noncurrent_versions.unwrap_or(0);
    match u32::try_from(keep) {
        Ok(kept) if keep <= KEEP => Ok(Noncurrent { days: days("NoncurrentDays", number)?, keep: kept }),
        _ => Err(invalid(format!("NewerNoncurrentVersions is 1 to {KEEP}"))),
    }
}

fn rule_of(rule: LifecycleRule) -> S3Result<Rule> {
    let moves = |list: Option<usize>| list.is_some_and(|length| length > 0);
    if moves(rule.transitions.map(|list| list.len()))
        || moves(rule.noncurrent_version_transitions.map(|list| list.len()))
    {
        let why = "transitions are not supported: there is one storage class";
        return Err(refuse(S3ErrorCode::NotImplemented, why));
    }
    let mut made = Rule {
        enabled: match rule.status.as_str() {
            ExpirationStatus::ENABLED => true,
            ExpirationStatus::DISABLED => false,
            _ => return Err(malformed("the Status of a rule is Enabled or Disabled")),
        },
        id: rule.id.unwrap_or_default(),
        ..Rule::default()
    };
    if made.id.len() > MAX_RULE_ID {
        return Err(invalid(format!("the ID of a rule has at most {MAX_RULE_ID} bytes")));
    }
    select(&mut made, rule.prefix, rule.filter)?;
    if let Some(expiration) = rule.expiration {
        expire(&mut made, expiration)?;
    }
    made.noncurrent = rule.noncurrent_version_expiration.map(noncurrent).transpose()?;
    if let Some(abort) = rule.abort_incomplete_multipart_upload {
        let number =
            abort.days_after_initiation.ok_or_else(|| malformed("DaysAfterInitiation is missing"))?;
        made.abort_uploads_days = Some(days("DaysAfterInitiation", number)?);
    }
    let acts = made.expire.is_some() || made.expire_markers || made.noncurrent.is_some();
    if !acts && made.abort_uploads_days.is_none() {
        return Err(refuse(S3ErrorCode::InvalidRequest, "a rule needs at least one action"));
    }
    let has_sizes = made.larger_than.is_some() || made.smaller_than.is_some();
    if made.abort_uploads_days.is_some() && (has_sizes || !made.tags.is_empty()) {
        let why = "AbortIncompleteMultipartUpload takes no filter by tag or size: uploads have neither";
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    if made.expire_markers && (has_sizes || !made.tags.is_empty()) {
        let why = "ExpiredObjectDeleteMarker takes no filter by tag or size: delete markers have neither";
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    Ok(made)
}

fn rules_of(rules: Vec<LifecycleRule>) -> S3Result<Vec<Rule>> {
    if rules.is_empty() || rules.len() > MAX_RULES {
        let why =
            format!("a lifecycle configuration has 1 to {MAX_RULES} rules, this one has {}", rules.len());
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    let mut rules: Vec<Rule> = rules.into_iter().map(rule_of).collect::<S3Result<_>>()?;
    let mut ids: HashSet<String> = HashSet::new();
    for rule in rules.iter().filter(|rule| !rule.id.is_empty()) {
        if !ids.insert(rule.id.clone()) {
            return Err(invalid(format!("there is more than one rule with the ID {:?}", rule.id)));
        }
    }
    // As S3 does, those without an id are given one.
    let mut fresh = (1..).map(|number| format!("rule-{number}")).filter(|id| !ids.contains(id));
    for rule in rules.iter_mut().filter(|rule| rule.id.is_empty()) {
        rule.id = fresh.next().unwrap_or_default();
    }
    Ok(rules)
}

fn filter_of(rule: &Rule) -> LifecycleRuleFilter {
    let tags = rule.tags.len();
    let sizes = usize::from(rule.larger_than.is_some()) + usize::from(rule.smaller_than.is_some());
    let prefix = Some(rule.prefix.clone()).filter(|prefix| !prefix.is_empty());
    let (larger, smaller) =
        (rule.larger_than.map(|size| size as i64), rule.smaller_than.map(|size| size as i64));
    if tags + sizes == 0 {
        return LifecycleRuleFilter { prefix: Some(rule.prefix.clone()), ..Default::default() };
    }
    if tags + sizes + usize::from(prefix.is_some()) == 1 {
        return LifecycleRuleFilter {
            object_size_greater_than: larger,
            object_size_less_than: smaller,
            tag: tag_set(rule.tags.clone()).into_iter().next(),
            ..Default::default()
        };
    }
    let and = LifecycleRuleAndOperator {
        object_size_greater_than: larger,
        object_size_less_than: smaller,
        prefix,
        tags: Some(tag_set(rule.tags.clone())).filter(|tags| !tags.is_empty()),
    };
    LifecycleRuleFilter { and: Some(and), ..Default::default() }
}

fn shape_of(rule: Rule) -> LifecycleRule {
    let whole = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let expiration = match (rule.expire, rule.expire_markers) {
        (None, false) => None,
        (Some(Expire::Days(days)), _) => {
            Some(LifecycleExpiration { days: Some(whole(days)), ..Default::default() })
        }
        (Some(Expire::At(ms)), _) => {
            Some(LifecycleExpiration { date: Some(timestamp(ms)), ..Default::default() })
        }
        (None, true) => {
            Some(LifecycleExpiration { expired_object_delete_marker: Some(true), ..Default::default() })
        }
    };
    let noncurrent = rule.noncurrent.map(|noncurrent| NoncurrentVersionExpiration {
        newer_noncurrent_versions: Some(whole(noncurrent.keep)).filter(|keep| *keep > 0),
        noncurrent_days: Some(whole(noncurrent.days)),
    });
    let abort = rule
        .abort_uploads_days
        .map(|days| AbortIncompleteMultipartUpload { days_after_initiation: Some(whole(days)) });
    let status = if rule.enabled { ExpirationStatus::ENABLED } else { ExpirationStatus::DISABLED };
    LifecycleRule {
        abort_incomplete_multipart_upload: abort,
        expiration,
        filter: Some(filter_of(&rule)),
        id: Some(rule.id),
        noncurrent_version_expiration: noncurrent,
        noncurrent_version_transitions: None,
        prefix: None,
        status: ExpirationStatus::from_static(status),
        transitions: None,
    }
}

pub(super) async fn get_bucket_lifecycle_configuration(
    face: &Face,
    request: S3Request<GetBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let bucket = face.node.bucket(&input.bucket).await.map_err(of_node)?;
    if bucket.settings.lifecycle.is_empty() {
        return Err(refuse(S3ErrorCode::NoSuchLifecycleConfiguration, "this bucket has no lifecycle rules"));
    }
    let rules = Some(bucket.settings.lifecycle.into_iter().map(shape_of).collect());
    let output =
        GetBucketLifecycleConfigurationOutput { rules, transition_default_minimum_object_size: None };
    Ok(S3Response::new(output))
}

pub(super) async fn put_bucket_lifecycle_configuration(
    face: &Face,
    request: S3Request<PutBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let missing = || malformed("the lifecycle configuration is missing");
    let rules = rules_of(input.lifecycle_configuration.ok_or_else(missing)?.rules)?;
    face.change(&input.bucket, |settings| settings.lifecycle.clone_from(&rules)).await?;
    Ok(S3Response::new(PutBucketLifecycleConfigurationOutput::default()))
}

pub(super) async fn delete_bucket_lifecycle(
    face: &Face,
    request: S3Request<DeleteBucketLifecycleInput>,
) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    face.change(&input.bucket, |settings| settings.lifecycle.clear()).await?;
    Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
}
