//! All that belongs to one subscriber.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bookmark::{Bookmark, Mark};
use super::counting::count;
use super::following::Following;
use super::hold::{Hold, Instruction, LET_GO, State};
use super::look::Look;
use super::notice::{Followed, Notice, Payload, Presence, Remote};
use super::subscription::Subscription;
use super::subscriptions::Subscriptions;
use super::update::{MAX_PIECE, Piece};
use crate::auth::grant::Grant;
use crate::cgi::{Head, Response};
use crate::error::Error;
use crate::event::position::Position;
use crate::event::{Cursor, Message, Topic};
use crate::process::output::{Output, READ_TIMEOUT};
use crate::process::slots::Slot;
use crate::store::Budget;

/// How often a stream without events sends a heartbeat. Servers and proxies cut a
/// connection that is silent for 30 s or more.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The first heartbeat, and the next when the stream is twice as old each time. A stream that its
/// page has left holds a place of the server until its next write, and Apache one of the browser's
/// HTTP/2 connection: most are left soon.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(1);

/// When a wait ends, besides SIGTERM and a client that has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// At the first update or the timeout: a long poll (RFC 6202 §2).
    FirstUpdate,
    /// At the timeout only: a stream.
    Deadline,
}

/// Puts pieces into the bytes of a protocol.
pub trait Renderer {
    /// The head of the answer.
    fn head(&self) -> Head;

    /// The bytes of a piece, without the head.
    fn render(&mut self, piece: &Piece) -> Vec<u8>;

    /// The size of a message in a piece, in bytes. It is never less than that of its text.
    fn size(&self, topic: &Topic, message: &Message) -> usize;

    /// The bytes of notices of other subscribers, in a part of a stream of their own.
    fn render_notices(&self, _: &[Notice], _: Position) -> Vec<u8> {
        Vec::new()
    }

    /// What others may learn of this subscriber, whose token has this `payload`.
    fn notices(&self, _: Presence, _payload: Payload) -> Vec<Notice> {
        Vec::new()
    }

    /// A new answer goes on with the stream.
    fn renew(&mut self) {}

    /// Whether a stream ends here, and its client is to reconnect.
    fn is_done(&self) -> bool {
        false
    }

    /// The answer to a request that cannot be served any longer.
    fn refuse(&self, error: &Error) -> Response;

    /// What another process needs to go on with the answer, by [`Restore`].
    fn save(&self) -> String;
}

/// Makes the renderer of what [`Renderer::save`] has returned; `None` for another text.
pub type Restore = fn(&str) -> Option<Box<dyn Renderer>>;

/// A wait that has been granted. Only [`Hub::subscribe`](super::Hub::subscribe)
/// makes one.
pub struct Wanted {
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) following: Option<Following>,
    pub(super) until: Until,
    pub(super) timeout: Duration,
    /// Between two reads of the store, when nothing wakes the process.
    pub(super) interval: Duration,
    /// Told to a client that got no slot, in seconds.
    pub(super) retry_after: Option<u32>,
    pub(super) grant: Grant,
    pub(super) renderer: Box<dyn Renderer>,
    pub(super) client: Option<SocketAddr>,
    /// Held while the subscriber waits, and no longer: a client that has its
    /// answer may come back before this process has ended.
    pub(super) slot: Option<Slot>,
    /// How long it gets no update: its client may have it already.
    pub(super) pause: Duration,
    /// Of a request of a session.
    pub(super) bookmark: Option<Bookmark>,
    /// How a proxy is to hold the request instead of this program.
    pub(super) hold: Option<Hold>,
}

impl Wanted {
    /// The answer to a subscriber that cannot wait.
    #[must_use]
    pub fn refuse(&self, error: &Error) -> Vec<u8> {
        self.renderer.refuse(error).with_cors(self.grant.allowed_origin()).bytes()
    }
}

