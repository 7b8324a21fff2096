//! Publishing to one event file, under its lock.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use filetime::FileTime;
use rustix::fs::{Mode, RenameFlags, Timespec, Timestamps, UTIME_NOW, fstat, futimens};

use super::acl;
use super::dir_entry::{DirEntry, Names};
use super::event_file::{EventFile, born_of, time_of};
use super::fault::{failed, linked, lock_held, time_ahead};
use super::log::{self, End, Head, Header};
use crate::error::Error;
use crate::event::{Cursor, Message, Since};
use crate::process::sys;
use crate::store::Retention;

/// Between two tries to get the lock.
const LOCK_PAUSE: Duration = Duration::from_micros(100);

/// How a file begins that is not in its place yet; its maker's process id
/// comes next, and a hyphen.
pub const TEMP_PREFIX: &str = ".novcomet-";

/// Puts a new event file in place, complete with its message and its time;
/// `None` when somebody else was first.
pub fn create(entry: DirEntry<'_>, data: Option<&str>) -> Result<Option<Cursor>, Error> {
    let cursor = Cursor::SMALLEST.next(Cursor::now());
    let temp = TempFile::create(entry, RW_FOR_ALL).map_err(failed("create", entry.path))?;
    let content = |inode| data.map(|data| new_log(cursor, inode, data)).unwrap_or_default();
    let done = temp
        .share_with_group()
        .and_then(|()| temp.fill(content, cursor))
        .and_then(|()| temp.place(RenameFlags::NOREPLACE));
    match done {
        Ok(()) => Ok(Some(cursor)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(failed("create", entry.path)(error)),
    }
}

/// A log with its first message.
fn new_log(id: Cursor, inode: u64, data: &str) -> Vec<u8> {
    let mut content = log::line(&Header { born: id, inode, dropped: None });
    content.extend(log::message_line(&Message::new(id, data)));
    content
}

impl EventFile<'_> {
    /// Makes an event of the topic; `None` when the file is no longer the topic's.
    /// It waits for other publishers until `deadline`.
    pub fn publish(
        &self,
        data: Option<&str>,
        kept: Retention,
        deadline: Instant,
    ) -> Result<Option<Cursor>, Error> {
        self.lock(deadline)?;
        let seen = self.metadata()?;
        let (head, end) = (self.head(&seen)?, self.end(&seen, kept.max_file_bytes)?);
        if !self.is_topics_own()? {
            return Ok(None);
        }
        let publisher = Publisher { file: self, seen, head, end, kept };
        match data {
            Some(data) => publisher.append(data).map(Some),
            None => publisher.touch_file().map(Some),
        }
    }

    /// Whether the topic's name is the only one of this file; what the file shares
    /// with another name somebody else may rely on. A neighbour may add and remove
    /// names at any moment, so the file is looked at before the name and after it:
    /// every name that comes or goes meanwhile changes the count or the time.
    fn is_topics_own(&self) -> Result<bool, Error> {
        let look = || fstat(&self.file).map_err(|error| self.failed("look at")(error.into()));
        let before = look()?;
        self.entry.wait_for_directory_lock().map_err(self.failed("look at"))?;
        let Some(there) = self.entry.stat()? else { return Ok(false) };
        let after = look()?;
        if there.identity != (after.st_dev, after.st_ino) {
            return Ok(false);
        }
        let names = [Names::of(&before), there.names, Names::of(&after)];
        if names.iter().any(|names| names.count > 1) {
            return Err(linked(self.entry.path));
        }
        Ok(names.iter().all(|found| *found == names[0]))
    }

    fn lock(&self, deadline: Instant) -> Result<(), Error> {
        while !sys::try_lock(&self.file).map_err(self.failed("lock"))? {
            if Instant::now() >= deadline {
                return Err(lock_held(self.entry.path));
            }
            thread::sleep(LOCK_PAUSE);
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        failed(doing, self.entry.path)
    }
}

/// Who holds the lock of an event file, and what it found there.
struct Publisher<'a> {
    file: &'a EventFile<'a>,
    seen: Metadata,
    head: Head,
    end: End,
    kept: Retention,
}

