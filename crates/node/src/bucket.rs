//! Buckets: made, changed, listed, removed. A bucket is a register of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pando_core::{
    bucket::{BucketRecord, Settings, Versioning},
    id::WriteId,
    name::RegisterName,
    register::{State, Value},
};

use crate::{
    api::{BucketInfo, Consistency},
    error::Error,
    inner::Inner,
    register::Outcome,
    sys::{self, Instant},
};

/// For how long it is shown that a bucket keeps no versions, without asking again.
const LATELY: Duration = Duration::from_secs(5);
/// How long an answer waits for what is only shown.
const SHOWN: Duration = Duration::from_secs(1);
/// Buckets remembered; then all are forgotten, and asked for again when they are shown.
const REMEMBERED: usize = 1024;

/// Whether buckets kept versions when they were last seen, for answers that show it and act on nothing.
#[derive(Default)]
pub(crate) struct Lately(Mutex<BTreeMap<String, (Instant, Versioning)>>);

impl Lately {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<String, (Instant, Versioning)>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, bucket: &str, versioning: Versioning) {
        self.with(|seen| {
            if seen.len() >= REMEMBERED && !seen.contains_key(bucket) {
                seen.clear();
            }
            seen.insert(bucket.to_owned(), (Instant::now(), versioning));
        });
    }

    fn get(&self, bucket: &str) -> Option<Versioning> {
        let (seen, versioning) = self.with(|seen| seen.get(bucket).copied())?;
        (seen.elapsed() < LATELY).then_some(versioning)
    }
}

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
        if self.holds_anything(bucket).await? {
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

    /// Whether there is an object, a version of one or a delete marker in a bucket.
    async fn holds_anything(self: &Arc<Self>, bucket: &str) -> Result<bool, Error> {
        let prefixes = [RegisterName::object_prefix(bucket, "")?, RegisterName::version_prefix(bucket, "")?];
        for prefix in prefixes {
            let prefix = Bytes::from(prefix);
            let mut after = None;
            loop {
                let page = self.page(prefix.clone(), after, usize::MAX, Consistency::Linearizable).await?;
                // A null version that nothing points to is a stray; what points to one is an object.
                if page.entries.iter().any(|(name, shown)| name.object_parts().is_some() || !shown.null) {
                    return Ok(true);
                }
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(false)
    }

    /// Whether what is written to this register replaces what was there, or is put on top of it.
    pub(crate) async fn versioning_of(self: &Arc<Self>, name: &RegisterName) -> Result<Versioning, Error> {
        match name.object_parts() {
            Some((bucket, _)) => Ok(self.bucket(bucket).await?.settings.versioning),
            None => Ok(Versioning::Never),
        }
    }

    /// As a bucket was seen to be within the last seconds, or is now; for what is only shown.
    pub(crate) async fn versioning_lately(
        self: &Arc<Self>,
        bucket: &str,
        consistency: Consistency,
    ) -> Versioning {
        if let Some(versioning) = self.lately.get(bucket) {
            return versioning;
        }
        let seen = match consistency {
            Consistency::Linearizable => match sys::timeout(SHOWN, self.bucket(bucket)).await {
                Ok(Ok(record)) => record.settings.versioning,
                _ => Versioning::Never,
            },
            Consistency::Stale => return self.versioning_here(bucket).await,
        };
        // What could not be told now is not asked for with each answer.
        self.lately.note(bucket, seen);
        seen
    }

    /// As this node alone knows it.
    async fn versioning_here(&self, bucket: &str) -> Versioning {
        let Ok(name) = RegisterName::bucket(bucket) else { return Versioning::Never };
        let held = self.store.peek(name).await.ok().flatten();
        let held = bucket_of(bucket, held.as_ref().map(|accepted| &accepted.value));
        held.map_or(Versioning::Never, |record| record.settings.versioning)
    }

    /// Fails if there is no such bucket.
    pub(crate) async fn check_bucket(self: &Arc<Self>, bucket: &str) -> Result<(), Error> {
        self.bucket(bucket).await.map(drop)
    }

    /// See [`crate::Node::bucket`].
    pub(crate) async fn bucket(self: &Arc<Self>, bucket: &str) -> Result<BucketRecord, Error> {
        let found = self.read_shared(&RegisterName::bucket(bucket)?).await?;
        let record = bucket_of(bucket, found.as_ref().map(|accepted| &accepted.value))?;
        self.lately.note(bucket, record.settings.versioning);
        Ok(record)
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
                let before = record.settings.versioning;
                change(&mut record.settings)?;
                let settings = &mut record.settings;
                // Who kept versions once may have some: they are not forgotten.
                if before != Versioning::Never && settings.versioning == Versioning::Never {
                    settings.versioning = Versioning::Suspended;
                }
                Ok::<_, Error>(State::Present(record.encode()?))
            })
            .await?;
        self.lately.with(|seen| seen.remove(bucket));
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
