//! The files below a directory: which are there, and which entries are something else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path below the directory.
    pub relative: PathBuf,
    /// Its size in bytes when it was found.
    pub size: u64,
}

/// Something below the directory that is not a regular file that can be found.
#[derive(Debug)]
pub enum Passed {
    /// A symbolic link: not followed.
    Symlink(PathBuf),
    /// A socket, a device, a pipe.
    Special(PathBuf),
    /// A folder or entry that cannot be read.
    Unreadable(PathBuf, io::Error),
}

/// Every regular file below `root`, in the order of names, folder by folder. What is not one is
/// handed to `pass`.
///
/// # Errors
/// `root` itself cannot be read as a folder.
pub fn files(root: &Path, pass: &mut dyn FnMut(Passed)) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    // Folders still to be read, by their path below the root. No recursion: depth is not bounded
    // by the stack.
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        let mut entries = match entries(&root.join(&folder)) {
            Ok(entries) => entries,
            Err(error) if folder.as_os_str().is_empty() => return Err(error),
            Err(error) => {
                pass(Passed::Unreadable(folder, error));
                continue;
            }
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        let folders_at = waiting.len();
        for entry in entries {
            let relative = folder.join(entry.file_name());
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => {
                    found.push(Found { relative, size: metadata.len() });
                }
                Ok(metadata) if metadata.is_dir() => waiting.push(relative),
                Ok(metadata) if metadata.is_symlink() => pass(Passed::Symlink(relative)),
                Ok(_) => pass(Passed::Special(relative)),
                Err(error) => pass(Passed::Unreadable(relative, error)),
            }
        }
        waiting[folders_at..].reverse();
    }
    Ok(found)
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(folder)?.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn every_regular_file_is_found_and_nothing_is_followed() {
        let root = std::env::temp_dir().join(format!("quorate-walk-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("b/c")).expect("made");
        for (path, text) in [("z", "zz"), ("b/c/x", ""), ("b/a", "1")] {
            fs::write(root.join(path), text).expect("written");
        }
        symlink("/", root.join("b/everything")).expect("linked");
        let _socket = UnixListener::bind(root.join("socket")).expect("bound");
        let mut passed = Vec::new();
        let found = files(&root, &mut |entry| passed.push(entry)).expect("read");
        fs::remove_dir_all(&root).expect("removed");
        let found: Vec<(PathBuf, u64)> =
            found.into_iter().map(|found| (found.relative, found.size)).collect();
        assert_eq!(found, [("z".into(), 2), ("b/a".into(), 1), ("b/c/x".into(), 0)]);
        assert_eq!(passed.len(), 2);
        assert!(passed.iter().any(
            |entry| matches!(entry, Passed::Symlink(path) if path == Path::new("b/everything"))
        ));
        assert!(passed.iter().any(|entry| matches!(entry, Passed::Special(_))));
        assert!(files(&root, &mut |_| ()).is_err(), "it is gone");
    }
}
