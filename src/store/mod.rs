//! The contract of every store.

mod budget;
pub mod check;
mod fault;
pub mod file;
mod inquiry;
mod memcached;
pub mod open;
mod redis;
mod sessions;

use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use budget::{Budget, Size};
pub use inquiry::{Kept, Stock};
pub use sessions::{Allowance, Sessions};

use crate::error::Error;
use crate::event::{Cursor, Draft, Message, Since, Topic};

/// How much a topic keeps for later subscribers. It keeps the newest message even if
/// that is larger or older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The number of messages.
    pub messages: usize,
    /// The bytes of these messages.
    pub bytes: u64,
    /// The age of these messages.
    pub age: Duration,
    /// The most bytes that a topic may take. The beginning of a larger file is
    /// ignored.
    pub max_file_bytes: u64,
}

/// The bytes that a stored message takes in addition to its text: about those of a
/// line of the log.
const OVERHEAD: usize = 42;

/// More bytes than a topic keeps: all of its messages are read.
const MOST_KEPT: usize = 1 << 40;

/// Of a store without an order of all topics.
const NO_ORDER: &str = "patterns, lists of topics, Mercure and Bayeux need a store of files, \
    or one Redis server";

/// The limits for the space that a store takes from other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The number of topics.
    pub topics: usize,
    /// The share of its file system that stays free, in percent.
    pub free: u8,
    /// How long a topic without a new event is kept.
    pub stale: Duration,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self { topics: usize::MAX, free: 0, stale: Duration::MAX };
}

/// The result of reading one topic for a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The messages that are new to the subscriber, oldest first, as far as the budget
    /// goes. If the budget has no space for the first, the topic has no reading.
    pub messages: Vec<Message>,
    /// The cursor of the subscriber after these messages.
    pub standing: Cursor,
    /// The time of a later event whose publisher has not finished. An earlier time may
    /// still replace it, so no client may receive it.
    pub pending: Option<Cursor>,
    /// Whether the subscriber may have missed messages: its cursor is older than the
    /// kept messages, or the topic was deleted and created again since.
    pub gap: bool,
}

impl Reading {
    /// A reading without messages.
    #[must_use]
    pub fn quiet(standing: Cursor) -> Self {
        Self { messages: Vec::new(), standing, pending: None, gap: false }
    }

    /// Keeps the messages that fit into `budget`; `None` if there are some and the
    /// first does not fit.
    pub(crate) fn within(mut self, topic: &Topic, budget: &mut Budget) -> Option<Self> {
        if budget.cut(topic, &mut self.messages) {
            self.standing = self.messages.last()?.id;
        }
        Some(self)
    }
}

/// The part of all events that is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The time up to which every event has happened: none is to come.
    pub at: Cursor,
    /// Whether no publisher is at work.
    pub is_settled: bool,
}

/// A topic with events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Until when it is found: the time of its last event, or a later one if that time is
    /// not the store's.
    pub until: Cursor,
    /// The topic.
    pub topic: Topic,
    /// Whose time it is.
    pub clock: Clock,
}

/// The source of the time of a topic's last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// The store. Such a time is a place in the order of all events.
    Store,
    /// Another program, or the kernel, whose time may be behind the clock.
    Other,
    /// It is in the future: it was set by hand, or the clock went back.
    Ahead,
}

/// The readings of several topics, in order: `None` for a topic that the budget did not
/// reach, an error for a topic that cannot be read.
pub type Readings = Vec<Option<Result<Reading, Error>>>;

/// A store of events.
pub trait Store {
    /// Publishes an event, with or without a message, and returns its cursor. The
    /// cursor is later than every earlier one of the topic. It waits for other
    /// publishers, but never for a reader. A message is stored whole or not at all.
    ///
    /// # Errors
    /// 503 if the store cannot be used, 507 if it is full or a limit is reached.
    fn put(&self, topic: &Topic, message: Option<Draft>) -> Result<Cursor, Error>;

    /// Publishes an event, with a message of which nothing is said besides its text, or
    /// without one.
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    fn publish(&self, topic: &Topic, data: Option<&str>) -> Result<Cursor, Error> {
        self.put(topic, data.map(Draft::new))
    }

    /// Reads the new messages of these topics, as far as `budget` goes; `None` for a
    /// topic that the budget did not reach. The first topics come first, so the caller
    /// must change the order to be fair. It never writes and never waits. Its work and
    /// memory are bounded for all topics together. A remote store reads all topics in
    /// one request.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn look(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> Result<Readings, Error>;

    /// Reads one topic, up to about `limit` bytes of messages.
    ///
    /// # Errors
    /// 503 if the topic or the store cannot be used.
    fn read(&self, topic: &Topic, since: Since, limit: usize) -> Result<Reading, Error> {
        let mut budget = Budget::new(limit, &|_, message| message.data.len() + OVERHEAD);
        let reading = self.look(&[(topic, since)], &mut budget)?.pop().flatten().transpose()?;
        Ok(reading.unwrap_or_else(|| Reading::quiet(since.without_events())))
    }

