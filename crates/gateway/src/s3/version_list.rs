//! Lists of a bucket's versions.
//!
//! S3 lists the versions and delete markers of a key as they followed each other. `s3s` would write all markers first, so
//! the answer is written here and takes the place of its.

use bytes::Bytes;
use pando_node::{VersionEntry, VersionPage, VersionsQuery};
use s3s::{
    Body, HttpResponse, S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::*,
    xml::{SerResult, Serialize, SerializeContent, Serializer},
};

use super::{
    Face,
    list::{is_encoded, most},
    shape::{check_owner, etag_of, owner, timestamp, url_encode},
    version::{mark_of, told},
};
use crate::error::{of_node, refuse};

/// The namespace of S3's answers.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// The body of an answer as it was written here.
#[derive(Clone)]
struct Rendered(Bytes);

/// Sees to it that an answer says what was written here, if anything was.
pub(crate) fn as_rendered(response: &mut HttpResponse) {
    if let Some(Rendered(body)) = response.extensions_mut().remove() {
        *response.body_mut() = Body::from(body);
    }
}

/// An answer: what was asked, and a page.
struct Answer {
    bucket: String,
    prefix: String,
    delimiter: Option<String>,
    /// Where the page starts, as the client said it.
    markers: (String, String),
    most: usize,
    encoded: bool,
    page: VersionPage,
}

pub(super) async fn list_object_versions(
    face: &Face,
    request: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = request.input;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let (most, encoded) = (most(input.max_keys)?, is_encoded(input.encoding_type.as_ref())?);
    let prefix = input.prefix.unwrap_or_default();
    let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
    let markers = (input.key_marker.unwrap_or_default(), input.version_id_marker.unwrap_or_default());
    let version = mark_of(Some(&*markers.1).filter(|marker| !marker.is_empty()))?;
    if markers.0.is_empty() && version.is_some() {
        let why = "a version-id-marker goes with the key-marker of the same page";
        return Err(refuse(S3ErrorCode::InvalidArgument, why));
    }
    let query = VersionsQuery {
        prefix: prefix.clone(),
        delimiter: delimiter.clone(),
        after: Some((markers.0.clone(), version)).filter(|(key, _)| !key.is_empty()),
        // One that is not shown tells that the bucket is there.
        limit: most.max(1),
    };
    let page = face.node.list_versions(&input.bucket, query).await.map_err(of_node)?;
    let page = if most == 0 { VersionPage::default() } else { page };
    let answer = Answer { bucket: input.bucket, prefix, delimiter, markers, most, encoded, page };
    let mut response = S3Response::new(ListObjectVersionsOutput::default());
    response.extensions.insert(answer.render()?);
    Ok(response)
}

impl Answer {
    fn render(&self) -> S3Result<Rendered> {
        let mut text = Vec::new();
        let mut serializer = Serializer::new(&mut text);
        let written = serializer.decl().and_then(|()| self.serialize(&mut serializer));
        written.map_err(S3Error::internal_error)?;
        Ok(Rendered(text.into()))
    }

    fn name(&self, name: &str) -> String {
        if self.encoded { url_encode(name) } else { name.to_owned() }
    }

    fn entry<W: std::io::Write>(&self, entry: &VersionEntry, s: &mut Serializer<W>) -> SerResult {
        let VersionEntry { info, is_latest, marker } = entry;
        let (key, version_id) = (Some(self.name(&info.key)), told(info.version));
        let (is_latest, last_modified) = (Some(*is_latest), Some(timestamp(info.modified)));
        if *marker {
            let marker =
                DeleteMarkerEntry { is_latest, key, last_modified, owner: Some(owner()), version_id };
            return s.content("DeleteMarker", &marker);
        }
        let version = ObjectVersion {
            e_tag: Some(etag_of(info)),
            is_latest,
            key,
            last_modified,
            owner: Some(owner()),
            size: Some(info.size as i64),
            storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
            version_id,
            ..ObjectVersion::default()
        };
        s.content("Version", &version)
    }
}

impl Serialize for Answer {
    fn serialize<W: std::io::Write>(&self, s: &mut Serializer<W>) -> SerResult {
        s.content_with_ns("ListVersionsResult", NAMESPACE, self)
    }
}

impl SerializeContent for Answer {
    fn serialize_content<W: std::io::Write>(&self, s: &mut Serializer<W>) -> SerResult {
        let (key_marker, version_marker) = &self.markers;
        s.content("Name", &self.bucket)?;
        s.content("Prefix", &self.name(&self.prefix))?;
        s.content("KeyMarker", &self.name(key_marker))?;
        s.content("VersionIdMarker", version_marker)?;
        if let Some((key, version)) = &self.page.next {
            s.content("NextKeyMarker", &self.name(key))?;
            if let Some(version) = version {
                s.content("NextVersionIdMarker", &version.to_string())?;
            }
        }
        s.content("MaxKeys", &(self.most as i32))?;
        if let Some(delimiter) = &self.delimiter {
            s.content("Delimiter", &self.name(delimiter))?;
        }
        if self.encoded {
            s.content("EncodingType", EncodingType::URL)?;
        }
        s.content("IsTruncated", &self.page.next.is_some())?;
        for entry in &self.page.entries {
            self.entry(entry, s)?;
        }
        for prefix in &self.page.prefixes {
            s.content("CommonPrefixes", &CommonPrefix { prefix: Some(self.name(prefix)) })?;
        }
        Ok(())
    }
}
