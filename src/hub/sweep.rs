//! Events of all topics in one order, from one look at the store.

use std::collections::BTreeMap;
use std::time::Duration;

use super::update::{MAX_PIECE, OVERHEAD};
use crate::error::Error;
use crate::event::{Cursor, Message, Since, Topic};
use crate::store::{Budget, Clock, Horizon, Reading, Seen, Store};

/// The most topics that the store reads at once.
const TOPICS: usize = 64;

/// An event of a topic, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its place in the order.
    pub time: Cursor,
    pub topic: Topic,
    /// Its own time.
    pub at: Cursor,
    /// For an event whose own time is no place in the order: until when it may be found
    /// again. Another program set the time, or a clock went back.
    pub until: Option<Cursor>,
    /// Until when its topic is found.
    pub seen: Cursor,
    /// `None` for an event without a message.
    pub message: Option<Message>,
    /// Whether messages of the topic before this are no longer kept.
    pub gap: bool,
}

/// The events after a time, oldest first, as many as one piece holds.
#[derive(Debug)]
pub struct Sweep {
    pub events: Vec<Sighting>,
    /// A subscriber that has these has everything up to this time.
    pub standing: Cursor,
    /// What happens from now on is later than this.
    pub horizon: Cursor,
    /// Whether these are all that have happened.
    pub is_whole: bool,
    /// Whether no publisher is at work whose event may be next.
    pub is_settled: bool,
}

impl Sweep {
    /// What a subscriber from now on needs: the horizon.
    pub fn nothing(Horizon { at, is_settled }: Horizon) -> Self {
        Self { events: Vec::new(), standing: at, horizon: at, is_whole: true, is_settled }
    }

    /// Finds the events after `after`, and up to `horizon`, in the topics that somebody
    /// `wants`.
    ///
    /// # Errors
    /// The store's.
    pub fn at(
        store: &dyn Store,
        after: Cursor,
        horizon: Horizon,
        wants: impl Fn(&Topic) -> bool,
        quiet: &mut Quiet,
    ) -> Result<Self, Error> {
        let seen = store.survey(after)?;
        let mut topics: Vec<_> = seen.iter().filter(|seen| wants(&seen.topic)).collect();
        topics.sort_by_cached_key(|seen| quiet.end(&seen.topic, after));
        let Horizon { at: horizon, is_settled } = horizon;
        let (found, bytes, limit) = (BTreeMap::new(), 0, None);
        let mut merge = Merge { after, horizon, found, bytes, limit, quiet };
        for some in topics.chunks(TOPICS) {
            if merge.is_later(some[0]) {
                break;
            }
            merge.read(store, some)?;
        }
        let standing = merge.limit.unwrap_or(horizon).max(after);
        let is_whole = merge.limit.is_none();
        if is_whole {
            merge.quiet.0.clear();
        }
        let events = merge.found.into_values().filter(|one| one.time <= standing).collect();
        Ok(Self { events, standing, horizon, is_whole, is_settled })
    }
}

/// What earlier sweeps have found in topics that had more than a piece holds: no event is
/// after the first time and before the second. So later pieces skip them.
#[derive(Debug, Default)]
pub struct Quiet(BTreeMap<Topic, (Cursor, Cursor)>);

impl Quiet {
    /// The first time after `after` at which the topic may have an event.
    fn end(&self, topic: &Topic, after: Cursor) -> Cursor {
        let known = self.0.get(topic).filter(|(from, to)| *from <= after && after < *to);
        known.map_or(Cursor::SMALLEST, |(_, to)| *to)
    }
}

/// The oldest events of several topics, by their places.
struct Merge<'q> {
    after: Cursor,
    horizon: Cursor,
    found: BTreeMap<(Cursor, Topic, Cursor), Sighting>,
    bytes: usize,
    /// The time after which there may be events that are not here.
    limit: Option<Cursor>,
    quiet: &'q mut Quiet,
}

