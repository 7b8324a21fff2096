//! Events as the times of files: `ID.comet` in one directory, as in 2011. A file holds
//! the messages of its topic.

mod acl;
mod dir_entry;
mod event_file;
mod fault;
mod log;
mod name;
mod order;
mod publisher;
mod quota;
mod sessions;
mod survey;
mod trial;
mod watch;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, open};

use super::{
    Budget, Horizon, Limits, Reading, Readings, Retention, Seen, Sessions, Stock, Store, Watch,
};
use crate::error::Error;
use crate::event::{Cursor, Draft, Since, Topic};
use crate::process::figures::{self, Counter};
use dir_entry::DirEntry;
use event_file::EventFile;
use fault::{failed, lock_held};
use name::file_name;
pub use name::{Named, topic_of};
use publisher::create;
use quota::Quota;
use survey::Known;
use watch::DirectoryWatch;

/// The longest time of a publish while other publishers hold the topic. A publish takes
/// less than 40 µs.
const PUBLISH_LIMIT: Duration = Duration::from_secs(2);

/// Beside a file with this name a trial has its own.
const TRIAL: &str = "trial";

/// A directory of event files.
pub struct FileStore {
    path: PathBuf,
    directory: OwnedFd,
    retention: Retention,
    limits: Limits,
    known: Known,
}

impl FileStore {
    /// # Errors
    /// 503 when there is no such directory.
    pub fn open(path: PathBuf, retention: Retention, limits: Limits) -> Result<Self, Error> {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&path, how, Mode::empty())
            .map_err(|error| failed("use the directory", &path)(error.into()))?;
        Ok(Self { path, directory, retention, limits, known: Known::default() })
    }

    fn quota(&self) -> Quota<'_> {
        Quota { directory: self.directory.as_fd(), path: &self.path, limits: self.limits }
    }

    fn publish(&self, topic: &Topic, message: Option<&Draft>) -> Result<Cursor, Error> {
        let name = file_name(topic);
        let path = self.path.join(&name);
        let entry = DirEntry { directory: self.directory.as_fd(), name: &name, path: &path };
        // One deadline for all files that may replace one another meanwhile.
        let deadline = Instant::now() + PUBLISH_LIMIT;
        loop {
            // Opening a device may have effects, so check the type first.
            let there = entry.stat()?.map(|_| EventFile::open(entry, OFlags::RDWR)).transpose()?;
            let published = match there.flatten() {
                Some(file) => self.publish_to(&file, topic, message, deadline)?,
                None => self.create(entry, topic, message)?,
            };
            match published {
                Some(cursor) => return Ok(cursor),
                None if Instant::now() >= deadline => return Err(lock_held(&path)),
                None => {}
            }
        }
    }

    /// Needs space only for a message.
    fn publish_to(
        &self,
        file: &EventFile,
        topic: &Topic,
        message: Option<&Draft>,
        deadline: Instant,
    ) -> Result<Option<Cursor>, Error> {
        if let Some(message) = message {
            self.quota().check_space(0, message.data.len().max(1))?;
        }
        file.publish(topic, message, self.retention, deadline)
    }

    fn create(
        &self,
        entry: DirEntry,
        topic: &Topic,
        message: Option<&Draft>,
    ) -> Result<Option<Cursor>, Error> {
        self.quota().reserve_topic()?;
        self.quota().check_space(1, message.map_or(0, |message| message.data.len()))?;
        create(entry, topic, message)
    }

    /// `None` if the topic does not fit into the answer.
    fn read_topic(
        &self,
        topic: &Topic,
        since: Since,
        budget: &mut Budget,
    ) -> Result<Option<Reading>, Error> {
        let path = self.path.join(file_name(topic));
        if topic.session().is_some() {
            return sessions::read_session(&path, since).map(Some);
        }
        let entry = DirEntry { directory: CWD, name: &path, path: &path };
        while !budget.is_spent() {
            let Some(found) = entry.stat()? else {
                return Ok(Some(Reading::quiet(since.without_events())));
            };
            if since == Since::Cursor(found.time) && found.is_publisher_time {
                return Ok(Some(Reading::quiet(found.time)));
            }
            match EventFile::open(entry, OFlags::RDONLY) {
                Ok(Some(file)) => return file.read(topic, since, budget, self.retention),
                Ok(None) => {}
                // The time is visible although the file cannot be opened.
                Err(_) if found.is_empty => return Ok(Some(Reading::quiet(found.time))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Store for FileStore {
    /// An event is counted after it is stored and before it is acknowledged.
    fn put(&self, topic: &Topic, message: Option<Draft>) -> Result<Cursor, Error> {
        let published = self.publish(topic, message.as_ref());
        let counter = if published.is_ok() { Counter::Publishes } else { Counter::StoreErrors };
        figures::add(counter, 1);
        figures::flush();
        published
    }

    fn look(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> Result<Readings, Error> {
        let mut read = |topic, since| self.read_topic(topic, since, budget).transpose();
        Ok(wanted.iter().map(|&(topic, since)| read(topic, since)).collect())
    }

    fn horizon(&self) -> Result<Horizon, Error> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&self.path, how, Mode::empty()).map_err(io::Error::from);
        directory.and_then(|it| order::horizon(&it)).map_err(failed("list", &self.path))
    }

    fn survey(&self, after: Cursor) -> Result<Vec<Seen>, Error> {
        self.known.after(&self.path, after)
    }

    fn first_after(&self, topic: &Topic, after: Cursor) -> Option<Cursor> {
        let path = self.path.join(file_name(topic));
        let entry = DirEntry { directory: CWD, name: &path, path: &path };
        EventFile::open(entry, OFlags::RDONLY).ok()??.first_after(after)
    }

    /// The file has the kernel's time while a publisher is at work, too. No reading is at that
    /// time then. A file that cannot be read has no event.
    fn untold(&self, topic: &Topic) -> Result<Option<Cursor>, Error> {
        let path = self.path.join(file_name(topic));
        let found = DirEntry { directory: CWD, name: &path, path: &path }.stat().ok().flatten();
        let Some(found) = found.filter(|found| !found.is_publisher_time) else { return Ok(None) };
        let reading = Store::read(self, topic, Since::Now, 1).ok();
        Ok(reading.map(|reading| reading.standing).filter(|standing| *standing == found.time))
    }

    fn sessions(&self) -> Result<&dyn Sessions, Error> {
        Ok(self)
    }

    fn try_out(&self) -> Result<(), Error> {
        self.quota().check_space(1, 1)?;
        let name = Path::new(TRIAL);
        let entry = DirEntry { directory: self.directory.as_fd(), name, path: &self.path };
        trial::write_a_byte(entry).map_err(failed("write to", &self.path))
    }

    fn stock(&self) -> Result<Stock, Error> {
        self.quota().stock().map_err(failed("list", &self.path))
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(DirectoryWatch::new(self.path.clone(), self.known.clone()))
    }

    fn directory(&self) -> Option<BorrowedFd<'_>> {
        Some(self.directory.as_fd())
    }
}
