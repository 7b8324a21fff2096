//! How many wait.

use serde::{Deserialize, Serialize};

/// How many subscribers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waiters {
    /// By polls.
    pub poll: u64,
    /// By streams.
    pub stream: u64,
}
