//! Signs S3 requests (AWS Signature Version 4, in headers), as clients of S3 do.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use data_encoding::HEXLOWER;

/// Stands for the hash of a body that is not signed.
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Who signs.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    id: String,
    secret: String,
    region: &'static str,
}

/// What is signed. Path and query must be in their canonical form, which those of the bench are: unreserved
/// characters only, one parameter.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// Names in lower case, sorted.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Of the body; or [`UNSIGNED`].
    pub(crate) hash: &'a str,
}

impl Signer {
    pub(crate) fn new(id: String, secret: String) -> Self {
        Self { id, secret, region: "us-east-1" }
    }

    /// The value of the `Authorization` header at this time, as [`stamp`] gives it.
    pub(crate) fn authorization(&self, request: &Request<'_>, stamp: &str) -> String {
        let scope = format!("{}/{}/s3/aws4_request", &stamp[..8], self.region);
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String =
            request.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let Request { method, path, query, hash, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{hash}");
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let secret = format!("AWS4{}", self.secret);
        let key = scope.split('/').fold(secret.into_bytes(), |key, part| hmac(&key, part));
        let signature = HEXLOWER.encode(&hmac(&key, &to_sign));
        let id = &self.id;
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
    }
}

/// The hash of a body.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// A time as signatures want it: `20130524T000000Z`.
pub(crate) fn stamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = date(seconds / 86_400);
    let rest = seconds % 86_400;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a day since 1970-01-01, counted through: a bench has the time.
pub(crate) fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// "GET Object" of the examples in Amazon's reference, "Authenticating Requests: Using the Authorization Header".
    #[test]
    fn amazons_example_is_signed_as_amazon_signs_it() {
        let signer =
            Signer::new("AKIAIOSFODNN7EXAMPLE".into(), "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into());
        let empty = sha256(b"");
        let stamp = "20130524T000000Z";
        let request = Request {
            method: "GET",
            path: "/test.txt",
            query: "",
            headers: &[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("range", "bytes=0-9"),
                ("x-amz-content-sha256", &empty),
                ("x-amz-date", stamp),
            ],
            hash: &empty,
        };
        assert_eq!(
            signer.authorization(&request, stamp),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn times_are_stamped() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_369_353_600, "20130524T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (4_102_444_799, "20991231T235959Z"),
        ] {
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
