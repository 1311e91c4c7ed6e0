//! Strays: null versions that are kept nowhere by anyone.
//!
//! A null version in a register of its own counts only if the object's register names it. Who is cut off between
//! archiving it and replacing it, or between replacing it and removing its copy, leaves one that does not. Nothing
//! shows it or needs it, and it can't come to count again. [`sweep`] removes it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::{id::WriteId, name::RegisterName, record::Record};

use crate::{
    api::Consistency,
    error::Error,
    inner::{Inner, object_of},
    sys,
    version::counts,
};

/// How long between two looks for strays: they cost a register each, and are rare.
const SWEEP: Duration = Duration::from_secs(3600);

impl Inner {
    /// Whether a version that was found in a register of its own is a stray.
    pub(crate) async fn is_stray(
        self: &Arc<Self>,
        name: &RegisterName,
        record: &Record,
        version: WriteId,
    ) -> Result<bool, Error> {
        if !record.mark.null {
            return Ok(false);
        }
        let found = self.read(name).await?;
        let current = object_of(found.as_ref().map(|accepted| &accepted.value))?;
        Ok(current.is_none_or(|(current, id)| id != version && !counts(true, version, current.mark.null_at)))
    }
}

/// Removes strays until the node stops. Each node looks at those of which it is the first owner.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    loop {
        sys::sleep(SWEEP + sys::jitter(SWEEP / 4)).await;
        if let Err(error) = sweep_once(&inner).await {
            tracing::debug!(%error, "sweeping strays goes on later");
        }
    }
}

/// One look at all versions that are not current.
pub(crate) async fn sweep_once(inner: &Arc<Inner>) -> Result<(), Error> {
    let prefix = Bytes::from(RegisterName::all_versions_prefix());
    let mut after = None;
    loop {
        let page = inner.page(prefix.clone(), after, usize::MAX, Consistency::Stale).await?;
        for (aside, summary) in page.entries {
            let is_mine = inner.layout()?.owners(aside.partition()).first() == Some(&inner.id);
            if !is_mine || !summary.null {
                continue;
            }
            // What can't be read now is not in the way of the rest.
            if let Err(error) = look_at(inner, &aside).await {
                tracing::debug!(%aside, %error, "it is swept later");
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

async fn look_at(inner: &Arc<Inner>, aside: &RegisterName) -> Result<(), Error> {
    let Some((bucket, key, id)) = aside.version_parts() else { return Ok(()) };
    let name = RegisterName::object(bucket, &key)?;
    let Some(record) = inner.read_aside(&name, &id).await? else { return Ok(()) };
    if inner.is_stray(&name, &record, id).await? {
        tracing::info!(version = %aside, "a null version that was replaced is removed");
        inner.drop_aside(aside).await?;
        inner.forget_version(&record, id);
    }
    Ok(())
}
