//! The rights of one request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::Topics;
use super::token::Claims;
use crate::cgi::FieldValue;
use crate::error::Error;
use crate::event::{Cursor, Message, Topic};

/// The authorised action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Granted {
    Nothing,
    Publish,
    Subscribe,
}

/// The rights of one request, and their expiry. Only [`authorize`](super::authorize) grants
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
}

impl Grant {
    pub(super) fn new(
        action: Granted,
        private: Topics,
        claims: Option<Claims>,
        is_foreign: bool,
        allowed_origin: Option<FieldValue>,
    ) -> Self {
        Self { action, private, claims, is_foreign, allowed_origin }
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
        let may = |topic| self.claims.as_ref().is_none_or(|claims| claims.may_publish(topic));
        granted(self.action == Granted::Publish && topics.into_iter().all(may))
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
        let Some(claims) = &self.claims else { return Ok(()) };
        if claims.expires() <= now {
            return Err(Error::Unauthorized);
        }
        let may = |topic| !self.private.contains(topic) || claims.may_subscribe(topic);
        granted(topics.into_iter().all(may))
    }

    /// Whether the request may receive this message of a topic.
    #[must_use]
    pub fn may_receive(&self, topic: &Topic, message: Option<&Message>) -> bool {
        let may = |topic| self.claims.as_ref().is_some_and(|claims| claims.may_subscribe(topic));
        let extra = message.map(|message| &message.extra);
        let is_private = extra.is_some_and(|extra| extra.private);
        (!self.private.contains(topic) || may(topic))
            && (!is_private || may(topic) || extra.is_some_and(|it| it.topics.iter().any(may)))
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
