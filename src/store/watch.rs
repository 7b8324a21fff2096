//! Waking at a change in a directory, by whatever means the kernel spares us.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::Watch;
use crate::sys;

/// A file appears, by creation or by `mv`, or the directory itself goes.
const DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// touch(1) sets both times: `IN_ATTRIB`. Whoever sets only the modification
/// time, or writes: `IN_MODIFY`. A deleted file reports its link count: `IN_ATTRIB`.
const FILE: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DONT_FOLLOW);

/// Watches the event files of some topics.
pub struct DirectoryWatch {
    directory: PathBuf,
    files: Vec<PathBuf>,
    means: Means,
}

/// inotify wakes for our own files only, but a user has 128 instances
/// (`fs.inotify.max_user_instances`); dnotify wakes for the whole directory,
/// without such a limit.
enum Means {
    Inotify(OwnedFd),
    Dnotify {
        signals: OwnedFd,
        directory: Option<File>,
    },
    /// The caller's safety look must do.
    Nothing,
}

impl DirectoryWatch {
    /// A watch on `files` in `directory`; none of them need exist.
    pub fn new(directory: PathBuf, files: Vec<PathBuf>) -> Self {
        Self { directory, files, means: Means::inotify().unwrap_or_else(|_| Means::dnotify()) }
    }

    /// Adds every watch again: a file that was replaced is another inode now.
    /// The directory comes first, so that no file appears unseen in between.
    fn add_watches(&self, inotify: &OwnedFd) -> Result<(), Errno> {
        add_watch(inotify, &self.directory, DIRECTORY)?.ok();
        for file in &self.files {
            if let Err(Errno::ACCESS) = add_watch(inotify, file, FILE)? {
                // A file that we may not read is watched through its directory.
                let changes = WatchFlags::ATTRIB | WatchFlags::MODIFY;
                add_watch(inotify, &self.directory, DIRECTORY | changes)?.ok();
            }
        }
        Ok(())
    }
}

/// The outer error means that `fs.inotify.max_user_watches` is used up.
fn add_watch(
    inotify: &OwnedFd,
    path: &Path,
    flags: WatchFlags,
) -> Result<Result<i32, Errno>, Errno> {
    match inotify::add_watch(inotify, path, flags) {
        Err(Errno::NOSPC) => Err(Errno::NOSPC),
        // Not there, or not ours to watch: the next look will tell.
        other => Ok(other),
    }
}

impl Watch for DirectoryWatch {
    fn arm(&mut self) {
        if let Means::Inotify(inotify) = &self.means {
            drain(inotify);
            if self.add_watches(inotify).is_err() {
                self.means = Means::dnotify();
            }
        }
        if let Means::Dnotify { signals, directory } = &mut self.means {
            drain(signals);
            let there = fs::metadata(&self.directory).ok();
            let held = directory.as_ref().and_then(|held| held.metadata().ok());
            if there.map(|it| (it.dev(), it.ino())) != held.map(|it| (it.dev(), it.ino())) {
                *directory = watched_by_signal(&self.directory);
            }
        }
    }

    fn fd(&mut self, _: Duration) -> Option<BorrowedFd<'_>> {
        match &self.means {
            Means::Inotify(fd) | Means::Dnotify { signals: fd, .. } => Some(fd.as_fd()),
            Means::Nothing => None,
        }
    }
}

impl Means {
    fn inotify() -> Result<Self, Errno> {
        inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map(Self::Inotify)
    }

    /// SIGIO is what the kernel sends when the queue of real-time signals is full.
    fn dnotify() -> Self {
        match sys::signal_fd(&[libc::SIGRTMIN(), libc::SIGIO]) {
            Ok(signals) => Self::Dnotify { signals, directory: None },
            Err(_) => Self::Nothing,
        }
    }
}

fn watched_by_signal(directory: &Path) -> Option<File> {
    let directory = File::open(directory).ok()?;
    sys::notify_directory(&directory, libc::SIGRTMIN()).ok()?;
    Some(directory)
}

/// Reads and forgets what is queued; both kinds of descriptor are non-blocking.
fn drain(fd: &OwnedFd) {
    let mut queued = [MaybeUninit::<u8>::uninit(); 4096];
    while rustix::io::read(fd, &mut queued).is_ok() {}
}
