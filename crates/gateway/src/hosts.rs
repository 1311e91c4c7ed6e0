//! Host names: which of them name a bucket (virtual-host style). All others leave it to the path.

use std::sync::Arc;

use http::{HeaderMap, header};
use s3s::{
    S3Result,
    host::{MultiDomain, S3Host, VirtualHost},
};

use crate::StartError;

/// The domains under which a bucket's name may stand in the host name.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(Arc<[String]>);

impl Hosts {
    /// Fails if one of them can't be a domain.
    pub(crate) fn new(domains: &[String]) -> Result<Self, StartError> {
        for domain in domains {
            MultiDomain::new([domain]).map_err(|_| StartError::Domain(domain.clone()))?;
        }
        let mut domains: Vec<String> = domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
        // Of one in another, the longer is meant.
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
        Ok(Self(domains.into()))
    }

    /// The bucket that a host name is of, if it is of one. A domain that was given without a port is meant on any.
    pub(crate) fn bucket(&self, host: &str) -> Option<String> {
        let host = host.to_ascii_lowercase();
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
            _ => &host,
        };
        for domain in self.0.iter() {
            let host = if domain.contains(':') { &host } else { bare };
            if host == domain {
                return None;
            }
            if let Some(bucket) = host.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.')) {
                return Some(bucket.to_owned());
            }
        }
        None
    }

    /// As [`Self::bucket`], of a request.
    pub(crate) fn bucket_of(&self, headers: &HeaderMap) -> Option<String> {
        self.bucket(headers.get(header::HOST)?.to_str().ok()?)
    }
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let parsed = VirtualHost::new(host);
        Ok(match self.bucket(host) {
            Some(bucket) => parsed.with_bucket(bucket),
            None => parsed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_buckets_under_the_domains_only() {
        let domains = ["s3.example", "eu.s3.example", "other.example:8080"].map(str::to_owned);
        let hosts = Hosts::new(&domains).unwrap();
        for (host, bucket) in [
            ("photos.s3.example", Some("photos")),
            ("Photos.S3.Example:9000", Some("photos")),
            ("a.b.s3.example", Some("a.b")),
            ("photos.eu.s3.example", Some("photos")),
            ("photos.other.example:8080", Some("photos")),
            ("photos.other.example", None),
            ("s3.example", None),
            ("s3.example:9000", None),
            ("eu.s3.example", None),
            ("nots3.example", None),
            ("localhost:9000", None),
            ("node.lan", None),
            ("[::1]:9000", None),
            ("", None),
        ] {
            assert_eq!(hosts.bucket(host).as_deref(), bucket, "{host}");
        }
        assert!(Hosts::new(&["not a domain".to_owned()]).is_err());
    }
}