/// One subscriber, its output and what it has received.
pub struct Waiter {
    pub(super) subscriptions: Subscriptions,
    /// What it subscribes to by pattern.
    pub(super) following: Option<Following>,
    /// When its time is over. This and the other times are those of the machine's
    /// monotonic clock.
    pub deadline: Duration,
    /// When it is told that nothing has happened.
    pub(super) next_piece: Duration,
    /// When it gets updates at the earliest.
    held: Duration,
    pub(super) interval: Duration,
    pub(super) output: Output<'static>,
    /// The client's end of its connection to the server, if that is known.
    pub(super) client: Option<SocketAddr>,
    until: Until,
    started: Duration,
    retry_after: Option<u32>,
    grant: Grant,
    renderer: Box<dyn Renderer>,
    /// Whether the head of the answer is written.
    has_begun: bool,
    /// Whether the output ends with what is unsent, and when at the latest.
    ends: Option<Duration>,
    slot: Option<Slot>,
    bookmark: Option<Bookmark>,
    hold: Option<Hold>,
    /// Whether the last look has found all.
    is_whole: bool,
}

/// What became of one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Updates,
    /// It is time for a piece, and there is no update.
    Nothing,
    Terminated,
}

/// Whether a subscriber waits on.
pub(super) enum Next {
    /// It does, after these bytes.
    Continue(Vec<u8>),
    /// The end, with what is left to be written.
    End(Vec<u8>),
}

impl Waiter {
    /// A subscriber that begins to wait at `now`, when the time of day is `wall`, and
    /// reads from `output`.
    #[must_use]
    pub fn new(wanted: Wanted, output: Output<'static>, now: Duration, wall: Cursor) -> Self {
        let Wanted {
            until,
            timeout,
            interval,
            retry_after,
            grant,
            renderer,
            client,
            slot,
            pause,
            bookmark,
            hold,
            ..
        } = wanted;
        let deadline = now.saturating_add(timeout);
        Self {
            subscriptions: Subscriptions::new(wanted.subscriptions, wall),
            following: wanted.following,
            deadline,
            // A stream starts at once.
            next_piece: if until == Until::Deadline { now } else { deadline },
            held: now.saturating_add(pause),
            interval,
            output,
            client,
            until,
            started: now,
            retry_after,
            grant,
            renderer,
            has_begun: false,
            ends: None,
            slot,
            bookmark,
            hold,
            is_whole: true,
        }
    }

    /// Takes what was found, as much as one piece holds. Returns whether that is all.
    ///
    /// A request of a session takes no event that was found before it knew whether the session
    /// has changed: the client may have subscribed to more in between.
    pub(super) fn take(
        &mut self,
        look: &Look,
        now: Duration,
        report: &mut dyn FnMut(&Error),
    ) -> Result<bool, Error> {
        self.is_whole = self.take_piece(look, now, report)?;
        Ok(self.is_whole)
    }

    fn take_piece(
        &mut self,
        look: &Look,
        now: Duration,
        report: &mut dyn FnMut(&Error),
    ) -> Result<bool, Error> {
        let size = |topic: &Topic, message: &Message| self.renderer.size(topic, message);
        let budget = Budget::new(MAX_PIECE, &size);
        let may = |topic: &Topic, message: &Message| self.grant.may_receive(topic, Some(message));
        let is_whole = self.subscriptions.take(look, now, budget, (&may, report))?;
        if self.bookmark.is_some() && (!is_whole || self.subscriptions.has_updates()) {
            return Ok(is_whole);
        }
        let Some(following) = &mut self.following else { return Ok(is_whole) };
        match look.sweep() {
            Some(sweep) => Ok(following.take(sweep?, &self.grant, now, budget) && is_whole),
            None => Ok(false),
        }
    }

    /// Whether there is something for it.
    pub(super) fn has_updates(&self) -> bool {
        self.subscriptions.has_updates()
            || self.following.as_ref().is_some_and(Following::has_updates)
    }

    /// Whether another process can go on for it without a loss.
    pub(super) fn is_quiet(&self) -> bool {
        self.subscriptions.is_quiet() && !self.has_updates()
    }

    /// The news to deliver at `now`, if there are any.
    pub(super) fn found(&self, is_whole: bool, now: Duration) -> Option<Found> {
        match () {
            () if !self.subscriptions.is_settled() || self.is_held(now) => None,
            () if self.has_updates() => Some(Found::Updates),
            () if is_whole && now >= self.next_piece => Some(Found::Nothing),
            () => None,
        }
    }

    /// Whether it gets no update yet.
    pub(super) fn is_held(&self, now: Duration) -> bool {
        now < self.held
    }

