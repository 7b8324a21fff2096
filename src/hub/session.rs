//! A session: what a client subscribes to between its requests, and where it stands. Its state
//! is what the entries of its log say, one after the other.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::following::Told;
use crate::auth::claims::Claims;
use crate::event::Cursor;
use crate::event::pattern::Pattern;
use crate::event::position::Position;
use crate::event::session::SessionId;

/// How many patterns a session follows at most.
pub const MAX_PATTERNS: usize = 64;

/// How long sessions last, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionTerms {
    /// How long a request of a session is held.
    pub held: Duration,
    /// How long a session lasts after the answer to its last request.
    pub lasts: Duration,
    /// How many there are.
    pub most: usize,
    /// How many of one address there are.
    pub most_per_address: usize,
}

impl SessionTerms {
    /// How long a store keeps a session without a new entry.
    pub(super) fn kept(&self) -> Duration {
        const SLACK: Duration = Duration::from_secs(5);
        self.held + self.lasts + SLACK
    }
}

/// A line of the log of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Entry {
    /// The client has begun the session.
    Begin {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claims: Option<Claims>,
        /// Whether it says what it has received.
        acks: bool,
        /// The secret of its browser.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        browser: Option<String>,
        /// How many requests of it were held before this log.
        #[serde(default, skip_serializing_if = "is_zero")]
        turn: u64,
        /// The events of other programs of which it was told.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        again: Told,
        until: Cursor,
    },
    /// Its browser keeps the secret. From now on it has to show it.
    Bind,
    /// It follows a pattern, after a position.
    Follow { pattern: Pattern, since: Position },
    /// It follows this no more.
    Leave { pattern: Pattern },
    /// A request of it is held. It names the batch that the client has received, if any.
    Attend {
        tag: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ack: Option<u64>,
        /// The clock went back: the client does not stand after this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<Position>,
        until: Cursor,
    },
    /// The request with this tag was told everything up to a position.
    Told {
        tag: u32,
        to: Position,
        /// The events among it that may be found again.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        again: Told,
        until: Cursor,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    pub fn text(&self) -> String {
        // It has no map with keys that JSON cannot name, the only error.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Where a client stands in a pattern. Each pattern has a position of its own, because a
/// request that is held does not know those that the client has followed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// It has everything up to here.
    has: Position,
    /// The last request that was held was told everything up to here.
    told: Option<Position>,
    /// Whether that request knows the pattern.
    is_attended: bool,
}

impl Standing {
    fn since(has: Position) -> Self {
        Self { has, told: None, is_attended: false }
    }

    fn attend(&mut self, received: bool) {
        let told = self.told.take().filter(|_| received);
        self.has = told.map_or(self.has, |told| told.max(self.has));
        self.is_attended = true;
    }
}

/// The state of a session.
#[derive(Debug, Clone)]
pub struct Session {
    pub(super) id: SessionId,
    /// What the token of its beginning grants.
    pub(super) claims: Option<Claims>,
    /// Whether the client says what it has received.
    pub acks: bool,
    browser: Option<String>,
    is_bound: bool,
    patterns: BTreeMap<Pattern, Standing>,
    /// How many requests of it have been held. This is the number of a batch.
    pub turn: u64,
    tag: u32,
    /// Whether the last request that was held was told anything, if only that there is nothing.
    is_answered: bool,
    /// The events of other programs of which the client knows, and those of the last request.
    again: Told,
    told_again: Option<Told>,
    until: Cursor,
    /// Its log, as it was read.
    pub(super) log: Rc<str>,
    /// How many bytes the log has.
    bytes: usize,
}

impl Session {
    /// The session of a log; `None` if that has no beginning.
    pub(super) fn read(id: SessionId, log: &str) -> Option<Self> {
        let lines = log.lines().filter(|line| !line.is_empty());
        let mut entries = lines.filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        let Entry::Begin { claims, acks, browser, turn, again, until } = entries.next()? else {
            return None;
        };
        let mut session = Self {
            id,
            claims,
            acks,
            browser,
            is_bound: false,
            patterns: BTreeMap::new(),
            turn,
            tag: 0,
            is_answered: false,
            again,
            told_again: None,
            until,
            log: log.into(),
            bytes: log.len(),
        };
        entries.for_each(|entry| session.apply(entry));
        Some(session)
    }

    /// Takes an entry that has been appended, and has so many bytes.
    pub(super) fn grow(&mut self, entry: Entry, bytes: usize) {
        self.bytes += bytes + "\n".len();
        self.apply(entry);
    }

    pub(super) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Bind => self.is_bound = true,
            Entry::Follow { pattern, since } => {
                self.patterns.entry(pattern).or_insert(Standing::since(since));
            }
            Entry::Leave { pattern } => {
                self.patterns.remove(&pattern);
            }
            // This is judged here, because another request may have been told
            // something since the client has sent this one.
            Entry::Attend { tag, ack, most, until } => {
                self.settle(self.has_received(ack));
                let standings = self.patterns.values_mut().map(|standing| &mut standing.has);
                standings.for_each(|has| *has = most.map_or(*has, |most| most.min(*has)));
                (self.tag, self.is_answered, self.until) = (tag, false, until);
                self.turn += 1;
            }
            Entry::Told { tag, to, again, until } if tag == self.tag => {
                (self.is_answered, self.until) = (true, until);
                self.told_again = Some(again);
                let attended = self.patterns.values_mut().filter(|one| one.is_attended);
                attended.for_each(|standing| standing.told = Some(to));
            }
            // The first beginning counts, and no request that was superseded.
            Entry::Begin { .. } | Entry::Told { .. } => {}
        }
    }

    /// The client has received what it was told, or not.
    fn settle(&mut self, received: bool) {
        self.patterns.values_mut().for_each(|standing| standing.attend(received));
        if let Some(again) = self.told_again.take().filter(|_| received) {
            self.again = again;
        }
    }

    /// The events of other programs of which the client knows.
    pub(super) fn again(&self) -> Told {
        self.again.clone()
    }

    /// Whether the last of its requests that was held has this tag.
    pub(super) fn is_last(&self, tag: u32) -> bool {
        self.tag == tag
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.id.as_str()
    }

    /// Whether it has ended by itself: its client has not come for long, or its token has
    /// expired.
    pub(super) fn is_over(&self, now: Cursor) -> bool {
        self.until <= now || self.claims.as_ref().is_some_and(|claims| claims.expires() <= now)
    }

    /// Whether a request with this secret of a browser may be one of the session.
    pub(super) fn admits(&self, browser: Option<&str>) -> bool {
        match browser {
            Some(shown) => !self.is_bound || self.browser.as_deref() == Some(shown),
            None => !self.is_bound,
        }
    }

    /// Whether the browser shows the secret for the first time.
    pub(super) fn binds(&self, browser: Option<&str>) -> bool {
        !self.is_bound && browser.is_some() && self.browser.as_deref() == browser
    }

    /// The secret of its browser, once that has shown it.
    pub(super) fn browser(&self) -> Option<&str> {
        self.browser.as_deref().filter(|_| self.is_bound)
    }

    /// Whether the last of its requests may still be held.
    pub(super) fn is_held(&self) -> bool {
        self.turn > 0 && !self.is_answered
    }

    /// Whether a client that says this has received what it was told. One that says nothing
    /// has.
    pub(super) fn has_received(&self, ack: Option<u64>) -> bool {
        self.is_answered && (!self.acks || ack == Some(self.turn))
    }

    /// What it follows, and up to where the client has everything.
    pub(super) fn patterns(&self) -> impl ExactSizeIterator<Item = (&Pattern, Position)> {
        self.patterns.iter().map(|(pattern, standing)| (pattern, standing.has))
    }

    /// Whether its log has more bytes.
    pub(super) fn is_longer_than(&self, most: usize) -> bool {
        self.bytes > most
    }

    /// Whether it follows this pattern.
    pub(super) fn follows(&self, pattern: &Pattern) -> bool {
        self.patterns.contains_key(pattern)
    }

    /// The entries that say the same in fewer lines, if they have so many bytes. The client has
    /// received what it was told, or not.
    pub(super) fn shorter(&self, received: bool, most: usize) -> Option<String> {
        if self.bytes < most {
            return None;
        }
        let mut session = self.clone();
        session.settle(received);
        let Self { claims, acks, browser, turn, until, is_bound, patterns, again, .. } = session;
        let mut entries = vec![Entry::Begin { claims, acks, browser, turn, again, until }];
        entries.extend(is_bound.then_some(Entry::Bind));
        let follow =
            |(pattern, standing): (_, Standing)| Entry::Follow { pattern, since: standing.has };
        entries.extend(patterns.into_iter().map(follow));
        Some(entries.iter().map(Entry::text).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Topic;
    use crate::event::session::SECRET;

    fn cursor(at: u64) -> Cursor {
        Cursor::from_micros(1_795_415_403_000_000 + at)
    }

    fn position(at: u64) -> Position {
        Position::after(cursor(at))
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::segments(text).unwrap()
    }

    fn begin(acks: bool) -> Session {
        let until = Cursor::from_micros(1_795_415_403_000_000);
        let again = Told::new();
        let begin = Entry::Begin { claims: None, acks, browser: None, turn: 0, again, until };
        let log = begin.text();
        Session::read(SessionId::new(0, [0; SECRET]), &log).unwrap()
    }

    fn follow(text: &str, since: u64) -> Entry {
        Entry::Follow { pattern: pattern(text), since: position(since) }
    }

    fn attend(tag: u32, ack: impl Into<Option<u64>>) -> Entry {
        Entry::Attend { tag, ack: ack.into(), most: None, until: Cursor::SMALLEST }
    }

    fn told(tag: u32, to: u64) -> Entry {
        Entry::Told { tag, to: position(to), again: Told::new(), until: Cursor::SMALLEST }
    }

    fn standing(session: &Session) -> Vec<Position> {
        session.patterns().map(|(_, has)| has).collect()
    }

    #[test]
    fn told_counts_when_it_is_received() {
        let mut session = begin(true);
        session.apply(follow("/a", 1));
        session.apply(attend(7, None));
        assert!(session.is_held() && !session.has_received(Some(1)));
        session.apply(told(7, 5));
        assert!(!session.is_held() && session.has_received(Some(1)));
        assert!(!session.has_received(None) && !session.has_received(Some(2)));
        session.apply(attend(8, 0));
        assert_eq!(standing(&session), [position(1)]);
        session.apply(told(7, 6));
        assert!(session.is_held(), "that request was superseded");
        session.apply(told(8, 6));
        session.apply(attend(9, 2));
        assert_eq!(standing(&session), [position(6)]);
        session.apply(attend(10, 3));
        assert_eq!(standing(&session), [position(6)], "it was told nothing");
    }

    #[test]
    fn held_request_does_not_know_what_is_followed_since() {
        let mut session = begin(false);
        session.apply(follow("/a", 1));
        session.apply(attend(7, None));
        session.apply(follow("/b", 3));
        session.apply(told(7, 5));
        session.apply(attend(8, None));
        assert_eq!(standing(&session), [position(5), position(3)]);
    }

    #[test]
    fn clock_that_went_back_takes_the_client_back() {
        let mut session = begin(false);
        session.apply(follow("/a", 9));
        session.apply(follow("/b", 3));
        let (most, until) = (Some(position(5)), Cursor::SMALLEST);
        session.apply(Entry::Attend { tag: 1, ack: None, most, until });
        assert_eq!(standing(&session), [position(5), position(3)]);
    }

    #[test]
    fn found_again_counts_when_it_is_received() {
        let mut session = begin(true);
        let again = |at| Told::from([(Topic::new("/a").unwrap(), (cursor(at), cursor(at + 1)))]);
        session.apply(attend(7, None));
        let (to, until) = (position(5), Cursor::SMALLEST);
        session.apply(Entry::Told { tag: 7, to, again: again(3), until });
        assert_eq!(session.again(), Told::new());
        assert!(session.shorter(true, 0).unwrap().contains("again"));
        session.apply(attend(8, 1));
        assert_eq!(session.again(), again(3));
        session.apply(Entry::Told { tag: 8, to, again: again(4), until });
        session.apply(attend(9, 1));
        assert_eq!(session.again(), again(3), "it has not received the last one");
    }

    /// A request that was on its way for long acknowledges only what its client had then.
    #[test]
    fn late_acknowledgement_does_not_count_for_another_batch() {
        let mut session = begin(true);
        session.apply(follow("/a", 1));
        session.apply(attend(7, None));
        session.apply(told(7, 5));
        session.apply(attend(8, 1));
        session.apply(told(8, 6));
        session.apply(attend(9, 1));
        assert_eq!(standing(&session), [position(5)]);
    }

    #[test]
    fn shorter_log_says_the_same() {
        let mut session = begin(true);
        session.apply(Entry::Bind);
        session.apply(follow("/a", 1));
        session.apply(follow("/b", 1));
        session.apply(attend(7, None));
        session.apply(follow("/c", 3));
        session.apply(told(7, 5));
        session.apply(Entry::Leave { pattern: pattern("/b") });
        session.bytes = 9;
        assert_eq!(session.shorter(true, 10), None);
        for (received, expected) in [(true, [5, 3]), (false, [1, 3])] {
            let entries = session.shorter(received, 9).unwrap();
            let read = Session::read(session.id.clone(), &entries).unwrap();
            assert_eq!(standing(&read), expected.map(position));
            assert!(read.is_bound && read.acks && read.turn == 1);
        }
    }
}
