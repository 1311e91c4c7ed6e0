//! Who asks, and whether they may: access keys, looked up in the network, and what their grants allow.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use pando_core::access::{Grants, Right};
use pando_node::{AccessKey, Error, Node};
use s3s::{
    S3ErrorCode, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
    path::S3Path,
};
use tokio::sync::Semaphore;

use crate::error::{of_node, refuse};

/// For how long a key that was looked up is good: so long may a removed key go on, and no request waits for a look-up
/// of its own.
const FRESH: Duration = Duration::from_secs(5);
/// Keys that are remembered.
const REMEMBERED: usize = 1024;
/// Keys that are looked up at once: each asks the key's owners, and anyone may invent an id.
const LOOKUPS: usize = 16;

/// Who makes a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The access key's id; `None` for one who showed none.
    pub(crate) key: Option<String>,
    /// What it allows.
    pub(crate) grants: Grants,
}

impl Caller {
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

/// The access keys that this gateway met lately.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    node: Node,
    known: Mutex<HashMap<String, (Instant, AccessKey)>>,
    lookups: Semaphore,
}

impl Keys {
    pub(crate) fn new(node: Node) -> Self {
        Self(Arc::new(Inner { node, known: Mutex::default(), lookups: Semaphore::new(LOOKUPS) }))
    }

    fn remembered(&self, id: &str) -> Option<AccessKey> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).filter(|(since, _)| since.elapsed() < FRESH).map(|(_, key)| key.clone())
    }

    /// The key with this id, as it was at most [`FRESH`] ago.
    pub(crate) async fn get(&self, id: &str) -> S3Result<AccessKey> {
        if let Some(key) = self.remembered(id) {
            return Ok(key);
        }
        let _place = self.0.lookups.acquire().await.map_err(|_| of_node(Error::Stopping))?;
        if let Some(key) = self.remembered(id) {
            return Ok(key);
        }
        let looked_up = Instant::now();
        let key = match self.0.node.access_key(id).await {
            Ok(key) => key,
            Err(Error::NoSuchKey(_)) => {
                let why = "there is no such access key in this network; `pando key create` makes one";
                return Err(refuse(S3ErrorCode::InvalidAccessKeyId, why));
            }
            Err(error) => return Err(of_node(error)),
        };
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (since, _)| since.elapsed() < FRESH);
        }
        if known.len() < REMEMBERED {
            known.insert(id.to_owned(), (looked_up, key.clone()));
        }
        Ok(key)
    }
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
        let grants = match &key {
            Some(id) => self.get(id).await?.info.grants,
            None => Grants::Buckets(Vec::new()),
        };
        let caller = Caller { key, grants };
        allow(&caller, &operation, &path)?;
        context.extensions_mut().insert(caller);
        Ok(())
    }
}

/// Fails if the caller may not do this there. Who shows no key may do nothing.
fn allow(caller: &Caller, operation: &str, path: &S3Path) -> S3Result<()> {
    match path {
        _ if caller.key.is_none() => {
            let why = "this needs an access key: sign the request, or use a presigned URL";
            Err(refuse(S3ErrorCode::AccessDenied, why))
        }
        S3Path::Root => Ok(()),
        S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } => {
            caller.check(bucket, right_for(operation))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_take_the_right_they_should() {
        for read in ["GetObject", "HeadBucket", "ListObjectsV2", "ListParts", "GetBucketCors"] {
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
