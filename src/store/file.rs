//! Events as the times of files: `ID.comet` in one directory, as in 2011; their
//! messages are what the file holds.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use filetime::FileTime;
use rustix::fs::{CWD, RenameFlags, Timespec, Timestamps, UTIME_NOW, futimens, renameat_with};

use super::log::{self, End, Header, Messages};
use super::watch::DirectoryWatch;
use super::{Reading, Retention, Store, Watch};
use crate::error::Error;
use crate::event::{Cursor, Message, Since, Topic};
use crate::sys;

/// How long a publisher waits for the others of its topic. A healthy one
/// is done in less than 40 µs.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Between two tries to get the lock.
const LOCK_PAUSE: Duration = Duration::from_micros(100);

/// The longest file name that Linux takes, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// Never follows a link, never hangs on a FIFO, never becomes our terminal.
const SAFELY: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

/// A directory of event files.
pub struct FileStore {
    directory: PathBuf,
    retention: Retention,
}

impl FileStore {
    /// # Errors
    /// [`Error::Store`] when there is no such directory.
    pub fn open(directory: PathBuf, retention: Retention) -> Result<Self, Error> {
        let found = fs::metadata(&directory).map_err(failed("find the directory", &directory))?;
        if !found.is_dir() {
            let cause = io::ErrorKind::NotADirectory.into();
            return Err(failed("use as a directory", &directory)(cause));
        }
        Ok(Self { directory, retention })
    }

    /// `/` and `%` are encoded, so that no topic leaves the directory; every
    /// other name is kept, so that it is the file that the PHP of 2011 used.
    fn path(&self, topic: &Topic) -> Result<PathBuf, Error> {
        let name = topic.as_str().replace('%', "%25").replace('/', "%2F") + ".comet";
        if name.len() > NAME_MAX {
            let why = "a topic with so many slashes or percent signs is too long for a file name";
            return Err(Error::BadRequest(why.into()));
        }
        Ok(self.directory.join(name))
    }
}

