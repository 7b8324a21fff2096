//! What others may learn of a subscriber.

use crate::event::{Draft, Topic};

/// A private message about a subscriber, in a topic of its own. The hub tells it to those who
/// wait beside that subscriber. No store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The topic.
    pub topic: Topic,
    /// The message. Its identifier tells it from others.
    pub message: Draft,
}

/// Whether a subscriber waits, or waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It waits.
    Here,
    /// It has gone.
    Gone,
}

/// The JSON that the token of a subscriber has for one of its matchers.
pub type Payload<'a> = &'a dyn Fn(&str) -> Option<&'a str>;
