//! The layout that this node knows, and small settings of the layers above.

use bytes::Bytes;
use pando_core::{id::Partition, register::LayoutVersion};

use crate::{
    error::Error,
    index::{META, SETTINGS},
    rows,
    store::Store,
};

/// Most bytes that a layout may have: what fits into one message between nodes.
pub const MAX_LAYOUT: usize = 1 << 20;
/// Most bytes of a setting's value; its key may have 64.
pub const MAX_SETTING: usize = 64 << 10;

impl Store {
    /// The layout installed last.
    pub async fn layout(&self) -> Result<Option<(LayoutVersion, Bytes)>, Error> {
        self.look(|_, txn| {
            let meta = txn.open_table(META)?;
            let (Some(version), Some(bytes)) = (meta.get("layout_version")?, meta.get("layout")?) else {
                return Ok(None);
            };
            let version = LayoutVersion(rows::decode_number("layout_version", version.value())?);
            Ok(Some((version, Bytes::copy_from_slice(bytes.value()))))
        })
        .await
    }

    /// Makes a layout the one known, durably. `false`: it is not newer than the one known. `void` is told the
    /// version known before, and gives the partitions of which what is held no longer counts: in the same
    /// step nothing is answered of their registers any more, and they are gone before this returns.
    pub async fn install_layout(
        &self,
        version: LayoutVersion,
        bytes: Bytes,
        void: impl FnOnce(LayoutVersion) -> Vec<Partition> + Send + 'static,
    ) -> Result<bool, Error> {
        check_len("bytes in a layout", MAX_LAYOUT, bytes.len())?;
        let installed = self
            .change(1, move |group| {
                let known = group.shared.known_layout();
                if version <= known {
                    return Ok(false);
                }
                group.grow()?;
                for partition in void(known) {
                    if !group.registers_of(partition, 1)?.is_empty() {
                        group.set_void(partition, true)?;
                    }
                }
                group.put_layout(version, &bytes)?;
                Ok(true)
            })
            .await?;
        self.clear_void().await?;
        Ok(installed)
    }

    /// A setting.
    pub async fn meta_get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let key = key.to_owned();
        self.look(move |_, txn| {
            let row = txn.open_table(SETTINGS)?.get(key.as_str())?;
            Ok(row.map(|row| Bytes::copy_from_slice(row.value())))
        })
        .await
    }

    /// Sets a setting, durably; `None` removes it.
    pub async fn meta_put(&self, key: &str, value: Option<Bytes>) -> Result<(), Error> {
        check_len("bytes in a setting's key", 64, key.len())?;
        check_len("bytes in a setting", MAX_SETTING, value.as_ref().map_or(0, Bytes::len))?;
        let key = key.to_owned();
        self.change(1, move |group| {
            match &value {
                Some(value) => {
                    group.grow()?;
                    group.settings.insert(key.as_str(), value.as_ref())?;
                }
                None => {
                    group.durably();
                    group.settings.remove(key.as_str())?;
                }
            }
            Ok(())
        })
        .await
    }
}

fn check_len(what: &'static str, limit: usize, got: usize) -> Result<(), Error> {
    if got > limit { Err(Error::TooMany { what, limit, got }) } else { Ok(()) }
}
