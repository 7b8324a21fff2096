//! Renderers as text.

use serde::{Deserialize, Serialize};

/// A renderer on its way to another process.
#[derive(Serialize, Deserialize)]
pub enum Saved<Stream, Ordered = ()> {
    /// Of a poll.
    #[serde(rename = "novcomet-poll")]
    Poll,
    /// Of a stream, with its state.
    #[serde(rename = "novcomet-stream")]
    Stream(Stream),
    /// Of a poll by pattern.
    #[serde(rename = "novcomet-ordered-poll")]
    OrderedPoll,
    /// Of a stream by pattern.
    #[serde(rename = "novcomet-ordered-stream")]
    OrderedStream(Ordered),
}

impl<Stream: Serialize, Ordered: Serialize> Saved<Stream, Ordered> {
    /// Itself as JSON.
    pub fn text(&self) -> String {
        // It has no map with keys that JSON cannot name, the only error.
        serde_json::to_string(self).unwrap_or_default()
    }
}