impl Publisher<'_> {
    /// The last event's time, or the last message's if that was killed before
    /// it could set its time.
    fn last(&self) -> Cursor {
        time_of(&self.seen).max(self.end.last)
    }

    /// The time of the next event.
    fn next(&self) -> Result<Cursor, Error> {
        let next = self.last().next(Cursor::now());
        match next == self.last() {
            true => Err(time_ahead(self.file.entry.path)),
            false => Ok(next),
        }
    }

    /// Adds a message, and then sets the time of its event. A line that is
    /// torn, or old messages beyond measure, make a new file.
    fn append(&self, data: &str) -> Result<Cursor, Error> {
        let message = Message::new(self.next()?, data);
        let line = log::message_line(&message);
        if self.end.whole < self.seen.len() || self.needs_compaction(line.len()) {
            match self.compact(&message) {
                Err(error) if is_forbidden(&error) => self.truncate_torn_line(line.len())?,
                other => return other.map(|()| message.id).map_err(self.failed("shorten")),
            }
        }
        self.write(&match self.end.whole {
            0 => [log::line(&self.header(self.seen.ino(), None)), line].concat(),
            _ => line,
        })?;
        // From here on readers have the message, so it is published. Where its time
        // cannot be set (another user's file, a bad disk) that of the write must do.
        let _ = set_time(&self.file.file, message.id);
        Ok(message.id)
    }

    /// A header of this life of the topic.
    fn header(&self, inode: u64, dropped: Option<Cursor>) -> Header {
        let ours = self.head.header.filter(|header| header.inode == self.seen.ino());
        let made = || born_of(&self.seen).unwrap_or(time_of(&self.seen));
        Header { born: ours.map_or_else(made, |header| header.born), inode, dropped }
    }

    /// All of `added`, or nothing of it.
    fn write(&self, added: &[u8]) -> Result<(), Error> {
        let file = &self.file.file;
        file.write_all_at(added, self.end.whole).map_err(|error| {
            let _ = file.set_len(self.end.whole);
            let before = FileTime::from_last_modification_time(&self.seen);
            let _ = filetime::set_file_handle_times(file, Some(before), Some(before));
            self.failed("write to")(error)
        })
    }

    /// Twice what is kept: so each message is copied once on average.
    fn needs_compaction(&self, added: usize) -> bool {
        let is_old = |id: Cursor| id.age(Cursor::now()) > self.kept.age.saturating_mul(2);
        self.size_with(added) > self.kept.bytes.saturating_mul(2)
            || self.head.oldest.is_some_and(is_old)
    }

    fn size_with(&self, added: usize) -> u64 {
        self.end.whole + added as u64
    }

    /// Puts a file with what is kept and `message` in the place of this one.
    fn compact(&self, message: &Message) -> io::Result<()> {
        let older = self.kept.messages.saturating_sub(1);
        let older = Retention { messages: older, ..self.kept };
        let length = self.seen.len();
        let found = log::messages(&self.file.file, length, Since::Earliest, older, Cursor::now())?;
        let dropped = self.head.header.and_then(|header| header.dropped);
        let content = |inode| {
            let mut content = log::line(&self.header(inode, found.dropped.or(dropped)));
            for line in &found.lines {
                content.extend_from_slice(line);
                content.push(b'\n');
            }
            content.extend(log::message_line(message));
            content
        };
        let temp = TempFile::create(self.file.entry, OWNER_RW)?;
        temp.fill(content, message.id)?;
        temp.copy_mode_and_owner(&self.file.file, &self.seen)?;
        temp.place(RenameFlags::empty())
    }

    /// Where the file may not be replaced (another user's, in a sticky
    /// directory) a torn line is cut off in place, and the log may grow to
    /// four times of what is kept.
    fn truncate_torn_line(&self, added: usize) -> Result<(), Error> {
        if self.size_with(added) > self.kept.bytes.saturating_mul(4) {
            return Err(self.failed("shorten")(io::ErrorKind::PermissionDenied.into()));
        }
        self.file.file.set_len(self.end.whole).map_err(self.failed("mend"))
    }

    /// Sets a time later than the last.
    fn touch_file(&self) -> Result<Cursor, Error> {
        let next = self.next()?;
        match set_time(&self.file.file, next) {
            Ok(()) => Ok(next),
            Err(error) if is_forbidden(&error) => self.set_kernel_time(),
            Err(error) => Err(self.failed("set the time of")(error)),
        }
    }

    /// A file of another user can only be given the kernel's own time, which
    /// before Linux 6.13 moves by ticks of up to 10 ms.
    fn set_kernel_time(&self) -> Result<Cursor, Error> {
        const TICKS: u32 = 50;
        for _ in 0..TICKS {
            let touched = futimens(&self.file.file, &NOW);
            touched.map_err(|error| self.failed("touch")(error.into()))?;
            let now = time_of(&self.file.metadata()?);
            if now > self.last() {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(time_ahead(self.file.entry.path))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        self.file.failed(doing)
    }
}

/// A file that is prepared beside the one it will be: it appears at once and
/// whole. Removed if it does not come to that.
struct TempFile<'a> {
    name: PathBuf,
    file: File,
    /// What it will be.
    entry: DirEntry<'a>,
}

