//! The sessions of clients, as far as a request may use them.

use std::cell::RefCell;
use std::time::Duration;

use super::bookmark::Bookmark;
use super::facade::Hub;
use super::following::{Following, Start, Told};
use super::session::{Entry, MAX_PATTERNS, Session};
use super::subscription::Subscription;
use super::update::UNSETTLED_LIMIT;
use super::waiter::{Renderer, Until, Wanted};
use crate::auth::grant::Grant;
use crate::error::Error;
use crate::event::pattern::Pattern;
use crate::event::position::Position;
use crate::event::session::{SECRET, SessionId};
use crate::event::{Cursor, Event, Since, Topic};
use crate::process::random::secret;
use crate::process::slots::{Slot, address_hash};
use crate::store::{Allowance, Store};

/// A log of so many bytes is written anew.
const LONG: usize = 16_384;

/// How many bytes the subscriptions of a session have together. They are in its shortest log.
const MAX_SUBSCRIPTIONS: usize = 2 * LONG;

/// The longest log that still takes changes, in bytes.
const MAX_LOG: usize = 4 * LONG;

/// What a client says that wants its events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attendance {
    /// The batch that it has received last.
    pub ack: Option<u64>,
    /// The longest time that it waits for the answer.
    pub wait: Option<Duration>,
}

/// How a request of a session is served.
pub struct Attended {
    /// The number of its batch, if it is the last request of the session.
    pub turn: Option<u64>,
    /// The patterns, and up to where the client has everything. There are none if that is the
    /// same position for all.
    pub floors: Vec<(Pattern, Position)>,
    /// Why it is answered at once, if it would else be held.
    pub held_back: Option<HeldBack>,
}

/// Why a request is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// As many wait as may. The client comes back after so many seconds.
    NoRoom(u32),
    /// Another page of the same browser waits.
    OtherPage,
}

impl HeldBack {
    /// How long the client waits before it comes back. A page beside another one polls as
    /// often as with `CometD`.
    #[must_use]
    pub fn pause(self) -> Duration {
        match self {
            Self::NoRoom(seconds) => Duration::from_secs(seconds.into()),
            Self::OtherPage => Duration::from_secs(2),
        }
    }
}

/// The sessions that the store keeps.
pub struct Sessions<'h, 'a, 's> {
    hub: &'h Hub<'a, 's>,
    store: Box<dyn Store + 's>,
    /// The events that have been published.
    events: RefCell<Vec<Event>>,
}

/// Proxies are told of all events of a request at once, at its end: a slow one would delay each.
impl Drop for Sessions<'_, '_, '_> {
    fn drop(&mut self) {
        self.hub.tell(self.events.get_mut());
    }
}

impl<'a, 's> Hub<'a, 's> {
    /// The sessions that the store keeps.
    ///
    /// # Errors
    /// 501 if it keeps none, 503 if it cannot be opened.
    pub fn sessions(&self) -> Result<Sessions<'_, 'a, 's>, Error> {
        let store = self.open()?;
        store.sessions()?;
        Ok(Sessions { hub: self, store, events: RefCell::default() })
    }
}

