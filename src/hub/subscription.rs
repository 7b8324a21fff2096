//! What a client subscribes to, and on which terms.

use std::time::Duration;

use crate::event::{Since, Topic};
use crate::store::Budget;

/// One topic that a client wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which.
    pub topic: Topic,
    /// From where on.
    pub since: Since,
}

/// How long a request may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// In all.
    pub total: Duration,
    /// Between two looks, when no wake-up comes.
    pub look: Duration,
}

/// How long a request may wait, and how much one answer to it may hold.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// The time.
    pub patience: Patience,
    /// The bytes of an answer, or of a part of a stream.
    pub budget: Budget<'a>,
}
