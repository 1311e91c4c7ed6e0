//! Completing an upload in parts: what the client says of the parts, against what they are, and the whole's hashes.

use pando_core::{
    name::MAX_PARTS,
    record::{Checksum, Digests},
};
use pando_node::{Error, PartInfo, WantedPart};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use super::{
    Face,
    object::md5_of_md5s,
    shape::{Sums, check_owner, etag, url_encode, write_condition},
    upload::{part_number, upload_id},
    version::told,
};
use crate::{
    digest::{Algorithm, bytes_of},
    error::{of_node, refuse},
    sse::{self, said},
};

/// The least a part may have that is not the last, as in S3.
const LEAST: u64 = 5 << 20;

/// What a client says of a part that it wants.
fn wanted_part(part: &CompletedPart) -> S3Result<WantedPart> {
    let number =
        part.part_number.ok_or_else(|| refuse(S3ErrorCode::MalformedXML, "a part has no PartNumber"))?;
    let number = part_number(number)?;
    let tag = part.e_tag.as_ref().ok_or_else(|| refuse(S3ErrorCode::MalformedXML, "a part has no ETag"))?;
    let md5 = data_encoding::HEXLOWER_PERMISSIVE.decode(tag.value().as_bytes()).ok();
    let md5 = md5.and_then(|md5| <[u8; 16]>::try_from(md5).ok());
    let wrong = || refuse(S3ErrorCode::InvalidPart, format!("part {number} has another ETag"));
    Ok(WantedPart { number, md5: Some(md5.ok_or_else(wrong)?) })
}

/// The hashes of an object, from those of its parts.
fn joined(parts: &[PartInfo], algorithm: Option<Algorithm>, composite: bool) -> Digests {
    let mut digests = Digests {
        md5: parts.iter().map(|part| part.digests.md5).collect::<Option<Vec<_>>>().map(md5_of_md5s),
        parts: Some(parts.len() as u16),
        ..Digests::default()
    };
    // If none was agreed on, what the parts came with, if that joins.
    let of_parts = parts.first().and_then(|part| part.digests.checksum.as_ref()).map(Algorithm::of);
    let Some(algorithm) = algorithm.or(of_parts.filter(|algorithm| algorithm.joins())) else {
        return digests;
    };
    let sums: Option<Vec<(Checksum, u64)>> = parts
        .iter()
        .map(|part| Some((part.digests.checksum.filter(|sum| Algorithm::of(sum) == algorithm)?, part.size)))
        .collect();
    let Some(sums) = sums else { return digests };
    digests.composite = composite;
    digests.checksum = match composite {
        true => {
            let all: Vec<u8> = sums.iter().flat_map(|(sum, _)| bytes_of(sum).to_vec()).collect();
            Some(algorithm.of_all(&all))
        }
        false => {
            let mut sums = sums.into_iter();
            let first = sums.next().map(|(sum, _)| sum);
            first.and_then(|first| sums.try_fold(first, |sum, (next, len)| algorithm.join(&sum, &next, len)))
        }
    };
    digests
}

pub(super) async fn complete_multipart_upload(
    face: &Face,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let S3Request { input, extensions, .. } = request;
    check_owner(input.expected_bucket_owner.as_deref())?;
    let id = upload_id(&input.upload_id)?;
    let given = sse::given(said!(input), &extensions)?;
    let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    if listed.is_empty() || listed.len() > usize::from(MAX_PARTS) {
        let why = format!("name 1 to {MAX_PARTS} parts; these are {}", listed.len());
        return Err(refuse(S3ErrorCode::MalformedXML, why));
    }
    let wanted: Vec<WantedPart> = listed.iter().map(wanted_part).collect::<S3Result<_>>()?;
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let upload = match face.node.upload(&input.bucket, &input.key, &id).await {
        // The node may know that it was completed already.
        Err(Error::NoSuchUpload(_)) => None,
        found => Some(found.map_err(of_node)?),
    };
    // The key need not be given again, but must not be another one.
    if let (Some(upload), Some(_)) = (&upload, &given) {
        sse::check_upload(&upload.meta, given.as_ref())?;
    }
    let (algorithm, composite) = match &upload {
        Some(upload) => (Algorithm::of_name(&upload.checksum), upload.composite),
        None => (None, false),
    };
    let given = Sums {
        crc32: input.checksum_crc32,
        crc32c: input.checksum_crc32c,
        crc64nvme: input.checksum_crc64nvme,
        sha1: input.checksum_sha1,
        sha256: input.checksum_sha256,
        kind: None,
    };
    let mut refused = None;
    let digests = |parts: &[PartInfo]| {
        let digests = joined(parts, algorithm, composite);
        match check_parts(parts, &listed, &given, input.mpu_object_size, &digests) {
            Ok(()) => Ok(digests),
            Err(error) => {
                refused = Some(error);
                Err(Error::Source(std::io::Error::other("refused")))
            }
        }
    };
    let done = face.node.complete_upload(&input.bucket, &input.key, &id, &wanted, condition, digests).await;
    let (stored, digests) = match (done, refused) {
        (_, Some(refused)) => return Err(refused),
        (done, None) => done.map_err(of_node)?,
    };
    let sums = Sums::of(&digests);
    Ok(S3Response::new(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, url_encode(&input.key))),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(etag(&digests, &stored.etag)),
        version_id: told(stored.version),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: sums.kind,
        ..CompleteMultipartUploadOutput::default()
    }))
}

