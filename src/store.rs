//! Where events are kept: the contract, and which store a URL names.

mod file;
mod watch;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use url::Url;

use crate::error::Error;
use crate::event::{Cursor, Topic};

/// A publish that took longer than this was stopped on the way and begins
/// anew: in the meantime readers may have seen a later time.
pub const PUBLISH_LIMIT: Duration = Duration::from_secs(1);

/// Where a topic stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The last event's cursor, [`Cursor::SMALLEST`] if there is none.
    pub standing: Cursor,
    /// `false` while a publisher is at work: what stands there now may be
    /// replaced by an earlier time, so no client may be told of it.
    pub settled: bool,
}

/// What every store promises.
pub trait Store {
    /// Makes an event happen; its cursor is later than any that the topic has
    /// had. Waits for other publishers, never for a reader.
    ///
    /// # Errors
    /// 503 when the store cannot be used, 507 when it is full.
    fn publish(&self, topic: &Topic) -> Result<Cursor, Error>;

    /// Where the topic stands. Never writes, never waits.
    ///
    /// # Errors
    /// 503 when the store cannot be used.
    fn read(&self, topic: &Topic) -> Result<Reading, Error>;

    /// A watch on these topics, not armed yet.
    ///
    /// # Errors
    /// 503 when the store cannot be used.
    fn watch(&self, topics: &[Topic]) -> Result<Box<dyn Watch>, Error>;
}

/// Tells when it is worth to read again. It may be wrong in both directions.
pub trait Watch {
    /// Forgets the changes up to now and tells of those from now on.
    fn arm(&mut self);

    /// Becomes readable at a change; `None` when the store has no such means.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// The store that `url` names.
///
/// # Errors
/// [`Error::Config`] for a URL that names none; 503 when it cannot be used.
pub fn open(url: &str) -> Result<Box<dyn Store>, Error> {
    let refuse = || Error::Config {
        variable: "NOVCOMET_STORE",
        value: url.to_owned(),
        expected: "the URL of a store, such as file:///dev/shm",
    };
    let parsed = Url::parse(url).map_err(|_| refuse())?;
    match parsed.scheme() {
        "file" => {
            let directory = parsed.to_file_path().map_err(|()| refuse())?;
            Ok(Box::new(file::FileStore::open(directory)?))
        }
        _ => Err(refuse()),
    }
}
