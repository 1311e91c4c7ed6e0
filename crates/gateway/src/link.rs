//! Links that let anyone read one object for a while: presigned URLs, made by the node itself.
//!
//! They are signed with an access key of their own for each bucket, which may only read it: removing that key ends
//! all links of the bucket.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{digest, hmac};
use data_encoding::HEXLOWER;
use http::uri::Authority;
use pando_core::access::{Grants, Right};
use pando_node::{AccessKey, Consistency, Error, Node};

use crate::{
    s3::{REGION, url_encode},
    signed::signing_key,
};

/// The longest validity of a link: what S3 allows of presigned URLs.
pub const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where people reach S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    /// As clients write it in the `Host` header, which is signed.
    host: String,
}

impl Address {
    /// From `HOST`, `HOST:PORT` or a URL of these; `tls` if it does not say whether it is http or https.
    pub fn parse(text: &str, tls: bool) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(format!("{text:?} is neither http nor https")),
            None => (tls, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let wrong = || format!("{text:?} is not an address: write it like files.example.org:9000");
        let authority: Authority = rest.parse().map_err(|_| wrong())?;
        let is_bare = authority.host().len() == rest.len();
        if authority.host().is_empty() || rest.contains('@') || !(is_bare || authority.port_u16().is_some()) {
            return Err(wrong());
        }
        // Clients leave the usual port out of the header.
        let usual = if tls { 443 } else { 80 };
        let host = match authority.port_u16() {
            Some(port) if port != usual => format!("{}:{port}", authority.host()),
            _ => authority.host().to_owned(),
        };
        Ok(Self { tls, host: host.to_ascii_lowercase() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.host)
    }
}

/// A link to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What to open.
    pub url: String,
    /// Until when it can be used, in Unix seconds; `None` if the object is public.
    pub until: Option<u64>,
}

/// A link by which anyone may read an object for so long, at most [`LONGEST_LINK`]. If the object is public, it is its
/// plain address. Fails if there is no such object.
pub async fn share(
    node: &Node,
    (bucket, key): (&str, &str),
    valid: Duration,
    address: &Address,
) -> Result<Link, Error> {
    node.stat(bucket, key, Consistency::Linearizable).await?;
    let path = format!("/{bucket}/{}", url_encode(key));
    if node.bucket(bucket).await?.settings.is_public(key) {
        return Ok(Link { url: format!("{address}{path}"), until: None });
    }
    let signer = signer(node, bucket).await?;
    let seconds = valid.min(LONGEST_LINK).as_secs().max(1);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let secret = signer.secret.reveal();
    let query = presign(&address.host, &path, (&signer.info.id, &secret), &stamp(now), seconds);
    Ok(Link { url: format!("{address}{path}?{query}"), until: Some(now + seconds) })
}

/// The key that signs a bucket's links: the oldest of those that two nodes may have made at once.
async fn signer(node: &Node, bucket: &str) -> Result<AccessKey, Error> {
    let name = format!("share links of {bucket}");
    // A key with that name and other rights is someone's own.
    let grants = Grants::Buckets(vec![(bucket.to_owned(), Right::Read)]);
    let all = node.list_keys().await?;
    let found = all.into_iter().filter(|key| key.name == name && key.grants == grants);
    match found.min_by_key(|key| (key.created, key.id.clone())) {
        Some(key) => match node.access_key(&key.id).await {
            // Removed meanwhile.
            Err(Error::NoSuchKey(_)) => node.create_key(&name, grants).await,
            found => found,
        },
        None => node.create_key(&name, grants).await,
    }
}

/// A time as signatures have it, `20260101T000000Z`; of Unix seconds.
fn stamp(now: u64) -> String {
    let now = i64::try_from(now).ok().and_then(|now| time::OffsetDateTime::from_unix_timestamp(now).ok());
    let now = now.unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second())
}

/// The query of a URL for GET, signed by AWS Signature Version 4
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>).
fn presign(host: &str, path: &str, (id, secret): (&str, &str), stamp: &str, seconds: u64) -> String {
    let date = &stamp[..8];
    let scope = format!("{date}/{REGION}/s3/aws4_request");
    let credential = format!("{id}/{scope}").replace('/', "%2F");
    // In the order of the names, as the signature wants them.
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={stamp}\
         &X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host"
    );
    let canonical = format!("GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
    let hash = HEXLOWER.encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hash}");
    let signature = hmac::sign(&signing_key(secret, date, REGION), to_sign.as_bytes());
    format!("{query}&X-Amz-Signature={}", HEXLOWER.encode(signature.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_signed_alike() {
        let key = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let host = "examplebucket.s3.amazonaws.com";
        let query = presign(host, "/test.txt", key, "20130524T000000Z", 86400);
        assert_eq!(
            query,
            "X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
        assert_eq!(stamp(1_369_353_600), "20130524T000000Z");
    }

    #[test]
    fn addresses_read() {
        for (text, tls, expected) in [
            ("files.example.org", false, "http://files.example.org"),
            ("Files.example.org:9000", false, "http://files.example.org:9000"),
            ("files.example.org:443", true, "https://files.example.org"),
            ("https://files.example.org/", false, "https://files.example.org"),
            ("http://127.0.0.1:80", true, "http://127.0.0.1"),
            ("[::1]:9000", false, "http://[::1]:9000"),
        ] {
            assert_eq!(Address::parse(text, tls).map(|address| address.to_string()), Ok(expected.to_owned()));
        }
        for bad in ["", "a b", "ftp://a", "a/b", "me@a", "http://", ":9000", "a:99999"] {
            assert!(Address::parse(bad, false).is_err(), "{bad}");
        }
    }
}
