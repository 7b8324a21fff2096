//! Where events are kept: the contract, and which store a URL names.

mod file;
mod watch;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use url::Url;

use crate::error::Error;
use crate::event::{Cursor, Message, Since, Topic};

/// How much a topic keeps for those who come later. The newest message is
/// kept whatever its size and age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many messages.
    pub messages: usize,
    /// How many bytes of them.
    pub bytes: u64,
    /// For how long.
    pub age: Duration,
    /// How many bytes a topic may take at most; of a file that has more, the
    /// rest is none of ours.
    pub most: u64,
}

/// What keeps a store from taking what is everybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many topics it has.
    pub topics: usize,
    /// The share of its file system that stays free, in percent.
    pub free: u8,
    /// For how long a topic without an event is kept.
    pub stale: Duration,
}

impl Limits {
    /// Whatever there is room for.
    pub const NONE: Self = Self { topics: usize::MAX, free: 0, stale: Duration::MAX };
}

/// What a topic holds for a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The messages that are news to the subscriber, oldest first: as many as
    /// were asked for, and always one if there is one.
    pub messages: Vec<Message>,
    /// Where the subscriber stands who has these.
    pub standing: Cursor,
    /// A later event, at a time that may be replaced by an earlier one while a
    /// publisher is at work: no client may be told of that time.
    pub pending: Option<Cursor>,
    /// The subscriber may have missed something: its cursor is older than what
    /// is kept, or of another life of the topic.
    pub gap: bool,
}

impl Reading {
    /// Nothing is new.
    #[must_use]
    pub fn quiet(standing: Cursor) -> Self {
        Self { messages: Vec::new(), standing, pending: None, gap: false }
    }
}

/// What every store promises.
pub trait Store {
    /// Makes an event happen, with a message or without; its cursor is later
    /// than any that the topic has had. Waits for other publishers, never for
    /// a reader. A message is in the store whole, or not at all.
    ///
    /// # Errors
    /// 503 when the store cannot be used, 507 when it is full or a limit says so.
    fn publish(&self, topic: &Topic, data: Option<&str>) -> Result<Cursor, Error>;

    /// What is news to a subscriber: about `limit` bytes of messages. Never
    /// writes, never waits.
    ///
    /// # Errors
    /// 503 when the store cannot be used.
    fn read(&self, topic: &Topic, since: Since, limit: usize) -> Result<Reading, Error>;

    /// A watch on these topics, not armed yet.
    ///
    /// # Errors
    /// 503 when the store cannot be used.
    fn watch(&self, topics: &[Topic]) -> Result<Box<dyn Watch>, Error>;

    /// The only directory that a publish writes to, if the store is one.
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }
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
pub fn open(url: &str, retention: Retention, limits: Limits) -> Result<Box<dyn Store>, Error> {
    let refuse = || Error::Config {
        variable: "NOVCOMET_STORE",
        value: url.to_owned(),
        expected: "the URL of a store, such as file:///dev/shm",
    };
    let parsed = Url::parse(url).map_err(|_| refuse())?;
    match parsed.scheme() {
        "file" => {
            let directory = parsed.to_file_path().map_err(|()| refuse())?;
            Ok(Box::new(file::FileStore::open(directory, retention, limits)?))
        }
        _ => Err(refuse()),
    }
}
