//! A small disk of its own: an ext4 in a file, mounted over a loop device, that can be filled to the last
//! block. Needs root. The process gets a mount namespace of its own first, so that the kernel takes the
//! disk away with the last process that sees it, however that ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Says to a process that it lives in a namespace of its own already.
const VARIABLE: &str = "CHAOS_NAMESPACE";

/// Size of the disk.
const SIZE: u64 = 640 << 20;

/// Starts this program anew in a mount namespace of its own. Returns only if that cannot be done.
///
/// # Errors
/// Why it cannot be done.
pub fn unshare() -> io::Result<()> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let can = Command::new("unshare").args(["--mount", "true"]).output()?;
    if !can.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&can.stderr).into_owned()));
    }
    let program = std::env::current_exe()?;
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "1")
        .exec();
    Err(error)
}

/// A mounted small disk.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Makes one in `folder` and mounts it at `folder/disk`.
    ///
    /// # Errors
    /// It cannot be made, or mounting is not permitted.
    pub fn mount(folder: &Path) -> io::Result<Self> {
        if std::env::var_os(VARIABLE).is_none() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "needs root and unshare(1)",
            ));
        }
        let image = folder.join("disk.image");
        let path = folder.join("disk");
        fs::create_dir_all(&path)?;
        File::create(&image)?.set_len(SIZE)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-E", "nodiscard"])
            .arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If somebody still uses it, it goes with the namespace.
        drop(Command::new("umount").arg(&self.path).output());
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// A file that takes all room that is left on a disk; given back when dropped.
pub struct Filler {
    path: PathBuf,
}

impl Filler {
    /// Takes all room on the disk of `folder`, but for less than a block.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn fill(folder: &Path) -> io::Result<Self> {
        let filler = Self { path: folder.join("filler") };
        let file = File::create(&filler.path)?;
        let mut size = 0;
        // What is free is an estimate, and servers write meanwhile.
        let mut step = statvfs(folder)?.f_bavail * 4_096;
        while step >= 4_096 {
            match fallocate(&file, FallocateFlags::empty(), size, step) {
                Ok(()) => size += step,
                Err(_) => step /= 2,
            }
        }
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}
