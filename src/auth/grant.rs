//! The rights of one request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::{Names, Topics};
use super::claims::{Claims, Generation};
use crate::cgi::FieldValue;
use crate::error::Error;
use crate::event::{Cursor, Message, Topic};

/// The authorised action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Granted {
    Nothing,
    Publish,
    Subscribe,
    Follow,
    /// Everything that a session does, each part for itself.
    Session {
        publishes: Publishes,
        subscribes: bool,
    },
}

/// Whether a client with a session publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Publishes {
    /// To every topic.
    Anywhere,
    /// To the topics that its token grants.
    AsGranted,
    Nowhere,
}

/// The rights of one request, and their expiry. Only `authorize` grants
/// rights, and only a process of the same user and executable hands them on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grant {
    action: Granted,
    /// The topics that need a claim to subscribe to.
    private: Topics,
    /// `None` when the request needs no token.
    claims: Option<Claims>,
    is_foreign: bool,
    allowed_origin: Option<FieldValue>,
    names: Names,
    /// The name that the client gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// The topics that a subscriber by pattern may receive, as other servers are told of them. It
/// gives no right.
#[derive(Serialize, Deserialize)]
pub struct Scope {
    private: Topics,
    granted: Vec<Topics>,
}

impl Scope {
    /// Whether `topic` is one of them.
    #[must_use]
    pub fn contains(&self, topic: &Topic) -> bool {
        !self.private.contains(topic) || self.granted.iter().any(|topics| topics.contains(topic))
    }
}

impl Grant {
    pub(super) fn new(
        action: Granted,
        private: Topics,
        claims: Option<Claims>,
        is_foreign: bool,
        allowed_origin: Option<FieldValue>,
    ) -> Self {
        let (names, name) = (Names::Token, None);
        Self { action, private, claims, is_foreign, allowed_origin, names, name }
    }

    /// The same with the name that the client gives itself, where names are from there too.
    pub(super) fn named(self, names: Names, name: Option<String>) -> Self {
        Self { names, name, ..self }
    }

    /// To subscribe to any topic, without an end.
    #[cfg(test)]
    #[must_use]
    pub fn to_subscribe() -> Self {
        Self::new(Granted::Subscribe, Topics::default(), None, false, None)
    }

    /// Nothing.
    #[cfg(test)]
    #[must_use]
    pub fn of_nothing() -> Self {
        Self::new(Granted::Nothing, Topics::default(), None, false, None)
    }