    /// When to look for it again, if nothing happens.
    pub(super) fn due(&self, now: Duration) -> Duration {
        match self.ends {
            Some(ends) => ends.min(self.output.patience()),
            None if self.is_unsent() => {
                self.output.patience().min(self.deadline.saturating_add(READ_TIMEOUT))
            }
            None if self.is_held(now) => self.held,
            None => {
                let following = self.following.as_ref().and_then(|it| it.next_read(now));
                let next = following.map_or(self.next_piece, |next| next.min(self.next_piece));
                self.subscriptions.next_read(now).unwrap_or(next)
            }
        }
    }

    /// When its wait ends, besides SIGTERM and a client that has gone.
    pub(super) fn until(&self) -> Until {
        self.until
    }

    /// Whether it got no slot, so that its client polls.
    pub(super) fn lacks_slot(&self) -> bool {
        self.retry_after.is_some()
    }

    /// Whether it waits for events of this topic.
    pub(super) fn waits_for(&self, topic: &Topic) -> bool {
        let follows = || self.following.as_ref().is_some_and(|following| following.wants(topic));
        let wants = self.subscriptions.wanted().any(|(wanted, _)| wanted == topic) || follows();
        wants && !self.is_ending() && self.grant.may_receive(topic, None)
    }

    /// Itself, as other servers are told of it.
    pub(super) fn remote(&self) -> Remote {
        let topics = self.subscriptions.wanted().map(|(topic, _)| topic);
        let topics = topics.filter(|topic| topic.session().is_none() && !self.is_ending());
        let followed = |following: &Following| Followed {
            patterns: following.patterns().to_vec(),
            scope: self.grant.scope(),
        };
        let following = self.following.as_ref().filter(|_| !self.is_ending()).map(followed);
        let name = self.name().map(str::to_owned);
        Remote { topics: topics.cloned().collect(), following, name }
    }

    /// The name of its client.
    pub(super) fn name(&self) -> Option<&str> {
        self.grant.name()
    }

    /// When it began to wait.
    pub(super) fn started(&self) -> Duration {
        self.started
    }

    /// What others may learn of it.
    pub(super) fn notices(&self, presence: Presence) -> Vec<Notice> {
        self.renderer.notices(presence, &|matcher| self.grant.payload(matcher))
    }

    /// The same by the topics that its stream names. A poll comes and goes with each event.
    pub(super) fn arrivals(&self, presence: Presence) -> Vec<Notice> {
        if self.until == Until::FirstUpdate {
            return Vec::new();
        }
        let topics = self.subscriptions.wanted().map(|(topic, _)| topic);
        topics.filter_map(|topic| Notice::of(topic, self.name(), presence)).collect()
    }

    /// The bytes of those notices of others that it may receive. None comes before the
    /// beginning of its stream.
    pub(super) fn hear(&self, notices: &[Notice]) -> Vec<u8> {
        let Some(following) = self.following.as_ref().filter(|_| self.has_begun) else {
            return Vec::new();
        };
        if self.is_ending() || self.grant.check_valid(Cursor::now()).is_err() {
            return Vec::new();
        }
        let mine = notices.iter().filter(|notice| following.hears(notice, &self.grant));
        let mine: Vec<_> = mine.cloned().collect();
        self.renderer.render_notices(&mine, following.position())
    }

    /// Whether its client has not read all that there is for it.
    pub(super) fn is_unsent(&self) -> bool {
        !self.output.unsent().is_empty()
    }

    /// Whether all is said.
    pub(super) fn is_ending(&self) -> bool {
        self.ends.is_some()
    }

    /// Renders what was found. The answer of a poll is its end.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 for a topic that is not granted.
    pub(super) fn deliver(&mut self, found: Found, now: Duration) -> Result<Next, Error> {
        match (self.until, found) {
            (Until::Deadline, _) => self.stream(found, now),
            (Until::FirstUpdate, Found::Updates) => {
                let body = self.render_updates(now)?;
                Ok(Next::End(self.with_head(body, false)))
            }
            (Until::FirstUpdate, Found::Nothing | Found::Terminated) => {
                let end = match &self.following {
                    Some(following) => Piece::Idle(following.position()),
                    None => Piece::Timeout(self.subscriptions.cursors()),
                };
                let body = self.render(&end)?;
                Ok(Next::End(self.with_head(body, found == Found::Nothing)))
            }
        }
    }

    /// They count as delivered.
    fn render_updates(&mut self, now: Duration) -> Result<Vec<u8>, Error> {
        let updates = self.take_updates();
        let bytes = self.render(&updates)?;
        count(&updates, now.saturating_sub(self.started));
        Ok(bytes)
    }

