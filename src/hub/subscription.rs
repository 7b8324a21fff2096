//! A topic that a client subscribes to.

use serde::{Deserialize, Serialize};

use crate::event::{Since, Topic};

/// One topic that a client subscribes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The topic.
    pub topic: Topic,
    /// The position after which its events begin.
    pub since: Since,
}
