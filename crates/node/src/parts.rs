//! The pieces that an object was put in: whoever wants one of them, as S3 clients do, asks where it is.

use std::sync::Arc;

use crate::{
    Node,
    api::{Consistency, ObjectParts, VersionId},
    content::Content,
    error::Error,
    inner::{Inner, permit},
    put::QUEUE_PATIENCE,
};

impl Node {
    /// What is known of an object, or of one of its versions, and the pieces that it was put in: one, unless it was
    /// uploaded in parts.
    pub async fn parts(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
    ) -> Result<ObjectParts, Error> {
        self.inner.parts(bucket, key, version).await
    }
}

impl Inner {
    async fn parts(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
    ) -> Result<ObjectParts, Error> {
        let found = self.find_version(bucket, key, version).await?;
        let info = self.info(bucket, key, &found, Consistency::Linearizable).await;
        let (name, record, version) = found;
        if info.digests.parts.is_none() {
            return Ok(ObjectParts { sizes: vec![info.size], salts: Vec::new(), info });
        }
        let body = record.open(self.key()?, &name, &version)?;
        // A long list is a chunk to fetch.
        let _place = permit(&self.limits.gets, QUEUE_PATIENCE, "too many gets at once").await?;
        Ok(match Content::open(self, body, record.size).await? {
            None => ObjectParts { sizes: vec![info.size], salts: Vec::new(), info },
            Some(content) => {
                let parts = content.parts();
                let sizes = parts.as_slice().iter().map(|part| part.size).collect();
                ObjectParts { sizes, salts: parts.salts().to_vec(), info }
            }
        })
    }
}
