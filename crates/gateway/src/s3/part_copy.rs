//! Parts of an upload that are copied from objects: without moving content if that can be, else read and put.

use pando_node::{UploadInfo, VersionId};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face, caller,
    copy::source,
    object::Promised,
    read::Wanted,
    shape::{ReadConditions, Sums, check_owner, etag},
    upload::{PutPart, part_number, store_part, upload_id, wanted_of},
    version::{not_found_as_source, told},
};
use crate::{
    body,
    digest::Algorithm,
    error::{of_node, refuse},
    sse::{self, Given, said, said_of_source},
};

pub(super) async fn upload_part_copy(
    face: &Face,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let (from_bucket, from_key, version) = source(&request.input.copy_source)?;
    caller(&request)?.check(from_bucket, pando_core::access::Right::Read)?;
    let (from_bucket, from_key) = (from_bucket.to_owned(), from_key.to_owned());
    let S3Request { input, extensions, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    check_owner(input.expected_source_bucket_owner.as_deref())?;
    let (id, number) = (upload_id(&input.upload_id)?, part_number(input.part_number)?);
    let given = sse::given(said!(input), &extensions)?;
    let given_of_source = sse::given(said_of_source!(input), &extensions)?;
    let upload = face.node.upload(&input.bucket, &input.key, &id).await.map_err(of_node)?;
    sse::check_upload(&upload.meta, given.as_ref())?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match.as_ref(),
        if_none_match: input.copy_source_if_none_match.as_ref(),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    let copy = Copy {
        from: Wanted {
            bucket: &from_bucket,
            key: &from_key,
            version,
            range: input.copy_source_range.as_deref().map(range).transpose()?,
            part: None,
            given: given_of_source.as_ref(),
        },
        conditions,
        to: (&*input.bucket, &*input.key),
        upload: &upload,
        number,
        given: given.as_ref(),
    };
    let (PutPart { etag, sums }, source_version) = match copy.claim(face).await? {
        Some(claimed) => claimed,
        None => copy.read(face).await?,
    };
    let (sse_customer_algorithm, sse_customer_key_md5) = sse::echo(given.as_ref());
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(CopyPartResult {
            e_tag: Some(etag),
            last_modified: Some(std::time::SystemTime::now().into()),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
        }),
        copy_source_version_id: told(source_version),
        sse_customer_algorithm,
        sse_customer_key_md5,
        ..UploadPartCopyOutput::default()
    }))
}

/// The range of a source: it names both ends.
fn range(text: &str) -> S3Result<Range> {
    match Range::parse(text) {
        Ok(range @ Range::Int { last: Some(_), .. }) => Ok(range),
        _ => Err(refuse(S3ErrorCode::InvalidArgument, "x-amz-copy-source-range is bytes=FIRST-LAST")),
    }
}

struct Copy<'a> {
    from: Wanted<'a>,
    conditions: ReadConditions<'a>,
    to: (&'a str, &'a str),
    upload: &'a UploadInfo,
    number: u16,
    given: Option<&'a Given>,
}

impl Copy<'_> {
    /// Makes a whole object a part as it is; `None` if that can't be: it must be read and put. Tells the version of the
    /// source, too.
    async fn claim(&self, face: &Face) -> S3Result<Option<(PutPart, Option<VersionId>)>> {
        if self.from.range.is_some() || self.from.given.is_some() || self.given.is_some() {
            return Ok(None);
        }
        let found = self.from.find(face).await.map_err(not_found_as_source)?.info;
        self.conditions.check_of_source(&found)?;
        let algorithm = wanted_of(self.upload);
        let knows_sum = found.digests.checksum.is_some_and(|sum| Algorithm::of(&sum) == algorithm);
        if !knows_sum || found.digests.md5.is_none() || found.digests.parts.is_some() {
            return Ok(None);
        }
        let (from, (bucket, key)) = ((self.from.bucket, self.from.key, found.etag), self.to);
        let copied = face.node.copy_part(from, bucket, key, &self.upload.id, self.number).await;
        Ok(copied.map_err(of_node)?.map(|(stored, digests)| {
            let (etag, sums) = (etag(&digests, &stored.etag), Sums::of(&digests));
            (PutPart { etag, sums }, found.version)
        }))
    }

    /// Reads the source, or a range of it, and puts it as a part.
    async fn read(&self, face: &Face) -> S3Result<(PutPart, Option<VersionId>)> {
        let (found, object) = self.from.open(face).await.map_err(not_found_as_source)?;
        self.conditions.check_of_source(&found.info)?;
        if let Some(Range::Int { last: Some(last), .. }) = self.from.range
            && last >= found.info.size
        {
            return Err(refuse(S3ErrorCode::InvalidRange, "x-amz-copy-source-range lies outside the source"));
        }
        let (length, version) = (found.length(), found.info.version);
        let deliver = |object| body::Outgoing::start(face, object, found.cipher, None);
        let body = (object.map(deliver), Some(length));
        let promised = Promised::none().or_usual(wanted_of(self.upload));
        let place = (self.to.0, self.to.1, &self.upload.id, self.number);
        Ok((store_part(face, place, body, promised, self.given).await?, version))
    }
}
