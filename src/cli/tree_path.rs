//! Between paths below a directory and keys: what `import` and `export` must agree on.
//!
//! ```text
//! DIR/a/b.txt   <->   prefix + "a/b.txt"          bytes as they are, not text
//! ```
//!
//! On the way out a key may have been written by anybody: a path that would leave the directory,
//! or that no `import` could have made, is refused. It does not touch the file system.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest name of one directory entry on every customary Linux file system.
const NAME_SIZE_MAX: usize = 255;

/// Why the rest of a key is no path below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathRefusal {
    /// Nothing behind the prefix.
    Empty,
    /// Begins with a slash: an absolute path.
    Absolute,
    /// Has a component `..`, which leads outside.
    Parent,
    /// Has a component `.` or an empty one (`a//b`, `a/`): another key has the same path.
    Ambiguous,
    /// Has a zero byte, which no file name may have.
    ZeroByte,
    /// Has a component longer than a file name may be.
    NameTooLong,
}

impl fmt::Display for PathRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "nothing behind the prefix to name a file by",
            Self::Absolute => "an absolute path behind the prefix",
            Self::Parent => "a component \"..\", which leads out of the directory",
            Self::Ambiguous => "an empty component or \".\", which another key's path would equal",
            Self::ZeroByte => "a zero byte, which no file name may hold",
            Self::NameTooLong => "a component longer than 255 bytes, the limit of file names",
        })
    }
}

impl std::error::Error for PathRefusal {}

/// The key of the file at `relative`, a path below the imported directory.
pub fn key_of(prefix: &[u8], relative: &Path) -> Vec<u8> {
    let path = relative.as_os_str().as_bytes();
    let mut key = Vec::with_capacity(prefix.len() + path.len());
    key.extend_from_slice(prefix);
    key.extend_from_slice(path);
    key
}

/// The relative path that `rest`, a key without its prefix, names.
///
/// # Errors
/// The path would leave the directory or cannot be a file's.
pub fn path_of(rest: &[u8]) -> Result<PathBuf, PathRefusal> {
    if rest.is_empty() {
        return Err(PathRefusal::Empty);
    }
    if rest.contains(&0) {
        return Err(PathRefusal::ZeroByte);
    }
    if rest.starts_with(b"/") {
        return Err(PathRefusal::Absolute);
    }
    for component in rest.split(|byte| *byte == b'/') {
        match component {
            b".." => return Err(PathRefusal::Parent),
            b"" | b"." => return Err(PathRefusal::Ambiguous),
            name if name.len() > NAME_SIZE_MAX => return Err(PathRefusal::NameTooLong),
            _ => {}
        }
    }
    Ok(PathBuf::from(OsStr::from_bytes(rest)))
}

/// A name for messages: text as it is, other bytes escaped.
pub fn display(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_the_way_to_a_key_and_back() {
        for path in ["a", "a/b.txt", "..a/b..", "a/...", "with space/\u{e4}", "-x"] {
            let key = key_of(b"/p/", Path::new(path));
            assert_eq!(path_of(&key[3..]), Ok(PathBuf::from(path)));
        }
        let bytes = Path::new(OsStr::from_bytes(b"\xff\xfe/x"));
        assert_eq!(path_of(&key_of(b"", bytes)), Ok(bytes.to_path_buf()));
    }

    #[test]
    fn a_key_never_leads_out_of_the_directory() {
        for (rest, refusal) in [
            (&b""[..], PathRefusal::Empty),
            (b"/etc/passwd", PathRefusal::Absolute),
            (b"..", PathRefusal::Parent),
            (b"../x", PathRefusal::Parent),
            (b"a/../../x", PathRefusal::Parent),
            (b"a/..", PathRefusal::Parent),
            (b"./a", PathRefusal::Ambiguous),
            (b"a//b", PathRefusal::Ambiguous),
            (b"a/", PathRefusal::Ambiguous),
            (b"a\0b", PathRefusal::ZeroByte),
        ] {
            assert_eq!(path_of(rest), Err(refusal), "{}", display(rest));
        }
        let long = [b'x'; NAME_SIZE_MAX + 1];
        assert_eq!(path_of(&long), Err(PathRefusal::NameTooLong));
        assert!(path_of(&long[1..]).is_ok());
    }
}
