//! A name in the event directory, which anybody may have planted.

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

/// Never follows a link, never hangs on a FIFO or a lease, never becomes our
/// terminal, never outlives us.
const SAFELY: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Where an event file is, or will be. A publisher has a descriptor of the
/// directory: whoever puts another in that one's place meanwhile leads it
/// nowhere. A subscriber, who may wait through that, goes by the path.
#[derive(Clone, Copy)]
pub struct DirEntry<'a> {
    pub directory: BorrowedFd<'a>,
    /// Relative to `directory`.
    pub name: &'a Path,
    /// For those who read of it.
    pub path: &'a Path,
}

/// What stands there, as far as it can be told without opening it.
pub struct Stat {
    pub time: Cursor,
    /// When anything was last done to it, by the kernel's own clock.
    pub changed: Cursor,
    /// Whether a publisher set the time.
    pub is_publisher_time: bool,
    pub is_empty: bool,
    /// Device and inode.
    pub identity: (u64, u64),
    pub names: Names,
}

/// What changes whenever a file gets another name or loses one (link(2), inode(7)).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Names {
    pub count: u64,
    /// When anything was last done to the file, in seconds and nanoseconds.
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
    /// The regular file there, `None` if there is nothing.
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

    /// Without `O_CREAT`: with it the kernel refuses a file of somebody else
    /// in a sticky directory (`fs.protected_regular`).
    pub fn open(self, access: OFlags) -> io::Result<File> {
        Ok(openat(self.directory, self.name, access | SAFELY, Mode::empty())?.into())
    }

    /// Makes a file where nothing may be, of `mode` as far as the umask allows.
    pub fn create(self, mode: Mode) -> io::Result<File> {
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | SAFELY;
        Ok(openat(self.directory, self.name, how, mode)?.into())
    }

    /// Gives it the place of `other`, a name in the same directory.
    pub fn rename(self, other: DirEntry<'_>, flags: RenameFlags) -> io::Result<()> {
        Ok(renameat_with(self.directory, self.name, other.directory, other.name, flags)?)
    }

    /// Waits for a neighbour who is just changing names in the directory: the kernel
    /// lowers the count of a file's names before a name that is removed is gone. To
    /// rename a file to its own name does nothing (rename(2)), but takes the
    /// directory's lock.
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

/// Whether a publisher of ours set this time: those are whole microseconds,
/// the kernel's own have nanoseconds. It is the last that its publisher sets,
/// so nobody needs to wait for the lock to be free, which under a crowd of
/// woken waiters may take long.
pub fn is_publisher_time(nanoseconds: u64) -> bool {
    nanoseconds % 1000 == 0
}
