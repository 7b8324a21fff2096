//! Events of all topics in one order, from one look at the store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::update::{MAX_PIECE, OVERHEAD};
use crate::error::Error;
use crate::event::{Cursor, Message, Since, Topic};
use crate::store::{Budget, Clock, Horizon, Reading, Seen, Store};

/// The most topics that the store reads at once.
const TOPICS: usize = 64;

/// How long a sweep may take, if it can be continued after this. Meanwhile the others of the
/// process wait.
const MAX_TIME: Duration = Duration::from_millis(50);

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
        let until = Instant::now() + MAX_TIME;
        let seen = store.survey(after)?;
        let mut topics: Vec<_> = seen.iter().filter(|seen| wants(&seen.topic)).collect();
        let Horizon { at: horizon, is_settled } = horizon;
        let is_learned = topics.len() <= TOPICS || quiet.learn(store, &topics, after, until);
        if !is_learned {
            let (events, standing) = (Vec::new(), after);
            return Ok(Self { events, standing, horizon, is_whole: false, is_settled });
        }
        topics.sort_by_cached_key(|seen| quiet.end(&seen.topic, after));
        let (found, bytes, limit) = (BTreeMap::new(), 0, None);
        let mut merge = Merge { after, horizon, found, bytes, limit, quiet };
        for some in topics.chunks(TOPICS) {
            if merge.is_later(some[0]) || Instant::now() >= until && merge.ends_before(some[0]) {
                break;
            }
            merge.read(store, some)?;
        }
        let standing = merge.limit.unwrap_or(horizon).max(after);
        let is_whole = merge.limit.is_none();
        let events = merge.found.into_values().filter(|one| one.time <= standing).collect();
        Ok(Self { events, standing, horizon, is_whole, is_settled })
    }
}

/// The times at which topics have no event, if there are many topics: none is after the first
/// time and before the second. So a piece is read from those only whose events are next.
#[derive(Debug, Default)]
pub struct Quiet(BTreeMap<Topic, (Cursor, Cursor)>);

impl Quiet {
    /// The first time after `after` at which the topic may have an event.
    fn end(&self, topic: &Topic, after: Cursor) -> Cursor {
        let known = self.0.get(topic).filter(|(from, to)| *from <= after && after < *to);
        known.map_or(Cursor::SMALLEST, |(_, to)| *to)
    }

    /// Asks the store for the first message of each topic, until the time is over. Returns
    /// whether that is done for all.
    fn learn(&mut self, store: &dyn Store, all: &[&Seen], after: Cursor, until: Instant) -> bool {
        if self.0.len() > 2 * all.len() {
            self.0.clear();
        }
        let is_new = |it: &Self, seen: &Seen| !it.has_learned(&seen.topic, after);
        let new: Vec<_> = all.iter().filter(|seen| is_new(self, seen)).collect();
        for (number, seen) in new.into_iter().enumerate() {
            if number > 0 && number % TOPICS == 0 && Instant::now() >= until {
                return false;
            }
            let first = match (seen.clock, store.first_after(&seen.topic, after)) {
                (Clock::Store, Some(first)) => first.min(seen.until),
                (Clock::Other, Some(first)) if first < seen.until => first,
                _ => after,
            };
            self.note(&seen.topic, after, first);
        }
        true
    }

    /// The store may have known nothing of it.
    fn has_learned(&self, topic: &Topic, after: Cursor) -> bool {
        self.0.get(topic).is_some_and(|(from, to)| *from == after || *from < after && after < *to)
    }

    fn knows(&self, topic: &Topic) -> bool {
        self.0.contains_key(topic)
    }

    /// Two that begin at different times and end at one are one.
    fn note(&mut self, topic: &Topic, from: Cursor, to: Cursor) {
        let known = self.0.get(topic).filter(|(_, end)| *end == to && from < to);
        let from = known.map_or(from, |(start, _)| from.min(*start));
        self.0.insert(topic.clone(), (from, to));
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

    /// Ends the piece before this topic, and those with a later end of their quiet, unless it
    /// would then have nothing.
    fn ends_before(&mut self, seen: &Seen) -> bool {
        let end = self.quiet.end(&seen.topic, self.after).before(Duration::from_micros(1));
        let is_later = end > self.after;
        if is_later && end < self.horizon {
            self.end_at(end);
        }
        is_later && end < self.horizon
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
            left.retain(|seen| !self.is_later(seen));
        }
        Ok(())
    }

