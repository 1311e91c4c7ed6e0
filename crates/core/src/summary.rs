//! What a listing shows of a register, whatever kind it is.

use crate::{
    access::AccessKeyRecord,
    bucket::BucketRecord,
    mark::version_in,
    name::RegisterName,
    record::{RecordError, Summary, UploadRecord},
    register::Accepted,
};

/// What a listing shows of what a register holds; `None` for a tombstone.
pub fn summary_of(name: &RegisterName, accepted: &Accepted) -> Result<Option<Summary>, RecordError> {
    let value = &accepted.value;
    let Some((bytes, etag)) = value.present().zip(value.write_id()) else { return Ok(None) };
    let made = if name.bucket_name().is_some() {
        BucketRecord::decode(bytes)?.created
    } else if name.upload_parts().is_some() {
        UploadRecord::decode(bytes)?.created
    } else if name.access_key_id().is_some() {
        AccessKeyRecord::decode(bytes)?.created
    } else {
        return Ok(version_in(Some(value))?.map(|(record, version)| record.summary(version)));
    };
    Ok(Some(Summary::of_other(made, etag)))
}
