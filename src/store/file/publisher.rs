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
use super::fault::{failed, linked, lock_held, stopped, time_ahead};
use super::log::{self, End, Head, Header};
use super::name::is_shortened;
use super::order::AtWork;
use crate::error::Error;
use crate::event::{Cursor, Draft, Message, Since, Topic};
use crate::process::sys;
use crate::store::Retention;

/// The pause between two attempts to take the lock.
const LOCK_PAUSE: Duration = Duration::from_micros(100);

/// The beginning of a temporary file's name. The process id of its creator and a hyphen
/// follow.
pub const TEMP_PREFIX: &str = ".novcomet-";

/// Creates an event file, complete with its message and its time; `None` if another
/// publisher was first.
pub fn create(
    entry: DirEntry<'_>,
    topic: &Topic,
    message: Option<&Draft>,
) -> Result<Option<Cursor>, Error> {
    let at_work = AtWork::begin(entry.directory).map_err(failed("lock", entry.path))?;
    let cursor = Cursor::SMALLEST.next(Cursor::now());
    let temp = TempFile::create(entry, RW_FOR_ALL).map_err(failed("create", entry.path))?;
    let content = |inode| new_log(cursor, inode, topic, message);
    let done = temp
        .share_with_group()
        .and_then(|()| temp.fill(content, cursor))
        .and_then(|()| temp.place(RenameFlags::NOREPLACE));
    match done {
        Ok(()) => finished(at_work, entry).map(|()| Some(cursor)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(failed("create", entry.path)(error)),
    }
}

/// A log with its first message. Without one it is empty, but for the topic that a
/// shortened name lacks.
fn new_log(id: Cursor, inode: u64, topic: &Topic, message: Option<&Draft>) -> Vec<u8> {
    let topic = for_header(topic);
    if message.is_none() && topic.is_none() {
        return Vec::new();
    }
    let mut content = log::line(&Header { born: id, inode, dropped: None, topic });
    let message = message.map(|message| message.clone().message(id));
    content.extend(message.iter().flat_map(log::message_line));
    content
}

/// The topic, if the name of its file is shortened.
fn for_header(topic: &Topic) -> Option<Topic> {
    is_shortened(topic).then(|| topic.clone())
}

/// A publisher that was stopped for long does not say that it has published.
fn finished(at_work: AtWork, entry: DirEntry<'_>) -> Result<(), Error> {
    at_work.finish().map_err(|_| stopped(entry.path))
}

impl EventFile<'_> {
    /// Publishes an event; `None` if the topic no longer uses this file. It waits for
    /// other publishers until `deadline`.
    pub fn publish(
        &self,
        topic: &Topic,
        message: Option<&Draft>,
        kept: Retention,
        deadline: Instant,
    ) -> Result<Option<Cursor>, Error> {
        self.lock(deadline)?;
        let at_work = AtWork::begin(self.entry.directory).map_err(self.failed("lock"))?;
        let seen = self.metadata()?;
        let (head, end) = (self.head(&seen)?, self.end(&seen, kept.max_file_bytes)?);
        if !self.is_topics_own()? {
            return Ok(None);
        }
        self.check_topic(topic, &seen)?;
        let publisher = Publisher { file: self, topic, seen, head, end, kept };
        let cursor = match message {
            Some(message) => publisher.append(message)?,
            None => publisher.touch_file()?,
        };
        finished(at_work, self.entry).map(|()| Some(cursor))
    }

    /// Whether the topic's name is the only name of this file. Another program may rely
    /// on the content under another name. A neighbour may add and remove names at any
    /// moment. So the file is checked before the name and after it: every name that is
    /// added or removed meanwhile changes the count or the time.
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

/// The holder of the lock of an event file, with the state that it found.
struct Publisher<'a> {
    file: &'a EventFile<'a>,
    topic: &'a Topic,
    seen: Metadata,
    head: Head,
    end: End,
    kept: Retention,
}

