//! Ranges as browsers ask for them: to go on where they stopped, or with words that S3 does not know.

use http::{HeaderMap, Uri, header};
use pando_node::ObjectInfo;
use s3s::dto::{Range, TimestampFormat};

use super::shape::{etag_of, timestamp};
use crate::signed::is_presigned;

/// Whether a client that has a part has it of this version (`If-Range`; RFC 9110, section 13.1.5). If not, it wants all
/// of this one.
pub(super) fn goes_on(headers: &HeaderMap, info: &ObjectInfo) -> bool {
    let Some(condition) = headers.get(header::IF_RANGE) else { return true };
    let etag = etag_of(info).to_http_header();
    if etag.is_ok_and(|etag| etag == condition) {
        return true;
    }
    let mut date = Vec::new();
    let written = timestamp(info.modified).format(TimestampFormat::HttpDate, &mut date);
    written.is_ok() && date == condition.as_bytes()
}

/// Forgets a range that is none, or several, as RFC 9110 (section 14.2) allows: `s3s` would refuse it. Where headers may be
/// signed they stay as they are.
pub(crate) fn forget_odd_range(uri: &Uri, headers: &mut HeaderMap) {
    let odd = |value: &http::HeaderValue| !value.to_str().is_ok_and(|text| Range::parse(text).is_ok());
    let mut ranges = headers.get_all(header::RANGE).iter();
    let is_odd = ranges.next().is_some_and(odd) || ranges.next().is_some();
    if is_odd && !headers.contains_key(header::AUTHORIZATION) && !is_presigned(uri) {
        headers.remove(header::RANGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_ranges_are_forgotten_where_nothing_is_signed() {
        let kept_at = |uri: &'static str, range: &str, signed: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            if signed {
                headers.insert(header::AUTHORIZATION, "AWS4-HMAC-SHA256".parse().unwrap());
            }
            forget_odd_range(&Uri::from_static(uri), &mut headers);
            headers.contains_key(header::RANGE)
        };
        let kept = |range: &str, signed: bool| kept_at("/b/k?a=b", range, signed);
        for good in ["bytes=0-0", "bytes=5-", "bytes=-5"] {
            assert!(kept(good, false), "{good}");
        }
        for odd in ["bytes=0-1,3-4", "bytes=4-3", "lines=1-2", "bytes"] {
            assert!(!kept(odd, false) && kept(odd, true), "{odd}");
            assert!(kept_at("/b/k?%58-Amz-Signature=0", odd, false), "{odd}");
        }
    }
}