impl Sessions<'_, '_, '_> {
    /// Begins a session; `None` if there are as many as there may be. `browser` is the secret
    /// that its browser has, or is about to get.
    ///
    /// # Errors
    /// 401 for a token that has expired, 403 if nobody subscribes, and the store's.
    pub fn begin(&self, acks: bool, browser: Option<&str>) -> Result<Option<Session>, Error> {
        let now = Cursor::now();
        self.hub.grant().check_valid(now)?;
        // It would use up the sessions of its visitor.
        if self.hub.grant().is_foreign() {
            return Err(Error::Forbidden("the request comes from a foreign site"));
        }
        let terms = self.hub.session_terms();
        let bytes = secret::<SECRET>()?;
        let id = SessionId::new(address_hash(self.hub.address()), bytes);
        let begin = Entry::Begin {
            claims: self.hub.grant().claims().cloned(),
            acks,
            browser: browser.map(str::to_owned),
            turn: 0,
            again: Told::new(),
            until: now.after(terms.held + terms.lasts),
        };
        let most = Allowance {
            sessions: terms.most,
            of_address: terms.most_per_address,
            kept: terms.kept(),
        };
        match self.store.sessions()?.begin(&id, &begin.text(), &most)? {
            true => self.read(id),
            false => Ok(None),
        }
    }

    /// The session with this name, if a request with this secret of a browser may be one of it.
    ///
    /// # Errors
    /// The store's.
    pub fn find(&self, name: &str, browser: Option<&str>) -> Result<Option<Session>, Error> {
        let Some(id) = SessionId::parse(name) else { return Ok(None) };
        let found = self.read(id)?;
        let found = found.filter(|it| !it.is_over(Cursor::now()) && it.admits(browser));
        let Some(session) = found else { return Ok(None) };
        match session.binds(browser) {
            true => self.append(session, Entry::Bind).map(|known| known.map(|(it, _)| it)),
            false => Ok(Some(session)),
        }
    }

    fn read(&self, id: SessionId) -> Result<Option<Session>, Error> {
        let log = self.store.sessions()?.read(&id)?;
        Ok(log.and_then(|log| Session::read(id, &log)))
    }

    /// Follows a pattern from now on. `topic` is the only topic of the pattern, if it has only
    /// one. Returns `None` if the session has ended.
    ///
    /// # Errors
    /// 403 for a topic that is not granted, 413 for too many patterns, and the store's.
    pub fn follow(
        &self,
        session: Session,
        pattern: Pattern,
        topic: Option<&Topic>,
    ) -> Result<Option<Session>, Error> {
        self.grant(&session).check_follow(topic, Cursor::now())?;
        if session.follows(&pattern) {
            return Ok(Some(session));
        }
        if session.patterns().len() >= MAX_PATTERNS {
            let why = format!("a session has at most {MAX_PATTERNS} subscriptions");
            return Err(Error::TooLarge(why));
        }
        let known = session.patterns().map(|(known, _)| known);
        let all: Vec<_> = known.chain([&pattern]).cloned().collect();
        Pattern::check_together(&all)?;
        let size = |one: &Pattern| serde_json::to_string(one).map_or(0, |text| text.len());
        if all.iter().map(size).sum::<usize>() > MAX_SUBSCRIPTIONS {
            let why = format!("the subscriptions have at most {MAX_SUBSCRIPTIONS} bytes together");
            return Err(Error::TooLarge(why));
        }
        let since = self.now()?;
        let followed = self.append(session, Entry::Follow { pattern, since })?;
        Ok(followed.map(|(session, _)| session))
    }

    /// Follows a pattern no more. Returns `None` if the session has ended.
    ///
    /// # Errors
    /// The store's.
    pub fn leave(&self, session: Session, pattern: Pattern) -> Result<Option<Session>, Error> {
        if !session.follows(&pattern) {
            return Ok(Some(session));
        }
        let left = self.append(session, Entry::Leave { pattern })?;
        Ok(left.map(|(session, _)| session))
    }

    /// Publishes a message of a client with a session, or without one.
    ///
    /// # Errors
    /// 403 for a topic that is not granted, and the store's.
    pub fn publish(
        &self,
        session: Option<&Session>,
        topic: &Topic,
        data: &str,
    ) -> Result<(), Error> {
        let grant = session.map_or_else(|| self.hub.grant().clone(), |it| self.grant(it));
        grant.check_publish([topic])?;
        let cursor = self.store.publish(topic, Some(data))?;
        self.events.borrow_mut().push(Event { topic: topic.clone(), cursor });
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The store's.
    pub fn end(&self, session: &Session) -> Result<(), Error> {
        self.store.sessions()?.end(&session.id)
    }

    /// Holds a request of a session until there is something for it, or until the session
    /// changes. Its first request is answered at once. Returns `None` if the session has ended.
    ///
    /// # Errors
    /// The hub's and the store's.
    pub fn attend(
        &self,
        session: Session,
        attendance: Attendance,
        render: impl FnOnce(Attended) -> Box<dyn Renderer>,
    ) -> Result<Option<Wanted>, Error> {
        let terms = *self.hub.session_terms();
        let is_first = session.turn == 0;
        let longest = if is_first { Duration::ZERO } else { terms.held };
        let wait = attendance.wait.unwrap_or(longest).min(longest);
        let (wait, page) = self.page(&session, wait)?;
        let received = session.has_received(attendance.ack);
        let session = self.shorten(session, received, terms.kept())?;
        let tag = secret().map(u32::from_be_bytes)?;
        let until = Cursor::now().after(wait + terms.lasts);
        let most = self.most(&session)?;
        let attend = Entry::Attend { tag, ack: attendance.ack, most, until };
        let Some((session, place)) = self.append(session, attend)? else { return Ok(None) };
        // Another request may have changed the session since this one has read it.
        let Some(session) = self.read(session.id)? else { return Ok(None) };
        let store = self.store.as_ref();
        let bookmark = Bookmark::open(store, session.id.clone(), tag, terms.kept())?;
        let following = self.following(&session)?;
        let changes = Topic::of_session(&session.id);
        let changes = Subscription { topic: changes, since: Since::Cursor(place) };
        let is_alone = matches!(page, Page::Only(_));
        let mut lasts = terms.lasts;
        let render = |no_room: Option<u32>| {
            let other_page = (!is_alone).then_some(HeldBack::OtherPage);
            let held_back = no_room.map(HeldBack::NoRoom).or(other_page);
            lasts += held_back.map_or(Duration::ZERO, HeldBack::pause);
            // Another request may be the last one by now, with a batch of its own.
            let turn = session.is_last(tag).then_some(session.turn);
            render(Attended { turn, floors: floors(&session), held_back })
        };
        let topics = (vec![changes], Some(following));
        let mut wanted = self.hub.admit(topics, Until::FirstUpdate, Some(wait), false, render)?;
        wanted.grant = self.grant(&session);
        wanted.timeout = wanted.timeout.min(wanted.grant.expires_in(Cursor::now()));
        wanted.bookmark = Some(bookmark.lasting(lasts));
        if let Page::Only(Some(page)) = page {
            wanted.slot = Some(match wanted.slot.take() {
                Some(slot) => slot.and(page),
                None => page,
            });
        }
        Ok(Some(wanted))
    }

    /// One page of a browser waits at a time: browsers have few connections to a server. The
    /// page's own request before this one may still be there.
    fn page(&self, session: &Session, wait: Duration) -> Result<(Duration, Page), Error> {
        const TRIES: u32 = 20;
        const PAUSE: Duration = Duration::from_millis(5);
        let Some(browser) = session.browser().filter(|_| !wait.is_zero()) else {
            return Ok((wait, Page::Only(None)));
        };
        let tries = if session.is_held() { TRIES } else { 1 };
        for number in 0..tries {
            if number > 0 {
                std::thread::sleep(PAUSE);
            }
            if let Some(slot) = self.hub.take_page(browser)? {
                return Ok((wait, Page::Only(Some(slot))));
            }
        }
        Ok((Duration::ZERO, Page::Other))
    }

    /// All that it follows, from the first event that its client may not have.
    fn following(&self, session: &Session) -> Result<Following, Error> {
        let patterns = session.patterns().map(|(pattern, _)| pattern.clone()).collect();
        let from = match session.patterns().map(|(_, has)| has).min() {
            Some(from) => from,
            None => self.now()?,
        };
        let following = Following::new(patterns, Some(&Start::After(from)), false);
        Ok(following.of_session(session.again()))
    }

    /// Where the client stands at most, if it stands in a future that the clock has left.
    fn most(&self, session: &Session) -> Result<Option<Position>, Error> {
        let is_ahead = |has: Position, now: Cursor| has.cursor > now.after(UNSETTLED_LIMIT);
        let Some(last) = session.patterns().map(|(_, has)| has).max() else { return Ok(None) };
        if !is_ahead(last, Cursor::now()) {
            return Ok(None);
        }
        let now = self.now()?;
        Ok(is_ahead(last, now.cursor).then_some(now))
    }

    fn shorten(&self, session: Session, received: bool, kept: Duration) -> Result<Session, Error> {
        let Some(entries) = session.shorter(received, LONG) else { return Ok(session) };
        self.store.sessions()?.shorten(&session.id, &session.log, &entries, kept)?;
        let read = self.read(session.id.clone())?;
        Ok(read.unwrap_or(session))
    }

    fn append(&self, session: Session, entry: Entry) -> Result<Option<(Session, Cursor)>, Error> {
        let kept = self.hub.session_terms().kept();
        let sessions = self.store.sessions()?;
        if session.is_longer_than(MAX_LOG) {
            let why = "a session has too many changes; connect first";
            return Err(Error::TooLarge(why.into()));
        }
        let text = entry.text();
        let place = sessions.append(&session.id, &text, kept)?;
        Ok(place.map(|place| {
            let mut session = session;
            session.grow(entry, text.len());
            (session, place)
        }))
    }

    /// The rights of a request of a session.
    fn grant(&self, session: &Session) -> Grant {
        self.hub.grant().of_session(session.claims.as_ref())
    }

    /// After everything that has happened.
    fn now(&self) -> Result<Position, Error> {
        self.store.horizon().map(|horizon| Position::after(horizon.at))
    }
}

/// Whether a page is the only one of its browser that waits.
enum Page {
    /// It is, with the slot for that, if a browser is known.
    Only(Option<Slot>),
    Other,
}

fn floors(session: &Session) -> Vec<(Pattern, Position)> {
    let mut floors: Vec<_> = session.patterns().map(|(one, has)| (one.clone(), has)).collect();
    if floors.windows(2).all(|pair| pair[0].1 == pair[1].1) {
        floors.clear();
    }
    floors
}
