//! Uploads by HTML forms (S3's PostObject): a browser sends a file under a policy that someone with a key signed.
//!
//! `s3s` would hold the whole file in memory, so forms are read here, in front of it. The fields come first and are
//! few; signature, rights and policy are checked before the first byte of the file is taken.

mod form;
mod policy;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER_PERMISSIVE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use pando_core::access::Right;
use pando_node::PutOptions;
use s3s::{
    Body, S3ErrorCode, S3Result,
    dto::{
        ChecksumAlgorithm, ETag, ObjectCannedACL, ServerSideEncryption, StreamingBlob, Timestamp,
        TimestampFormat,
    },
};
use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time};

use self::{form::Form, policy::Policy};
use crate::{
    auth::{Caller, Keys, Operation},
    error::refuse,
    hosts::Hosts,
    meter::Metered,
    s3::{Face, NewObject, Promised, Sums, Unkept, Written, headers, store, url_encode, user_meta},
    signed::signing_key,
    sse::{self, Channel, Given},
};

pub(crate) use self::form::{FIELDS, boundary};

/// For how long a signature is good, however far the policy's expiration is.
const LONGEST: Duration = Duration::days(7);
/// By how much a signer's clock may be ahead.
const SKEW: Duration = Duration::minutes(15);
/// Most bytes of the address that a browser is sent to after its upload.
const ADDRESS: usize = 2048;

/// Takes forms.
pub(crate) struct Posts {
    pub(crate) face: Face,
    pub(crate) keys: Keys,
    pub(crate) hosts: Hosts,
}

/// The boundary of the form that a request brings, if it brings one.
pub(crate) fn boundary_of<B>(request: &Request<B>) -> Option<S3Result<String>> {
    if request.method() != Method::POST {
        return None;
    }
    let kinds = request.headers().get_all(header::CONTENT_TYPE);
    boundary(&kinds.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>())
}

impl Posts {
    /// Answers a form.
    pub(crate) async fn answer(
        &self,
        request: Request<Metered<Incoming>>,
        boundary: &str,
        operation: &Operation,
    ) -> S3Result<Response<Body>> {
        operation.set("PostObject");
        let (head, body) = request.into_parts();
        if head.headers.contains_key(header::AUTHORIZATION) {
            let why = "a form is signed by its policy: no Authorization header goes with it";
            return Err(refuse(S3ErrorCode::InvalidRequest, why));
        }
        let (bucket, base) = self.place(head.uri.path(), &head.headers)?;
        let form = form::read(Body::http_body_unsync(body), boundary).await?;
        self.caller(&form).await?.check(&bucket, Right::Write)?;
        let signed = form.get("policy").unwrap_or_default();
        let limits = Policy::parse(signed)?.check(&form, &bucket, now())?;
        let said = ["algorithm", "key", "key-md5"].map(|what| format!("{CUSTOMER}-{what}"));
        let given = sse::given(said.each_ref().map(|name| form.get(name)), &head.extensions)?;
        let (new, answer) = (Upload::of(&form, given.as_ref())?, Answer::of(&form));
        let Upload { key, options, promised } = new;
        let file = form.file.within(limits);
        let new = NewObject {
            bucket: &bucket,
            key: &key,
            options,
            promised,
            body: Some(StreamingBlob::new(file)),
            length: None,
            given: given.as_ref(),
        };
        let Written { etag, version, .. } = store(&self.face, new).await?;
        let scheme = if head.extensions.get::<Channel>().is_some_and(|channel| channel.tls) {
            "https"
        } else {
            "http"
        };
        let location = format!("{scheme}://{base}/{}", url_encode(&key));
        let mut response = answer.response(&bucket, &key, &location, &etag);
        if let Some(version) = version {
            insert(&mut response, "x-amz-version-id", &version.to_string());
        }
        if let (Some(algorithm), Some(md5)) = sse::echo(given.as_ref()) {
            insert(&mut response, &format!("{CUSTOMER}-algorithm"), &algorithm);
            insert(&mut response, &format!("{CUSTOMER}-key-md5"), &md5);
        }
        Ok(response)
    }

