//! Events as the times of files: `ID.comet` in one directory, as in 2011. A file holds
//! the messages of its topic.

mod acl;
mod dir_entry;
mod event_file;
mod fault;
mod log;
mod name;
mod publisher;
mod quota;
mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, open};

use super::{Budget, Limits, Reading, Readings, Retention, Store, Watch};
use crate::error::Error;
use crate::event::{Cursor, Since, Topic};
use dir_entry::DirEntry;
use event_file::EventFile;
use fault::{failed, lock_held};
use name::file_name;
pub use name::{Named, topic_of};
use publisher::create;
use quota::Quota;
use watch::DirectoryWatch;

/// The longest time of a publish while other publishers hold the topic. A publish takes
/// less than 40 µs.
const PUBLISH_LIMIT: Duration = Duration::from_secs(2);

/// A directory of event files.
pub struct FileStore {
    path: PathBuf,
    directory: OwnedFd,
    retention: Retention,
    limits: Limits,
}

impl FileStore {
    /// # Errors
    /// 503 when there is no such directory.
    pub fn open(path: PathBuf, retention: Retention, limits: Limits) -> Result<Self, Error> {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&path, how, Mode::empty())
            .map_err(|error| failed("use the directory", &path)(error.into()))?;
        Ok(Self { path, directory, retention, limits })
    }

    fn quota(&self) -> Quota<'_> {
        Quota { directory: self.directory.as_fd(), path: &self.path, limits: self.limits }
    }

    /// Needs space only for a message.
    fn publish_to(
        &self,
        file: &EventFile,
        topic: &Topic,
        data: Option<&str>,
        deadline: Instant,
    ) -> Result<Option<Cursor>, Error> {
        if let Some(data) = data {
            self.quota().check_space(0, data.len().max(1))?;
        }
        file.publish(topic, data, self.retention, deadline)
    }

    fn create(
        &self,
        entry: DirEntry,
        topic: &Topic,
        data: Option<&str>,
    ) -> Result<Option<Cursor>, Error> {
        self.quota().reserve_topic()?;
        self.quota().check_space(1, data.map_or(0, str::len))?;
        create(entry, topic, data)
    }

    /// `None` if the topic does not fit into the answer.
    fn read_topic(
        &self,
        topic: &Topic,
        since: Since,
        budget: &mut Budget,
    ) -> Result<Option<Reading>, Error> {
        let path = self.path.join(file_name(topic));
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
    fn publish(&self, topic: &Topic, data: Option<&str>) -> Result<Cursor, Error> {
        let name = file_name(topic);
        let path = self.path.join(&name);
        let entry = DirEntry { directory: self.directory.as_fd(), name: &name, path: &path };
        // One deadline for all files that may replace one another meanwhile.
        let deadline = Instant::now() + PUBLISH_LIMIT;
        loop {
            // Opening a device may have effects, so check the type first.
            let there = entry.stat()?.map(|_| EventFile::open(entry, OFlags::RDWR)).transpose()?;
            let published = match there.flatten() {
                Some(file) => self.publish_to(&file, topic, data, deadline)?,
                None => self.create(entry, topic, data)?,
            };
            match published {
                Some(cursor) => return Ok(cursor),
                None if Instant::now() >= deadline => return Err(lock_held(&path)),
                None => {}
            }
        }
    }

    fn look(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> Result<Readings, Error> {
        let mut read = |topic, since| self.read_topic(topic, since, budget).transpose();
        Ok(wanted.iter().map(|&(topic, since)| read(topic, since)).collect())
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(DirectoryWatch::new(self.path.clone()))
    }

    fn directory(&self) -> Option<BorrowedFd<'_>> {
        Some(self.directory.as_fd())
    }
}
