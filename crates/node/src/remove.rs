//! Remove: the object's register becomes a tombstone; its chunks go after the grace period.

use std::sync::Arc;

use pando_core::{id::WriteId, name::RegisterName, register::State};

use crate::{
    api::Condition,
    error::Error,
    inner::{Inner, object_of},
    put,
    register::Outcome,
    sys,
};

impl Inner {
    /// See [`crate::Node::remove_if`].
    pub(crate) async fn remove_if(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<(), Error> {
        let name = RegisterName::object(bucket, key)?;
        let mut removed = None;
        let outcome = self
            .change(&name, WriteId(sys::random()), |found| match found.filter(|v| v.present().is_some()) {
                None => Err(Error::NotFound { bucket: bucket.to_owned(), key: key.to_owned() }),
                value => {
                    // A record that can't be read can still be removed.
                    removed = object_of(value).unwrap_or_default();
                    if condition != Condition::None {
                        put::check(condition, removed.as_ref())?;
                    }
                    Ok(State::Absent)
                }
            })
            .await?;
        if let Outcome::Declined(why, _) = outcome {
            // A missing object in a missing bucket: say the one that explains the other.
            self.check_bucket(bucket).await?;
            return Err(why);
        }
        if let Some((record, version)) = removed {
            self.forget_version(&record, version);
        }
        Ok(())
    }
}
