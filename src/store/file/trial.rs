//! A trial of the directory, which leaves nothing there.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, write};

use super::dir_entry::DirEntry;
use super::publisher::TempFile;

/// Writes a byte to a file in `entry`'s directory, as a publish would. The file has no name,
/// where the file system knows such files.
///
/// # Errors
/// That of openat(2) or write(2).
pub fn write_a_byte(entry: DirEntry<'_>) -> io::Result<()> {
    match nameless(entry.directory) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
            TempFile::create(entry, 0o600)?.write(b"\n")
        }
        other => Ok(other?),
    }
}

fn nameless(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let how = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(directory, ".", how, Mode::RUSR | Mode::WUSR)?;
    write(&file, b"\n").map(|_| ())
}
