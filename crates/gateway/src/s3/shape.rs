//! The shapes that operations share: ETags, times, checksums, metadata, tags, names in listings.

use std::time::{Duration, UNIX_EPOCH};

use pando_core::{
    customer::is_reserved,
    id::WriteId,
    record::{Checksum, Digests, Headers, UserMeta},
};
use pando_node::{Condition, ObjectInfo};
use s3s::{
    S3ErrorCode, S3Result,
    dto::{ChecksumType, ETag, ETagCondition, Owner, Tag, Timestamp, TimestampFormat},
};

use crate::{
    digest::{Algorithm, text_of},
    error::refuse,
};

/// What stands behind the `-` of the ETag of an object that has no MD5, as it was put natively: clients take an ETag
/// with a dash for something other than an MD5, and the number of parts is never 0.
const NATIVE: &str = "-0";

/// What S3 calls the version of an object: the MD5 of what was put in one piece, the usual `-N` form for parts.
pub(super) fn etag(digests: &Digests, version: &WriteId) -> ETag {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    ETag::Strong(match (digests.md5, digests.parts) {
        (Some(md5), None) => hex(&md5),
        (Some(md5), Some(parts)) => format!("{}-{parts}", hex(&md5)),
        (None, _) => format!("{version}{NATIVE}"),
    })
}

/// The ETag of a whole object.
pub(super) fn etag_of(info: &ObjectInfo) -> ETag {
    etag(&info.digests, &info.etag)
}

/// What a client's ETag means for a write. One that no object can have is met by none.
fn condition_of(etag: &ETag) -> Condition {
    let text = etag.value();
    if let Some(version) = text.strip_suffix(NATIVE) {
        return version.parse().map_or(Condition::Match(WriteId([0; 16])), Condition::Match);
    }
    let md5 = text.split_once('-').map_or(text, |(md5, _)| md5);
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(md5.as_bytes()).ok();
    match bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
        Some(md5) => Condition::Md5(md5),
        None => Condition::Match(WriteId([0; 16])),
    }
}

/// The condition of a write, from its headers.
pub(super) fn write_condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::None),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Condition::Exists),
        (Some(ETagCondition::ETag(etag)), None) => Ok(condition_of(etag)),
        (None, Some(ETagCondition::ETag(_))) => Err(refuse(
            S3ErrorCode::NotImplemented,
            "If-None-Match of a write takes \"*\" only: there is no object of this name yet",
        )),
        (Some(_), Some(_)) => {
            Err(refuse(S3ErrorCode::InvalidRequest, "a write takes If-Match or If-None-Match, not both"))
        }
    }
}

/// The conditions of a read (RFC 9110, section 13.2.2).
pub(super) struct ReadConditions<'a> {
    pub(super) if_match: Option<&'a ETagCondition>,
    pub(super) if_none_match: Option<&'a ETagCondition>,
    pub(super) if_modified_since: Option<&'a Timestamp>,
    pub(super) if_unmodified_since: Option<&'a Timestamp>,
}

impl ReadConditions<'_> {
    /// Fails with 412, or 304 with the headers that tell the client what it has.
    pub(super) fn check(&self, info: &ObjectInfo) -> S3Result<()> {
        let etag = etag_of(info);
        let meets = |condition: &ETagCondition, weak: bool| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(wanted) if weak => wanted.weak_cmp(&etag),
            ETagCondition::ETag(wanted) => wanted.strong_cmp(&etag),
        };
        // HTTP's dates have no fractions of a second.
        let seconds = |time: &Timestamp| time::OffsetDateTime::from(time.clone()).unix_timestamp();
        let modified = (info.modified / 1000) as i64;
        let failed = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => !meets(condition, false),
            (None, Some(since)) => modified > seconds(since),
            (None, None) => false,
        };
        if failed {
            let why = "If-Match or If-Unmodified-Since does not hold for this object";
            return Err(refuse(S3ErrorCode::PreconditionFailed, why));
        }
        let unchanged = match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => meets(condition, true),
            (None, Some(since)) => modified <= seconds(since),
            (None, None) => false,
        };
        if !unchanged {
            return Ok(());
        }
        let mut answer = refuse(S3ErrorCode::NotModified, "the client has this version");
        let mut headers = http::HeaderMap::new();
        if let Ok(etag) = etag.to_http_header() {
            headers.insert(http::header::ETAG, etag);
        }
        let time = http_date(info.modified);
        if let Ok(time) = http::HeaderValue::from_str(&time) {
            headers.insert(http::header::LAST_MODIFIED, time);
        }
        if let Some(cache) = info.headers.cache_control.as_deref().and_then(|value| value.parse().ok()) {
            headers.insert(http::header::CACHE_CONTROL, cache);
        }
        answer.set_headers(headers);
        Err(answer)
    }
}

