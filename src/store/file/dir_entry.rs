//! A name in the event directory. Any user of the machine may have planted it.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, statat, unlinkat,
};

use super::fault::{failed, not_a_file};
use crate::error::Error;
use crate::event::Cursor;

/// The flags of a safe open(2): it does not follow a link, does not block on a FIFO or a
/// lease, does not take a controlling terminal, and is closed at exec.
const SAFELY: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The name of an event file in its directory. A publisher has a descriptor of the
/// directory, so a user who replaces the directory meanwhile cannot redirect it. A
/// subscriber uses the path, because it may wait through such a replacement.
#[derive(Clone, Copy)]
pub struct DirEntry<'a> {
    pub directory: BorrowedFd<'a>,
    /// Relative to `directory`.
    pub name: &'a Path,
    /// The full path, for messages.
    pub path: &'a Path,
}

/// The state of an event file, read without opening it.
pub struct Stat {
    pub time: Cursor,
    /// The time of the last change of any kind, by the kernel's clock.
    pub changed: Cursor,
    /// Whether a publisher set the time.
    pub is_publisher_time: bool,
    pub is_empty: bool,
    /// Device and inode.
    pub identity: (u64, u64),
    pub names: Names,
}

/// The values that change when a file gains or loses a name (link(2), inode(7)).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Names {
    pub count: u64,
    /// The time of the last change of any kind, in seconds and nanoseconds.
    changed: (i64, u64),
}

impl Names {
    #[allow(clippy::useless_conversion)] // The types are not the same everywhere.
    pub fn of(found: &rustix::fs::Stat) -> Self {
        let changed = (found.st_ctime.into(), found.st_ctime_nsec.into());
        Self { count: found.st_nlink.into(), changed }
    }
}

impl Stat {
    fn of(found: &rustix::fs::Stat) -> Self {
        let at = |seconds, nanos: u64| Cursor::at(seconds, u32::try_from(nanos).unwrap_or(0));
        Self {
            time: at(found.st_mtime, found.st_mtime_nsec).known(),
            changed: at(found.st_ctime, found.st_ctime_nsec),
            is_publisher_time: is_publisher_time(found.st_mtime_nsec),
            is_empty: found.st_size == 0,
            identity: (found.st_dev, found.st_ino),
            names: Names::of(found),
        }
    }
}

impl DirEntry<'_> {
    /// The state of the regular file; `None` if the name does not exist.
    pub fn stat(self) -> Result<Option<Stat>, Error> {
        match statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {
                Ok(Some(Stat::of(&found)))
            }
            Ok(_) => Err(not_a_file(self.path)),
            Err(error) if error == rustix::io::Errno::NOENT => Ok(None),
            Err(error) => Err(failed("read the time of", self.path)(error.into())),
        }
    }

    /// Opens the file without `O_CREAT`. With it the kernel refuses a file of another
    /// user in a sticky directory (`fs.protected_regular`).
    pub fn open(self, access: OFlags) -> io::Result<File> {
        Ok(openat(self.directory, self.name, access | SAFELY, Mode::empty())?.into())
    }

    /// Creates a file that must not exist, with `mode` as far as the umask allows.
    pub fn create(self, mode: Mode) -> io::Result<File> {
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | SAFELY;
        Ok(openat(self.directory, self.name, how, mode)?.into())
    }

    /// Renames the file to `other`, a name in the same directory.
    pub fn rename(self, other: DirEntry<'_>, flags: RenameFlags) -> io::Result<()> {
        Ok(renameat_with(self.directory, self.name, other.directory, other.name, flags)?)
    }

    /// Waits until no other process changes names in the directory. The kernel lowers a
    /// file's link count before the removed name is gone. Renaming a file to its own
    /// name has no effect (rename(2)), but takes the lock of the directory.
    pub fn wait_for_directory_lock(self) -> io::Result<()> {
        match self.rename(self, RenameFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    pub fn remove(self) -> io::Result<()> {
        Ok(unlinkat(self.directory, self.name, AtFlags::empty())?)
    }
}

/// Whether a publisher set this time. A publisher sets whole microseconds; the kernel sets
/// nanoseconds. The time is the last change of a publisher, so a reader need not wait
/// until the lock is free. With many woken readers that could take long.
pub fn is_publisher_time(nanoseconds: u64) -> bool {
    nanoseconds % 1000 == 0
}
