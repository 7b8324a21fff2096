//! The quota for event files: their number, the removal of stale ones, and the free
//! space of the file system.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, fstatvfs, openat, statat};

use super::dir_entry::{DirEntry, Stat};
use super::event_file::EventFile;
use super::fault::{failed, no_space, too_many_topics};
use super::publisher::TEMP_PREFIX;
use crate::error::Error;
use crate::event::Cursor;
use crate::process::random::Random;
use crate::process::sys;
use crate::store::{Limits, Stock};

/// How many event files, and how many temporary files, one publisher checks. So no
/// publisher pays for all files of the others.
const SWEEP_SAMPLE: usize = 64;

/// The age of an abandoned temporary file. One in use exists for less than 1 ms.
const TEMP_FILE_MAX_AGE: Duration = Duration::from_secs(60);

/// The bytes of a directory that are read at once.
const LISTING_BUFFER: usize = 16_384;

/// A directory of event files, and its limits.
pub struct Quota<'a> {
    pub directory: BorrowedFd<'a>,
    /// The full path, for messages.
    pub path: &'a Path,
    pub limits: Limits,
}

impl Quota<'_> {
    /// Removes some stale files, and refuses a topic beyond the limit. Publishers that
    /// create topics at the same moment may exceed the limit.
    pub fn reserve_topic(&self) -> Result<(), Error> {
        let found = Listing::list(self.directory).map_err(failed("list", self.path))?;
        let now = Cursor::now();
        found.temp_files.chosen.iter().for_each(|name| remove_orphan(self.entry(name), now));
        let is_removed = |name: &&PathBuf| remove_stale(self.entry(name), self.limits.stale, now);
        let removed = found.events.chosen.iter().filter(is_removed).count();
        let limit = self.limits.topics;
        match found.events.count - removed >= limit {
            true => Err(too_many_topics(self.path, limit)),
            false => Ok(()),
        }
    }

    fn entry<'a>(&'a self, name: &'a Path) -> DirEntry<'a> {
        DirEntry { directory: self.directory, name, path: self.path }
    }

    /// The number of event files, and their bytes. A file that cannot be looked at has none.
    pub fn stock(&self) -> io::Result<Stock> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(self.directory, ".", how, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); LISTING_BUFFER];
        let mut entries = RawDir::new(opened.as_fd(), &mut buffer);
        let (mut topics, mut bytes) = (0, 0);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if entry.file_name().to_bytes().ends_with(b".comet") {
                let found = statat(self.directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                topics += 1;
                bytes += found.map_or(0, |found| u64::try_from(found.st_size).unwrap_or(0));
            }
        }
        Ok(Stock { topics: Some(topics), bytes: Some(bytes), publishes: None })
    }

    /// Refuses files and bytes that would use the share that stays free. A file system
    /// that does not report its size has no limit.
    pub fn check_space(&self, files: u64, bytes: usize) -> Result<(), Error> {
        let percent = self.limits.free;
        if percent == 0 {
            return Ok(());
        }
        let found = fstatvfs(self.directory).map_err(io::Error::from);
        let found = found.map_err(failed("read the free space of", self.path))?;
        let fits = |added: u64, free: u64, all: u64| {
            let left = u128::from(free.saturating_sub(added));
            added == 0 || left * 100 >= u128::from(all) * u128::from(percent)
        };
        let blocks = (bytes as u64).div_ceil(found.f_frsize.max(1));
        let fit = fits(files, found.f_favail, found.f_files)
            && fits(blocks, found.f_bavail, found.f_blocks);
        match fit {
            true => Ok(()),
            false => Err(no_space(self.path, percent)),
        }
    }
}

/// The event files and temporary files of a directory.
#[derive(Default)]
struct Listing {
    events: Sample,
    temp_files: Sample,
}

/// The number of files of one kind, and a random sample of them.
#[derive(Default)]
struct Sample {
    count: usize,
    chosen: Vec<PathBuf>,
    lots: Random,
}

impl Listing {
    fn list(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(directory, ".", how, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); LISTING_BUFFER];
        let mut entries = RawDir::new(opened.as_fd(), &mut buffer);
        let mut found = Self::default();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.ends_with(b".comet") {
                found.events.take(name);
            } else if name.starts_with(TEMP_PREFIX.as_bytes()) {
                found.temp_files.take(name);
            }
        }
        Ok(found)
    }
}