impl ReadConditions<'_> {
    /// As [`Self::check`] for the source of a copy, where everything that does not hold is 412.
    pub(super) fn check_of_source(&self, info: &ObjectInfo) -> S3Result<()> {
        self.check(info).map_err(|_| {
            refuse(S3ErrorCode::PreconditionFailed, "a condition on the copy's source does not hold")
        })
    }
}

/// A time as S3's shapes have it; of Unix milliseconds.
pub(super) fn timestamp(ms: u64) -> Timestamp {
    (UNIX_EPOCH + Duration::from_millis(ms)).into()
}

/// A time as HTTP headers have it.
fn http_date(ms: u64) -> String {
    let mut text = Vec::new();
    match timestamp(ms).format(TimestampFormat::HttpDate, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

/// Who owns everything: access keys have rights, not possessions.
pub(super) fn owner() -> Owner {
    Owner { display_name: Some("pando".to_owned()), id: Some("pando".to_owned()) }
}

/// Refuses a request that was meant for another owner's bucket.
pub(super) fn check_owner(expected: Option<&str>) -> S3Result<()> {
    match expected {
        Some(expected) if expected != "pando" => {
            Err(refuse(S3ErrorCode::AccessDenied, "the owner of every bucket here is \"pando\""))
        }
        _ => Ok(()),
    }
}

/// The five places in which S3's shapes carry a checksum.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) crc32: Option<String>,
    pub(crate) crc32c: Option<String>,
    pub(crate) crc64nvme: Option<String>,
    pub(crate) sha1: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) kind: Option<ChecksumType>,
}

impl Sums {
    /// Of an object's hashes.
    pub(super) fn of(digests: &Digests) -> Self {
        let Some(checksum) = &digests.checksum else { return Self::default() };
        let mut text = text_of(checksum);
        if let (true, Some(parts)) = (digests.composite, digests.parts) {
            text = format!("{text}-{parts}");
        }
        let kind = if digests.composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
        let mut sums = Self { kind: Some(ChecksumType::from_static(kind)), ..Self::default() };
        *match checksum {
            Checksum::Crc32(_) => &mut sums.crc32,
            Checksum::Crc32c(_) => &mut sums.crc32c,
            Checksum::Crc64Nvme(_) => &mut sums.crc64nvme,
            Checksum::Sha1(_) => &mut sums.sha1,
            Checksum::Sha256(_) => &mut sums.sha256,
        } = Some(text);
        sums
    }

    /// What a client gave for the whole of a composite upload of so many parts, without the `-N` that may stand behind it;
    /// for another one (`None`), just what it gave.
    pub(super) fn of_whole(&self, parts: Option<usize>) -> S3Result<Self> {
        let bare = |text: &Option<String>| match (text.as_deref(), parts) {
            (Some(text), Some(parts)) => match text.split_once('-') {
                Some((_, count)) if count != parts.to_string() => {
                    let why = format!("the checksum of the whole is of another number of parts than {parts}");
                    Err(refuse(S3ErrorCode::BadDigest, why))
                }
                Some((sum, _)) => Ok(Some(sum.to_owned())),
                None => Ok(Some(text.to_owned())),
            },
            _ => Ok(text.clone()),
        };
        Ok(Self {
            crc32: bare(&self.crc32)?,
            crc32c: bare(&self.crc32c)?,
            crc64nvme: bare(&self.crc64nvme)?,
            sha1: bare(&self.sha1)?,
            sha256: bare(&self.sha256)?,
            kind: None,
        })
    }

    /// The one that a client gave, if it gave one.
    pub(super) fn given(&self) -> S3Result<Option<(Algorithm, Checksum)>> {
        let all = [
            (Algorithm::Crc32, &self.crc32),
            (Algorithm::Crc32c, &self.crc32c),
            (Algorithm::Crc64Nvme, &self.crc64nvme),
            (Algorithm::Sha1, &self.sha1),
            (Algorithm::Sha256, &self.sha256),
        ];
        let mut given = all.into_iter().filter_map(|(algorithm, text)| Some((algorithm, text.as_deref()?)));
        let Some((algorithm, text)) = given.next() else { return Ok(None) };
        if given.next().is_some() {
            return Err(refuse(S3ErrorCode::InvalidRequest, "give one checksum, not several"));
        }
        let wrong =
            || refuse(S3ErrorCode::InvalidRequest, format!("the {} checksum is malformed", algorithm.name()));
        Ok(Some((algorithm, algorithm.parse(text).ok_or_else(wrong)?)))
    }
}

/// What the user says about an object, from S3's shapes.
pub(crate) fn user_meta(content_type: Option<String>, metadata: Option<s3s::dto::Metadata>) -> UserMeta {
    let mut entries: Vec<(String, String)> = metadata.unwrap_or_default().into_iter().collect();
    entries.sort();
    UserMeta { content_type, entries }
}

