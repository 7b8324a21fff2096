//! What a request comes to, and what a stream brings.

use crate::event::{Cursor, Event, Message, Topic};

/// What has happened in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Where.
    pub topic: Topic,
    /// Where its subscriber stands after it.
    pub cursor: Cursor,
    /// The messages among the events, oldest first.
    pub messages: Vec<Message>,
    /// Something before these may be missing.
    pub gap: bool,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The events have happened.
    Published(Vec<Event>),
    /// These topics have an event that the client has not seen.
    News(Vec<News>),
    /// Nothing has happened; this is where the client stands.
    Quiet(Vec<(Topic, Cursor)>),
    /// Nobody is there to read an answer.
    ClientGone,
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Its beginning: where the client stands in every topic. Empty when that
    /// could not be known in time; then nothing follows.
    Begin(Vec<(Topic, Cursor)>),
    /// What has happened since the last part.
    News(Vec<News>),
    /// Nothing has, for the time between two signs of life.
    Alive,
}

impl Outcome {
    /// The topics of which it tells.
    #[must_use]
    pub fn topics(&self) -> Vec<&Topic> {
        match self {
            Self::Published(events) => events.iter().map(|event| &event.topic).collect(),
            Self::News(news) => news.iter().map(|news| &news.topic).collect(),
            Self::Quiet(topics) => topics.iter().map(|(topic, _)| topic).collect(),
            Self::ClientGone => Vec::new(),
        }
    }
}

impl Part {
    /// The topics of which it tells.
    #[must_use]
    pub fn topics(&self) -> Vec<&Topic> {
        match self {
            Self::Begin(topics) => topics.iter().map(|(topic, _)| topic).collect(),
            Self::News(news) => news.iter().map(|news| &news.topic).collect(),
            Self::Alive => Vec::new(),
        }
    }
}
