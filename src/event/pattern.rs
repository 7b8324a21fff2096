//! A stand-in for patterns over topics: exact texts and `*` only. It is to be replaced as a whole.

use serde::{Deserialize, Serialize};

use super::Topic;
use crate::error::Error;

/// Selects topics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pattern(Option<Topic>);

impl Pattern {
    /// This topic only.
    #[must_use]
    pub fn exact(topic: Topic) -> Self {
        Self(Some(topic))
    }

    /// Every topic.
    #[must_use]
    pub fn every() -> Self {
        Self(None)
    }

    /// # Errors
    /// 400 for a text that no topic matches.
    pub fn segments(text: &str) -> Result<Self, Error> {
        Topic::new(text).map(Self::exact)
    }

    /// # Errors
    /// 400 for a text that no topic matches.
    pub fn template(text: &str) -> Result<Self, Error> {
        if text == "*" { Ok(Self::every()) } else { Self::segments(text) }
    }

    /// # Errors
    /// 400 for a text that no topic matches.
    pub fn url(text: &str, _base: &str) -> Result<Self, Error> {
        Self::template(text)
    }

    /// Whether `topic` is one of them.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        self.0.as_ref().is_none_or(|own| own == topic)
    }
}
