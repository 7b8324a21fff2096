//! An update that a subscriber receives.

use std::time::Duration;

use crate::event::position::Position;
use crate::event::{Cursor, Message, Topic};

/// How much one piece holds, in bytes as they are sent and for all its topics. A
/// process that had more would be large, and slow to write; the rest follows.
pub const MAX_PIECE: usize = 262_144;

/// The bytes of a message besides its text: about those of its line in a log.
pub const OVERHEAD: usize = 42;

/// How soon a topic is read again while a publisher works on it: a publish takes
/// less than 40 µs. The pause doubles, so that many readers leave the processor to
/// that publisher.
pub const UNSETTLED_PAUSE: Duration = Duration::from_millis(1);

/// How long a publisher may work before its topic is taken as it is: there is an
/// event, but no client learns its time.
pub const UNSETTLED_LIMIT: Duration = Duration::from_secs(2);

/// The new events of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The topic.
    pub topic: Topic,
    /// The subscriber's cursor after the update.
    pub cursor: Cursor,
    /// The messages among the events, oldest first.
    pub messages: Vec<Message>,
    /// Something before these may be missing.
    pub gap: bool,
}

/// An event that a subscriber by pattern receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// The topic.
    pub topic: Topic,
    /// Its time.
    pub cursor: Cursor,
    /// Where the subscriber stands after it.
    pub position: Position,
    /// `None` for an event without a message.
    pub message: Option<Message>,
    /// Messages of this topic before it may be missing.
    pub gap: bool,
    /// Until when it may be found again, if its time is no place in the order.
    pub until: Option<Cursor>,
}

/// A piece of an answer: all of a poll's, or the next part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The start of a stream.
    Start {
        /// The client's cursor in every topic. Empty when one could not be known
        /// in time; then nothing follows.
        cursors: Vec<(Topic, Cursor)>,
        /// When the client is to reconnect after the end, in seconds, if not soon.
        retry_after: Option<u32>,
    },
    /// New events.
    Updates(Vec<Update>),
    /// The start of a stream by pattern.
    Begin {
        /// Where the subscriber stands.
        position: Position,
        /// Whether all that followed the position of its request has been kept.
        is_known: bool,
        /// When the client is to reconnect after the end, in seconds, if not soon.
        retry_after: Option<u32>,
    },
    /// New events of topics that a pattern selects, in order.
    Events {
        /// The events.
        events: Vec<Occurrence>,
        /// Where the subscriber stands after them.
        position: Position,
    },
    /// A poll by pattern ends without an event. The subscriber stands there.
    Idle(Position),
    /// A stream had no event for some time.
    Heartbeat,
    /// A poll ends without an event; these are the client's cursors.
    Timeout(Vec<(Topic, Cursor)>),
}

impl Piece {
    /// The topics that it names.
    #[must_use]
    pub fn topics(&self) -> Vec<&Topic> {
        match self {
            Self::Start { cursors, .. } | Self::Timeout(cursors) => {
                cursors.iter().map(|(topic, _)| topic).collect()
            }
            Self::Updates(updates) => updates.iter().map(|update| &update.topic).collect(),
            // The topics of a pattern are judged one by one.
            Self::Heartbeat | Self::Begin { .. } | Self::Events { .. } | Self::Idle(_) => {
                Vec::new()
            }
        }
    }
}
