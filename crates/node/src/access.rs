//! Access keys: made, listed, looked up, removed. A key is a register of its own.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use pando_core::{
    access::{AccessKeyRecord, Grants, Secret},
    id::WriteId,
    name::{ACCESS_KEY_PREFIX, RegisterName},
    register::{State, Value},
};

use crate::{
    api::{AccessKey, Consistency, KeyInfo},
    error::Error,
    inner::Inner,
    register::Outcome,
    sys,
};

/// Keys that are read at once for a list: few, since a list of keys is for people.
const PARALLEL: usize = 8;
/// Random bytes in an id: 16 letters.
const ID_BYTES: usize = 10;

impl Inner {
    /// See [`crate::Node::create_key`].
    pub(crate) async fn create_key(
        self: &Arc<Self>,
        called: &str,
        grants: Grants,
    ) -> Result<AccessKey, Error> {
        let id = format!("{ACCESS_KEY_PREFIX}{}", BASE32_NOPAD.encode(&sys::random::<ID_BYTES>()));
        let name = RegisterName::access_key(&id)?;
        let (secret, salt) = (Secret(sys::random()), WriteId(sys::random()));
        let record = AccessKeyRecord {
            name: called.to_owned(),
            created: sys::now_ms(),
            grants,
            epoch: 1,
            salt,
            secret: AccessKeyRecord::seal(self.key()?, &name, &salt, &secret),
        };
        let bytes = record.encode()?;
        let made = self
            .change(&name, WriteId(sys::random()), |found| match found {
                // 80 random bits met twice; or a key that was removed, which must stay so.
                Some(_) => Err(Error::Busy(format!("an access key {id} was there before"))),
                None => Ok(State::Present(bytes.clone())),
            })
            .await?;
        match made {
            Outcome::Written(_) => Ok(AccessKey { info: info(id, record), secret }),
            Outcome::Declined(why, _) => Err(why),
        }
    }

    /// See [`crate::Node::access_key`].
    pub(crate) async fn access_key(self: &Arc<Self>, id: &str) -> Result<AccessKey, Error> {
        // What can't be an id is no key: who asks may be a stranger.
        let Ok(name) = RegisterName::access_key(id) else { return Err(Error::NoSuchKey(id.to_owned())) };
        let found = self.read(&name).await?;
        let record = record_of(found.as_ref().map(|accepted| &accepted.value))?;
        let record = record.ok_or_else(|| Error::NoSuchKey(id.to_owned()))?;
        let secret = record.open(self.key()?, &name)?;
        Ok(AccessKey { info: info(id.to_owned(), record), secret })
    }

    /// See [`crate::Node::list_keys`].
    pub(crate) async fn list_keys(self: &Arc<Self>) -> Result<Vec<KeyInfo>, Error> {
        let prefix: Bytes = RegisterName::access_key_prefix().into();
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(prefix.clone(), after, usize::MAX, Consistency::Linearizable).await?;
            let read = |(name, _): (RegisterName, _)| async move {
                let found = self.read(&name).await?;
                // One that was removed since is none.
                let record = record_of(found.as_ref().map(|accepted| &accepted.value))?;
                Ok::<_, Error>(record.zip(name.access_key_id().map(str::to_owned)))
            };
            let records: Vec<_> =
                stream::iter(page.entries).map(read).buffered(PARALLEL).try_collect().await?;
            keys.extend(records.into_iter().flatten().map(|(record, id)| info(id, record)));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(keys),
            }
        }
    }

    /// See [`crate::Node::remove_key`].
    pub(crate) async fn remove_key(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let name = RegisterName::access_key(id)?;
        let removed = self
            .change(&name, WriteId(sys::random()), |found| {
                match found.is_some_and(|value| value.present().is_some()) {
                    // A record that can't be read can still be removed.
                    true => Ok(State::Absent),
                    false => Err(Error::NoSuchKey(id.to_owned())),
                }
            })
            .await?;
        match removed {
            Outcome::Written(_) => Ok(()),
            Outcome::Declined(why, _) => Err(why),
        }
    }
}

fn record_of(value: Option<&Value>) -> Result<Option<AccessKeyRecord>, Error> {
    let record = value.and_then(|value| value.present()).map(|bytes| AccessKeyRecord::decode(bytes));
    Ok(record.transpose()?)
}

fn info(id: String, record: AccessKeyRecord) -> KeyInfo {
    KeyInfo { id, name: record.name, created: record.created, grants: record.grants }
}