    /// The time up to which every event has happened. What a [`Watch`] has told after that
    /// is known to the next [`survey`](Self::survey).
    ///
    /// # Errors
    /// 501 if the store has no order of all topics, 503 if it cannot be used.
    fn horizon(&self) -> Result<Horizon, Error> {
        Err(Error::NotImplemented(NO_ORDER))
    }

    /// Finds the topics with an event after `after`. With [`look`](Self::look) from
    /// [`Since::Order`] it gives all events in one order.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn survey(&self, after: Cursor) -> Result<Vec<Seen>, Error> {
        let _ = after;
        Ok(Vec::new())
    }

    /// The first message of a topic after `after`, as far as that is known without reading
    /// the messages: none of them is earlier. `None` if it is not known,
    /// [`Cursor::LARGEST`] if there is none.
    fn first_after(&self, topic: &Topic, after: Cursor) -> Option<Cursor> {
        let _ = (topic, after);
        None
    }

    /// The last event of a topic, if it looks like that of another program: then no publisher
    /// has told the proxies.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn untold(&self, topic: &Topic) -> Result<Option<Cursor>, Error> {
        let _ = topic;
        Ok(None)
    }

    /// The sessions that the store keeps.
    ///
    /// # Errors
    /// 501 if it keeps none.
    fn sessions(&self) -> Result<&dyn Sessions, Error> {
        Err(Error::NotImplemented(NO_ORDER))
    }

    /// Tells the other servers with this store about the subscribers at one. It is known for
    /// some seconds.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn share(&self, crowd: &str, told: &str) -> Result<(), Error> {
        let _ = (crowd, told);
        Ok(())
    }

    /// What servers have told, each with its name.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn shared(&self) -> Result<Vec<(String, String)>, Error> {
        Ok(Vec::new())
    }

    /// Whether a publish would work now. It changes no topic.
    ///
    /// # Errors
    /// 503 or 507 if not.
    fn try_out(&self) -> Result<(), Error> {
        Ok(())
    }

    /// How much it holds.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn stock(&self) -> Result<Stock, Error> {
        Ok(Stock::default())
    }

    /// What it keeps of a topic, without the messages that the client may not know.
    ///
    /// # Errors
    /// 501 if the store keeps nothing, 503 if the topic or the store cannot be used.
    fn kept(&self, topic: &Topic, may: &dyn Fn(&Message) -> bool) -> Result<Kept, Error> {
        let mut reading = self.read(topic, Since::Earliest, MOST_KEPT)?;
        reading.messages.retain(may);
        Ok(Kept::of(&reading.messages, reading.standing))
    }

    /// Makes a watch that is on no topic yet.
    fn watch(&self) -> Box<dyn Watch>;

    /// The directory that a publish writes to, if there is one.
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Wakes a waiting process when it should read again. It may wake too often, or miss a
/// change.
pub trait Watch {
    /// Reports later changes of these topics, too. It comes before each read of them,
    /// because a topic may have been replaced.
    fn arm(&mut self, topics: &[&Topic]);

    /// Reports later changes of every topic, too.
    fn arm_all(&mut self) {}

    /// Reports this topic no more.
    fn forget(&mut self, topic: &Topic) {
        let _ = topic;
    }

    /// A descriptor that is readable after a change since `arm`, or since the read after
    /// it, if the caller sleeps `within` at most; `None` if the store cannot wake.
    fn fd(&mut self, within: Duration) -> Option<BorrowedFd<'_>>;

    /// The longest sleep. A store that cannot wake a process is polled.
    fn poll_interval(&self) -> Duration {
        Duration::MAX
    }

    /// The topics that may have changed, once [`fd`](Self::fd) is readable, which it
    /// then is no more.
    fn changes(&mut self) -> Changes {
        Changes::Any
    }

    /// The same before the descriptor is readable, so that a survey misses nothing.
    fn catch_up(&mut self) -> Changes {
        Changes::Of(Vec::new())
    }

    /// Reports that the last wake-up brought no news of these topics.
    fn report_false_wakeup(&mut self) {}

    /// The time without wake-ups after too many false ones.
    fn cooldown(&self) -> Duration {
        Duration::ZERO
    }
}

/// The topics that a wake-up is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Any of those that are watched.
    Any,
    /// These, which may be none.
    Of(Vec<Topic>),
    /// These, and others that only a subscriber by pattern wants to know of.
    InOrder(Vec<Topic>),
}

/// A watch that never wakes. The store is polled at this interval.
struct Polled(Duration);

impl Watch for Polled {
    fn arm(&mut self, _: &[&Topic]) {}

    fn fd(&mut self, _: Duration) -> Option<BorrowedFd<'_>> {
        None
    }

    fn poll_interval(&self) -> Duration {
        self.0
    }
}

/// Whether `text` is a name and one colon at its end. So no prefix is the beginning of
/// another, and two sites never share a topic.
fn is_prefix(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, rest)| !name.is_empty() && rest.is_empty())
}
