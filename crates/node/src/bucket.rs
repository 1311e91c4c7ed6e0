//! Buckets: made, changed, listed, removed. A bucket is a register of its own.

use std::sync::Arc;

use pando_core::{
    bucket::{BucketRecord, Settings},
    id::WriteId,
    name::RegisterName,
    register::{State, Value},
};

use crate::{
    api::{BucketInfo, Consistency, ListQuery},
    error::Error,
    inner::Inner,
    register::Outcome,
    sys,
};

/// The bucket that a register's value is.
fn bucket_of(bucket: &str, found: Option<&Value>) -> Result<BucketRecord, Error> {
    match found.and_then(Value::present) {
        Some(bytes) => Ok(BucketRecord::decode(bytes)?),
        None => Err(Error::NoSuchBucket(bucket.to_owned())),
    }
}

fn is_there(found: Option<&Value>) -> bool {
    found.is_some_and(|value| value.present().is_some())
}

impl Inner {
    /// See [`crate::Node::create_bucket_with`].
    pub(crate) async fn create_bucket(
        self: &Arc<Self>,
        bucket: &str,
        settings: Settings,
    ) -> Result<(), Error> {
        let name = RegisterName::bucket(bucket)?;
        let record = BucketRecord { created: sys::now_ms(), settings }.encode()?;
        let made = self
            .change(&name, WriteId(sys::random()), |found| match is_there(found) {
                true => Err(Error::BucketExists(bucket.to_owned())),
                false => Ok(State::Present(record.clone())),
            })
            .await?;
        match made {
            Outcome::Written(_) => Ok(()),
            Outcome::Declined(why, _) => Err(why),
        }
    }

    /// See [`crate::Node::remove_bucket`].
    pub(crate) async fn remove_bucket(self: &Arc<Self>, bucket: &str) -> Result<(), Error> {
        let name = RegisterName::bucket(bucket)?;
        self.check_bucket(bucket).await?;
        let first = self.list(bucket, ListQuery { limit: 1, ..ListQuery::default() }).await?;
        if !first.objects.is_empty() {
            return Err(Error::BucketNotEmpty(bucket.to_owned()));
        }
        self.abort_uploads(bucket).await?;
        let removed = self
            .change(&name, WriteId(sys::random()), |found| match is_there(found) {
                true => Ok(State::Absent),
                false => Err(Error::NoSuchBucket(bucket.to_owned())),
            })
            .await?;
        match removed {
            Outcome::Written(_) => Ok(()),
            Outcome::Declined(why, _) => Err(why),
        }
    }

    /// Fails if there is no such bucket.
    pub(crate) async fn check_bucket(self: &Arc<Self>, bucket: &str) -> Result<(), Error> {
        self.bucket(bucket).await.map(drop)
    }

    /// See [`crate::Node::bucket`].
    pub(crate) async fn bucket(self: &Arc<Self>, bucket: &str) -> Result<BucketRecord, Error> {
        let found = self.read(&RegisterName::bucket(bucket)?).await?;
        bucket_of(bucket, found.as_ref().map(|accepted| &accepted.value))
    }

    /// See [`crate::Node::change_bucket`].
    pub(crate) async fn change_bucket(
        self: &Arc<Self>,
        bucket: &str,
        mut change: impl FnMut(&mut Settings) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let name = RegisterName::bucket(bucket)?;
        let changed = self
            .change(&name, WriteId(sys::random()), |found| {
                let mut record = bucket_of(bucket, found)?;
                change(&mut record.settings)?;
                Ok::<_, Error>(State::Present(record.encode()?))
            })
            .await?;
        match changed {
            Outcome::Written(_) => Ok(()),
            Outcome::Declined(why, _) => Err(why),
        }
    }

    /// See [`crate::Node::list_buckets`].
    pub(crate) async fn list_buckets(
        self: &Arc<Self>,
        consistency: Consistency,
    ) -> Result<Vec<BucketInfo>, Error> {
        let mut buckets = Vec::new();
        let mut after = None;
        loop {
            let prefix = RegisterName::bucket_prefix();
            let page = self.page(prefix.into(), after, usize::MAX, consistency).await?;
            buckets.extend(page.entries.iter().filter_map(|(name, summary)| {
                let name = name.bucket_name()?.to_owned();
                Some(BucketInfo { name, created: summary.modified })
            }));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(buckets),
            }
        }
    }
}
