//! Where the control socket is, and how to name it in the 108 bytes that the system allows.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

const NAME: &str = "control.sock";

/// Longest path that every system takes in a socket address (104 bytes with its NUL on macOS).
const MAX_SOCKET_PATH: usize = 103;

/// The control socket of a data folder.
pub(crate) fn socket_path(data: &Path) -> PathBuf {
    data.join(NAME)
}

/// A name for a file in a folder that fits a socket address. The folder stays open as long as the name
/// is used.
pub(super) struct ShortPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl ShortPath {
    /// The path itself, or, where that is too long, one through the open folder (Linux only).
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = OpenOptions::new().read(true).open(folder)?;
        let through = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        if !through.exists() {
            let why = format!(
                "{} is too long for a socket ({MAX_SOCKET_PATH} bytes): choose a shorter --data",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, why));
        }
        Ok(Self { path: through.join(name), _folder: Some(folder) })
    }

    /// The name to bind or connect to.
    pub(super) fn as_path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_long_path_gets_a_short_name() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        std::fs::write(deep.join("x"), "here").unwrap();
        let short = ShortPath::new(&deep.join("x")).unwrap();
        assert!(short.as_path().as_os_str().len() < MAX_SOCKET_PATH);
        assert_eq!(std::fs::read_to_string(short.as_path()).unwrap(), "here");
        assert!(ShortPath::new(&folder.path().join("no").join("d".repeat(120))).is_err());
    }
}
