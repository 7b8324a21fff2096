//! A stub: exact texts, `*`, and a prefix before `*`.

use serde::{Deserialize, Serialize};

use super::Topic;
use crate::error::Error;

/// Selects topics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pattern(String);

impl Pattern {
    /// This topic only.
    #[must_use]
    pub fn exact(topic: Topic) -> Self {
        Self(topic.as_str().into())
    }

    /// Every topic.
    #[must_use]
    pub fn every() -> Self {
        Self("*".into())
    }

    /// # Errors
    /// 400 for a text that no topic matches.
    pub fn segments(text: &str) -> Result<Self, Error> {
        Topic::new(text).map(Self::exact)
    }

    /// # Errors
    /// 400 for a text that no topic matches.
    pub fn template(text: &str) -> Result<Self, Error> {
        Self::segments(text)
    }

    /// # Errors
    /// 400 for a text that no topic matches.
    pub fn url(text: &str, _base: &str) -> Result<Self, Error> {
        Self::segments(text)
    }

    /// Whether `topic` is one of them.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => topic.as_str().starts_with(prefix.trim_end_matches('*')),
            None => topic.as_str() == self.0,
        }
    }
}
