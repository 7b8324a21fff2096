//! Where events are kept: the contract of every store.

mod budget;
pub mod check;
mod fault;
mod file;
mod memcached;
pub mod open;
mod redis;

use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use budget::{Budget, Size};

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
    pub max_file_bytes: u64,
}

/// What a message takes besides its text where it is kept, in bytes: about that
/// of a line of the log.
const OVERHEAD: usize = 42;

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
    /// there was room for. Without any of several a topic has no reading.
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

    /// What `budget` has room for; `None` for none of several messages.
    fn within(mut self, topic: &Topic, budget: &mut Budget) -> Option<Self> {
        if budget.cut(topic, &mut self.messages) {
            self.standing = self.messages.last()?.id;
        }
        Some(self)
    }
}

/// What was read of several topics, one by one: `None` for a topic that was not
/// reached within the budget, an error for one that cannot be read.
pub type Readings = Vec<Option<Result<Reading, Error>>>;

/// What every store promises.
pub trait Store {
    /// Makes an event happen, with a message or without; its cursor is later
    /// than any that the topic has had. Waits for other publishers, never for
    /// a reader. A message is in the store whole, or not at all.
    ///
    /// # Errors
    /// 503 when the store cannot be used, 507 when it is full or a limit says so.
    fn publish(&self, topic: &Topic, data: Option<&str>) -> Result<Cursor, Error>;

    /// What is news in these topics, as far as `budget` goes; `None` for a topic
    /// that it did not reach, of which nothing is known. Those who come first are
    /// served first, so the order is the caller's fairness. Never writes, never
    /// waits; its work and its memory are bounded for all topics together. A
    /// store that is far away answers for all of them in one go.
    ///
    /// # Errors
    /// 503 when the store cannot be used.
    fn look(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> Result<Readings, Error>;

    /// [`look`](Store::look) at one topic, for about `limit` bytes of messages.
    ///
    /// # Errors
    /// 503 when the topic or the store cannot be used.
    fn read(&self, topic: &Topic, since: Since, limit: usize) -> Result<Reading, Error> {
        let mut budget = Budget::new(limit, &|_, message| message.data.len() + OVERHEAD);
        let reading = self.look(&[(topic, since)], &mut budget)?.pop().flatten().transpose()?;
        Ok(reading.unwrap_or_else(|| Reading::quiet(since.cursor().unwrap_or(Cursor::SMALLEST))))
    }

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

    /// Becomes readable at a change since `arm`, or since the look that came
    /// after it, if its reader sleeps `within` that time; `None` when the store
    /// has no such means.
    fn fd(&mut self, within: Duration) -> Option<BorrowedFd<'_>>;

    /// How long to sleep at most: a store that can't wake anybody is polled.
    fn poll_interval(&self) -> Duration {
        Duration::MAX
    }

    /// After [`fd`](Self::fd) has become readable: whether that may concern these
    /// topics. If not, the store needs no look, and the sleep goes on.
    fn concerns_us(&mut self) -> bool {
        true
    }

    /// What it has told of last was no news of these topics.
    fn report_false_wakeup(&mut self) {}

    /// How long not to listen to it: it has told of too much in vain.
    fn cooldown(&self) -> Duration {
        Duration::ZERO
    }
}

/// Nothing wakes it; it is to be looked at again after this time.
struct Polled(Duration);

impl Watch for Polled {
    fn arm(&mut self) {}

    fn fd(&mut self, _: Duration) -> Option<BorrowedFd<'_>> {
        None
    }

    fn poll_interval(&self) -> Duration {
        self.0
    }
}

/// What keys begin with: a name and a colon, the only one. So no prefix begins
/// another, and no topic of one site is a topic of another.
fn is_prefix(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, rest)| !name.is_empty() && rest.is_empty())
}
