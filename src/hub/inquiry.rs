//! What a client may ask about the server: its figures, its health, its topics.

use std::time::{Duration, Instant};

use super::asking::ask_for_numbers;
use super::facade::Hub;
use super::numbers::Waiters;
use crate::error::Error;
use crate::event::{Cursor, Message, Topic};
use crate::process::figures::{self, Sums};
use crate::process::slots::Slots;
use crate::store::{Kept, Stock, Store};

/// How long the messages of topics are counted. The first topic is always among them.
const MAX_TIME: Duration = Duration::from_millis(50);

/// How many names one list has at most.
const MAX_LISTED: usize = 1_000;

/// The figures at one moment. `None` for those that the store or the server does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// The sums of what happened.
    pub sums: Option<Sums>,
    /// Those who wait together.
    pub waiters: Option<Waiters>,
    /// How much the store holds.
    pub stock: Stock,
    /// The slots that are taken.
    pub slots_used: Option<u64>,
    /// The slots that there are.
    pub slots_max: Option<u64>,
}

/// Some topics, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The topics.
    pub topics: Vec<Topic>,
    /// Whether more follow.
    pub has_more: bool,
}

impl Hub<'_, '_> {
    /// The figures. From the first question on, the processes of this user count in a store
    /// of files.
    ///
    /// # Errors
    /// 503 if the store cannot be used, or the leader of those who wait does not answer.
    pub fn figures(&self) -> Result<Figures, Error> {
        let store = (self.open)()?;
        let counted =
            |directory| figures::begin(directory).ok().and_then(|()| Sums::read(directory));
        let sums = store.directory().and_then(counted);
        let slots = self.terms.slots.filter(|slots| slots.most > 0);
        Ok(Figures {
            sums,
            waiters: self.waiters(store.as_ref())?,
            stock: store.stock()?,
            slots_used: slots.and_then(|slots| slots.used()),
            slots_max: slots.map(|slots| slots.most.into()),
        })
    }

    /// Those who wait together; `None` if nobody would wait with this client.
    fn waiters(&self, store: &dyn Store) -> Result<Option<Waiters>, Error> {
        let together = (self.terms.together)(store);
        let numbers = together.map(|together| ask_for_numbers(&together)).transpose()?;
        Ok(numbers.map(Option::unwrap_or_default))
    }

    /// Whether a publish and a wake-up would work now. It changes no topic.
    ///
    /// # Errors
    /// The reason why not: 503, or 507 for a store that is full.
    pub fn check_health(&self) -> Result<(), Error> {
        let store = (self.open)()?;
        store.try_out()?;
        self.terms.slots.filter(Slots::are_taken).map_or(Ok(()), |_| Err(no_slot()))?;
        match self.is_led(store.as_ref()) || can_wake(store.as_ref()) {
            true => Ok(()),
            false => Err(no_watch()),
        }
    }

    /// Whether a leader would wake a subscriber. It has a watch already.
    fn is_led(&self, store: &dyn Store) -> bool {
        let together = (self.terms.together)(store);
        together.is_some_and(|together| matches!(ask_for_numbers(&together), Ok(Some(_))))
    }

    /// The kept messages of these topics that the client may receive, as numbers, in order. The
    /// last topics are left out if the first ones take long.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 for a topic that is not granted, 501 if the store
    /// keeps nothing, 503 if it cannot be used.
    pub fn kept(&self, topics: &[Topic]) -> Result<Vec<Kept>, Error> {
        self.grant.check_subscribe(topics, Cursor::now())?;
        let store = (self.open)()?;
        let end = Instant::now() + MAX_TIME;
        let in_time = |number: usize| number == 0 || Instant::now() < end;
        let topics = topics.iter().enumerate().take_while(|(number, _)| in_time(*number));
        let may = |topic: &Topic, message: &Message| self.grant.may_receive(topic, Some(message));
        topics.map(|(_, topic)| store.kept(topic, &|message| may(topic, message))).collect()
    }

    /// The topics that begin with `prefix` and come after `after`, as many as one list has.
    ///
    /// # Errors
    /// As for [`all_topics`](Self::all_topics).
    pub fn topics(&self, prefix: &str, after: &str) -> Result<Listed, Error> {
        let mut topics = self.all_topics(prefix)?;
        topics.retain(|topic| topic.as_str() > after);
        let has_more = topics.len() > MAX_LISTED;
        topics.truncate(MAX_LISTED);
        Ok(Listed { topics, has_more })
    }

    /// The topics that begin with `prefix`, in alphabetical order, as far as the client may
    /// subscribe to them by pattern.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 if it may not subscribe, 501 if the store has no
    /// order of all topics, 503 if it cannot be used.
    pub fn all_topics(&self, prefix: &str) -> Result<Vec<Topic>, Error> {
        self.grant.check_valid(Cursor::now())?;
        let store = (self.open)()?;
        // Without an order there is no list either.
        store.horizon()?;
        let seen = store.survey(Cursor::from_micros(0))?.into_iter().map(|seen| seen.topic);
        let is_meant = |topic: &Topic| {
            topic.as_str().starts_with(prefix) && self.grant.may_receive(topic, None)
        };
        let mut topics: Vec<_> = seen.filter(is_meant).collect();
        topics.sort_unstable();
        Ok(topics)
    }
}

/// Whether a process can be woken. A store without a directory is a server, which was tried
/// out, or is polled.
fn can_wake(store: &dyn Store) -> bool {
    const WITHIN: Duration = Duration::from_secs(1);
    if store.directory().is_none() {
        return true;
    }
    let mut watch = store.watch();
    watch.arm_all();
    watch.fd(WITHIN).is_some()
}

fn no_slot() -> Error {
    Error::unavailable(
        "all slots of waiting requests are taken",
        "as many requests wait as may",
        "raise NOVCOMET_MAX_WAITERS, if the server has the workers",
    )
}

fn no_watch() -> Error {
    Error::unavailable(
        "events wake nobody; subscribers notice them late",
        "neither inotify nor dnotify can be had",
        "raise fs.inotify.max_user_instances",
    )
}
