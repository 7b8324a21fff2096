//! The patterns of a subscriber, its one position, and the events that the store holds for
//! it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::notice::Notice;
use super::sweep::{Quiet, Sighting, Sweep};
use super::update::{Occurrence, UNSETTLED_LIMIT, UNSETTLED_PAUSE};
use crate::auth::grant::Grant;
use crate::error::Error;
use crate::event::pattern::Pattern;
use crate::event::position::Position;
use crate::event::{Cursor, Message, Topic};
use crate::store::{Budget, Store};

/// Where a subscriber by pattern starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// After the arrival of the request.
    Now,
    /// From the first event that is kept.
    Earliest,
    /// After a position that a server issued.
    After(Position),
    /// After the message to which its publisher gave this identifier.
    AfterId(String),
}

/// The patterns that a client subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The patterns. Any of them selects a topic.
    pub patterns: Vec<Pattern>,
    /// Where it starts.
    pub start: Start,
    /// Whether it gets nothing of what is kept if a part of that is not kept any more.
    pub is_strict: bool,
}

/// How many events of other programs another process learns of.
const MAX_TOLD: usize = 32;

/// How many pieces are searched for a message: some 16 MB.
const SEARCHED: usize = 64;

/// The position of the message to which its publisher gave this identifier; `None` if it is
/// not kept in a topic that a pattern selects. Of several the first counts.
///
/// # Errors
/// The store's.
pub fn find(store: &dyn Store, patterns: &[Pattern], id: &str) -> Result<Option<Position>, Error> {
    let (mut after, horizon) = (Cursor::SMALLEST, store.horizon()?);
    let mut quiet = Quiet::default();
    let wants = |topic: &Topic| patterns.iter().any(|pattern| pattern.matches(topic));
    let has_id = |one: &&Sighting| {
        one.message.as_ref().is_some_and(|it| it.extra.client_id.as_deref() == Some(id))
    };
    let mut pieces = 0;
    while pieces < SEARCHED {
        let sweep = Sweep::at(store, after, horizon, wants, &mut quiet)?;
        if let Some(found) = sweep.events.iter().find(has_id) {
            return Ok(Some(Position::after(found.time)));
        }
        if sweep.is_whole {
            break;
        }
        pieces += usize::from(sweep.standing > after);
        after = sweep.standing;
    }
    Ok(None)
}

/// Events by their topics: their times, and until when they may be found again.
pub type Told = BTreeMap<Topic, (Cursor, Cursor)>;

/// The patterns of one subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Following {
    patterns: Vec<Pattern>,
    /// `None` until the store is read: from now on.
    position: Option<Position>,
    is_strict: bool,
    /// Whether everything after the position of its request has been kept, once that is
    /// known.
    is_known: Option<bool>,
    /// Whether it is given all that is kept, and why.
    replay: Replay,
    /// Whether it receives a message with several topics once for each of them.
    #[serde(default)]
    each_topic: bool,
    /// The events of which it was told that may be found again, by their times, and until
    /// when. One in the future is found at every later event of its topic.
    told: Told,
    /// What it would receive now.
    #[serde(skip)]
    updates: Vec<Occurrence>,
    /// Those of the updates that may be found again, and until when.
    #[serde(skip)]
    found: Vec<(Topic, Cursor, Cursor)>,
    /// Its position after the updates.
    #[serde(skip)]
    next: Option<Position>,
    /// Since when a publisher has been at work.
    #[serde(skip)]
    unsettled: Option<Duration>,
}

/// Why a subscriber is given all that is kept, until it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Replay {
    Nothing,
    /// It asked for it. Nothing is missing.
    Earliest,
    /// Its position is not known. Something may be missing in every topic.
    Lost,
}

