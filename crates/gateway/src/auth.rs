//! Who asks, and whether they may: access keys, looked up in the network, and what their grants allow.

use std::sync::{Arc, OnceLock};

use http::Uri;
use pando_core::{
    access::{Grants, Right},
    name::RegisterName,
};
use pando_node::{AccessKey, Error, Node};
use s3s::{
    S3Error, S3ErrorCode, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
    path::S3Path,
};

use crate::{
    buckets::Buckets,
    error::{of_node, refuse},
    remember::Memory,
};

/// Who makes a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The access key's id; `None` for one who showed none.
    pub(crate) key: Option<String>,
    /// What it allows.
    pub(crate) grants: Grants,
    /// Whether the caller may read something and may not know what else there is.
    blind: bool,
}

/// What who shows no key is told, of all that is not public and of all that is not there.
pub(crate) fn denied() -> S3Error {
    refuse(S3ErrorCode::AccessDenied, "this needs an access key: sign the request, or use a presigned URL")
}

impl Caller {
    /// Who showed a key.
    pub(crate) fn with_key(id: String, grants: Grants) -> Self {
        Self { key: Some(id), grants, blind: false }
    }

    /// Whether the caller may read something and may not know what else there is.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind
    }

    /// Fails if the caller may not do this with that bucket.
    pub(crate) fn check(&self, bucket: &str, right: Right) -> S3Result<()> {
        if self.grants.allow(bucket, right) {
            return Ok(());
        }
        let verb = match right {
            Right::Read => "read",
            Right::Write => "write to",
            Right::Owner => "make, change or remove",
        };
        Err(refuse(S3ErrorCode::AccessDenied, format!("this access key may not {verb} bucket {bucket:?}")))
    }
}

/// What operation a request turned out to be: filled in on the way, read for the metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operation(Arc<OnceLock<String>>);

impl Operation {
    pub(crate) fn set(&self, name: &str) {
        // The first is right: nothing sets it twice.
        let _ = self.0.set(name.to_owned());
    }

    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// The access keys that this gateway met lately, and what buckets let those do who have none.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    node: Node,
    /// That there is none of an id is remembered, too.
    known: Memory<Option<AccessKey>>,
    buckets: Buckets,
}

impl Keys {
    pub(crate) fn new(node: Node, buckets: Buckets) -> Self {
        Self(Arc::new(Inner { node, known: Memory::default(), buckets }))
    }

    /// The key with this id, as it was at most five seconds ago.
    pub(crate) async fn get(&self, id: &str) -> S3Result<AccessKey> {
        let none = || {
            let why = "there is no such access key in this network; `pando key create` makes one";
            refuse(S3ErrorCode::InvalidAccessKeyId, why)
        };
        // What can't be an id may be long: nothing is kept of it.
        if RegisterName::access_key(id).is_err() {
            return Err(none());
        }
        let look_up = async {
            match self.0.node.access_key(id).await {
                Ok(key) => Ok(Some(key)),
                Err(Error::NoSuchKey(_)) => Ok(None),
                Err(error) => Err(of_node(error)),
            }
        };
        self.0.known.get(id, look_up).await?.ok_or_else(none)
    }

    /// One who shows no key: what is public may be got and listed, and nothing else is told of.
    async fn stranger(&self, operation: &str, path: &S3Path, uri: &Uri) -> S3Result<Caller> {
        let (bucket, key) = match path {
            S3Path::Root => return Err(denied()),
            S3Path::Bucket { bucket } => (bucket, None),
            S3Path::Object { bucket, key } => (bucket, Some(key)),
        };
        let lists = ["ListObjects", "ListObjectsV2", "HeadBucket", "GetBucketLocation"].contains(&operation);
        let reads = ["GetObject", "HeadObject"].contains(&operation);
        if !lists && !reads {
            return Err(denied());
        }
        let open = self.0.buckets.get(bucket).await?.ok_or_else(denied)?;
        let may = match key {
            Some(key) => reads && open.may_read(key),
            None => lists && open.may_list(),
        };
        if !may {
            return Err(denied());
        }
        check_query(uri)?;
        Ok(Caller { key: None, grants: Grants::Buckets(Vec::new()), blind: !open.may_list() })
    }
}

/// What a request without a signature may not ask for, as in S3: other headers of the answer, since the link could
/// then show the owner's site as something else; and versions, which a policy would have to grant apart.
fn check_query(uri: &Uri) -> S3Result<()> {
    for (name, _) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if name.starts_with("response-") {
            let why = "requests without a signature can't choose headers of the answer (response-…)";
            return Err(refuse(S3ErrorCode::InvalidRequest, why));
        }
        if name == "versionId" {
            return Err(denied());
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(self.get(access_key).await?.secret.reveal()))
    }
}

/// What an operation takes. What is not known takes the most.
fn right_for(operation: &str) -> Right {
    let starts = |words: &[&str]| words.iter().any(|word| operation.starts_with(word));
    if starts(&["Get", "Head", "List"]) {
        Right::Read
    } else if starts(&["PutObject", "DeleteObject", "CopyObject", "PostObject", "UploadPart"])
        || operation.ends_with("MultipartUpload")
    {
        Right::Write
    } else {
        Right::Owner
    }
}

#[async_trait::async_trait]
impl S3Access for Keys {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = context.s3_op().name().to_owned();
        let path = match context.s3_path() {
            S3Path::Root => S3Path::Root,
            S3Path::Bucket { bucket } => S3Path::bucket(bucket),
            S3Path::Object { bucket, key } => S3Path::object(bucket, key),
        };
        if let Some(slot) = context.extensions_mut().get::<Operation>() {
            slot.set(&operation);
        }
        let key = context.credentials().map(|credentials| credentials.access_key.clone());
        let caller = match key {
            None => self.stranger(&operation, &path, context.uri()).await?,
            Some(id) => {
                let grants = self.get(&id).await?.info.grants;
                Caller { key: Some(id), grants, blind: false }
            }
        };
        if caller.key.is_some()
            && let S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } = &path
        {
            caller.check(bucket, right_for(&operation))?;
        }
        context.extensions_mut().insert(caller);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_take_the_right_they_should() {
        for read in
            ["GetObject", "HeadBucket", "ListObjectsV2", "ListObjectVersions", "ListParts", "GetBucketCors"]
        {
            assert_eq!(right_for(read), Right::Read, "{read}");
        }
        for write in ["PutObject", "PutObjectTagging", "DeleteObjects", "CopyObject", "UploadPartCopy"] {
            assert_eq!(right_for(write), Right::Write, "{write}");
        }
        for write in
            ["CreateMultipartUpload", "CompleteMultipartUpload", "AbortMultipartUpload", "PostObject"]
        {
            assert_eq!(right_for(write), Right::Write, "{write}");
        }
        for owner in ["CreateBucket", "DeleteBucket", "PutBucketPolicy", "DeleteBucketCors", "Whatever"] {
            assert_eq!(right_for(owner), Right::Owner, "{owner}");
        }
    }
}