/// Puts a new event file in place, complete with its message and its time;
/// `None` when somebody else was first.
fn create(path: &Path, data: Option<&str>) -> Result<Option<Cursor>, Error> {
    let cursor = Cursor::SMALLEST.next(Cursor::now());
    let aside = Aside::create(path).map_err(failed("create", path))?;
    let content = |inode| data.map(|data| log_of(cursor, inode, data)).unwrap_or_default();
    let placed =
        aside.fill(content, cursor).and_then(|()| aside.place(path, RenameFlags::NOREPLACE));
    match placed {
        Ok(()) => Ok(Some(cursor)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(failed("create", path)(error)),
    }
}

/// A log with its first message.
fn log_of(id: Cursor, inode: u64, data: &str) -> Vec<u8> {
    let mut content = log::line(&Header { born: id, inode, dropped: None });
    content.extend(log::line(&Message { id, data: data.to_owned() }));
    content
}

impl Store for FileStore {
    fn publish(&self, topic: &Topic, data: Option<&str>) -> Result<Cursor, Error> {
        let path = self.path(topic)?;
        loop {
            let published = match EventFile::open(&path, OpenOptions::new().read(true).write(true))?
            {
                Some(file) => file.publish(data, self.retention)?,
                None => create(&path, data)?,
            };
            if let Some(cursor) = published {
                return Ok(cursor);
            }
        }
    }

    fn read(&self, topic: &Topic, since: Since, limit: usize) -> Result<Reading, Error> {
        let path = self.path(topic)?;
        loop {
            let Some(found) = regular_file(&path)? else {
                return Ok(Reading::quiet(since.cursor().unwrap_or(Cursor::SMALLEST)));
            };
            if since == Since::Cursor(time_of(&found)) && is_publishers(&found) {
                return Ok(Reading::quiet(time_of(&found)));
            }
            match EventFile::open(&path, OpenOptions::new().read(true)) {
                Ok(Some(file)) => return file.read(since, limit, self.retention),
                Ok(None) => {}
                // We may see its time but not open it: nothing else is to be learnt.
                Err(_) if found.len() == 0 => return Ok(Reading::quiet(time_of(&found))),
                Err(error) => return Err(error),
            }
        }
    }

    fn watch(&self, topics: &[Topic]) -> Result<Box<dyn Watch>, Error> {
        let paths = topics.iter().map(|topic| self.path(topic)).collect::<Result<_, _>>()?;
        Ok(Box::new(DirectoryWatch::new(self.directory.clone(), paths)))
    }
}

/// A file that is prepared beside the one it will be: it appears at once and
/// whole. Removed if it does not come to that.
struct Aside {
    path: PathBuf,
    file: File,
}

impl Aside {
    fn create(beside: &Path) -> io::Result<Self> {
        let name = format!(".novcomet-{}-{}", std::process::id(), Cursor::now());
        let path = beside.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Takes over the mode and, as far as that is allowed, the owner.
    fn resemble(&self, other: &Metadata) -> io::Result<()> {
        let _ = std::os::unix::fs::fchown(&self.file, Some(other.uid()), Some(other.gid()));
        self.file.set_permissions(other.permissions())
    }

    /// Writes what `content` makes of the file's inode, and sets the time.
    fn fill(&self, content: impl FnOnce(u64) -> Vec<u8>, time: Cursor) -> io::Result<()> {
        let content = content(self.file.metadata()?.ino());
        self.file.write_all_at(&content, 0)?;
        set_time(&self.file, time)
    }

    fn place(&self, path: &Path, flags: RenameFlags) -> io::Result<()> {
        Ok(renameat_with(CWD, &self.path, CWD, path, flags)?)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After it was put in place there is nothing of this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// An open event file.
struct EventFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> EventFile<'a> {
    /// Without `O_CREAT`: with it the kernel refuses a file of somebody else
    /// in a sticky directory (`fs.protected_regular`).
    fn open(path: &'a Path, how: &mut OpenOptions) -> Result<Option<Self>, Error> {
        match how.custom_flags(SAFELY).open(path) {
            Ok(file) => {
                let opened = Self { path, file };
                match opened.metadata()?.is_file() {
                    true => Ok(Some(opened)),
                    false => Err(Error::NotAFile(path.into())),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => match regular_file(path)? {
                Some(_) => Err(failed("open", path)(error)),
                None => Ok(None),
            },
        }
    }

    fn metadata(&self) -> Result<Metadata, Error> {
        self.file.metadata().map_err(failed("read the time of", self.path))
    }

    /// What is news after `since`. The time is read before the messages: a
    /// publisher that comes after that time was read gives its message a later
    /// one, so nobody is told of a time behind which a message can hide.
    fn read(&self, since: Since, limit: usize, retention: Retention) -> Result<Reading, Error> {
        let before = self.metadata()?;
        let (seen, settled) = self.settle(before)?;
        let read = |since| self.messages(&seen, since, retention);
        let time = if settled { time_of(&seen) } else { Cursor::SMALLEST };
        let mut found = read(since)?;
        let mut gap = self.is_gap(&seen, since, &found)?;
        if let Since::Cursor(cursor) = since {
            gap |= settled && cursor > found.last.max(time);
        }
        if gap {
            found = read(Since::Earliest)?;
        }
        let (messages, more) = log::decode(&found.lines, limit);
        let standing = match (messages.last(), since) {
            (Some(last), _) if more => last.id,
            (_, Since::Cursor(cursor)) if !gap => found.last.max(time).max(cursor),
            _ => found.last.max(time),
        };
        let pending = (!settled && messages.is_empty()).then(|| time_of(&seen));
        let is_new = |time: &Cursor| *time > standing;
        Ok(Reading { messages, standing, pending: pending.filter(is_new), gap })
    }

    /// Whether no publisher was at work when the file had the time that it was
    /// seen with `before`: the lock is looked at between two looks at the time.
    /// A file that has been replaced is not asked: its last time may be one
    /// that no later publisher has seen.
    fn settle(&self, before: Metadata) -> Result<(Metadata, bool), Error> {
        if before.len() == 0 && is_publishers(&before) {
            return Ok((before, true));
        }
        let locked =
            sys::is_locked(&self.file).map_err(failed("look at the lock of", self.path))?;
        let now = self.metadata()?;
        let settled = !locked && now.nlink() > 0 && time_of(&now) == time_of(&before);
        Ok((now, settled))
    }

    fn messages(&self, seen: &Metadata, since: Since, kept: Retention) -> Result<Messages, Error> {
        if seen.len() == 0 || since == Since::Now {
            let last = self.end(seen)?.last;
            return Ok(Messages { lines: Vec::new(), last, dropped: None });
        }
        log::messages(&self.file, seen.len(), since, kept, Cursor::now())
            .map_err(failed("read", self.path))
    }

    /// Whether messages after `since` are kept no longer, or `since` is older
    /// than this life of the topic. (Where a topic stands that has no event is
    /// before its life, whichever it will be.)
    fn is_gap(&self, seen: &Metadata, since: Since, found: &Messages) -> Result<bool, Error> {
        let Since::Cursor(cursor) = since else {
            return Ok(false);
        };
        if found.dropped.is_some() {
            return Ok(true);
        }
        let made = born_of(seen);
        if made.is_some_and(|made| cursor >= made) {
            return Ok(false);
        }
        let header = self.header(seen)?;
        let dropped = header.and_then(|header| header.dropped);
        let born = header.filter(|header| header.inode == seen.ino()).map(|header| header.born);
        Ok(dropped.is_some_and(|dropped| cursor < dropped)
            || cursor > Cursor::SMALLEST && born.or(made).is_some_and(|born| cursor < born))
    }

    fn header(&self, seen: &Metadata) -> Result<Option<Header>, Error> {
        match seen.len() {
            0 => Ok(None),
            length => Header::read(&self.file, length).map_err(failed("read", self.path)),
        }
    }

    fn end(&self, seen: &Metadata) -> Result<End, Error> {
        match seen.len() {
            0 => Ok(End { last: Cursor::SMALLEST, whole: 0 }),
            length => log::end(&self.file, length).map_err(failed("read", self.path)),
        }
    }

    /// Makes an event of the topic; `None` when the file is no longer the topic's.
    fn publish(&self, data: Option<&str>, kept: Retention) -> Result<Option<Cursor>, Error> {
        self.lock()?;
        let seen = self.metadata()?;
        if !regular_file(self.path)?.is_some_and(|there| is_same_file(&there, &seen)) {
            return Ok(None);
        }
        let end = self.end(&seen)?;
        let last = time_of(&seen).max(end.last);
        match data {
            Some(data) => self.append(&seen, end, last, kept, data).map(Some),
            None => self.advance(last).map(Some),
        }
    }

    fn lock(&self) -> Result<(), Error> {
        let deadline = Instant::now() + LOCK_LIMIT;
        while !sys::try_lock(&self.file).map_err(failed("lock", self.path))? {
            if Instant::now() >= deadline {
                return Err(Error::LockHeld(self.path.into()));
            }
            thread::sleep(LOCK_PAUSE);
        }
        Ok(())
    }

    /// Under the lock: adds a message, and then sets the time of its event. A
    /// line that is torn, or old messages beyond measure, make a new file.
    fn append(
        &self,
        seen: &Metadata,
        end: End,
        last: Cursor,
        kept: Retention,
        data: &str,
    ) -> Result<Cursor, Error> {
        let message = Message { id: last.next(Cursor::now()), data: data.to_owned() };
        let header = self.header(seen)?;
        let mut added = log::line(&message);
        if end.whole < seen.len() || self.is_overfull(end, &added, kept)? {
            match self.replace(seen, header, &message, kept) {
                Err(error) if is_forbidden(&error) => self.mend(end, &added, kept)?,
                other => return other.map_err(failed("shorten", self.path)).map(|()| message.id),
            }
        }
        if header.is_none() && end.whole == 0 {
            let born = born_of(seen).unwrap_or(time_of(seen));
            let header = Header { born, inode: seen.ino(), dropped: None };
            added = [log::line(&header), added].concat();
        }
        self.write(seen, end.whole, &added)?;
        match set_time(&self.file, message.id) {
            // Of a file of another user the time of the write must do.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                Err(failed("set the time of", self.path)(error))
            }
            _ => Ok(message.id),
        }
    }

    /// All of `added`, or nothing of it.
    fn write(&self, seen: &Metadata, end: u64, added: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(added, end).map_err(|error| {
            let _ = self.file.set_len(end);
            let before = FileTime::from_last_modification_time(seen);
            let _ = filetime::set_file_handle_times(&self.file, Some(before), Some(before));
            failed("write to", self.path)(error)
        })
    }

    /// Twice what is kept: so each message is copied once on average.
    fn is_overfull(&self, end: End, added: &[u8], kept: Retention) -> Result<bool, Error> {
        if end.whole + added.len() as u64 > kept.bytes.saturating_mul(2) {
            return Ok(true);
        }
        let oldest = log::oldest(&self.file, end.whole).map_err(failed("read", self.path))?;
        Ok(oldest.is_some_and(|id| id.age(Cursor::now()) > kept.age.saturating_mul(2)))
    }

    /// Puts a file with what is kept and `message` in the place of this one.
    fn replace(
        &self,
        seen: &Metadata,
        header: Option<Header>,
        message: &Message,
        kept: Retention,
    ) -> io::Result<()> {
        let older = Retention { messages: kept.messages.saturating_sub(1), ..kept };
        let found = log::messages(&self.file, seen.len(), Since::Earliest, older, Cursor::now())?;
        let born = header.map_or_else(|| born_of(seen).unwrap_or(time_of(seen)), |it| it.born);
        let dropped = found.dropped.or(header.and_then(|header| header.dropped));
        let content = |inode| {
            let mut content = log::line(&Header { born, inode, dropped });
            for line in &found.lines {
                content.extend_from_slice(line);
                content.push(b'\n');
            }
            content.extend(log::line(message));
            content
        };
        let aside = Aside::create(self.path)?;
        aside.resemble(seen)?;
        aside.fill(content, message.id)?;
        aside.place(self.path, RenameFlags::empty())
    }

    /// Where the file may not be replaced (another user's, in a sticky
    /// directory) a torn line is cut off in place, and the log may grow to
    /// four times of what is kept.
    fn mend(&self, end: End, added: &[u8], kept: Retention) -> Result<(), Error> {
        if end.whole + added.len() as u64 > kept.bytes.saturating_mul(4) {
            let cause = io::ErrorKind::PermissionDenied.into();
            return Err(failed("shorten", self.path)(cause));
        }
        self.file.set_len(end.whole).map_err(failed("mend", self.path))
    }

    /// Under the lock: sets a time later than the last.
    fn advance(&self, last: Cursor) -> Result<Cursor, Error> {
        let next = last.next(Cursor::now());
        match set_time(&self.file, next) {
            Ok(()) => Ok(next),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.touch(last),
            Err(error) => Err(failed("set the time of", self.path)(error)),
        }
    }

    /// A file of another user can only be given the kernel's own time, which
    /// before Linux 6.13 moves by ticks of up to 10 ms.
    fn touch(&self, last: Cursor) -> Result<Cursor, Error> {
        const TICKS: u32 = 50;
        for _ in 0..TICKS {
            futimens(&self.file, &NOW).map_err(|error| failed("touch", self.path)(error.into()))?;
            let now = time_of(&self.metadata()?);
            if now > last {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(Error::TimeAhead(self.path.into()))
    }
}

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

fn time_of(metadata: &Metadata) -> Cursor {
    let time = FileTime::from_last_modification_time(metadata);
    Cursor::at(time.unix_seconds(), time.nanoseconds())
}

/// Whether a publisher of ours set this time: those are whole microseconds,
/// the kernel's own have nanoseconds. It is the last that its publisher sets,
/// so nobody needs to wait for the lock to be free, which under a crowd of
/// woken waiters may take long.
fn is_publishers(metadata: &Metadata) -> bool {
    metadata.mtime_nsec() % 1000 == 0
}

/// When the file was made; `None` if it cannot be known, or if its time was
/// set by hand to one before.
fn born_of(metadata: &Metadata) -> Option<Cursor> {
    let made = FileTime::from_creation_time(metadata)?;
    let made = Cursor::at(made.unix_seconds(), made.nanoseconds());
    (made <= time_of(metadata)).then_some(made)
}

/// Whether only the owner of the file could have done it.
fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// What stands at `path`, without following a link.
fn regular_file(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found)),
        Ok(_) => Err(Error::NotAFile(path.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read the time of", path)(error)),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Store { doing, path, cause }
}
