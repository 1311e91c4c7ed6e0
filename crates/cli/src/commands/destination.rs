//! Where a get goes: stdout, or a file that appears under its name only when it is whole and synced.

#[cfg(target_os = "linux")]
use std::os::fd::{AsFd as _, BorrowedFd};
use std::{
    fs::{self, File, Permissions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tempfile::NamedTempFile;

use crate::{
    exit::Failure,
    output::{StdoutClosed, stdout_failed},
};

/// Bytes that a pipe to the next process may hold: what an unprivileged process may ask for.
#[cfg(target_os = "linux")]
const PIPE: usize = 1 << 20;

/// An open destination.
pub(super) enum Destination {
    /// Bytes go out as they arrive.
    Stdout(io::Stdout),
    /// A device or a pipe: written in place, because it can't be replaced.
    Special(File, PathBuf),
    /// A temporary file next to its final name; gone when dropped.
    File(NamedTempFile, PathBuf),
}

impl Destination {
    /// What `-o` (or its absence) says for this key.
    pub(super) fn choose(output: Option<&Path>, key: &str) -> anyhow::Result<Self> {
        match output {
            Some(path) if path == Path::new("-") => Ok(Self::Stdout(io::stdout())),
            Some(path) => Self::open(path, key),
            None if io::stdout().is_terminal() => Self::open(Path::new("."), key),
            None => Ok(Self::Stdout(io::stdout())),
        }
    }

    fn open(path: &Path, key: &str) -> anyhow::Result<Self> {
        let what = || format!("can't write {}", path.display());
        let is_folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let path = if is_folder { path.join(file_name(key)?) } else { path.to_owned() };
        // A link's target is replaced, not the link.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let present = fs::metadata(&path).ok();
        if present.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(Failure::usage("it is a folder")).with_context(what);
        }
        if present.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            let file = File::options().write(true).open(&path).with_context(what)?;
            return Ok(Self::Special(file, path));
        }
        // The mode of what is replaced, or what the user's umask makes of the usual one.
        let mode = present.as_ref().map_or(0o666, |metadata| metadata.permissions().mode() & 0o777);
        let temporary = tempfile::Builder::new()
            .prefix(".pando-")
            .suffix(".part")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder_of(&path))
            .with_context(what)?;
        Ok(Self::File(temporary, path))
    }

    /// Whether content goes to stdout.
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout(_))
    }

    /// The pipe that stdout is, if it is one and waits for its reader: content can go there uncopied.
    #[cfg(target_os = "linux")]
    pub(super) fn as_pipe(&self) -> Option<BorrowedFd<'_>> {
        use rustix::{fs, pipe};

        let Self::Stdout(stdout) = self else { return None };
        let pipe = stdout.as_fd();
        let is_pipe = fs::FileType::from_raw_mode(fs::fstat(pipe).ok()?.st_mode) == fs::FileType::Fifo;
        let waits = !fs::fcntl_getfl(pipe).ok()?.contains(fs::OFlags::NONBLOCK);
        if !is_pipe || !waits {
            return None;
        }
        // Fewer switches between us and the reader; the system may refuse, and then it is slower.
        let _ = pipe::fcntl_setpipe_size(pipe, PIPE);
        Some(pipe)
    }

    /// Whether something is left behind if the process ends now.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::File(..))
    }

    /// Writes a piece.
    pub(super) fn write(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        match self {
            // Not line-buffered: a piece is larger than what the standard library would buffer.
            Self::Stdout(stdout) => stdout.lock().write_all(piece).map_err(stdout_failed),
            Self::Special(file, path) => match file.write_all(piece) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
                other => other.with_context(|| format!("can't write {}", path.display())),
            },
            Self::File(file, path) => {
                file.write_all(piece).with_context(|| format!("can't write {}", path.display()))
            }
        }
    }

    /// All of it is there: makes it durable and gives it its name, which is the answer.
    pub(super) fn finish(self) -> anyhow::Result<Option<PathBuf>> {
        match self {
            Self::Stdout(mut stdout) => {
                stdout.flush().map_err(stdout_failed)?;
                Ok(None)
            }
            Self::Special(_, path) => Ok(Some(path)),
            Self::File(file, path) => {
                let what = || format!("can't write {}", path.display());
                file.as_file().sync_all().with_context(what)?;
                file.persist(&path).map_err(|failed| failed.error).with_context(what)?;
                File::open(folder_of(&path)).and_then(|folder| folder.sync_all()).with_context(what)?;
                Ok(Some(path))
            }
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The last part of a key, if it can name a file: keys come from other machines.
fn file_name(key: &str) -> anyhow::Result<&str> {
    let last = key.rsplit('/').next().unwrap_or_default();
    match last {
        "" | "." | ".." => {}
        _ if last.contains('\0') => {}
        _ => return Ok(last),
    }
    Err(Failure::usage(format!("{key:?} does not end in a name for a file: say where with -o FILE")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut destination = Destination::choose(Some(&path), "k").unwrap();
        destination.write(b"half").unwrap();
        assert!(!path.exists() && names(folder.path()).len() == 1);
        drop(destination);
        assert!(names(folder.path()).is_empty());

        let mut destination = Destination::choose(Some(folder.path()), "a/b/c.txt").unwrap();
        destination.write(b"whole").unwrap();
        let path = destination.finish().unwrap().unwrap();
        assert_eq!(
            (names(folder.path()), fs::read(path).unwrap()),
            (vec!["c.txt".to_owned()], b"whole".to_vec())
        );
    }

    #[test]
    fn what_is_replaced_keeps_its_mode_and_links() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut destination = Destination::choose(Some(&link), "k").unwrap();
        destination.write(b"new").unwrap();
        destination.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!Destination::choose(Some(Path::new("/dev/null")), "k").unwrap().is_temporary());
    }

    #[test]
    fn no_key_names_a_file_elsewhere() {
        for bad in ["", "a/", "..", "a/..", "a/.", "a\0b"] {
            assert!(file_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(file_name("../../etc/passwd").unwrap(), "passwd");
    }
}
