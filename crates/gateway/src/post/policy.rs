//! The policy of a form: what its signer allows to be uploaded, and until when.

use data_encoding::BASE64;
use s3s::{
    S3Error, S3ErrorCode, S3Result,
    dto::{Timestamp, TimestampFormat},
};
use serde_json::Value;
use time::OffsetDateTime;

use super::form::Form;
use crate::error::refuse;

/// A policy that was signed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    expires: OffsetDateTime,
    conditions: Vec<Condition>,
}

#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Equals(String, String),
    StartsWith(String, String),
    Length(u64, u64),
}

fn malformed(why: &str) -> S3Error {
    refuse(S3ErrorCode::InvalidPolicyDocument, format!("the form's policy can't be used: {why}"))
}

fn forbidden(why: String) -> S3Error {
    refuse(S3ErrorCode::AccessDenied, format!("invalid according to the form's policy: {why}"))
}

impl Policy {
    /// Reads the form that is signed: base64 of JSON.
    pub(super) fn parse(text: &str) -> S3Result<Self> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| malformed("it is not base64"))?;
        let document: Value = serde_json::from_slice(&bytes).map_err(|_| malformed("it is not JSON"))?;
        let expires = document.get("expiration").and_then(Value::as_str);
        let expires = expires.and_then(|text| Timestamp::parse(TimestampFormat::DateTime, text).ok());
        let expires = expires.ok_or_else(|| malformed("it has no expiration, or one that is no time"))?;
        let conditions = document.get("conditions").and_then(Value::as_array);
        let conditions = conditions.ok_or_else(|| malformed("it has no list of conditions"))?;
        let read = |condition| Condition::read(condition).ok_or_else(|| malformed("a condition is none"));
        let conditions = conditions.iter().map(read).collect::<S3Result<_>>()?;
        Ok(Self { expires: expires.into(), conditions })
    }

    /// Fails if the form is not what was signed. Returns the least and the most bytes that its file may have.
    pub(super) fn check(&self, form: &Form, bucket: &str, now: OffsetDateTime) -> S3Result<(u64, u64)> {
        if now >= self.expires {
            return Err(forbidden("it has expired".to_owned()));
        }
        // The bucket stands in the URL; where the form names it too, it must be the same.
        if form.get("bucket").is_some_and(|named| named != bucket) {
            return Err(forbidden("the form is for another bucket".to_owned()));
        }
        let value = |name: &str| if name == "bucket" { Some(bucket) } else { form.get(name) };
        let mut limits = (0, u64::MAX);
        for condition in &self.conditions {
            match condition {
                Condition::Equals(name, wanted) if value(name) != Some(wanted) => {
                    return Err(forbidden(format!("{name:?} is not {wanted:?}")));
                }
                Condition::StartsWith(name, start) if !starts_with(name, value(name), start) => {
                    return Err(forbidden(format!("{name:?} does not start with {start:?}")));
                }
                Condition::Length(least, most) => {
                    limits = (limits.0.max(*least), limits.1.min(*most));
                }
                Condition::Equals(..) | Condition::StartsWith(..) => {}
            }
        }
        let mut named = form.fields().map(|(name, _)| name).chain(["bucket"]);
        match named.find(|name| !is_free(name) && !self.covers(name)) {
            Some(name) => Err(forbidden(format!("it has no condition for the field {name:?}"))),
            None => Ok(limits),
        }
    }

    fn covers(&self, field: &str) -> bool {
        self.conditions.iter().any(|condition| match condition {
            Condition::Equals(name, _) | Condition::StartsWith(name, _) => name == field,
            Condition::Length(..) => false,
        })
    }
}

/// Whether a field needs no condition.
fn is_free(field: &str) -> bool {
    matches!(field, "policy" | "x-amz-signature") || field.starts_with("x-ignore-")
}

/// Whether a field's value starts so; of content types there may be several, of which each must.
fn starts_with(name: &str, value: Option<&str>, start: &str) -> bool {
    let Some(value) = value else { return false };
    match name {
        "content-type" => value.split(',').all(|one| one.trim().starts_with(start)),
        _ => value.starts_with(start),
    }
}

impl Condition {
    fn read(value: &Value) -> Option<Self> {
        let field = |name: &str| name.to_ascii_lowercase();
        match value {
            Value::Object(pairs) => {
                let mut pairs = pairs.iter();
                let (name, value) = pairs.next()?;
                let one = pairs.next().is_none();
                one.then_some(Self::Equals(field(name), value.as_str()?.to_owned()))
            }
            Value::Array(items) => {
                let [operator, first, second] = items.as_slice() else { return None };
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let named = || Some(field(first.as_str()?.strip_prefix('$')?));
                match operator.as_str()?.to_ascii_lowercase().as_str() {
                    "eq" => Some(Self::Equals(named()?, text(second)?)),
                    "starts-with" => Some(Self::StartsWith(named()?, text(second)?)),
                    "content-length-range" => Some(Self::Length(first.as_u64()?, second.as_u64()?)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Policy, String> {
        Policy::parse(&BASE64.encode(json.as_bytes())).map_err(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn policies_are_read() {
        let policy = parse(
            r#"{"expiration": "2030-01-01T12:00:00.000Z", "conditions": [
                {"Bucket": "b"}, ["eq", "$Key", "k"], ["starts-with", "$x", ""], ["content-length-range", 1, 9]]}"#,
        )
        .unwrap();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            policy.conditions,
            [
                Condition::Equals(text("bucket"), text("b")),
                Condition::Equals(text("key"), text("k")),
                Condition::StartsWith(text("x"), text("")),
                Condition::Length(1, 9)
            ]
        );
        assert_eq!(policy.expires.unix_timestamp(), 1_893_499_200);
        for bad in [
            "",
            "[]",
            r#"{"conditions": []}"#,
            r#"{"expiration": "tomorrow", "conditions": []}"#,
            r#"{"expiration": "2030-01-01T12:00:00Z"}"#,
            r#"{"expiration": "2030-01-01T12:00:00Z", "conditions": [["eq", "key", "no dollar"]]}"#,
            r#"{"expiration": "2030-01-01T12:00:00Z", "conditions": [["is", "$key", "k"]]}"#,
            r#"{"expiration": "2030-01-01T12:00:00Z", "conditions": [{"a": "1", "b": "2"}]}"#,
            r#"{"expiration": "2030-01-01T12:00:00Z", "conditions": [{"a": 1}]}"#,
            r#"{"expiration": "2030-01-01T12:00:00Z", "conditions": [["content-length-range", -1, 9]]}"#,
        ] {
            assert_eq!(parse(bad).unwrap_err(), "InvalidPolicyDocument", "{bad}");
        }
        assert!(Policy::parse("not base64!").is_err());
    }

    #[test]
    fn content_types_are_a_list() {
        assert!(starts_with("content-type", Some("image/png, image/gif"), "image/"));
        assert!(!starts_with("content-type", Some("image/png, text/html"), "image/"));
        assert!(starts_with("key", Some("a,b"), "a") && !starts_with("key", None, ""));
    }
}