impl Sample {
    /// Adds a file by reservoir sampling, so that each has the same probability.
    fn take(&mut self, name: &[u8]) {
        let name = || PathBuf::from(OsStr::from_bytes(name));
        self.count += 1;
        if self.chosen.len() < SWEEP_SAMPLE {
            self.chosen.push(name());
            return;
        }
        let index = self.lots.below(u32::try_from(self.count).unwrap_or(u32::MAX)) as usize;
        if let Some(chosen) = self.chosen.get_mut(index) {
            *chosen = name();
        }
    }
}

/// Removes a stale event file under its lock. A publisher that waits for the lock finds
/// the file gone and creates it again. A file that is not writable, or is no log, belongs
/// to another program and stays.
fn remove_stale(entry: DirEntry<'_>, age: Duration, now: Cursor) -> bool {
    // Most files are not stale and need not be opened.
    let stale = || entry.stat().ok().flatten().filter(|found| quiet_for(found, now) > age);
    let Some(before) = stale() else {
        return false;
    };
    let Ok(Some(event)) = EventFile::open(entry, OFlags::RDWR) else {
        return false;
    };
    sys::try_lock(&event.file).unwrap_or(false)
        && event.is_log().unwrap_or(false)
        && event.identity().ok() == Some(before.identity)
        && stale().is_some_and(|found| found.identity == before.identity)
        && entry.remove().is_ok()
}

/// The time since the last event, or since the last change of the file itself. A file
/// that was restored, or got another owner, is about to be used.
fn quiet_for(found: &Stat, now: Cursor) -> Duration {
    found.time.age(now).min(found.changed.age(now))
}

/// Removes the temporary file of a killed publisher.
fn remove_orphan(entry: DirEntry<'_>, now: Cursor) {
    let is_old = |found: Stat| found.changed.age(now) > TEMP_FILE_MAX_AGE;
    if creator_has_exited(entry.name) && entry.stat().ok().flatten().is_some_and(is_old) {
        let _ = entry.remove();
    }
}

/// `false` also for a name with another form.
fn creator_has_exited(name: &Path) -> bool {
    let name = name.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let id = name.strip_prefix(TEMP_PREFIX).and_then(|rest| rest.split_once('-'));
    let id: Option<u32> = id.and_then(|(id, _)| id.parse().ok());
    id.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs;

    const MINUTE: Duration = Duration::from_secs(60);

    /// The id of a process that has ended.
    fn gone() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn old_orphaned_temp_file_is_removed() {
        let directory = std::env::temp_dir().join(format!("novcomet-room-{}", gone()));
        fs::create_dir(&directory).unwrap();
        let later = Cursor::now().after(MINUTE + MINUTE);
        let mine = std::process::id();
        for (name, now, stays) in [
            (format!("{TEMP_PREFIX}{}-1.5", gone()), later, false),
            (format!("{TEMP_PREFIX}{}-1.5", gone()), Cursor::now(), true),
            (format!("{TEMP_PREFIX}{mine}-1.5"), later, true),
            (format!("{TEMP_PREFIX}x-1.5"), later, true),
            (TEMP_PREFIX.to_owned(), later, true),
        ] {
            let path = directory.join(&name);
            fs::write(&path, "").unwrap();
            remove_orphan(DirEntry { directory: CWD, name: &path, path: &path }, now);
            assert_eq!(path.exists(), stays, "{name}");
        }
        let path = directory.join(format!("{TEMP_PREFIX}{}-dir", gone()));
        fs::create_dir(&path).unwrap();
        remove_orphan(DirEntry { directory: CWD, name: &path, path: &path }, later);
        assert!(path.exists());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn sample_has_at_most_64_files() {
        for (count, chosen) in [(0, 0), (64, 64), (10_000, 64)] {
            let mut sample = Sample::default();
            (0..count).for_each(|number| sample.take(number.to_string().as_bytes()));
            sample.chosen.sort();
            sample.chosen.dedup();
            assert_eq!((sample.count, sample.chosen.len()), (count, chosen));
        }
    }
}