    fn take_updates(&mut self) -> Piece {
        match &mut self.following {
            Some(following) if self.bookmark.is_some() && self.subscriptions.has_updates() => {
                Piece::Idle(following.position())
            }
            Some(following) => {
                let events = following.take_updates();
                Piece::Events { events, position: following.position() }
            }
            None => Piece::Updates(self.subscriptions.take_updates()),
        }
    }

    fn stream(&mut self, found: Found, now: Duration) -> Result<Next, Error> {
        let (mut body, mut goes_on) = (Vec::new(), true);
        let is_start = !self.has_begun;
        match &self.hold {
            Some(hold) if hold.is_continued() => self.check(&Piece::Heartbeat)?,
            _ if is_start => goes_on = self.start(&mut body)?,
            _ => {}
        }
        match found {
            Found::Updates if goes_on => {
                body.extend(self.render_updates(now)?);
            }
            Found::Nothing if !is_start && now >= self.started + FIRST_HEARTBEAT => {
                body.extend(self.render(&Piece::Heartbeat)?);
            }
            Found::Terminated => goes_on = false,
            Found::Updates | Found::Nothing => {}
        }
        let pause = now.saturating_sub(self.started).clamp(FIRST_HEARTBEAT, HEARTBEAT);
        self.next_piece = self.deadline.min(now + pause);
        goes_on &= !self.renderer.is_done();
        let bytes = self.with_head(body, goes_on);
        goes_on &= now < self.deadline;
        Ok(if goes_on { Next::Continue(bytes) } else { Next::End(bytes) })
    }

    /// A stream without a cursor for each topic ends at once.
    fn start(&mut self, body: &mut Vec<u8>) -> Result<bool, Error> {
        if let Some(following) = &self.following {
            let (position, is_known) = (following.position(), following.is_known());
            let begin = Piece::Begin { position, is_known, retry_after: self.retry_after };
            body.extend(self.render(&begin)?);
            return Ok(true);
        }
        let cursors = self.subscriptions.all_cursors();
        let is_known = !cursors.is_empty();
        body.extend(self.render(&Piece::Start { cursors, retry_after: self.retry_after })?);
        Ok(is_known)
    }

    fn render(&mut self, piece: &Piece) -> Result<Vec<u8>, Error> {
        self.check(piece)?;
        Ok(self.renderer.render(piece))
    }

    /// Each piece is checked: a token may have expired.
    fn check(&self, piece: &Piece) -> Result<(), Error> {
        match self.following {
            Some(_) => self.grant.check_valid(Cursor::now()),
            None => self.grant.check_subscribe(piece.topics(), Cursor::now()),
        }
    }

    /// The body, after the head if that is not written. A proxy may hold the request then.
    fn with_head(&mut self, body: Vec<u8>, may_hold: bool) -> Vec<u8> {
        if self.has_begun {
            return body;
        }
        self.has_begun = true;
        // It may depend on the first piece.
        let hold = self.hold.take().filter(|hold| may_hold && hold.may_begin_with(body.len()));
        let instructions = hold.as_ref().and_then(|hold| self.instructions(hold));
        // A poll that nobody holds would come back at once.
        let is_let_go = hold.is_some() && instructions.is_none();
        let pause = (is_let_go && self.until == Until::FirstUpdate).then_some(LET_GO);
        let head = self.renderer.head().retry_after(self.retry_after.or(pause));
        let head = instructions
            .into_iter()
            .flatten()
            .fold(head, |head, (name, value)| head.header(name, value));
        let response = match self.until {
            Until::FirstUpdate => head.body(body),
            Until::Deadline => head.start_stream(body),
        };
        response.with_cors(self.grant.allowed_origin()).bytes()
    }

    /// What a proxy is told about the hold.
    fn instructions(&mut self, hold: &Hold) -> Option<Vec<Instruction>> {
        let heartbeat = self.renderer.render(&Piece::Heartbeat);
        self.renderer.renew();
        let state = State {
            subscriptions: self.subscriptions.positions(),
            following: self.following.as_ref(),
            grant: &self.grant,
            renderer: self.renderer.save(),
            heartbeat,
            is_whole: self.is_whole,
        };
        hold.instructions(&state)
    }

