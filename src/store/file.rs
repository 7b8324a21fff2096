//! Events as the times of files: `ID.comet` in one directory, as in 2011.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use filetime::FileTime;
use rustix::fs::{CWD, RenameFlags, Timespec, Timestamps, UTIME_NOW, futimens, renameat_with};

use super::watch::DirectoryWatch;
use super::{PUBLISH_LIMIT, Reading, Store, Watch};
use crate::error::Error;
use crate::event::{Cursor, Topic};
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
}

impl FileStore {
    /// # Errors
    /// [`Error::Store`] when there is no such directory.
    pub fn open(directory: PathBuf) -> Result<Self, Error> {
        let found = fs::metadata(&directory).map_err(failed("find the directory", &directory))?;
        if !found.is_dir() {
            let cause = io::ErrorKind::NotADirectory.into();
            return Err(failed("use as a directory", &directory)(cause));
        }
        Ok(Self { directory })
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

    /// Puts a new event file in place, complete with its time; `None` when
    /// somebody else was first.
    fn create(&self, path: &Path) -> Result<Option<Cursor>, Error> {
        let aside =
            self.directory.join(format!(".novcomet-{}-{}", std::process::id(), Cursor::now()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&aside)
            .map_err(failed("create", path))?;
        let cursor = Cursor::SMALLEST.next(Cursor::now());
        let placed = set_time(&file, cursor)
            .and_then(|()| Ok(renameat_with(CWD, &aside, CWD, path, RenameFlags::NOREPLACE)?));
        if placed.is_err() {
            let _ = fs::remove_file(&aside);
        }
        match placed {
            Ok(()) => Ok(Some(cursor)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(failed("create", path)(error)),
        }
    }
}

impl Store for FileStore {
    fn publish(&self, topic: &Topic) -> Result<Cursor, Error> {
        let path = self.path(topic)?;
        loop {
            let published = match EventFile::open(&path, OpenOptions::new().write(true))? {
                Some(file) => file.publish()?,
                None => self.create(&path)?,
            };
            if let Some(cursor) = published {
                return Ok(cursor);
            }
        }
    }

    fn read(&self, topic: &Topic) -> Result<Reading, Error> {
        let path = self.path(topic)?;
        let Some(before) = regular_file(&path)? else {
            return Ok(Reading { standing: Cursor::SMALLEST, settled: true });
        };
        let settled = is_publishers(&before) || is_unlocked(&path, &before)?;
        Ok(Reading { standing: time_of(&before), settled })
    }

    fn watch(&self, topics: &[Topic]) -> Result<Box<dyn Watch>, Error> {
        let paths = topics.iter().map(|topic| self.path(topic)).collect::<Result<_, _>>()?;
        Ok(Box::new(DirectoryWatch::new(self.directory.clone(), paths)))
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

    fn is_locked(&self) -> Result<bool, Error> {
        sys::is_locked(&self.file).map_err(failed("look at the lock of", self.path))
    }

    fn is_still(&self, before: &Metadata) -> Result<bool, Error> {
        let now = self.metadata()?;
        Ok(is_same_file(&now, before) && time_of(&now) == time_of(before))
    }

    /// Gives the file its next time; `None` when it is no longer the topic's.
    fn publish(&self) -> Result<Option<Cursor>, Error> {
        self.lock()?;
        if !regular_file(self.path)?
            .is_some_and(|there| self.metadata().is_ok_and(|ours| is_same_file(&there, &ours)))
        {
            return Ok(None);
        }
        loop {
            let begun = Instant::now();
            let cursor = self.advance()?;
            if begun.elapsed() < PUBLISH_LIMIT {
                return Ok(Some(cursor));
            }
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

    /// Under the lock: sets a time later than the last.
    fn advance(&self) -> Result<Cursor, Error> {
        let last = time_of(&self.metadata()?);
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

/// Whether no publisher was at work when the file had the time that was read
/// `before`: the lock is looked at between two looks at the time.
fn is_unlocked(path: &Path, before: &Metadata) -> Result<bool, Error> {
    match EventFile::open(path, OpenOptions::new().read(true)) {
        Ok(Some(file)) => Ok(!file.is_locked()? && file.is_still(before)?),
        Ok(None) => Ok(false),
        // We may see its time but not open it: nothing else is to be learnt.
        Err(_) => Ok(true),
    }
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
