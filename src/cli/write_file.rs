//! Writing files below one folder and nowhere else.
//!
//! Paths have been checked to have no `..` and not to be absolute (`tree_path.rs`). What is left is
//! the file system itself: a symbolic link that was there before could still lead outside, so each
//! folder on the way is looked at, once, and links are refused.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not written.
#[derive(Debug)]
pub enum WriteRefusal {
    /// A symbolic link stands in its way.
    Symlink(PathBuf),
    /// A file stands where a folder is needed, or the reverse: two keys, one of which is a folder
    /// of the other.
    Conflict(PathBuf),
    /// The system refuses.
    Io(io::Error),
}

impl fmt::Display for WriteRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symlink(path) => write!(f, "{} is a symbolic link", path.display()),
            Self::Conflict(path) => write!(
                f,
                "{} would have to be a file and a folder (one key is a folder of another)",
                path.display()
            ),
            Self::Io(error) => error.fmt(f),
        }
    }
}

/// A folder to write into.
#[derive(Debug)]
pub struct Target {
    root: PathBuf,
    /// Folders below the root that have been looked at, by their relative path.
    folders: HashSet<PathBuf>,
}

impl Target {
    /// The folder `root`, made where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self { root: root.to_path_buf(), folders: HashSet::new() })
    }

    /// Writes `bytes` to the file `relative`, over what it may hold, with the folders it needs.
    ///
    /// # Errors
    /// It was not written, or not wholly.
    pub fn write(&mut self, relative: &Path, bytes: &[u8]) -> Result<(), WriteRefusal> {
        if let Some(parent) = relative.parent() {
            self.prepare(parent)?;
        }
        let path = self.root.join(relative);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => return Err(WriteRefusal::Symlink(path)),
            Ok(metadata) if metadata.is_dir() => return Err(WriteRefusal::Conflict(path)),
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(WriteRefusal::Io(io::ErrorKind::AlreadyExists.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(WriteRefusal::Io(error)),
        }
        fs::write(&path, bytes).map_err(WriteRefusal::Io)
    }

    /// Makes the folder `relative` and those above it.
    fn prepare(&mut self, relative: &Path) -> Result<(), WriteRefusal> {
        if relative.as_os_str().is_empty() || self.folders.contains(relative) {
            return Ok(());
        }
        let mut below = PathBuf::new();
        for component in relative.components() {
            below.push(component);
            if self.folders.contains(&below) {
                continue;
            }
            let path = self.root.join(&below);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(metadata) if metadata.is_symlink() => return Err(WriteRefusal::Symlink(path)),
                Ok(_) => return Err(WriteRefusal::Conflict(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&path).map_err(WriteRefusal::Io)?;
                }
                Err(error) => return Err(WriteRefusal::Io(error)),
            }
            self.folders.insert(below.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_written_through_a_link_or_over_a_folder() {
        let base = std::env::temp_dir().join(format!("quorate-write-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        let (root, outside) = (base.join("root"), base.join("outside"));
        let mut target = Target::new(&root).expect("made");
        fs::create_dir(&outside).expect("made");
        symlink(&outside, root.join("link")).expect("linked");
        symlink(outside.join("file"), root.join("file-link")).expect("linked");
        target.write(Path::new("a/b/c"), b"1").expect("written");
        target.write(Path::new("a/b/c"), b"22").expect("written again");
        target.write(Path::new("d"), b"").expect("written empty");
        let refused = |refusal| matches!(refusal, Err(WriteRefusal::Symlink(_)));
        assert!(refused(target.write(Path::new("link/x"), b"3")));
        assert!(refused(target.write(Path::new("file-link"), b"3")));
        let conflicts = |refusal| matches!(refusal, Err(WriteRefusal::Conflict(_)));
        assert!(conflicts(target.write(Path::new("d/e"), b"3")), "d is a file");
        assert!(conflicts(target.write(Path::new("a/b"), b"3")), "a/b is a folder");
        assert_eq!(fs::read(root.join("a/b/c")).expect("there"), b"22");
        assert_eq!(fs::read(root.join("d")).expect("there"), b"");
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 0, "nothing got out");
        fs::remove_dir_all(&base).expect("removed");
    }
}