    /// The bucket that a form is for, which stands in the path or the host name, and the address of its keys.
    fn place(&self, path: &str, headers: &HeaderMap) -> S3Result<(String, String)> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let in_host = self.hosts.bucket(host);
        let in_path = path.trim_matches('/');
        match (in_host, in_path) {
            (Some(bucket), "") => Ok((bucket, host.to_owned())),
            (None, bucket) if !bucket.is_empty() && !bucket.contains('/') => {
                Ok((bucket.to_owned(), format!("{host}/{bucket}")))
            }
            _ => Err(refuse(
                S3ErrorCode::MethodNotAllowed,
                "a form is sent to a bucket; the key is one of its fields",
            )),
        }
    }

    /// Who signed a form.
    async fn caller(&self, form: &Form) -> S3Result<Caller> {
        let invalid = |why: &'static str| refuse(S3ErrorCode::InvalidRequest, why);
        let Some(policy) = form.get("policy") else {
            let why = "a form needs a policy that is signed with an access key";
            return Err(refuse(S3ErrorCode::AccessDenied, why));
        };
        let field = |name: &str| {
            let missing = || refuse(S3ErrorCode::InvalidArgument, format!("the form has no field {name:?}"));
            form.get(name).ok_or_else(missing)
        };
        if form.get("x-amz-signature").is_none() && form.get("signature").is_some() {
            return Err(invalid("signatures of version 2 are not accepted: use AWS4-HMAC-SHA256"));
        }
        if field("x-amz-algorithm")? != "AWS4-HMAC-SHA256" {
            return Err(invalid("sign forms with AWS4-HMAC-SHA256"));
        }
        let scope: Vec<&str> = field("x-amz-credential")?.split('/').collect();
        let [id, date, region, "s3", "aws4_request"] = scope.as_slice() else {
            return Err(invalid("x-amz-credential is KEY/DATE/REGION/s3/aws4_request"));
        };
        let stamp = field("x-amz-date")?;
        let signed_at = time_of(stamp).filter(|_| stamp.starts_with(date));
        let signed_at = signed_at.ok_or_else(|| {
            invalid("x-amz-date is of the form 20260101T000000Z, and the credential's date is the same")
        })?;
        let signature = HEXLOWER_PERMISSIVE.decode(field("x-amz-signature")?.as_bytes()).unwrap_or_default();
        let key = self.keys.get(id).await?;
        let signing = signing_key(&key.secret.reveal(), date, region);
        // In constant time.
        if hmac::verify(&signing, policy.as_bytes(), &signature).is_err() {
            let why = "the form's signature is not that of its policy under this key";
            return Err(refuse(S3ErrorCode::SignatureDoesNotMatch, why));
        }
        let age = now() - signed_at;
        if age < -SKEW || age > LONGEST {
            let why = "the form was signed more than 7 days ago, or in the future";
            return Err(refuse(S3ErrorCode::AccessDenied, why));
        }
        Ok(Caller::with_key(key.info.id, key.info.grants))
    }
}

/// What the fields with a client's key start with.
const CUSTOMER: &str = "x-amz-server-side-encryption-customer";

fn now() -> OffsetDateTime {
    std::time::SystemTime::now().into()
}

/// The time in `20260101T000000Z`.
fn time_of(stamp: &str) -> Option<OffsetDateTime> {
    let digits = |range: std::ops::Range<usize>| {
        let text = stamp.get(range)?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?
    };
    if stamp.len() != 16 || stamp.as_bytes()[8] != b'T' || stamp.as_bytes()[15] != b'Z' {
        return None;
    }
    let month = Month::try_from(digits(4..6)? as u8).ok()?;
    let date = Date::from_calendar_date(digits(0..4)?.into(), month, digits(6..8)? as u8).ok()?;
    let time = Time::from_hms(digits(9..11)? as u8, digits(11..13)? as u8, digits(13..15)? as u8).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc())
}

/// What a form says of the object that it is to make.
struct Upload {
    key: String,
    options: PutOptions,
    promised: Promised,
}

