//! What is refused of a signature's form before anything else happens, beyond what `s3s` checks.
//!
//! `s3s` verifies signatures of version 4 (in headers and in the query), their dates and scopes, and the bodies'
//! hashes and chunks. Here: no other version; whatever could change a request's meaning is signed, or it is not
//! there; presigned URLs are good for a week at most; one signature for a request.

use aws_lc_rs::hmac;
use http::{HeaderMap, Uri, header};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::error::refuse;

/// The longest validity of a presigned URL, in seconds: 7 days.
const LONGEST: u64 = 7 * 24 * 3600;

/// The key by which version 4 signs, on this day for this region
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html>).
pub(crate) fn signing_key(secret: &str, date: &str, region: &str) -> hmac::Key {
    let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
    let first = key(format!("AWS4{secret}").as_bytes());
    let parts = [date, region, "s3", "aws4_request"];
    parts.iter().fold(first, |last, part| key(hmac::sign(&last, part.as_bytes()).as_ref()))
}

/// Whether a request's query has a signature; decoded, as `s3s` reads it.
pub(crate) fn is_presigned(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).any(|(name, _)| name == "X-Amz-Signature")
}

/// Checks the form of a request's signature, if it has one.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> S3Result<()> {
    // Decoded, as `s3s` reads them: a name with a letter in another spelling is still that name.
    let query = uri.query().unwrap_or_default().as_bytes();
    let parameters: Vec<_> = form_urlencoded::parse(query).collect();
    let parameter = |wanted: &str| {
        let mut found = parameters.iter().filter(|(name, _)| name == wanted).map(|(_, value)| &**value);
        // What is there twice may be read as either: as none that is good.
        found.next().map(|value| if found.next().is_some() { "" } else { value })
    };
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorizations.next();
    let presigned = parameter("X-Amz-Signature").is_some();
    if authorizations.next().is_some() || (authorization.is_some() && presigned) {
        return Err(invalid("a request is signed once: by one Authorization header, or by its query"));
    }
    if parameter("Signature").is_some() || parameter("AWSAccessKeyId").is_some() {
        return Err(version_2());
    }
    if presigned {
        let expires = parameter("X-Amz-Expires").and_then(|text| text.parse::<u64>().ok());
        if !expires.is_some_and(|expires| (1..=LONGEST).contains(&expires)) {
            let why = format!("X-Amz-Expires is 1 to {LONGEST} seconds (7 days)");
            return Err(refuse(S3ErrorCode::AuthorizationQueryParametersError, why));
        }
        check_scope(parameter("X-Amz-Credential").unwrap_or_default())?;
        return check_headers(parameter("X-Amz-SignedHeaders").unwrap_or_default(), headers);
    }
    let Some(authorization) = authorization else { return Ok(()) };
    let text = authorization.to_str().map_err(|_| invalid("the Authorization header is not text"))?;
    let Some(fields) = text.strip_prefix("AWS4-HMAC-SHA256") else {
        return Err(if text.starts_with("AWS ") {
            version_2()
        } else {
            invalid("sign with AWS4-HMAC-SHA256")
        });
    };
    let field = |name: &str| {
        fields
            .split(',')
            .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    check_scope(field("Credential"))?;
    check_headers(field("SignedHeaders"), headers)
}

/// The scope of a credential must be this service.
fn check_scope(credential: &str) -> S3Result<()> {
    if credential.ends_with("/s3/aws4_request") {
        return Ok(());
    }
    Err(invalid("the credential's scope must end with /s3/aws4_request"))
}

/// Everything that means something to S3 must be signed.
fn check_headers(signed: &str, headers: &HeaderMap) -> S3Result<()> {
    let is_signed = |name: &str| signed.split(';').any(|signed| signed == name);
    if !is_signed("host") {
        return Err(invalid("the Host header must be signed"));
    }
    let matters = |name: &&header::HeaderName| name.as_str().starts_with("x-amz-");
    match headers.keys().filter(matters).find(|name| !is_signed(name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let why = format!("there were headers present in the request which were not signed: {name}");
            Err(refuse(S3ErrorCode::AccessDenied, why))
        }
    }
}

