//! Events as the times of files: `ID.comet` in one directory, as in 2011; their
//! messages are what the file holds.

mod event_file;
mod log;
mod publisher;

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

use super::watch::DirectoryWatch;
use super::{Reading, Retention, Store, Watch};
use crate::error::Error;
use crate::event::{Cursor, Since, Topic};
use crate::sys;
use event_file::{EventFile, failed, is_publishers, regular_file, time_of};
use publisher::create;

/// The longest file name that Linux takes, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

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

impl Store for FileStore {
    fn publish(&self, topic: &Topic, data: Option<&str>) -> Result<Cursor, Error> {
        let path = self.path(topic)?;
        // A file larger than is allowed (`ulimit -f`) is an error, not our end.
        sys::ignore(libc::SIGXFSZ);
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
