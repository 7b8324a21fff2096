//! An update that a subscriber receives.

use crate::event::{Cursor, Message, Topic};

/// How much one piece holds, in bytes as they are sent and for all its topics. A
/// process that had more would be large, and slow to write; the rest follows.
pub const MAX_PIECE: usize = 262_144;

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
            Self::Heartbeat => Vec::new(),
        }
    }
}
