//! What others may learn of a subscriber.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::auth::grant::Scope;
use crate::event::pattern::Pattern;
use crate::event::{Draft, Topic};

/// The beginning of the topic of a notice about the subscribers of a topic. That follows.
const WHO: &str = "who/";

/// A private message about a subscriber, in a topic of its own. The hub tells it to those who
/// wait beside that subscriber. No store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The topic.
    pub topic: Topic,
    /// The message. Its identifier tells it from others.
    pub message: Draft,
}

/// A subscriber, as its server tells others of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Remote {
    /// The topics that it names.
    pub topics: Vec<Topic>,
    /// What it follows besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<Followed>,
    /// The name of its client.
    pub name: Option<String>,
}

/// What a subscriber by pattern follows.
#[derive(Serialize, Deserialize)]
pub(super) struct Followed {
    pub patterns: Vec<Pattern>,
    pub scope: Scope,
}

impl Remote {
    /// Whether it waits for events of this topic.
    pub(super) fn waits_for(&self, topic: &Topic) -> bool {
        let follows = |Followed { patterns, scope }: &Followed| {
            patterns.iter().any(|pattern| pattern.matches(topic)) && scope.contains(topic)
        };
        self.topics.contains(topic) || self.following.as_ref().is_some_and(follows)
    }
}

impl Notice {
    /// That a subscriber with this name has come to a topic, or has gone; `None` if no topic
    /// has so long a name.
    pub(super) fn of(topic: &Topic, name: Option<&str>, presence: Presence) -> Option<Self> {
        let is_here = presence == Presence::Here;
        let data = json!({"topic": topic, "name": name, "here": is_here}).to_string();
        let topic = Topic::new(format!("{WHO}{}", topic.as_str())).ok()?;
        Some(Self { topic, message: Draft::new(data) })
    }
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