impl Upload {
    fn of(form: &Form, given: Option<&Given>) -> S3Result<Self> {
        let key = form.get("key").filter(|key| !key.is_empty()).ok_or_else(|| {
            refuse(S3ErrorCode::UserKeyMustBeSpecified, "the form has no field \"key\" before its file")
        })?;
        let acl = form.get("acl").map(|acl| ObjectCannedACL::from(acl.to_owned()));
        let encryption = form.get("x-amz-server-side-encryption");
        let encryption = encryption.map(|how| ServerSideEncryption::from(how.to_owned()));
        Unkept {
            acl: acl.as_ref(),
            encryption: encryption.as_ref(),
            customer_key: given.is_some(),
            lock: form.fields().any(|(name, _)| name.starts_with("x-amz-object-lock-")),
            redirect: form.get("x-amz-website-redirect-location").is_some(),
            grants: form.fields().any(|(name, _)| name.starts_with("x-amz-grant-")),
        }
        .check()?;
        if form.get("tagging").is_some() {
            return Err(refuse(S3ErrorCode::NotImplemented, "forms can't tag objects: tag them afterwards"));
        }
        let text = |name: &str| form.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        // They are to be headers again.
        let plain = |value: &str| HeaderValue::from_str(value).is_ok();
        let bad =
            |name: &str| refuse(S3ErrorCode::InvalidArgument, format!("the field {name:?} can't be kept"));
        for name in
            ["content-type", "cache-control", "content-disposition", "content-encoding", "content-language"]
        {
            if form.get(name).is_some_and(|value| !plain(value)) {
                return Err(bad(name));
            }
        }
        let expires = text("expires").map(|text| Timestamp::parse(TimestampFormat::HttpDate, &text));
        let expires = expires.transpose().map_err(|_| bad("expires"))?;
        let mut meta = s3s::dto::Metadata::default();
        for (field, value) in form.fields() {
            let Some(name) = field.strip_prefix("x-amz-meta-") else { continue };
            if header::HeaderName::from_bytes(name.as_bytes()).is_err() || value.contains(char::is_control) {
                return Err(bad(field));
            }
            meta.insert(name.to_owned(), value.to_owned());
        }
        let sums = Sums {
            crc32: text("x-amz-checksum-crc32"),
            crc32c: text("x-amz-checksum-crc32c"),
            crc64nvme: text("x-amz-checksum-crc64nvme"),
            sha1: text("x-amz-checksum-sha1"),
            sha256: text("x-amz-checksum-sha256"),
            kind: None,
        };
        let wanted = text("x-amz-checksum-algorithm").map(ChecksumAlgorithm::from);
        let options = PutOptions {
            meta: user_meta(text("content-type"), Some(meta)),
            headers: headers(
                text("cache-control"),
                text("content-disposition"),
                text("content-encoding"),
                text("content-language"),
                expires.as_ref(),
            ),
            ..PutOptions::default()
        };
        let promised =
            Promised::of(form.get("content-md5"), &sums, wanted.as_ref(), &HeaderMap::new(), None)?;
        Ok(Self { key: key.to_owned(), options, promised })
    }
}

/// What a browser is told when its upload has succeeded.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Status(StatusCode),
    Go(String),
}

impl Answer {
    fn of(form: &Form) -> Self {
        let address = form.get("success_action_redirect").or_else(|| form.get("redirect"));
        let good = address.filter(|text| {
            let starts = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
            starts && text.len() <= ADDRESS && HeaderValue::from_str(text).is_ok()
        });
        if let Some(address) = good {
            return Self::Go(address.to_owned());
        }
        Self::Status(match form.get("success_action_status") {
            Some("200") => StatusCode::OK,
            Some("201") => StatusCode::CREATED,
            _ => StatusCode::NO_CONTENT,
        })
    }

    fn response(self, bucket: &str, key: &str, location: &str, etag: &ETag) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        if let Ok(etag) = etag.to_http_header() {
            response.headers_mut().insert(header::ETAG, etag);
        }
        match self {
            Self::Go(address) => {
                // What stands behind a `#` is for the browser alone.
                let (address, _) = address.split_once('#').unwrap_or((&address, ""));
                let joint = if address.contains('?') { '&' } else { '?' };
                let (key, etag) = (url_encode(key), etag.value());
                let address = format!("{address}{joint}bucket={bucket}&key={key}&etag=%22{etag}%22");
                *response.status_mut() = StatusCode::SEE_OTHER;
                insert(&mut response, "location", &address);
            }
            Self::Status(status) => {
                *response.status_mut() = status;
                insert(&mut response, "location", location);
                if status == StatusCode::CREATED {
                    let body = format!(
                        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{}</Location>\
                         <Bucket>{}</Bucket><Key>{}</Key><ETag>&quot;{}&quot;</ETag></PostResponse>",
                        escaped(location),
                        escaped(bucket),
                        escaped(key),
                        escaped(etag.value()),
                    );
                    insert(&mut response, "content-type", "application/xml");
                    *response.body_mut() = Body::from(body);
                }
            }
        }
        response
    }
}

fn insert(response: &mut Response<Body>, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) =
        (header::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
    {
        response.headers_mut().insert(name, value);
    }
}

/// Text in XML; what can't stand in XML at all is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // As they are, a reader would make spaces of them.
            '\t' | '\n' | '\r' => escaped.push_str(&format!("&#{};", u32::from(char))),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => {}
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time_of("20260101T000001Z").map(OffsetDateTime::unix_timestamp), Some(1_767_225_601));
        for bad in [
            "",
            "20261301T000000Z",
            "20260101T000000",
            "2026+101T000000Z",
            "20260101 000000Z",
            "20260101T006000Z",
        ] {
            assert_eq!(time_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a<b>&\"\u{1}\t\u{fffe}ü"), "a&lt;b&gt;&amp;&quot;&#9;ü");
    }
}
