//! Buckets in host names: `BUCKET.DOMAIN`, whatever the port. A host name under no domain of ours means nothing, and the
//! bucket stands in the path.

use s3s::{
    S3Result,
    host::{S3Host, VirtualHost},
};

use crate::StartError;

/// The domains under which a bucket's name may stand in a host name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domains(Vec<String>);

impl Domains {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These; a port may stand behind each, and means nothing.
    pub(crate) fn new(domains: &[String]) -> Result<Self, StartError> {
        let checked = domains.iter().map(|domain| {
            let name = without_port(domain).to_ascii_lowercase();
            let is_label = |label: &str| {
                !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            if name.split('.').all(is_label) { Ok(name) } else { Err(StartError::Domain(domain.clone())) }
        });
        Ok(Self(checked.collect::<Result<_, _>>()?))
    }

    /// The bucket in a host name, if there is one. Of domains within each other the longest counts.
    pub(crate) fn bucket<'h>(&self, host: &'h str) -> Option<&'h str> {
        let name = without_port(host);
        let lower = name.to_ascii_lowercase();
        let under = |domain: &&String| lower == **domain || lower.ends_with(&format!(".{domain}"));
        let domain = self.0.iter().filter(under).max_by_key(|domain| domain.len())?;
        let bucket = &name[..name.len() - domain.len()];
        bucket.strip_suffix('.').filter(|bucket| !bucket.is_empty())
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

impl S3Host for Domains {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let found = VirtualHost::new(host);
        // Host names know no case, buckets have lower case only.
        Ok(match self.bucket(host) {
            Some(bucket) => found.with_bucket(bucket.to_ascii_lowercase()),
            None => found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_stand_before_domains() {
        let domains = ["s3.example:9000", "Example"].map(str::to_owned);
        let domains = Domains::new(&domains).unwrap();
        for (host, bucket) in [
            ("films.s3.example", Some("films")),
            ("Films.S3.EXAMPLE:80", Some("Films")),
            ("my.films.s3.example", Some("my.films")),
            ("s3.example:9000", None),
            ("films.example", Some("films")),
            ("filmss3.example", Some("filmss3")),
            ("localhost:9000", None),
            ("127.0.0.1:9000", None),
            ("[::1]:9000", None),
            (".s3.example", None),
            ("", None),
        ] {
            assert_eq!(domains.bucket(host), bucket, "{host}");
        }
        let parsed = domains.parse_host_header("Films.s3.example").unwrap();
        assert_eq!(parsed.bucket(), Some("films"));
        for bad in ["", "a b", "a..b", ".a", "http://a"] {
            assert!(Domains::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