/// How an object is to be delivered, from S3's shapes.
pub(crate) fn headers(
    cache_control: Option<String>,
    content_disposition: Option<String>,
    content_encoding: Option<String>,
    content_language: Option<String>,
    expires: Option<&Timestamp>,
) -> Headers {
    // The framing of the body on its way here is not the object's encoding.
    let encoding = content_encoding.map(|encoding| {
        let kept = encoding.split(',').map(str::trim).filter(|one| !one.eq_ignore_ascii_case("aws-chunked"));
        kept.collect::<Vec<_>>().join(", ")
    });
    Headers {
        cache_control,
        content_disposition,
        content_encoding: encoding.filter(|encoding| !encoding.is_empty()),
        content_language,
        expires: expires.map(|time| http_date(unix_ms(time))),
    }
}

fn unix_ms(time: &Timestamp) -> u64 {
    let ms = time::OffsetDateTime::from(time.clone()).unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms).unwrap_or(0)
}

/// The time of an `Expires` header that was kept.
pub(super) fn expires(headers: &Headers) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, headers.expires.as_deref()?).ok()
}

/// The metadata as S3's shapes have it.
pub(super) fn metadata(meta: &UserMeta) -> Option<s3s::dto::Metadata> {
    let seen: s3s::dto::Metadata =
        meta.entries.iter().filter(|(name, _)| !is_reserved(name)).cloned().collect();
    (!seen.is_empty()).then_some(seen)
}

/// Tags, from a header: `name=value&…`, form-encoded.
pub(super) fn tags_of_header(header: Option<&str>) -> S3Result<Vec<(String, String)>> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode(&spaced)
            .ok_or_else(|| refuse(S3ErrorCode::InvalidArgument, "x-amz-tagging is malformed"))
    };
    let pairs = header.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let tags = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    });
    check_tags(tags.collect::<S3Result<_>>()?)
}

/// Tags, from a body.
pub(super) fn tags_of_set(set: Vec<Tag>) -> S3Result<Vec<(String, String)>> {
    check_tags(
        set.into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())).collect(),
    )
}

fn check_tags(tags: Vec<(String, String)>) -> S3Result<Vec<(String, String)>> {
    let mut names: Vec<&str> = tags.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) || names.contains(&"") {
        return Err(refuse(S3ErrorCode::InvalidTag, "the names of tags must differ, and must not be empty"));
    }
    pando_core::record::check_tags(&tags)
        .map_err(|error| refuse(S3ErrorCode::InvalidTag, error.to_string()))?;
    Ok(tags)
}

/// Tags as S3's shapes have them.
pub(super) fn tag_set(tags: Vec<(String, String)>) -> Vec<Tag> {
    tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                bytes.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// A name as listings with `encoding-type=url` have it (RFC 3986's unreserved characters and `/` stay).
pub(crate) fn url_encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_and_conditions_go_together() {
        let version = WriteId([0xab; 16]);
        let digests = |md5, parts| Digests { md5, parts, ..Digests::default() };
        let back = |digests: &Digests| condition_of(&etag(digests, &version));
        assert_eq!(back(&digests(Some([7; 16]), None)), Condition::Md5([7; 16]));
        assert_eq!(back(&digests(Some([7; 16]), Some(12))), Condition::Md5([7; 16]));
        assert_eq!(back(&digests(None, None)), Condition::Match(version));
        assert_eq!(
            etag(&digests(Some([7; 16]), Some(12)), &version).value(),
            format!("{}-12", "07".repeat(16))
        );
        assert_eq!(condition_of(&ETag::Strong("nonsense".into())), Condition::Match(WriteId([0; 16])));
    }

    #[test]
    fn writes_take_one_condition() {
        let any = ETagCondition::Any;
        let tag = ETagCondition::ETag(ETag::Strong("07".repeat(16)));
        assert_eq!(write_condition(None, Some(&any)).ok(), Some(Condition::Absent));
        assert_eq!(write_condition(Some(&any), None).ok(), Some(Condition::Exists));
        assert_eq!(write_condition(Some(&tag), None).ok(), Some(Condition::Md5([7; 16])));
        assert!(
            write_condition(None, Some(&tag)).is_err() && write_condition(Some(&any), Some(&any)).is_err()
        );
    }

    #[test]
    fn tags_are_decoded_and_checked() {
        let tags = |header| tags_of_header(Some(header)).ok();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(tags("a=b&c+d=%C3%A4"), Some(vec![pair("a", "b"), pair("c d", "ä")]));
        assert_eq!(tags("a"), Some(vec![pair("a", "")]));
        assert_eq!(tags("a=1&a=2"), None);
        assert_eq!(tags("a=%zz"), None);
        assert_eq!(tags("a=%4"), None);
        assert_eq!(tags_of_header(None).ok(), Some(vec![]));
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(url_encode("a b/ä~\u{0}"), "a%20b/%C3%A4~%00");
    }

    #[test]
    fn aws_chunked_is_no_encoding_of_the_object() {
        let encoding = |text: &str| headers(None, None, Some(text.to_owned()), None, None).content_encoding;
        assert_eq!(encoding("aws-chunked"), None);
        assert_eq!(encoding("gzip,aws-chunked").as_deref(), Some("gzip"));
    }
}
