//! Temporary directories, and files in them.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use filetime::FileTime;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};

use super::host::shared_memory;

/// A new directory, removed with its content on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    /// In the temporary directory of the system, for all to read.
    pub fn new() -> Self {
        Self::within(std::env::temp_dir(), 0o755)
    }

    /// In shared memory, for all to read.
    pub fn in_memory() -> Self {
        Self::within(shared_memory(), 0o755)
    }

    /// In `parent`, with exactly this mode whatever the umask.
    pub fn within(parent: impl AsRef<Path>, mode: u32) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.as_ref().join(format!("novcomet-test-{}-{number}", process::id()));
        make_dir(&path, mode);
        Self(path)
    }
}

impl Deref for TempDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for TempDir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<OsStr> for TempDir {
    fn as_ref(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn make_dir(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap_or_else(|error| panic!("mkdir {}: {error}", path.display()));
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub fn make_file(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Lets the web server's user read a file, if root starts the server.
pub fn give_to_the_server(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    let _ = chown(path, None, Some(33));
}

/// Copies a program by cp(1). If this process wrote the copy, a child that another
/// thread starts could inherit the descriptor, and execve(2) would fail: ETXTBSY.
pub fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
    fs::set_permissions(to, Permissions::from_mode(0o755)).unwrap();
}

/// As touch(1) does: creates the file, or sets both times to the kernel's now.
pub fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    futimens(&file, &Timestamps { last_access: now, last_modification: now }).unwrap();
}

/// Runs touch(1): the process that writes the file is another one.
pub fn touch_by_shell(path: &Path) {
    assert!(Command::new("touch").arg(path).status().unwrap().success());
}

/// Creates an empty file in one step, which touch(1) does in two. One in a thousand of the kernel's
/// times looks like a publisher's, and is not taken.
pub fn create_by_kernel(path: &Path) {
    let is_like_ours = || fs::metadata(path).is_ok_and(|it| it.mtime_nsec() % 1_000 == 0);
    File::create_new(path).unwrap();
    while is_like_ours() {
        fs::remove_file(path).unwrap();
        File::create_new(path).unwrap();
    }
}

/// Sets the time of access and of modification.
pub fn set_time(path: &Path, seconds: i64, nanoseconds: u32) {
    let time = FileTime::from_unix_time(seconds, nanoseconds);
    filetime::set_file_times(path, time, time).unwrap();
}
