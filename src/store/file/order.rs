//! The one order of all events in a directory.
//!
//! A publisher at work holds a shared lock on a byte of the directory, at the offset of the
//! time when it began, in microseconds. It reads the clock for its event after that. So the
//! events of a moment, and all before it, have happened when no lock at or before the
//! moment is left. No publisher waits for another, and a killed one holds nothing.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::event::Cursor;
use crate::process::sys;
use crate::store::Horizon;

/// How long readers wait for a publisher. One takes less than 40 µs, so this one is
/// stopped.
const STOPPED: Duration = Duration::from_secs(5);

/// After this time a publisher must not say that it has published, because readers may
/// soon not wait for it any more.
const MAX_WORK: Duration = Duration::from_secs(4);

/// A publisher at work.
pub struct AtWork {
    began: Instant,
    _lock: Option<OwnedFd>,
}

impl AtWork {
    /// Call it before the time of the event is read. A directory that this user cannot
    /// read, and so nobody lists as this user, has no order.
    ///
    /// # Errors
    /// The error of openat(2) or fcntl(2).
    pub fn begin(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let began = Instant::now();
        let lock = match open(directory) {
            Err(Errno::ACCESS) => None,
            opened => Some(opened?),
        };
        if let Some(lock) = &lock {
            sys::share_byte(lock, offset(Cursor::now()))?;
        }
        Ok(Self { began, _lock: lock })
    }

    /// Whether readers have waited for it until now.
    ///
    /// # Errors
    /// `TimedOut` if not: the message is there, and some may not receive it.
    pub fn finish(self) -> io::Result<()> {
        match self.began.elapsed() < MAX_WORK {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Looks for publishers at work. The directory is open for reading.
///
/// # Errors
/// The error of fcntl(2).
pub fn horizon(directory: &OwnedFd) -> io::Result<Horizon> {
    let now = Cursor::now();
    let oldest = offset(now.before(STOPPED));
    let mut end = offset(now);
    while oldest < end {
        match sys::shared_byte_within(directory, oldest..end)? {
            Some(start) => end = start,
            None => break,
        }
    }
    Ok(Horizon {
        at: Cursor::from_micros(u64::try_from(end - 1).unwrap_or(0)),
        is_settled: end == offset(now),
    })
}

fn open(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn offset(time: Cursor) -> i64 {
    i64::try_from(time.micros()).unwrap_or(i64::MAX)
}
