//! All that belongs to one subscriber.

use std::time::{Duration, Instant};

use super::subscription::Subscription;
use super::subscriptions::Subscriptions;
use super::update::Piece;
use crate::auth::grant::Grant;
use crate::cgi::Head;
use crate::error::Error;
use crate::event::{Cursor, Message, Topic};
use crate::process::clock::Clock;
use crate::process::output::{Output, READ_TIMEOUT};
use crate::process::slots::Slot;
use crate::store::{Budget, Store};

/// How much one piece holds, in bytes as they are sent and for all its topics. A
/// process that had more would be large, and slow to write; the rest follows.
pub const MAX_PIECE: usize = 262_144;

/// How often a stream without events sends a heartbeat. Servers and proxies cut a
/// connection that is silent for 30 s or more.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// When a wait ends, besides SIGTERM and a client that has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// Whether a stream ends here, and its client is to reconnect.
    fn is_done(&self) -> bool {
        false
    }
}

/// A wait that has been granted. Only [`Hub::subscribe`](super::Hub::subscribe)
/// makes one.
pub struct Wanted {
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) until: Until,
    pub(super) timeout: Duration,
    /// Between two reads of the store, when nothing wakes the process.
    pub(super) interval: Duration,
    /// Told to a client that got no slot, in seconds.
    pub(super) retry_after: Option<u32>,
    pub(super) grant: Grant,
    pub(super) renderer: Box<dyn Renderer>,
    /// Held while the subscriber waits, and no longer: a client that has its
    /// answer may come back before this process has ended.
    pub(super) slot: Option<Slot>,
}

/// One subscriber, its output and what it has received.
pub struct Waiter<'a> {
    pub(super) subscriptions: Subscriptions,
    pub(super) timeout: Duration,
    pub(super) interval: Duration,
    until: Until,
    retry_after: Option<u32>,
    grant: Grant,
    renderer: Box<dyn Renderer>,
    output: &'a mut Output<'static>,
    /// When the output ends, however slowly the client reads.
    deadline: Instant,
    _slot: Option<Slot>,
}

/// The cause that ended a sleep of one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Updates,
    /// Its time is over.
    Nothing,
    Terminated,
    ClientGone,
}

/// Whether a subscriber waits on.
pub(super) enum Next {
    Continue,
    /// The end, with what is left to be written.
    End(Vec<u8>),
}

impl<'a> Waiter<'a> {
    /// A subscriber that begins to wait at `now` and reads from `output`.
    #[must_use]
    pub fn new(wanted: Wanted, output: &'a mut Output<'static>, now: Cursor) -> Self {
        let Wanted { until, timeout, interval, retry_after, grant, renderer, .. } = wanted;
        Self {
            subscriptions: Subscriptions::new(wanted.subscriptions, now),
            timeout,
            interval,
            until,
            retry_after,
            grant,
            renderer,
            output,
            // A slow reader has a last chance after the timeout.
            deadline: Instant::now() + timeout + READ_TIMEOUT,
            _slot: wanted.slot,
        }
    }

    /// Until when to wait before the first piece. A stream starts at once.
    pub(super) fn first_timeout(&self) -> Duration {
        match self.until {
            Until::FirstUpdate => self.timeout,
            Until::Deadline => Duration::ZERO,
        }
    }

    /// Until when to wait for the next piece.
    pub(super) fn next_timeout(&self, now: Duration) -> Duration {
        self.timeout.min(now + HEARTBEAT)
    }

    /// Reads the store for updates, as many as one piece holds.
    pub(super) fn read(
        &mut self,
        store: &dyn Store,
        now: Duration,
        report: &mut dyn FnMut(&Error),
    ) -> Result<(), Error> {
        let size = |topic: &Topic, message: &Message| self.renderer.size(topic, message);
        self.subscriptions.read(store, now, &Budget::new(MAX_PIECE, &size), report)
    }

    /// Delivers what was found. The answer of a poll is left to be written, so
    /// that the other streams of the process end before it.
    pub(super) fn deliver(&mut self, found: Found, clock: &dyn Clock) -> Result<Next, Error> {
        match (self.until, found) {
            (Until::Deadline, _) => self.stream(found, clock),
            (Until::FirstUpdate, Found::ClientGone) => Ok(Next::End(Vec::new())),
            (Until::FirstUpdate, Found::Updates) => {
                let updates = Piece::Updates(self.subscriptions.take_updates());
                self.render(&updates).map(Next::End)
            }
            (Until::FirstUpdate, Found::Nothing | Found::Terminated) => {
                self.render(&Piece::Timeout(self.subscriptions.cursors())).map(Next::End)
            }
        }
    }

    fn stream(&mut self, found: Found, clock: &dyn Clock) -> Result<Next, Error> {
        let is_read = match found {
            _ if !self.output.has_begun() && !self.start()? => false,
            Found::Updates => {
                let updates = Piece::Updates(self.subscriptions.take_updates());
                self.send(&updates)?
            }
            Found::Nothing => clock.elapsed() < HEARTBEAT || self.send(&Piece::Heartbeat)?,
            Found::Terminated | Found::ClientGone => false,
        };
        Ok(if is_read { Next::Continue } else { Next::End(Vec::new()) })
    }

    /// A stream without a cursor for each topic ends at once.
    fn start(&mut self) -> Result<bool, Error> {
        let cursors = self.subscriptions.all_cursors();
        let is_known = !cursors.is_empty();
        let start = Piece::Start { cursors, retry_after: self.retry_after };
        Ok(self.send(&start)? && is_known)
    }

    /// Whether the client still reads, and is to.
    fn send(&mut self, piece: &Piece) -> Result<bool, Error> {
        let bytes = self.render(piece)?;
        Ok(self.output.send(&bytes, self.deadline).is_ok() && !self.renderer.is_done())
    }

    /// Each piece is checked: a token may have expired.
    fn render(&mut self, piece: &Piece) -> Result<Vec<u8>, Error> {
        self.grant.check_subscribe(piece.topics(), Cursor::now())?;
        let body = self.renderer.render(piece);
        if self.output.has_begun() {
            return Ok(body);
        }
        let head = self.renderer.head().retry_after(self.retry_after);
        let response = match self.until {
            Until::FirstUpdate => head.body(body),
            Until::Deadline => head.start_stream(body),
        };
        Ok(response.with_cors(self.grant.allowed_origin()).bytes())
    }
}