/// Checks sizes and checksums of the parts, and of the whole, against what the client says.
fn check_parts(
    parts: &[PartInfo],
    listed: &[CompletedPart],
    given: &Sums,
    size: Option<i64>,
    digests: &Digests,
) -> S3Result<()> {
    let small = parts.split_last().and_then(|(_, before)| before.iter().find(|part| part.size < LEAST));
    if let Some(small) = small {
        let why =
            format!("part {} has {} bytes; all but the last have {LEAST} or more", small.number, small.size);
        return Err(refuse(S3ErrorCode::EntityTooSmall, why));
    }
    for (part, said) in parts.iter().zip(listed) {
        let sums = Sums {
            crc32: said.checksum_crc32.clone(),
            crc32c: said.checksum_crc32c.clone(),
            crc64nvme: said.checksum_crc64nvme.clone(),
            sha1: said.checksum_sha1.clone(),
            sha256: said.checksum_sha256.clone(),
            kind: None,
        };
        let given = sums.given()?.map(|(_, sum)| sum);
        if given.is_some() && given != part.digests.checksum {
            return Err(refuse(
                S3ErrorCode::InvalidPart,
                format!("part {} has another checksum", part.number),
            ));
        }
    }
    let total: u64 = parts.iter().map(|part| part.size).sum();
    if size.is_some_and(|size| u64::try_from(size) != Ok(total)) {
        let why = format!("the parts have {total} bytes together, not what x-amz-mp-object-size says");
        return Err(refuse(S3ErrorCode::InvalidRequest, why));
    }
    let whole = given.of_whole(digests.composite.then_some(parts.len()))?;
    match whole.given()? {
        Some((algorithm, sum)) if digests.checksum != Some(sum) => {
            Err(refuse(S3ErrorCode::BadDigest, format!("the {} of the whole is another", algorithm.name())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use pando_core::id::WriteId;

    use super::*;
    use crate::digest::{Hasher, md5_of};

    fn part(number: u16, bytes: &[u8], algorithm: Algorithm) -> PartInfo {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        PartInfo {
            number,
            size: bytes.len() as u64,
            modified: 0,
            etag: WriteId([0; 16]),
            digests: hasher.finish(),
        }
    }

    #[test]
    fn hashes_of_parts_join() {
        for algorithm in crate::digest::ALGORITHMS {
            let parts = [part(1, b"hello ", algorithm), part(2, b"world", algorithm)];
            let whole = joined(&parts, Some(algorithm), false);
            let expected = Some(algorithm.of_all(b"hello world")).filter(|_| algorithm.joins());
            assert_eq!((whole.checksum, whole.parts), (expected, Some(2)));
            assert_eq!(whole.md5, Some(md5_of(&[md5_of(b"hello "), md5_of(b"world")].concat())));
            let composite = joined(&parts, Some(algorithm), true);
            // As it is told, and without the number of parts.
            let told = Sums::of(&composite);
            let bare = told.of_whole(Some(2)).unwrap_or_default();
            let check = |sums: &Sums, digests: &Digests| {
                let parts = [part(1, &[1; LEAST as usize], algorithm), part(2, b"world", algorithm)];
                check_parts(&parts, &[], sums, None, digests)
                    .map_err(|error| error.code().as_str().to_owned())
            };
            assert_eq!((check(&told, &composite), check(&bare, &composite)), (Ok(()), Ok(())));
            let other = Digests { checksum: Some(algorithm.of_all(b"other")), ..composite.clone() };
            for wrong in [check(&told, &other), check(&bare, &other)] {
                assert_eq!(wrong, Err("BadDigest".to_owned()));
            }
            let three = Sums::of(&Digests { parts: Some(3), ..composite.clone() });
            assert_eq!(check(&three, &composite), Err("BadDigest".to_owned()));
            let of_sums = [algorithm.of_all(b"hello "), algorithm.of_all(b"world")];
            let of_sums: Vec<u8> = of_sums.iter().flat_map(|sum| bytes_of(sum).to_vec()).collect();
            assert_eq!(composite.checksum, Some(algorithm.of_all(&of_sums)));
        }
    }
}