impl Following {
    /// A subscriber from `start`; `None` if that is not known.
    pub fn new(patterns: Vec<Pattern>, start: Option<&Start>, is_strict: bool) -> Self {
        let (position, replay, is_known) = match start {
            Some(Start::After(position)) => (Some(*position), Replay::Nothing, None),
            Some(Start::Earliest) => {
                (Some(Position::after(Cursor::SMALLEST)), Replay::Earliest, Some(true))
            }
            Some(_) => (None, Replay::Nothing, Some(true)),
            None => (None, Replay::Nothing, Some(false)),
        };
        Self {
            patterns,
            position,
            is_strict,
            is_known,
            replay,
            each_topic: false,
            told: BTreeMap::new(),
            updates: Vec::new(),
            found: Vec::new(),
            next: None,
            unsettled: None,
        }
    }

    /// Whether it subscribes to this topic.
    pub fn wants(&self, topic: &Topic) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(topic))
    }

    /// The patterns.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The only topics that it selects; `None` if there may be others.
    pub fn topics(&self) -> Option<Vec<&Topic>> {
        self.patterns.iter().map(Pattern::topic).collect()
    }

    /// It stands there, if it was to begin from now on.
    pub fn begin_at(&mut self, position: Position) {
        if self.position.is_none() && self.is_known == Some(true) {
            self.position = Some(position);
        }
    }

    /// Whether a notice is for it, with this grant. It is private, whatever it says.
    pub fn hears(&self, notice: &Notice, grant: &Grant) -> bool {
        self.wants(&notice.topic) && grant.is_granted(&notice.topic)
    }

    /// Where it stands, once it has read the store.
    pub fn position(&self) -> Position {
        self.position.unwrap_or(Position::after(Cursor::SMALLEST))
    }

    /// Everything up to this time is known to it; `None` for one from now on.
    pub fn after(&self) -> Option<Cursor> {
        let position = self.position?;
        Some(match position.nth {
            Position::ALL => position.cursor,
            _ => position.cursor.before(Duration::from_micros(1)),
        })
    }

    /// Finds its position at the first look. A later one than the store can know is not its
    /// own: the store was lost, or the clock went back.
    fn begin(&mut self, horizon: Cursor) {
        let is_ahead = |it: &Position| it.cursor > horizon.after(UNSETTLED_LIMIT);
        if self.is_known.is_none() && self.position.as_ref().is_some_and(is_ahead) {
            self.is_known = Some(false);
            self.replay = if self.is_strict { Replay::Nothing } else { Replay::Lost };
            let all = Position::after(Cursor::SMALLEST);
            self.position = (!self.is_strict).then_some(all);
        }
        self.position.get_or_insert(Position::after(horizon));
    }

    /// Whether everything after the position of its request has been kept.
    pub fn is_known(&self) -> bool {
        self.is_known != Some(false)
    }

    pub fn has_updates(&self) -> bool {
        !self.updates.is_empty()
    }

    /// Takes what was found, as far as it fits into one piece. Returns whether that is all.
    pub fn take(
        &mut self,
        sweep: &Sweep,
        grant: &Grant,
        now: Duration,
        mut budget: Budget,
    ) -> bool {
        self.unsettled = if sweep.is_settled { None } else { self.unsettled.or(Some(now)) };
        self.updates.clear();
        self.found.clear();
        let before = self.position;
        self.begin(sweep.horizon);
        if before != self.position || self.after().is_some_and(|after| sweep.standing < after) {
            // Its own events come with the next look.
            return sweep.is_whole && before.is_none();
        }
        let news: Vec<_> = sweep.events.iter().filter(|one| self.is_new(one, grant)).collect();
        if self.is_known.is_none() && (sweep.is_whole || !news.is_empty()) {
            self.is_known = Some(!news.iter().any(|one| one.gap));
            if self.is_strict && !self.is_known() {
                self.position = Some(Position::after(sweep.horizon));
                return sweep.is_whole;
            }
        }
        let is_all = self.fill(&news, &mut budget);
        let end = Position::after(sweep.standing);
        self.next = if is_all {
            Some(end.max(self.position()))
        } else {
            self.updates.last().map(|last| last.position)
        };
        if is_all && sweep.is_whole {
            self.replay = Replay::Nothing;
        }
        if self.updates.is_empty() {
            self.advance();
        }
        is_all && sweep.is_whole
    }

    fn is_new(&self, one: &Sighting, grant: &Grant) -> bool {
        let is_later = match one.until {
            Some(until) => {
                let told = self.told.get(&one.topic);
                until > self.position().cursor && told.is_none_or(|(told, _)| *told < one.at)
            }
            None => self.after().is_some_and(|after| one.time > after),
        };
        is_later && self.is_for_me(&one.topic, one.message.as_ref(), grant)
    }

    /// The same for a session, whose channels are separate. It was told of these events, which
    /// may be found again.
    pub fn of_session(self, told: Told) -> Self {
        Self { each_topic: true, told, ..self }
    }

    /// The events of which it was told that may be found again. A log entry is bounded.
    pub fn told(&self) -> Told {
        self.record().told
    }

    /// Of a message with several topics it receives the first copy that it may.
    fn is_for_me(&self, topic: &Topic, message: Option<&Message>, grant: &Grant) -> bool {
        let is_mine = |topic: &Topic| self.wants(topic) && grant.may_receive(topic, message);
        let topics = message.map_or(&[][..], |message| &message.extra.topics);
        match topics.is_empty() || self.each_topic {
            true => is_mine(topic),
            false => topics.iter().find(|topic| is_mine(topic)) == Some(topic),
        }
    }

    /// Returns whether all fit.
    fn fill(&mut self, news: &[&Sighting], budget: &mut Budget) -> bool {
        let mut position = self.position();
        let mut places = places(news);
        for one in news {
            let place = one.until.is_none().then(|| places.next()).flatten();
            if place.is_some_and(|place| place <= self.position()) {
                // It stands within this microsecond.
                continue;
            }
            if !one.message.as_ref().is_none_or(|message| budget.take(&one.topic, message)) {
                return false;
            }
            if one.until.is_some() || one.seen > one.at {
                self.found.push((one.topic.clone(), one.at, one.seen));
            }
            position = place.unwrap_or(position);
            let (topic, message) = (one.topic.clone(), one.message.clone());
            let is_first = || !self.updates.iter().any(|other| other.topic == topic);
            let gap = match self.replay {
                Replay::Nothing => one.gap,
                Replay::Earliest => false,
                Replay::Lost => one.gap || is_first(),
            };
            let (cursor, until) = (one.at, one.until);
            self.updates.push(Occurrence { topic, cursor, position, message, gap, until });
        }
        true
    }

    /// Takes the updates: from now on the subscriber has them.
    pub fn take_updates(&mut self) -> Vec<Occurrence> {
        for (topic, at, until) in std::mem::take(&mut self.found) {
            self.told.insert(topic, (at, until));
        }
        self.advance();
        std::mem::take(&mut self.updates)
    }

    fn advance(&mut self) {
        self.position = self.next.take().or(self.position);
        let now = self.position().cursor;
        self.told.retain(|_, (at, until)| *until > now || *at > now);
    }

    /// Itself for another process. A message between processes is bounded, so of very many
    /// events of other programs some may be told again.
    pub fn record(&self) -> Self {
        let told = self.told.iter().take(MAX_TOLD);
        let told = told.map(|(topic, times)| (topic.clone(), *times)).collect();
        Self { told, ..self.clone() }
    }

    /// When to read again while a publisher is at work.
    pub fn next_read(&self, now: Duration) -> Option<Duration> {
        let since = self.unsettled?;
        Some(now + now.saturating_sub(since).max(UNSETTLED_PAUSE))
    }
}

/// The place after each that has one. Of several in one microsecond only the last is after
/// all.
fn places<'s>(news: &'s [&Sighting]) -> impl Iterator<Item = Position> + use<'s> {
    let times: Vec<_> = news.iter().filter(|one| one.until.is_none()).map(|one| one.time).collect();
    let (mut nth, mut before) = (0, None);
    (0..times.len()).map(move |number| {
        let cursor = times[number];
        nth = if before == Some(cursor) { nth + 1 } else { 1 };
        before = Some(cursor);
        let is_last = times.get(number + 1) != Some(&cursor);
        Position { cursor, nth: if is_last { Position::ALL } else { nth } }
    })
}
