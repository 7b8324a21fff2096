//! What a store tells about itself.

use crate::event::{Cursor, Message};

/// How much a store holds, as far as it can tell without much work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// The number of topics.
    pub topics: Option<u64>,
    /// The bytes that they take.
    pub bytes: Option<u64>,
    /// The events that were published, if the store itself counts them.
    pub publishes: Option<u64>,
}

/// What a store keeps of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The last event; `None` if there was none.
    pub last: Option<Cursor>,
    /// The oldest message.
    pub oldest: Option<Cursor>,
    /// The number of messages.
    pub messages: usize,
    /// The bytes of their text.
    pub bytes: usize,
}

impl Kept {
    /// Of a topic with these messages, oldest first, and the cursor `last`.
    #[must_use]
    pub fn of(messages: &[Message], last: Cursor) -> Self {
        Self {
            last: (last > Cursor::SMALLEST).then_some(last),
            oldest: messages.first().map(|message| message.id),
            messages: messages.len(),
            bytes: messages.iter().map(|message| message.data.len()).sum(),
        }
    }
}