impl<'a> TempFile<'a> {
    fn create(entry: DirEntry<'a>, mode: u32) -> io::Result<Self> {
        loop {
            let name = format!("{TEMP_PREFIX}{}-{}", std::process::id(), Cursor::now());
            let name = entry.name.with_file_name(name);
            match (DirEntry { name: &name, ..entry }).create(Mode::from_raw_mode(mode)) {
                Ok(file) => return Ok(Self { name, file, entry }),
                // Another thread, or a process of the same number in another
                // container, has this microsecond.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A directory with the setgid bit is its group's, and so is what is in
    /// it, whatever umask this publisher's server has.
    fn share_with_group(&self) -> io::Result<()> {
        let directory = fstat(self.entry.directory)?;
        if !Mode::from_raw_mode(directory.st_mode).contains(Mode::SGID) {
            return Ok(());
        }
        let mode = self.file.metadata()?.mode() | GROUP_RW;
        self.file.set_permissions(PermissionsExt::from_mode(mode))
    }

    /// Takes over the owner and the group of a file, as far as that is allowed,
    /// then its ACL and its mode; nobody gets a right that he had not. It comes
    /// last: until then the file is its maker's alone, for a descriptor that was
    /// opened earlier outlives a narrower mode.
    fn copy_mode_and_owner(&self, file: &File, seen: &Metadata) -> io::Result<()> {
        let group = Some(seen.gid());
        let has_group = fchown(&self.file, Some(seen.uid()), group)
            .or_else(|_| fchown(&self.file, None, group))
            .is_ok();
        let acl = acl::of(file)?;
        let has_acl = has_group && acl::set(&self.file, acl.as_deref()).is_ok();
        // No bit by which a planted file would become a program that runs as us.
        let mode = match seen.mode() & RW_FOR_ALL {
            mode if has_acl => mode,
            mode if acl.is_some() => mode & OWNER_RW,
            mode => without_group(mode),
        };
        self.file.set_permissions(PermissionsExt::from_mode(mode))
    }

    /// Writes what `content` makes of the file's inode, and sets the time.
    fn fill(&self, content: impl FnOnce(u64) -> Vec<u8>, time: Cursor) -> io::Result<()> {
        let content = content(self.file.metadata()?.ino());
        self.file.write_all_at(&content, 0)?;
        set_time(&self.file, time)
    }

    fn place(&self, flags: RenameFlags) -> io::Result<()> {
        self.here().rename(self.entry, flags)
    }

    fn here(&self) -> DirEntry<'_> {
        DirEntry { name: &self.name, ..self.entry }
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        // After it was put in place there is nothing of this name.
        let _ = self.here().remove();
    }
}

/// The members of a group that is not kept are others from then on, and those of
/// the new group were.
fn without_group(mode: u32) -> u32 {
    mode & OWNER_RW | mode & (mode & GROUP_RW) >> 3
}

/// Reading and writing, for the owner.
const OWNER_RW: u32 = 0o600;
/// Reading and writing, for the group.
const GROUP_RW: u32 = 0o060;
/// Reading and writing, for everybody.
const RW_FOR_ALL: u32 = 0o666;

const NOW: Timestamps = {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Timestamps { last_access: now, last_modification: now }
};

/// Both times, as touch(1) does: with only one of them the kernel reports
/// another kind of change (`IN_MODIFY` for `IN_ATTRIB`).
fn set_time(file: &File, cursor: Cursor) -> io::Result<()> {
    let seconds = i64::try_from(cursor.seconds()).unwrap_or(i64::MAX);
    let time = FileTime::from_unix_time(seconds, cursor.nanoseconds());
    filetime::set_file_handle_times(file, Some(time), Some(time))
}

/// Whether only the owner of the file could have done it.
fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
