//! The node's own small files: its identity and the network's key, both with mode 0600.
//!
//! Everything else that a node remembers is in the store.

use std::{
    io::{self, Write as _},
    path::Path,
};

use pando_core::seal::NetworkKey;
use pando_net::Identity;

use crate::{
    error::Error,
    sys::files::{self as fs, DirBuilderExt as _, File, OpenOptions, OpenOptionsExt as _},
};

const IDENTITY: &str = "node.key";
const NETWORK: &str = "network.key";

fn setup(what: &str, path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Setup(format!("{what} {}: {why}", path.display()))
}

/// Makes the data folder, readable by its owner only.
pub(crate) fn make_folder(data: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|why| setup("can't make the data folder", data, why))
}

/// The node's identity: the one in the folder, or a new one.
pub(crate) fn identity(data: &Path) -> Result<Identity, Error> {
    let path = data.join(IDENTITY);
    if let Some(bytes) = read(&path)? {
        return Identity::from_bytes(&bytes).map_err(|why| setup("can't use the identity in", &path, why));
    }
    let identity = Identity::generate();
    write(&path, &identity.to_bytes())?;
    Ok(identity)
}

/// The network's key, if the node is a member of one.
pub(crate) fn network_key(data: &Path) -> Result<Option<NetworkKey>, Error> {
    let path = data.join(NETWORK);
    let Some(bytes) = read(&path)? else { return Ok(None) };
    let key = bytes.try_into().map_err(|_| setup("can't use the network key in", &path, "not 32 bytes"))?;
    Ok(Some(NetworkKey(key)))
}

/// Keeps the network's key.
pub(crate) fn keep_network_key(data: &Path, key: &NetworkKey) -> Result<(), Error> {
    write(&data.join(NETWORK), &key.0)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(setup("can't read", path, error)),
    }
}

/// Writes a secret whole or not at all, durably.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let parent = path.parent().expect("a file in the data folder");
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    })();
    written.map_err(|why| setup("can't write", path, why))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("new");
        make_folder(&data).unwrap();
        let made = identity(&data).unwrap().node_id();
        assert_eq!(identity(&data).unwrap().node_id(), made);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join(IDENTITY))), (0o700, 0o600));
        fs::write(data.join(IDENTITY), b"short").unwrap();
        assert!(identity(&data).is_err());
    }
}