    /// Whether the request may publish to each of `topics`.
    ///
    /// # Errors
    /// 403 if not.
    pub fn check_publish<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t Topic>,
    ) -> Result<(), Error> {
        let is_granted = |without: bool| {
            let claims = self.claims.as_ref();
            move |topic| claims.map_or(without, |claims| claims.may_publish(topic))
        };
        let mut topics = topics.into_iter();
        granted(match self.action {
            Granted::Publish => topics.all(is_granted(true)),
            Granted::Session { publishes: Publishes::AsGranted, .. } => {
                topics.all(is_granted(false))
            }
            Granted::Session { publishes, .. } => publishes == Publishes::Anywhere,
            _ => false,
        })
    }

    /// Whether a session may follow these topics from now on. A pattern is always allowed,
    /// because each of its messages is judged by its topic.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 for a topic that is not granted.
    pub fn check_follow(&self, topic: Option<&Topic>, now: Cursor) -> Result<(), Error> {
        self.check_valid(now)?;
        granted(topic.is_none_or(|topic| !self.private.contains(topic) || self.is_granted(topic)))
    }

    /// The same rights for a later request of a session, with the claims that it began with. A
    /// request with a token of its own has only that.
    #[must_use]
    pub fn of_session(&self, claims: Option<&Claims>) -> Self {
        let claims = self.claims.as_ref().or(claims).cloned();
        Self { claims, ..self.clone() }
    }

    /// The claims that a session keeps.
    #[must_use]
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }

    /// Whether the request may still receive events of `topics`.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 for a topic that it does not grant.
    pub fn check_subscribe<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t Topic>,
        now: Cursor,
    ) -> Result<(), Error> {
        granted(self.action == Granted::Subscribe)?;
        self.check_expiry(now)?;
        let may = |topic| !self.private.contains(topic) || self.is_granted(topic);
        granted(topics.into_iter().all(may))
    }

    /// Whether a subscriber, by topic or by pattern, may still receive anything.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 without the right to subscribe.
    pub fn check_valid(&self, now: Cursor) -> Result<(), Error> {
        granted(self.may_receive_some())?;
        self.check_expiry(now)
    }

    /// Whether a subscriber may receive an event of `topic`, with this message. A private one
    /// needs a claim for at least one of its topics: those who may read it are those who may
    /// read any of them (Mercure, "Subscribers").
    #[must_use]
    pub fn may_receive(&self, topic: &Topic, message: Option<&Message>) -> bool {
        let is_private = self.private.contains(topic) || message.is_some_and(|it| it.extra.private);
        let others = message.map(|it| it.extra.topics.as_slice()).unwrap_or_default();
        let mut topics = std::iter::once(topic).chain(others);
        self.may_receive_some() && (!is_private || topics.any(|topic| self.is_granted(topic)))
    }

    /// The topics that it may receive.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let details = self.claims.iter().flat_map(|claims| &claims.subscribe);
        let granted = details.map(|detail| detail.topics.clone()).collect();
        Scope { private: self.private.clone(), granted }
    }

    /// Whether the token itself grants subscribing to `topic`, which may be public.
    #[must_use]
    pub fn is_granted(&self, topic: &Topic) -> bool {
        self.claims.as_ref().is_some_and(|claims| claims.may_subscribe(topic))
    }

    /// The generation of Mercure whose rules the token keeps; `None` without a token.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        Some(self.claims.as_ref()?.generation)
    }

    /// Whether the token itself still grants subscribing to `topic`.
    ///
    /// # Errors
    /// 401 when it has expired, 403 if it does not, or if there is none.
    pub fn check_granted(&self, topic: &Topic, now: Cursor) -> Result<(), Error> {
        self.check_valid(now)?;
        granted(self.is_granted(topic))
    }

    /// The JSON in the token for a subscription with this matcher. It may have line feeds.
    #[must_use]
    pub fn payload(&self, matcher: &str) -> Option<&str> {
        self.claims.as_ref()?.payload(matcher)
    }

    /// The client's name. That of its token comes first, because nobody else can have it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let proved = self.claims.as_ref().and_then(Claims::subject);
        proved.or(self.name.as_deref())
    }

    /// Whether it may learn the names of the subscribers of this topic.
    #[must_use]
    pub fn may_know_names(&self, topic: &Topic) -> bool {
        self.names == Names::Parameter || self.is_granted(topic)
    }

    fn may_receive_some(&self) -> bool {
        match self.action {
            Granted::Subscribe | Granted::Follow => true,
            Granted::Session { subscribes, .. } => subscribes,
            Granted::Nothing | Granted::Publish => false,
        }
    }

    fn check_expiry(&self, now: Cursor) -> Result<(), Error> {
        let is_over = self.claims.as_ref().is_some_and(|claims| claims.expires() <= now);
        if is_over { Err(Error::InvalidToken) } else { Ok(()) }
    }

    /// How long the token is valid.
    #[must_use]
    pub fn expires_in(&self, now: Cursor) -> Duration {
        self.claims.as_ref().map_or(Duration::MAX, |claims| now.age(claims.expires()))
    }

    /// Whether a browser says that a foreign site caused the request. Such a
    /// subscriber cannot read the answer and takes no slot.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// The origin whose pages may read the answer, besides this site's own.
    #[must_use]
    pub fn allowed_origin(&self) -> Option<&FieldValue> {
        self.allowed_origin.as_ref()
    }
}

fn granted(all: bool) -> Result<(), Error> {
    if all { Ok(()) } else { Err(Error::Forbidden("the token does not grant this")) }
}