    /// The answer to a request that cannot be served any longer. A stream only ends: its
    /// client reconnects, and learns it then.
    pub(super) fn refuse(&self, error: &Error) -> Vec<u8> {
        // A poll that has its answer may not have sent it.
        let is_sent = matches!(self.until, Until::Deadline) || self.is_ending();
        match (self.has_begun && is_sent, &self.hold) {
            (true, _) => Vec::new(),
            // A proxy that reads no error ends the stream.
            (false, Some(hold)) if hold.is_continued() && error.status() < 500 => {
                self.renderer.head().body("").bytes()
            }
            (false, _) => {
                self.renderer.refuse(error).with_cors(self.grant.allowed_origin()).bytes()
            }
        }
    }

    /// Ends the output with these bytes. It waits no longer, so its client may come back.
    pub(super) fn end(&mut self, bytes: Vec<u8>, now: Duration) {
        self.slot = None;
        self.output.push(bytes, now);
        self.ends = Some(now + self.output.limit());
    }

    /// Cuts what is left at `until`.
    pub(super) fn hurry(&mut self, until: Duration) {
        self.ends = self.ends.map(|ends| ends.min(until));
    }

    /// How many descriptors another process gets with it.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let slot = self.slot.iter().flat_map(|slot| slot.names().iter().map(AsFd::as_fd));
        let bookmark = self.bookmark.as_ref().and_then(Bookmark::descriptor).map(AsFd::as_fd);
        [self.output.as_fd()].into_iter().chain(bookmark).chain(slot).collect()
    }

    /// The bookmark of a session, and where its client stands; `None` if the session has
    /// changed. Then the client is told nothing, and another entry would be one more change.
    pub(super) fn bookmark(&self) -> Option<(&Bookmark, &Following)> {
        let told = self.following.as_ref().filter(|_| !self.subscriptions.has_updates());
        Some((self.bookmark.as_ref()?, told?))
    }

    /// Itself for another process, besides its descriptors and what is unsent.
    pub(super) fn record(&self) -> Record {
        Record {
            subscriptions: self.subscriptions.positions(),
            following: self.following.as_ref().map(Following::record),
            deadline: self.deadline,
            next_piece: self.next_piece,
            held: self.held,
            client: self.client,
            until: self.until,
            started: self.started,
            retry_after: self.retry_after,
            grant: self.grant.clone(),
            renderer: self.renderer.save(),
            has_begun: self.has_begun,
            ends: self.ends,
            bookmark: self.bookmark.as_ref().map(|bookmark| bookmark.mark().clone()),
        }
    }
}

/// A subscriber on its way to another process.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    subscriptions: Vec<Subscription>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    following: Option<Following>,
    deadline: Duration,
    next_piece: Duration,
    #[serde(default)]
    held: Duration,
    client: Option<SocketAddr>,
    until: Until,
    started: Duration,
    retry_after: Option<u32>,
    grant: Grant,
    renderer: String,
    has_begun: bool,
    ends: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bookmark: Option<Mark>,
}

impl Record {
    /// The subscriber, with the descriptors that came with it; `None` if one is missing
    /// or its protocol is not known here.
    pub(super) fn waiter(
        self,
        descriptors: Vec<OwnedFd>,
        unsent: Vec<u8>,
        interval: Duration,
        now: Duration,
        restore: Restore,
    ) -> Option<Waiter> {
        let mut descriptors = descriptors.into_iter();
        let mut output = Output::from(descriptors.next()?);
        if !unsent.is_empty() {
            output.push(unsent, now);
        }
        let bookmark = match self.bookmark {
            Some(mark) if mark.has_descriptor => {
                Some(Bookmark::new(mark, Some(descriptors.next()?)))
            }
            mark => mark.map(|mark| Bookmark::new(mark, None)),
        };
        let names: Vec<_> = descriptors.collect();
        Some(Waiter {
            subscriptions: Subscriptions::new(self.subscriptions, Cursor::now()),
            following: self.following,
            deadline: self.deadline,
            next_piece: self.next_piece,
            held: self.held,
            interval,
            output,
            client: self.client,
            until: self.until,
            started: self.started,
            retry_after: self.retry_after,
            grant: self.grant,
            renderer: restore(&self.renderer)?,
            has_begun: self.has_begun,
            ends: self.ends,
            slot: (!names.is_empty()).then(|| Slot::from(names)),
            bookmark,
            hold: None,
            is_whole: true,
        })
    }
}