impl Merge<'_> {
    /// Whether this topic, and those with a later end of their quiet, have nothing for this
    /// piece.
    fn is_later(&self, seen: &Seen) -> bool {
        self.limit.is_some_and(|limit| self.quiet.end(&seen.topic, self.after) > limit)
    }

    /// A topic that cannot be read is left out.
    fn read(&mut self, store: &dyn Store, topics: &[&Seen]) -> Result<(), Error> {
        let size = |_: &Topic, message: &Message| message.data.len() + OVERHEAD;
        let mut left = topics.to_vec();
        while !left.is_empty() {
            let mut budget = Budget::new(MAX_PIECE, &size);
            let wanted: Vec<_> =
                left.iter().map(|seen| (&seen.topic, Since::Order(self.after))).collect();
            let readings = store.look(&wanted, &mut budget)?;
            let (mut unread, mut last) = (Vec::new(), None);
            for (seen, reading) in left.iter().zip(readings) {
                match reading {
                    None => unread.push(*seen),
                    Some(Ok(reading)) => last = self.take(seen, reading).or(last),
                    Some(Err(_)) => {}
                }
            }
            if let Some(last) = last.filter(|_| budget.is_spent()) {
                self.end_at(last);
            }
            if unread.len() == left.len() {
                break;
            }
            left = unread;
        }
        Ok(())
    }

    /// Returns the place of the last message.
    fn take(&mut self, seen: &Seen, reading: Reading) -> Option<Cursor> {
        let (mut gap, mut last, mut last_id) = (reading.gap, None, Cursor::SMALLEST);
        let first = reading.messages.first().filter(|_| seen.clock != Clock::Ahead);
        if let Some(first) = first {
            self.quiet.0.insert(seen.topic.clone(), (self.after, first.id));
        }
        for message in reading.messages {
            let at = message.id;
            let until = (seen.clock == Clock::Ahead && at > self.horizon).then_some(seen.until);
            let (topic, message) = (seen.topic.clone(), Some(message));
            let sighting = Sighting { time: at, topic, at, until, seen: seen.until, message, gap };
            last = self.add(sighting).or(last);
            last_id = at;
            gap = false;
        }
        let at = reading.standing;
        let is_told = match seen.clock {
            // A later one than the survey has found comes next.
            Clock::Store => at == seen.until && at > self.after,
            Clock::Other | Clock::Ahead => at > Cursor::SMALLEST,
        };
        if at > last_id && is_told {
            let until = (seen.clock != Clock::Store).then_some(seen.until);
            let (topic, message) = (seen.topic.clone(), None);
            self.add(Sighting { time: at, topic, at, until, seen: seen.until, message, gap });
        }
        last
    }

    /// Returns its place. One that was published after the survey has none yet.
    fn add(&mut self, mut sighting: Sighting) -> Option<Cursor> {
        let time = match sighting.until {
            Some(_) => sighting.time.min(self.horizon).max(self.after),
            None => sighting.time,
        };
        if time > self.limit.unwrap_or(self.horizon) {
            return None;
        }
        sighting.time = time;
        self.bytes += size_of(&sighting);
        self.found.insert((time, sighting.topic.clone(), sighting.at), sighting);
        self.shrink();
        Some(time)
    }

    /// Events of one moment stay together.
    fn shrink(&mut self) {
        while self.bytes > MAX_PIECE {
            let Some(((last, ..), _)) = self.found.last_key_value() else { return };
            let last = *last;
            if self.found.first_key_value().is_some_and(|((first, ..), _)| *first == last) {
                return;
            }
            self.end_at(last.before(Duration::from_micros(1)));
        }
    }

    fn end_at(&mut self, limit: Cursor) {
        while let Some(last) = self.found.last_entry().filter(|last| last.key().0 > limit) {
            self.bytes -= size_of(last.get());
            last.remove();
        }
        self.limit = Some(self.limit.map_or(limit, |known| known.min(limit)));
    }
}

fn size_of(sighting: &Sighting) -> usize {
    OVERHEAD + sighting.message.as_ref().map_or(0, |message| message.data.len())
}