fn version_2() -> S3Error {
    invalid(
        "signatures of version 2 are not accepted: use AWS4-HMAC-SHA256 (in s3cmd and boto3, signature version 4)",
    )
}

fn invalid(why: &'static str) -> S3Error {
    refuse(S3ErrorCode::InvalidRequest, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "AWS4-HMAC-SHA256 Credential=PNDO/20260101/us-east-1/s3/aws4_request, \
                        SignedHeaders=host;x-amz-date, Signature=00";

    fn code(uri: &str, headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        check(&uri.parse().unwrap(), &map).err().map(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn good_signatures_pass() {
        assert_eq!(code("/b/k", &[]), None);
        assert_eq!(code("/b/k", &[("authorization", GOOD), ("x-amz-date", "d"), ("range", "r")]), None);
        let url = "/b/k?X-Amz-Expires=604800&X-Amz-Signature=0&X-Amz-SignedHeaders=host&\
                   X-Amz-Credential=PNDO%2F20260101%2Fus-east-1%2Fs3%2Faws4_request";
        assert_eq!(code(url, &[]), None);
    }

    #[test]
    fn what_is_not_signed_is_refused() {
        let unsigned = [("authorization", GOOD), ("x-amz-date", "d"), ("x-amz-meta-a", "b")];
        assert_eq!(code("/b/k", &unsigned).as_deref(), Some("AccessDenied"));
        let no_host = GOOD.replace("host;", "");
        assert_eq!(code("/b/k", &[("authorization", &no_host)]).as_deref(), Some("InvalidRequest"));
        let url = "/b/k?X-Amz-Expires=60&X-Amz-Signature=0&X-Amz-SignedHeaders=host&\
                   X-Amz-Credential=P%2F20260101%2Fus-east-1%2Fs3%2Faws4_request";
        assert_eq!(code(url, &[("x-amz-acl", "public-read")]).as_deref(), Some("AccessDenied"));
    }

    #[test]
    fn another_spelling_of_the_query_changes_nothing() {
        let url = "/b/k?X-Amz-Expires=60&%58-Amz-Signature=0&X-Amz-SignedHeaders=host&\
                   X-Amz-Credential=P%2F20260101%2Fus-east-1%2Fs3%2Faws4_request";
        assert_eq!(code(url, &[]), None);
        let copied = [("x-amz-copy-source", "/b/secret")];
        assert_eq!(code(url, &copied).as_deref(), Some("AccessDenied"));
        let long = url.replace("Expires=60", "Expires=604801");
        assert_eq!(code(&long, &[]).as_deref(), Some("AuthorizationQueryParametersError"));
        let twice = format!("{url}&X-Amz-Expire%73=604801");
        assert_eq!(code(&twice, &[]).as_deref(), Some("AuthorizationQueryParametersError"));
        for old in ["/b/k?%53ignature=0", "/b/k?AWSAccessKey%49d=0"] {
            assert_eq!(code(old, &[]).as_deref(), Some("InvalidRequest"), "{old}");
        }
    }

    #[test]
    fn other_signatures_are_refused() {
        for headers in [
            &[("authorization", "AWS key:signature")][..],
            &[("authorization", "Basic abc")],
            &[("authorization", GOOD), ("authorization", GOOD)],
            &[("authorization", &GOOD.replace("/s3/", "/sts/"))],
        ] {
            assert_eq!(code("/b/k", headers).as_deref(), Some("InvalidRequest"), "{headers:?}");
        }
        assert_eq!(code("/b/k?Signature=0", &[]).as_deref(), Some("InvalidRequest"));
        assert_eq!(
            code("/b/k?X-Amz-Signature=0", &[("authorization", GOOD)]).as_deref(),
            Some("InvalidRequest")
        );
        for expires in ["604801", "0", "-1", "x", ""] {
            let url = format!("/b/k?X-Amz-Signature=0&X-Amz-Expires={expires}");
            assert_eq!(code(&url, &[]).as_deref(), Some("AuthorizationQueryParametersError"), "{expires}");
        }
    }
}
