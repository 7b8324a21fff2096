//! Private directories that go away with their owner.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of our own, removed with all that is in it on drop.
pub struct PrivateDir(PathBuf);

impl PrivateDir {
    /// Makes one in `parent`, with exactly this mode whatever the umask.
    pub fn new(parent: impl AsRef<Path>, mode: u32) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.as_ref().join(format!("novcomet-test-{}-{number}", process::id()));
        make_dir(&path, mode);
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // A test may have taken it away on purpose.
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