    /// Returns the place of the last message.
    fn take(&mut self, seen: &Seen, reading: Reading) -> Option<Cursor> {
        let (mut gap, mut last, mut last_id) = (reading.gap, None, Cursor::SMALLEST);
        let is_unsettled = reading.pending.is_some();
        let first = reading.messages.first().filter(|_| seen.clock != Clock::Ahead);
        if let Some(first) = first.filter(|_| self.quiet.knows(&seen.topic)) {
            self.quiet.note(&seen.topic, self.after, first.id);
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
            // A publisher is at work: the time is that of its first step, and it is found again.
            Clock::Other if is_unsettled && seen.until > self.horizon => false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::FileStore;
    use crate::store::{Limits, Retention};

    const KEPT: Retention = Retention {
        messages: 1000,
        bytes: 262_144,
        age: Duration::from_secs(3600),
        max_file_bytes: 1_000_000,
    };

    /// A directory of its own, removed at the end.
    struct Place(std::path::PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("novcomet-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn open(&self) -> FileStore {
            FileStore::open(self.0.clone(), KEPT, Limits::NONE).unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn topic(number: usize) -> Topic {
        Topic::new(format!("t{number}")).unwrap()
    }

    /// Publishes so many messages to 200 topics in an order by chance.
    fn publish(store: &dyn Store, count: usize, kept: &mut Vec<(Cursor, Topic)>) {
        for _ in 0..count {
            let chance = (kept.len() * 119 + kept.len() / 200 * 31) % 200;
            let data = "x".repeat(if chance % 9 == 0 { 9_000 } else { chance });
            let at = store.publish(&topic(chance), Some(&data)).unwrap();
            kept.push((at, topic(chance)));
        }
    }

    /// One piece, and what it had.
    fn piece(
        store: &dyn Store,
        after: &mut Cursor,
        quiet: &mut Quiet,
        found: &mut Vec<(Cursor, Topic)>,
    ) -> bool {
        let horizon = store.horizon().unwrap();
        let sweep = Sweep::at(store, *after, horizon, |_| true, quiet).unwrap();
        found.extend(sweep.events.iter().map(|one| (one.time, one.topic.clone())));
        *after = sweep.standing;
        sweep.is_whole
    }

    /// Two at different positions share what is known, and publishers go on.
    #[test]
    fn many_topics_come_whole_and_in_order() {
        let place = Place::new("sweep");
        let (store, mut kept, mut quiet) = (place.open(), Vec::new(), Quiet::default());
        publish(&store, 1000, &mut kept);
        let mut readers = [(Cursor::SMALLEST, Vec::new()), (kept[500].0, kept[..=500].to_vec())];
        let mut pieces = 0;
        loop {
            let all =
                readers.iter_mut().map(|(after, found)| piece(&store, after, &mut quiet, found));
            if all.fold(true, |all, one| all & one) {
                break;
            }
            pieces += 1;
            if pieces < 8 {
                publish(&store, 20, &mut kept);
            }
        }
        assert!(pieces >= 3, "{pieces}");
        assert!(readers.iter().all(|(_, found)| *found == kept));
    }

    #[test]
    fn quiet_counts_between_its_times_only() {
        let at = Cursor::from_micros;
        let mut quiet = Quiet::default();
        quiet.note(&topic(1), at(10), at(20));
        for (after, end) in [(9, 0), (10, 20), (19, 20), (20, 0), (21, 0)] {
            let end = if end == 0 { Cursor::SMALLEST } else { at(end) };
            assert_eq!(quiet.end(&topic(1), at(after)), end, "{after}");
            assert_eq!(quiet.end(&topic(2), at(after)), Cursor::SMALLEST);
        }
        quiet.note(&topic(1), at(5), at(20));
        quiet.note(&topic(1), at(12), at(20));
        assert_eq!(quiet.end(&topic(1), at(6)), at(20));
        quiet.note(&topic(1), at(20), at(20));
        assert!(quiet.has_learned(&topic(1), at(20)) && !quiet.has_learned(&topic(1), at(21)));
        assert_eq!(quiet.end(&topic(1), at(20)), Cursor::SMALLEST);
    }

    /// The first step of a publisher changes the time of the file, before the message is there.
    #[test]
    fn publisher_at_work_is_no_event_yet() {
        let at = |micros: u64| Cursor::from_micros(1_795_415_403_000_001 + micros);
        let found = |until, pending: Option<Cursor>| {
            let mut quiet = Quiet::default();
            let (after, horizon, found) = (at(1), at(5), BTreeMap::new());
            let mut merge =
                Merge { after, horizon, found, bytes: 0, limit: None, quiet: &mut quiet };
            let seen = Seen { until, topic: topic(1), clock: Clock::Other };
            merge.take(&seen, Reading { pending, ..Reading::quiet(at(0)) });
            merge.found.len()
        };
        assert_eq!(found(at(6), Some(at(4))), 0, "it is found again");
        assert_eq!(found(at(5), Some(at(4))), 1, "it would not be found again");
        assert_eq!(found(at(6), None), 1, "a touch");
    }
}