impl Publisher<'_> {
    /// The time of the last event, or of the last message if its publisher was killed
    /// before it set the time.
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

    /// Appends a message and then sets the time of its event. A torn line, or too many
    /// old messages, cause a compaction.
    fn append(&self, message: &Draft) -> Result<Cursor, Error> {
        let message = message.clone().message(self.next()?);
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
        // Readers have the message now, so it is published. If its time cannot be set
        // (another user's file, a bad disk), the time of the write stays.
        let _ = set_time(&self.file.file, message.id);
        Ok(message.id)
    }

    /// The header with the creation of the topic.
    fn header(&self, inode: u64, dropped: Option<Cursor>) -> Header {
        let own = self.head.header.as_ref().filter(|header| header.inode == self.seen.ino());
        let made = || born_of(&self.seen).unwrap_or(time_of(&self.seen));
        let born = own.map_or_else(made, |header| header.born);
        Header { born, inode, dropped, topic: for_header(self.topic) }
    }

    /// Writes all of `added`, or nothing.
    fn write(&self, added: &[u8]) -> Result<(), Error> {
        let file = &self.file.file;
        file.write_all_at(added, self.end.whole).map_err(|error| {
            let _ = file.set_len(self.end.whole);
            let before = FileTime::from_last_modification_time(&self.seen);
            let _ = filetime::set_file_handle_times(file, Some(before), Some(before));
            self.failed("write to")(error)
        })
    }

    /// Whether the log is twice as large or as old as the kept messages. At this limit
    /// each message is copied once on average.
    fn needs_compaction(&self, added: usize) -> bool {
        let is_old = |id: Cursor| id.age(Cursor::now()) > self.kept.age.saturating_mul(2);
        self.size_with(added) > self.kept.bytes.saturating_mul(2)
            || self.head.oldest.is_some_and(is_old)
    }

    fn size_with(&self, added: usize) -> u64 {
        self.end.whole + added as u64
    }

    /// Replaces the file by one with the kept messages and `message`.
    fn compact(&self, message: &Message) -> io::Result<()> {
        let older = self.kept.messages.saturating_sub(1);
        let older = Retention { messages: older, ..self.kept };
        let length = self.seen.len();
        let found = log::messages(&self.file.file, length, Since::Earliest, older, Cursor::now())?;
        let dropped = self.head.header.as_ref().and_then(|header| header.dropped);
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

    /// Cuts off a torn line in place, if the file cannot be replaced (another user's file
    /// in a sticky directory). Such a log may grow to four times the kept bytes.
    fn truncate_torn_line(&self, added: usize) -> Result<(), Error> {
        if self.size_with(added) > self.kept.bytes.saturating_mul(4) {
            return Err(self.failed("shorten")(io::ErrorKind::PermissionDenied.into()));
        }
        self.file.file.set_len(self.end.whole).map_err(self.failed("truncate"))
    }

    /// Sets a time that is later than the last. If `touch` created a file with a shortened
    /// name, it gets its header.
    fn touch_file(&self) -> Result<Cursor, Error> {
        let next = self.next()?;
        if self.seen.len() == 0 && is_shortened(self.topic) {
            self.write(&log::line(&self.header(self.seen.ino(), None)))?;
        }
        match set_time(&self.file.file, next) {
            Ok(()) => Ok(next),
            Err(error) if is_forbidden(&error) => self.set_kernel_time(),
            Err(error) => Err(self.failed("set the time of")(error)),
        }
    }

    /// Sets the kernel's present time, the only one that the file of another user can
    /// get. Before Linux 6.13 it moves by ticks of up to 10 ms.
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

/// A file that is written under a temporary name and then renamed, so that it appears
/// whole. Without the rename it is removed.
pub struct TempFile<'a> {
    name: PathBuf,
    file: File,
    /// The name that it will get.
    entry: DirEntry<'a>,
}

impl<'a> TempFile<'a> {
    pub fn create(entry: DirEntry<'a>, mode: u32) -> io::Result<Self> {
        loop {
            let name = format!("{TEMP_PREFIX}{}-{}", std::process::id(), Cursor::now());
            let name = entry.name.with_file_name(name);
            match (DirEntry { name: &name, ..entry }).create(Mode::from_raw_mode(mode)) {
                Ok(file) => return Ok(Self { name, file, entry }),
                // Another thread, or a process with the same id in another container,
                // used this microsecond.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets the group write, if the directory has the setgid bit. The umask of this
    /// publisher's server does not matter then.
    fn share_with_group(&self) -> io::Result<()> {
        let directory = fstat(self.entry.directory)?;
        if !Mode::from_raw_mode(directory.st_mode).contains(Mode::SGID) {
            return Ok(());
        }
        let mode = self.file.metadata()?.mode() | GROUP_RW;
        self.file.set_permissions(PermissionsExt::from_mode(mode))
    }

    /// Copies the owner and the group of a file as far as the kernel allows it, then the
    /// ACL and the mode. No user gains a right. The mode comes last: until then only the
    /// creator can open the file, because a descriptor stays usable after a narrower
    /// mode.
    fn copy_mode_and_owner(&self, file: &File, seen: &Metadata) -> io::Result<()> {
        let group = Some(seen.gid());
        let has_group = fchown(&self.file, Some(seen.uid()), group)
            .or_else(|_| fchown(&self.file, None, group))
            .is_ok();
        let acl = acl::of(file)?;
        let has_acl = has_group && acl::set(&self.file, acl.as_deref()).is_ok();
        // No execute or setuid bit: a planted file must not become a program.
        let mode = match seen.mode() & RW_FOR_ALL {
            mode if has_acl => mode,
            mode if acl.is_some() => mode & OWNER_RW,
            mode => without_group(mode),
        };
        self.file.set_permissions(PermissionsExt::from_mode(mode))
    }

    /// Writes the content for the file's inode, and sets the time.
    fn fill(&self, content: impl FnOnce(u64) -> Vec<u8>, time: Cursor) -> io::Result<()> {
        let content = content(self.file.metadata()?.ino());
        self.file.write_all_at(&content, 0)?;
        set_time(&self.file, time)
    }

    pub fn write(&self, content: &[u8]) -> io::Result<()> {
        self.file.write_all_at(content, 0)
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
        // After the rename this name does not exist.
        let _ = self.here().remove();
    }
}

/// The mode for a file whose group cannot be copied. The members of the old group become
/// others, and the members of the new group were others.
fn without_group(mode: u32) -> u32 {
    mode & OWNER_RW | mode & (mode & GROUP_RW) >> 3
}

/// Read and write for the owner.
const OWNER_RW: u32 = 0o600;
/// Read and write for the group.
const GROUP_RW: u32 = 0o060;
/// Read and write for all users.
const RW_FOR_ALL: u32 = 0o666;

const NOW: Timestamps = {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Timestamps { last_access: now, last_modification: now }
};

/// Sets both times, as touch(1) does. For only one of them the kernel reports
/// `IN_MODIFY` instead of `IN_ATTRIB`.
fn set_time(file: &File, cursor: Cursor) -> io::Result<()> {
    let seconds = i64::try_from(cursor.seconds()).unwrap_or(i64::MAX);
    let time = FileTime::from_unix_time(seconds, cursor.nanoseconds());
    filetime::set_file_handle_times(file, Some(time), Some(time))
}

/// Whether the process lacks the permission, for example because it is not the owner.
fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
