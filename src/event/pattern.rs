//! STUB
use super::Topic;
use crate::error::Error;
use serde::{Deserialize, Serialize};
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pattern(String);
#[allow(missing_docs, clippy::all)]
impl Pattern {
    pub fn segments(text: &str) -> Result<Self, Error> {
        Ok(Self(text.into()))
    }
    pub fn template(text: &str) -> Result<Self, Error> {
        Ok(Self(text.into()))
    }
    pub fn url(text: &str, _: &str) -> Result<Self, Error> {
        Ok(Self(text.into()))
    }
    pub fn matches(&self, topic: &Topic) -> bool {
        match self.0.strip_suffix('*') {
            Some(p) => topic.as_str().starts_with(p.trim_end_matches('*')),
            None => topic.as_str() == self.0,
        }
    }
}
